"""A target for one protocol, in a process of its own: `python health_backend.py https|grpc FOLDER`.

It prints its port, and is ready while FOLDER has a file `ready`. Certificates for https are FOLDER/server.pem.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from concurrent import futures
from pathlib import Path


def https(folder: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            status = b"200 OK" if (folder / "ready").exists() else b"503 Service Unavailable"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(main())


def grpc_health(folder: Path) -> None:
    import grpc

    class Health(grpc.GenericRpcHandler):
        def service(self, details):
            if details.method != "/grpc.health.v1.Health/Check":
                return None
            return grpc.unary_unary_rpc_method_handler(self.check)

        def check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
            return b"\x08\x01" if (folder / "ready").exists() else b"\x08\x02"

    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Health(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    {"https": https, "grpc": grpc_health}[sys.argv[1]](Path(sys.argv[2]))
