"""Answers a request with the https URL of what it asks for: status 308, so that method and body stay the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.h1.parse import without_port
from lb.http.h1.replies import Reply
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class HttpsRedirect(Step):
    """To the same host, path and query at `port`.

    The URL begins with the scheme and the client's own Host, which has passed the checks of a head. So a path that
    begins with `//` names no other host.
    """

    __slots__ = ("_port",)

    def __init__(self, port: int) -> None:
        self._port = b"" if port == 443 else b":%d" % port

    def before(self, exchange: Exchange) -> Reply | None:
        head = exchange.head
        host = without_port(head.host)
        if not host:
            return Reply(400, "bad_host", "this address redirects to https, and the request names no host")
        path = b"" if head.target == b"*" else head.target  # a server as a whole has a URL without a path
        location = b"".join((b"Location: https://", host, self._port, path, b"\r\n"))
        return Reply(308, "https_redirect", "this address is served by https alone", location)
