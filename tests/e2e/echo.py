"""A backend that upgrades to a WebSocket and echoes, and a client for it: raw bytes, so that closes are seen."""

from __future__ import annotations

import base64
import os
import socket
import struct
import threading


class EchoBackend:
    """Answers every plain request with 200, every upgrade with 101 and then an echo of what comes (unmasked)."""

    def __init__(self) -> None:
        self._sock = socket.socket()
        self._sock.bind(("127.0.0.1", 0))
        self._sock.listen(128)
        self.address = f"127.0.0.1:{self._sock.getsockname()[1]}"
        self.url = f"http://{self.address}"
        self.closed: list[bytes] = []  # what came last on each tunnel
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._sock.close()

    def kill(self) -> None:
        """As the stage ends it."""
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._sock.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            held = b""
            while True:
                while b"\r\n\r\n" not in held:
                    data = connection.recv(65536)
                    if not data:
                        return
                    held += data
                head, _, held = held.partition(b"\r\n\r\n")
                if b"upgrade: websocket" not in head.lower():
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    continue
                connection.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: x\r\n\r\n"
                )
                last = b""
                while data := held or _receive(connection):
                    held, last = b"", data
                    try:
                        connection.sendall(data)
                    except OSError:
                        break
                self.closed.append(last)
                return


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


class Tunnel:
    """A client's side of one upgraded connection."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.sock = socket.create_connection((host, int(port)), 10)
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.sock.recv(1)
        assert b" 101 " in head, head

    def echo(self, text: bytes) -> bytes:
        """Send a text frame; what comes back is the same frame, unmasked as our backend does no masking."""
        frame = b"\x81" + bytes([len(text)]) + text
        self.sock.sendall(frame)
        got = b""
        while len(got) < len(frame):
            data = self.sock.recv(len(frame) - len(got))
            if not data:
                raise ConnectionError(f"closed after {got!r}")
            got += data
        return got[2:]

    def goodbye(self, within: float) -> int:
        """Wait for the close frame; its code (1001: the server goes away), or 0 for a bare end."""
        self.sock.settimeout(within)
        got = b""
        while len(got) < 4:
            data = self.sock.recv(4 - len(got))
            if not data:
                return 0
            got += data
        assert got[0] == 0x88, got
        return int(struct.unpack("!H", got[2:4])[0])

    def close(self) -> None:
        self.sock.close()
