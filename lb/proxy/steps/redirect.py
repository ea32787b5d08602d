"""Answers with a redirect. What the file does not name stays as the client has it: scheme, host, port, path, query."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.core.rewriting import with_prefix
from lb.core.targets import Redirect
from lb.http.h1.parse import without_port
from lb.http.h1.replies import Reply
from lb.http.template import SCHEME, BadValue, Template, Values
from lb.proxy.request_values import RequestValues
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.http.message import RequestHead
    from lb.proxy.exchange import Exchange


class RedirectStep(Step):
    """The URL always begins with scheme and host, so that a path that begins with `//` names no other host."""

    __slots__ = ("_path", "_query", "_redirect")

    def __init__(self, redirect: Redirect) -> None:
        self._redirect = redirect
        self._path = Template(redirect.path)
        self._query = Template(redirect.query or "")

    def name(self) -> str:
        return "redirect"

    def before(self, exchange: Exchange) -> Reply | None:
        try:
            location = self.location(exchange.received, RequestValues(exchange))
        except BadValue as error:
            return Reply(400, "bad_value", f"{error} of this request has a control character")
        if not location:
            return Reply(400, "bad_host", "the answer is a redirect to the same host, and the request names none")
        return Reply(self._redirect.status, "redirect", "", b"Location: " + location + b"\r\n", done=True)

    def location(self, head: RequestHead, values: Values) -> bytes:
        """The URL that a request is sent to; b"": it names no host."""
        redirect = self._redirect
        scheme = redirect.scheme.encode() or values.value(SCHEME)
        own = without_port(head.host)
        host = redirect.host.encode() or own
        if not host:
            return b""
        port = b"%d" % redirect.port if redirect.port else b""
        if not port and not redirect.scheme:
            port = head.host[len(own) + 1 :]
        if port and port != (b"443" if scheme == b"https" else b"80"):
            host += b":" + port
        path = b"" if head.path == b"*" else head.path
        if redirect.path:
            path = self._path.expand(values)
        elif redirect.prefix:
            path = with_prefix(path, redirect.prefix.encode(), redirect.to.encode())
        query = head.target[len(head.path) :]
        if redirect.query is not None:
            query = b"?" + self._query.expand(values) if redirect.query else b""
        return b"".join((scheme, b"://", host, path, query))
