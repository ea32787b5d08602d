"""Targets that speak gRPC, for `benchmarks.http2_reload`: `python -m benchmarks.grpc_origin PORT…`.

Each port is a target. Messages are raw bytes. `/bench/one` answers a message with itself, `/bench/down` with ten in
half a second, `/bench/up` takes many and answers their number, and `/bench/both` answers each at once.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

MESSAGES, EVERY = 10, 0.05
SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse


async def one(request: bytes, _: Any) -> bytes:
    return request


async def down(request: bytes, _: Any) -> AsyncIterator[bytes]:
    for _number in range(MESSAGES):
        yield request
        await asyncio.sleep(EVERY)


async def up(requests: AsyncIterator[bytes], _: Any) -> bytes:
    count = 0
    async for _request in requests:
        count += 1
    return b"%d" % count


async def both(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def health(_request: bytes, _: Any) -> bytes:
    return SERVING


class Calls(grpc.GenericRpcHandler):
    """The four kinds, and the health check."""

    KINDS = {
        "/bench/one": grpc.unary_unary_rpc_method_handler(one),
        "/bench/down": grpc.unary_stream_rpc_method_handler(down),
        "/bench/up": grpc.stream_unary_rpc_method_handler(up),
        "/bench/both": grpc.stream_stream_rpc_method_handler(both),
        "/grpc.health.v1.Health/Check": grpc.unary_unary_rpc_method_handler(health),
    }

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self.KINDS.get(details.method)


async def serve(ports: list[int]) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Calls(),))
    for port in ports:
        server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await over.wait()
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(serve([int(port) for port in sys.argv[1:]]))
