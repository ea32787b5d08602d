"""A target for one protocol, in a process of its own: `python health_backend.py http|https|grpc|tcp FOLDER`.

It prints its port, and is ready while FOLDER has a file `ready`. While there is a file `slow` it answers after a
second, while there is a file `flap` every other time that it is not ready (over TCP: nobody listens for a moment, again
and again). Certificates for https are FOLDER/server.pem.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import sys
import time
from concurrent import futures
from pathlib import Path

#: Seconds that a slow one takes.
SLOW = 1.0
#: Seconds in which nobody listens, and then somebody does.
GONE, THERE = 0.25, 0.5


class State:
    """What it is to do, by the files of its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turns = itertools.count()

    def has(self, name: str) -> bool:
        return (self._folder / name).exists()

    def ready(self) -> bool:
        """Whether it is this time."""
        return self.has("ready") and not (self.has("flap") and next(self._turns) % 2)


def http(folder: Path, tls: bool) -> None:
    state = State(folder)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            if state.has("slow"):
                await asyncio.sleep(SLOW)
            status = b"200 OK" if state.ready() else b"503 Service Unavailable"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "server.pem")
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(main())


def grpc_health(folder: Path) -> None:
    import grpc

    state = State(folder)

    class Health(grpc.GenericRpcHandler):
        def service(self, details):
            if details.method != "/grpc.health.v1.Health/Check":
                return None
            return grpc.unary_unary_rpc_method_handler(self.check)

        def check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
            if state.has("slow"):
                time.sleep(SLOW)
            return b"\x08\x01" if state.ready() else b"\x08\x02"

    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((Health(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


def tcp(folder: Path) -> None:
    state, port = State(folder), 0
    while True:
        with socket.create_server(("127.0.0.1", port)) as server:
            if not port:
                port = server.getsockname()[1]
                print(port, flush=True)
            server.settimeout(0.02)
            until = time.monotonic() + THERE
            while time.monotonic() < until or not state.has("flap"):
                with contextlib.suppress(TimeoutError):
                    server.accept()[0].close()
        time.sleep(GONE)


if __name__ == "__main__":
    kind, folder = sys.argv[1], Path(sys.argv[2])
    if kind == "grpc":
        grpc_health(folder)
    elif kind == "tcp":
        tcp(folder)
    else:
        http(folder, tls=kind == "https")
