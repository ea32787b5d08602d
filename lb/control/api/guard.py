"""Access control: a Host that is ours, pages of our own, and a token with a role of the operation where any is set.

A page of another site can make its visitor's browser send requests here. It cannot read this port's answers unless it
makes its own name resolve to us (DNS rebinding). So a Host must be an IP address, `localhost`, or a name that was
allowed. It can send orders whose answers it does not see (CSRF). So an Origin must be this port itself, and `null` is
none. Sec-Fetch-Site of browsers must say that this port's own page asks, or the user. Other sites may link to our
pages, and no more: not frame them, nor load anything else.

No answer allows another origin (no CORS headers), so nothing that needs a preflight is ever sent.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from lb.control.access import Access, digest
from lb.control.api import problems
from lb.control.api.endpoint import Endpoint
from lb.control.api.http import HOLDER, MAY_GO_ON
from lb.control.api.problems import Rejected
from lb.core.roles import READ, ROLES

#: Answered without a token, and without a Host: what probes of lb itself may not know.
HEALTH = ("/livez", "/readyz")
#: In a request: whether it may know everything, as it came with a token that may read, or none is needed.
KNOWN = "known"


def guard(
    access: Access, endpoint_of: Callable[[web.Request], Endpoint | None], is_open: Callable[[web.Request], bool]
) -> Middleware:
    """Refuses clients without access. `endpoint_of` names the operation, if there is one at this address. `is_open`
    tells what is answered without a token: pages that hold nothing secret."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        _check_host(request, access.names)
        _check_site(request)
        given = _token_of(request)
        holder = access.holder(given)
        request[MAY_GO_ON] = lambda: access.holder(given) == holder
        request[KNOWN] = holder is not None and holder.may((READ,))
        request[HOLDER] = holder.name if holder is not None else ""
        if not is_open(request):
            endpoint = endpoint_of(request)
            if holder is None:
                role = f", which has the role {_any(endpoint.roles)}" if endpoint is not None else ""
                raise Rejected(problems.TOKEN_NEEDED, f"send Authorization: Bearer with a token of the file{role}")
            if endpoint is not None and not holder.may(endpoint.roles):
                which = f"the token {holder.name}" if holder.name else "this token"
                has = " and ".join(role for role in ROLES if role in holder.roles)
                raise Rejected(
                    problems.ROLE_NEEDED,
                    f"{request.method} {request.path[:200]} needs the role {_any(endpoint.roles)}; {which} has {has}",
                )
        return await handler(request)

    return check


def _any(roles: Iterable[str]) -> str:
    return " or ".join(roles)


def _check_host(request: web.Request, names: Collection[str]) -> None:
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
    return digest(known.encode("utf-8", "surrogateescape"))


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
