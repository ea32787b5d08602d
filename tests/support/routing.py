"""Which service the routes of a file give a request to, without any traffic."""

from __future__ import annotations

from lb.config.load import load_text
from lb.config.resolve import resolve
from lb.core.routing import AMBIGUOUS, NO_ROUTE, UNREADABLE, RouteTable
from lb.core.targets import Snapshot
from lb.http.h1.parse import host_name, read_request, read_request_fields
from lb.http.message import RequestHead
from lb.proxy.asked import AskedRequest

REFUSED = {NO_ROUTE: "404", AMBIGUOUS: "400", UNREADABLE: "400"}


def snapshot_of(routes: str, services: str = "v1 v2 v3", more: str = "") -> Snapshot:
    """The snapshot of a file with these routes, lines of YAML, and one target in each service."""
    pools = "".join(
        f"  {name}: {{pools: {{p: {{targets: ['h:{n}']}}}}}}\n" for n, name in enumerate(services.split(), 1)
    )
    return resolve(load_text(f"services:\n{pools}routes:\n{routes}\n{more}"), 1).snapshot


def head_of(line: str, *fields: str, host: str = "a.example.org") -> RequestHead:
    """A request of HTTP/1.1 as it is read from the wire: `GET /x`, and its header lines."""
    block = "".join(f"{field}\r\n" for field in (f"Host: {host}", *fields)).encode()
    raw = f"{line} HTTP/1.1".encode()
    return read_request(raw, len(raw), read_request_fields(block, 10_000, 100), 10_000)


def service_for(
    snapshot: Snapshot,
    line: str,
    *fields: str,
    host: str = "a.example.org",
    peer: bytes = b"192.0.2.1",
    secure: bool = False,
    trusted: bool = False,
) -> str:
    """The service, or the status that lb answers with."""
    head = head_of(line, *fields, host=host)
    asked = AskedRequest(head, peer, secure, trusted, snapshot.trusted_proxies)
    number = RouteTable.build(snapshot.routes).match(host_name(head.host), head.path, asked)
    return snapshot.routes[number].service if number >= 0 else REFUSED[number]
