"""AskedRequest: a request as the conditions of routes ask about it. Only tables with conditions have one made."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from lb.core.matching import COOKIE, HEADER, Asked
from lb.core.networks import in_networks
from lb.http.forwarded import client_of, proto_of
from lb.http.message import HTTP2, RequestHead

_GRPC: Final = re.compile(rb"application/grpc(?:[+;]|\Z)")
#: By `RequestHead.minor`.
_VERSIONS: Final = (b"http/1.0", b"http/1.1", b"h2")


class AskedRequest(Asked):
    """A request of a client at the address `peer`. `secure`: its connection has TLS. `networks` are the trusted
    proxies', and `trusted` says whether the peer is one."""

    __slots__ = ("_client", "_head", "_networks", "_parameters", "_peer", "_secure", "_trusted")

    def __init__(self, head: RequestHead, peer: bytes, secure: bool, trusted: bool, networks: tuple[str, ...]) -> None:
        self.method = head.method
        self._head = head
        self._peer = peer
        self._secure = secure
        self._trusted = trusted
        self._networks = networks
        self._client = b""
        self._parameters: dict[bytes, bytes] | None = None

    def value(self, kind: int, name: bytes) -> bytes | None:
        fields = self._head.fields
        if kind == HEADER:
            if name == b"host":
                return self._head.host
            # `RequestFields.values`, written out, as nearly every header has one line.
            size = len(name)
            found: bytes | None = None
            for line in fields.forwarded_lines:
                if line[size : size + 1] == b":" and line[:size].lower() == name:
                    value = line[size + 1 :].strip(b" \t\r\n")
                    found = value if found is None else found + b", " + value
            return found
        if kind == COOKIE:
            for value in fields.cookies(name):
                return value
            return None
        if self._parameters is None:
            self._parameters = parameters(self._head.target)
        return self._parameters.get(name)

    def client(self) -> bytes:
        if not self._client:
            self._client = self._peer
            if self._trusted:
                fields = self._head.fields
                self._client = client_of(fields.forwarded, fields.forwarded_for, self._peer, self._is_trusted)
        return self._client

    def _is_trusted(self, address: bytes) -> bool:
        return in_networks(self._networks, address)

    def scheme(self) -> bytes:
        scheme = b"https" if self._secure else b"http"
        if not self._trusted:
            return scheme
        fields = self._head.fields
        return proto_of(fields.forwarded, fields.forwarded_proto, scheme)

    def protocols(self) -> tuple[bytes, ...]:
        head = self._head
        names = [_VERSIONS[head.minor]]
        if b"websocket" in head.fields.upgrade.lower().split(b", "):
            names.append(b"websocket")
        if head.minor == HTTP2 and _GRPC.match(head.fields.value(b"content-type")):
            names.append(b"grpc")
        return tuple(names)


def parameters(target: bytes) -> dict[bytes, bytes]:
    """The query parameters of a request target, decoded. The first value of each name counts."""
    found: dict[bytes, bytes] = {}
    for pair in target.partition(b"?")[2].split(b"&"):
        name, _, value = pair.partition(b"=")
        if pair:
            found.setdefault(_decoded(name), _decoded(value))
    return found


def _decoded(text: bytes) -> bytes:
    if b"%" in text or b"+" in text:
        return unquote_to_bytes(text.replace(b"+", b" "))
    return text
