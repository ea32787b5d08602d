"""Access control: a Host that is ours, pages of our own, and a token where one is set.

A page of another site can make its visitor's browser send requests here. It cannot read this port's answers unless it
makes its own name resolve to us (DNS rebinding). So a Host must be an IP address, `localhost`, or a name that was
allowed. It can send orders whose answers it does not see (CSRF). So an Origin must be this port itself, and `null` is
none. Sec-Fetch-Site of browsers must say that this port's own page asks, or the user. Other sites may link to our
pages, and no more: not frame them, nor load anything else.

No answer allows another origin (no CORS headers), so nothing that needs a preflight is ever sent.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from lb.control.api import problems
from lb.control.api.problems import Rejected

#: Answered without a token, and without a Host: what probes of lb itself may not know.
HEALTH = ("/livez", "/readyz")
#: In a request: whether it may know everything, as it came with the token, or none is needed.
KNOWN = "known"


def guard(token: str, allowed_hosts: Collection[str], is_open: Callable[[web.Request], bool]) -> Middleware:
    """Refuses clients without access. `is_open` tells what is answered without a token: pages that hold nothing
    secret."""
    expected = hashlib.sha256(token.encode()).digest()
    names = frozenset({"localhost", *(name.lower().rstrip(".") for name in allowed_hosts)})

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        _check_host(request, names)
        _check_site(request)
        request[KNOWN] = not token or hmac.compare_digest(_token_of(request), expected)
        if not request[KNOWN] and not is_open(request):
            raise Rejected(problems.TOKEN_NEEDED, "send Authorization: Bearer with the token of token_file")
        return await handler(request)

    return check


def _check_host(request: web.Request, names: frozenset[str]) -> None:
    hosts = request.headers.getall(hdrs.HOST, [])
    if len(hosts) > 1:
        raise Rejected(problems.BAD_REQUEST, "the Host header is there more than once")
    if not hosts:
        if request.version < (1, 1) and request.path in HEALTH:
            return  # an old checker; no browser leaves it out
        raise Rejected(problems.BAD_REQUEST, "the Host header is missing")
    host = hosts[0]
    if not request.raw_path.startswith(("/", "*")):  # absolute form: what it says counts
        host = urlsplit(request.raw_path).netloc
    if not is_ours(host, names):
        raise Rejected(problems.MISDIRECTED_REQUEST, f"this admin port is not called {host[:200]!r}")


def _check_site(request: web.Request) -> None:
    origins = request.headers.getall(hdrs.ORIGIN, [])
    for origin in origins:
        scheme, _, host = origin.partition("://")
        if len(origins) > 1 or scheme not in ("http", "https") or host.lower() != request.host.lower():
            raise Rejected(problems.FOREIGN_ORIGIN, "pages of other sites may not use this port")
    site = request.headers.get("Sec-Fetch-Site", "none").lower()
    if site not in ("none", "same-origin") and not _is_link(request):
        raise Rejected(problems.FOREIGN_PAGE, "pages of other sites may link to the dashboard, and no more")


def _is_link(request: web.Request) -> bool:
    """Whether the user follows a link of another site to a page of ours. Nothing of the API is a page."""
    return (
        request.method == "GET"
        and request.headers.get("Sec-Fetch-Mode") == "navigate"
        and request.headers.get("Sec-Fetch-Dest") == "document"
        and not request.path.startswith("/api/v1/")
    )


def _token_of(request: web.Request) -> bytes:
    """The digest of the token that came, so that all are compared in the same time, whatever their length."""
    given = request.headers.getall(hdrs.AUTHORIZATION, [])
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    known = token.strip() if scheme.lower() == "bearer" else ""
    return hashlib.sha256(known.encode("utf-8", "surrogateescape")).digest()


def is_ours(host: str, names: Collection[str]) -> bool:
    """An address, localhost, or a name that was allowed: no name that a foreign site could bind to us."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name = host
    elif not (port.isascii() and port.isdigit()):
        return False
    if name.lower().rstrip(".") in names:
        return True
    bracketed = name.startswith("[") and name.endswith("]")
    try:
        address = ipaddress.ip_address(name[1:-1] if bracketed else name)
    except ValueError:
        return False
    return bracketed == (address.version == 6)
