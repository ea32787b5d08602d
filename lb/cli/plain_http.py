"""One request and its answer over a connection of its own, as HTTP/1.0.

An answer to HTTP/1.0 has a length or ends with its connection: no chunks, and nothing is kept. `http.client` would
bring in TLS and the parser of mails, which take as long to import as all else that `lb status` needs.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

#: Bytes at most of a line, and fields at most of a head.
LINE = 65536
FIELDS = 100


class NotHttp(Exception):  # noqa: N818 - it says what happened
    """The answer is none of HTTP, or it ended early."""


class Connection:
    """A connection to a server, for one request."""

    def __init__(self, host: str, port: int, timeout: float, context: ssl.SSLContext | None = None) -> None:
        self._sock = socket.create_connection((host, port), timeout)
        self._authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if context is not None:
            try:
                self._sock = context.wrap_socket(self._sock, server_hostname=host)
            except BaseException:
                self._sock.close()
                raise

    def ask(self, method: str, path: str, fields: Mapping[str, str], body: bytes | None, within: float) -> Answer:
        """Send the request and read the answer's head. `within`: seconds that each read may take."""
        self._sock.settimeout(within)
        fields = {"Host": self._authority, **fields}
        if body is not None:
            fields["Content-Length"] = str(len(body))
        lines = [f"{method} {path} HTTP/1.0", *(f"{name}: {value}" for name, value in fields.items())]
        self._sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))
        return Answer(self._sock)

    def close(self) -> None:
        self._sock.close()


class Answer:
    """An answer: its status, its fields by their names in lower case, and its body."""

    def __init__(self, sock: socket.socket) -> None:
        self._stream = sock.makefile("rb")
        version, _, rest = self._line().partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
            raise NotHttp(f"its first line is {version!r}")
        self.status = int(rest[:3])
        self.fields: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.partition(":")
            self.fields[name.lower()] = value.strip()
            if len(self.fields) > FIELDS:
                raise NotHttp("its head has no end")

    def read(self) -> bytes:
        """The whole body."""
        length = self.fields.get("content-length", "")
        if not length.isdecimal():
            return self._stream.read()
        body = self._stream.read(int(length))
        if len(body) < int(length):
            raise NotHttp("it ended early")
        return body

    def __iter__(self) -> Iterator[bytes]:
        """The body's lines, as they come."""
        return iter(self._stream)

    def _line(self) -> str:
        line = self._stream.readline(LINE)
        if not line.endswith(b"\n"):
            raise NotHttp("its head has no end")
        return line.decode("latin-1").rstrip("\r\n")
