"""A target by gRPC's own server: calls of all four kinds, on raw bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

#: Messages of any size, in both directions.
ANY_SIZE = [("grpc.max_receive_message_length", -1)]


class Talk(grpc.GenericRpcHandler):
    """Calls of all four kinds, on raw bytes."""

    def __init__(self) -> None:
        self.waits = self.cancelled = False
        self.ones = 0

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        kinds = {
            "/t/one": grpc.unary_unary_rpc_method_handler(self.one),
            "/t/down": grpc.unary_stream_rpc_method_handler(self.down),
            "/t/up": grpc.stream_unary_rpc_method_handler(self.up),
            "/t/both": grpc.stream_stream_rpc_method_handler(self.both),
            "/t/wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "/t/fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "/grpc.health.v1.Health/Check": grpc.unary_unary_rpc_method_handler(self.health),
        }
        return kinds.get(details.method)

    def one(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.ones += 1
        context.set_trailing_metadata((("x-after", "yes"),))
        return request[::-1]

    def down(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    def up(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return b",".join(requests)

    def both(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield request.upper()

    def wait(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.waits = True
        while context.is_active():
            time.sleep(0.02)
        self.cancelled = True
        return b""

    def health(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return b"\x08\x01"  # SERVING

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: é")
        raise AssertionError


def started(talk: Talk, threads: int = 8) -> tuple[grpc.Server, int]:
    """A server with these calls, and its port."""
    server = grpc.server(futures.ThreadPoolExecutor(threads), options=ANY_SIZE)
    server.add_generic_rpc_handlers((talk,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port
