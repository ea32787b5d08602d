"""A TLS server that refuses every client by an alert. (Servers of asyncio close without the alert.)"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

import trustme


@contextlib.contextmanager
def refusing_server(
    context: ssl.SSLContext, authority: trustme.CA, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> Iterator[int]:
    """A server that demands client certificates of an authority, and speaks no HTTP at all. Yields its port."""
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    stopping = False

    def accept() -> None:
        while True:
            sock, _ = listening.accept()
            if stopping:
                sock.close()
                return
            sock.settimeout(5)
            try:
                context.wrap_socket(sock, server_side=True).close()
            except OSError:
                sock.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            stopping = True
            socket.create_connection(listening.getsockname()).close()
            thread.join(10)
