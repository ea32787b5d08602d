"""Routes: the most specific of all that match, by host, path and conditions; a naive search is the oracle."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.core.matching import ANY, COOKIE, HEADER, QUERY, Asked
from lb.core.routing import AMBIGUOUS, NO_ROUTE, UNREADABLE, RouteTable, host_matches
from lb.core.targets import EXACT, PREFIX, REGEX, Match, Route


def table(*routes: tuple[str, str]) -> RouteTable:
    return RouteTable.build([Route(service=f"s{i}", host=host, path=path) for i, (host, path) in enumerate(routes)])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/", 0),
        (b"/other", 0),
        (b"/a", 1),
        (b"/a/", 1),
        (b"/a/x", 1),
        (b"/ab", 0),  # not at a segment's border
        (b"/a/b", 2),
        (b"/a/b/", 2),
        (b"/a/bc", 1),
        (b"/a/b/c/d/e/f", 2),
        (b"/A", 0),  # paths are case-sensitive
        (b"/%61", AMBIGUOUS),  # not decoded, and no target may read another route's path
        (b"//a", AMBIGUOUS),
        (b"/a//b", AMBIGUOUS),
        (b"/a/b/x%2Fc//d", 2),  # all readings take one route
        (b"/d", 0),
        (b"/d/", 3),
        (b"/d/x", 3),
        (b"*", NO_ROUTE),  # OPTIONS *: no path
        (b"", NO_ROUTE),
    ],
)
def test_longest_path_at_a_segments_border(path, expected):
    assert table(("", "/"), ("", "/a"), ("", "/a/b"), ("", "/d/")).match(b"any", path) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"api.example.org", 1),
        (b"x.example.org", 2),
        (b"x.y.example.org", 2),
        (b"x.api.example.org", 3),
        (b"example.org", 0),  # a star stands for at least one label
        (b".example.org", 0),
        (b"notexample.org", 0),
        (b"", 0),
        (b"[::1]", 0),
        (b"a." * 4000 + b"example.org", 2),
    ],
)
def test_exact_host_then_longest_wildcard_then_any(host, expected):
    routes = table(("", "/"), ("api.example.org", "/"), ("*.example.org", "/"), ("*.api.example.org", "/"))
    assert routes.match(host, b"/x") == expected


def test_a_host_without_a_matching_path_leaves_it_to_the_less_specific():
    routes = table(("api.example.org", "/greeting"), ("*.example.org", "/wild"), ("", "/"))
    assert routes.match(b"api.example.org", b"/greeting/1") == 0
    assert routes.match(b"api.example.org", b"/wild") == 1
    assert routes.match(b"api.example.org", b"/other") == 2


def test_no_route():
    assert table().match(b"a", b"/") == NO_ROUTE
    assert table(("a.org", "/x")).match(b"a.org", b"/y") == NO_ROUTE
    assert table(("a.org", "/x")).match(b"b.org", b"/x") == NO_ROUTE


def test_hosts_are_configured_in_any_case():
    assert table(("API.Example.ORG", "/")).match(b"api.example.org", b"/") == 0


def test_the_first_of_two_alike_counts():
    assert table(("", "/a"), ("", "/a")).match(b"", b"/a/b") == 0
    assert table(("", "/a/"), ("", "/a"), ("", "/a/")).match(b"", b"/a/b") == 0
    assert table(("", "/a"), ("", "/a/"), ("", "/a/")).match(b"", b"/a/b") == 1


class Request(Asked):
    """A request for conditions, all values at hand."""

    def __init__(
        self,
        method: bytes = b"GET",
        values: dict[tuple[int, bytes], bytes] | None = None,
        client: bytes = b"192.0.2.1",
        scheme: bytes = b"http",
        protocols: tuple[bytes, ...] = (b"http/1.1",),
    ) -> None:
        self.method = method
        self.values = values or {}
        self.address, self.of_url, self.names = client, scheme, protocols

    def value(self, kind: int, name: bytes) -> bytes | None:
        return self.values.get((kind, name))

    def client(self) -> bytes:
        return self.address

    def scheme(self) -> bytes:
        return self.of_url

    def protocols(self) -> tuple[bytes, ...]:
        return self.names


# --- a naive search --------------------------------------------------------------------------------------------------


def host_rank(route: Route, host: bytes) -> tuple[int, int] | None:
    pattern = route.host.encode()
    if not pattern:
        return 2, 0
    if not host_matches(pattern, host):
        return None
    return (1, -len(pattern)) if pattern.startswith(b"*") else (0, 0)


def path_rank(route: Route, path: bytes) -> tuple[int, ...] | None:
    """Exact, then by length: of a prefix its own, of a pattern the segments that it begins with, just before them."""
    pattern = route.path.encode()
    if route.kind == EXACT:
        return (0,) if path == pattern else None
    if route.kind == REGEX:
        literal = re.match(rb"[a-z/]*", pattern)[0]
        if literal != pattern and pattern[len(literal) : len(literal) + 1] in (b"?", b"*"):
            literal = literal[:-1]
        length = literal.rfind(b"/") + 1
        return (1, -max(length, 1), 0, -len(literal)) if re.fullmatch(pattern, path) else None
    fits = path == pattern or path.startswith(pattern if pattern.endswith(b"/") else pattern + b"/")
    length = len(pattern) if pattern.endswith(b"/") else len(pattern) + 1
    return (1, -length, 1, -len(pattern)) if fits else None


def holds(match: Match, asked: Request) -> bool:
    def one(kind: int, pairs: tuple[tuple[str, str], ...]) -> bool:
        for name, text in pairs:
            value = asked.values.get((kind, name.encode()))
            if value is None:
                return False
            if text.startswith("/"):
                if not re.fullmatch(text[1:-1].encode(), value):
                    return False
            elif text != ANY and value != text.encode():
                return False
        return True

    return (
        (not match.methods or asked.method.decode() in match.methods)
        and one(HEADER, match.headers)
        and one(QUERY, match.query)
        and one(COOKIE, match.cookies)
        and match.scheme in ("", asked.of_url.decode())
    )


def conditions_rank(match: Match) -> tuple[Any, ...]:
    pairs = (*match.headers, *match.query, *match.cookies)
    exact = sum(text != ANY and not text.startswith("/") for _, text in pairs)
    counts = (not match.methods, -len(match.headers), -len(match.query), -len(match.cookies), not match.scheme)
    return (*counts, -exact, len(match.methods))


def naive(routes: list[Route], host: bytes, path: bytes, asked: Request) -> int:
    ranked = [
        (host_rank(route, host), path_rank(route, path), conditions_rank(route.match), index)
        for index, route in enumerate(routes)
        if host_rank(route, host) is not None and path_rank(route, path) is not None and holds(route.match, asked)
    ]
    return min(ranked)[3] if ranked else NO_ROUTE


HOSTS = ["", "a.org", "b.a.org", "*.a.org", "*.b.a.org", "*.org"]
PATHS = ["/", "/a", "/a/", "/a/b", "/a/b/", "/ab", "/a//b", "/b/a"]
PATTERNS = ["/.*", "/a.*", "/a/[ab]", "/[^/]+/b(/.*)?", "/a/b?", "/a/b/.+", "(/a)+"]
KINDS = st.one_of(
    st.tuples(st.just(PREFIX), st.sampled_from(PATHS)),
    st.tuples(st.just(PREFIX), st.sampled_from(PATHS)),
    st.tuples(st.just(EXACT), st.sampled_from(PATHS)),
    st.tuples(st.just(REGEX), st.sampled_from(PATTERNS)),
)
VALUES = st.sampled_from(["1", "2", ANY, "/[12]/", "/1.*/"])


def pairs(*names: str) -> st.SearchStrategy[tuple[tuple[str, str], ...]]:
    return st.dictionaries(st.sampled_from(names), VALUES, max_size=2).map(lambda made: tuple(made.items()))


MATCHES = st.builds(
    Match,
    methods=st.sampled_from([(), (), (), ("GET",), ("GET", "POST"), ("POST",)]),
    headers=pairs("x", "y"),
    query=pairs("q"),
    cookies=pairs("c"),
    scheme=st.sampled_from(["", "", "https"]),
)
ROUTES = st.lists(
    st.builds(
        lambda host, kind, match: Route("s", host, kind[1], kind=kind[0], match=match),
        st.sampled_from(HOSTS),
        KINDS,
        st.one_of(st.just(Match()), MATCHES),
    ),
    max_size=14,
)
REQUESTS = st.builds(
    Request,
    method=st.sampled_from([b"GET", b"POST", b"PUT"]),
    values=st.dictionaries(
        st.sampled_from([(HEADER, b"x"), (HEADER, b"y"), (QUERY, b"q"), (COOKIE, b"c")]),
        st.sampled_from([b"1", b"2", b"3"]),
    ),
    scheme=st.sampled_from([b"http", b"https"]),
)


@settings(max_examples=150, deadline=None)
@given(
    ROUTES,
    st.sampled_from([b"a.org", b"b.a.org", b"c.b.a.org", b"x.org", b"org", b".a.org", b""]),
    st.lists(st.sampled_from([b"/", b"a", b"b", b"ab", b"c", b"%2F"]), max_size=7).map(
        lambda parts: b"/" + b"".join(parts)
    ),
    REQUESTS,
)
def test_against_a_naive_search(routes, host, path, asked):
    assert RouteTable.build(routes).find(host, path, asked) == naive(routes, host, path, asked)


@settings(max_examples=100, deadline=None)
@given(ROUTES, st.sampled_from([b"a.org", b"b.a.org"]), st.sampled_from([b"/", b"/a", b"/a/b", b"/ab/b"]), REQUESTS)
def test_the_order_of_the_file_does_not_count(routes, host, path, asked):
    """But where two routes are equally specific: then the first one wins."""
    here, there = RouteTable.build(routes), RouteTable.build(routes[::-1])
    one, other = here.find(host, path, asked), there.find(host, path, asked)
    if one < 0:
        assert other < 0
        return
    first, second = routes[one], routes[::-1][other]
    assert first == second or conditions_rank(first.match) == conditions_rank(second.match)


# --- readings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        b"/x/../admin",
        b"/x/%2e%2e/admin",
        b"/x/..%2fadmin",
        b"/x/..;/admin",
        b"/x/..;a=b/admin",
        b"/x/..%3Ba/admin",
        b"//admin",
        b"/x/..//admin",
        b"/%61dmin",
        b"/admin%2F",
        b"/admin%2fx",
        b"/admin;x",
        b"/admin;x/y",
        b"/\\admin",
        b"/x\\..\\admin",
        b"/x/..%5cadmin",
        b"/x/%252e%252e/admin",
        b"/./admin",
        b"/x/.././admin/",
    ],
)
def test_a_path_that_a_target_may_read_as_another_routes_is_ambiguous(path):
    assert table(("", "/"), ("", "/admin")).match(b"a", path) == AMBIGUOUS


@pytest.mark.parametrize(
    "path",
    [
        b"/api/v4/projects/group%2Fproject/raw",
        b"/admin/a%2Fb;v=1//c",
        b"/.well-known/acme",
        b"/a%20b",
        b"/%C3%A9",
        b"/x/./y/../z",
        b"/a;jsessionid=1",
        b"/administrator/%2e/x",
    ],
)
def test_a_path_whose_readings_agree_passes(path):
    routes = table(("", "/"), ("", "/admin"))
    assert routes.match(b"a", path) in (0, 1)


@pytest.mark.parametrize(
    "path", [b"/%", b"/%1", b"/a%zz/b", b"/..", b"/a/../../b", b"/%2e%2e/", b"/" + b"%2e;\\//x" * 600]
)
def test_a_broken_path_is_unreadable(path):
    assert table(("", "/"), ("", "/admin")).match(b"a", path) == UNREADABLE


def test_readings_are_matched_with_the_requests_conditions():
    """A route for POST alone guards nothing of a GET."""
    routes = RouteTable.build([Route("s"), Route("s", path="/admin", match=Match(methods=("POST",)))])
    assert routes.match(b"a", b"/x/../admin", Request(b"GET")) == 0
    assert routes.match(b"a", b"/x/../admin", Request(b"POST")) == AMBIGUOUS


# --- conditions ------------------------------------------------------------------------------------------------------


def test_client_networks_and_protocols():
    routes = RouteTable.build(
        [
            Route("any"),
            Route("office", match=Match(clients=("10.0.0.0/8", "unix"))),
            Route("desk", match=Match(clients=("10.1.0.0/16",))),
            Route("grpc", match=Match(protocols=("grpc", "websocket"))),
        ]
    )
    assert routes.match(b"a", b"/", Request(client=b"192.0.2.1")) == 0
    assert routes.match(b"a", b"/", Request(client=b"10.2.0.1")) == 1
    assert routes.match(b"a", b"/", Request(client=b"unix")) == 1
    assert routes.match(b"a", b"/", Request(client=b"10.1.0.1")) == 2  # the smaller network is the more specific
    assert routes.match(b"a", b"/", Request(protocols=(b"h2", b"grpc"))) == 3
    assert routes.match(b"a", b"/", Request(protocols=(b"h2",))) == 0


def test_conditions_need_a_request():
    routes = RouteTable.build([Route("s", match=Match(methods=("GET",)))])
    assert routes.conditional
    assert routes.match(b"a", b"/") == NO_ROUTE


# --- the cost --------------------------------------------------------------------------------------------------------


def calls(routes, path, expected, asked=None):
    """Calls of Python and C functions for one match."""
    made = []
    sys.setprofile(lambda frame, event, argument: made.append(event))
    try:
        got = routes.match(b"h", path, asked)
    finally:
        sys.setprofile(None)
    assert got == expected
    return [event for event in made if event in ("call", "c_call")]


def test_the_cost_is_flat_in_the_number_of_routes():
    """Counted, not timed: the look-ups of one match do not depend on how many routes there are."""
    asked = []
    for count in (10, 10_000):
        routes = table(*[("", f"/service-{i}/v1") for i in range(count)])
        asked.append([calls(routes, b"/service-0/v1/things/7", 0), calls(routes, b"/nowhere/at/all", NO_ROUTE)])
    assert asked[0] == asked[1]


def test_the_cost_is_flat_in_the_number_of_routes_of_one_path():
    """Ten thousand tenants that a header tells apart cost what ten do."""
    counts = []
    for count in (10, 10_000):
        tenants = [Route("s", match=Match(headers=(("x-tenant", str(i)),))) for i in range(count)]
        routes = RouteTable.build([*tenants, Route("s"), Route("s", match=Match(headers=(("x-beta", ANY),)))])
        last = Request(values={(HEADER, b"x-tenant"): str(count - 1).encode()})
        counts.append([len(calls(routes, b"/a", count - 1, last)), len(calls(routes, b"/a", count, Request()))])
    assert counts[0] == counts[1]
