"""Routes: the most specific host that has a matching path, then the longest path; a naive search is the oracle."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.core.routing import RouteTable
from lb.core.targets import Route


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
        (b"/%61", 0),  # and not decoded
        (b"//a", 0),
        (b"/a//b", 1),
        (b"/d", 0),
        (b"/d/", 3),
        (b"/d/x", 3),
        (b"*", None),  # OPTIONS *: no path
        (b"", None),
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
    assert table().match(b"a", b"/") is None
    assert table(("a.org", "/x")).match(b"a.org", b"/y") is None
    assert table(("a.org", "/x")).match(b"b.org", b"/x") is None


def test_hosts_are_configured_in_any_case():
    assert table(("API.Example.ORG", "/")).match(b"api.example.org", b"/") == 0


def test_the_first_of_two_alike_counts():
    assert table(("", "/a"), ("", "/a")).match(b"", b"/a/b") == 0
    assert table(("", "/a/"), ("", "/a"), ("", "/a/")).match(b"", b"/a/b") == 0
    assert table(("", "/a"), ("", "/a/"), ("", "/a/")).match(b"", b"/a/b") == 1


HOSTS = ["", "a.org", "b.a.org", "*.a.org", "*.b.a.org", "*.org"]
PATHS = ["/", "/a", "/a/", "/a/b", "/a/b/", "/ab", "/a//b", "/b/a"]


def naive(routes: list[Route], host: bytes, path: bytes) -> int | None:
    def host_rank(route: Route) -> int | None:
        pattern = route.host.encode()
        if not pattern:
            return 0
        if pattern.startswith(b"*"):
            return len(pattern) if host.endswith(pattern[1:]) and len(host) >= len(pattern) else None
        return 1000 if host == pattern else None

    def path_rank(route: Route) -> int | None:
        prefix = route.path.encode()
        fits = path == prefix or path.startswith(prefix if prefix.endswith(b"/") else prefix + b"/")
        return len(prefix) if fits else None

    ranked = [
        (host_rank(route), path_rank(route), -index)
        for index, route in enumerate(routes)
        if host_rank(route) is not None and path_rank(route) is not None
    ]
    return -max(ranked)[2] if ranked else None


@settings(max_examples=500)
@given(
    st.lists(st.tuples(st.sampled_from(HOSTS), st.sampled_from(PATHS)), max_size=12),
    st.sampled_from([b"a.org", b"b.a.org", b"c.b.a.org", b"x.org", b"org", b".a.org", b""]),
    st.lists(st.sampled_from([b"/", b"a", b"b", b"ab", b"c", b"%2F"]), max_size=7).map(
        lambda parts: b"/" + b"".join(parts)
    ),
)
def test_against_a_naive_search(pairs, host, path):
    routes = [Route(service="s", host=h, path=p) for h, p in pairs]
    assert RouteTable.build(routes).match(host, path) == naive(routes, host, path)


def test_the_cost_is_flat_in_the_number_of_routes():
    """Counted, not timed: the look-ups of one match do not depend on how many routes there are."""

    def calls(routes, path, found):
        """Calls of Python and C functions for one match."""
        made = []
        sys.setprofile(lambda frame, event, argument: made.append(event))
        try:
            got = routes.match(b"h", path)
        finally:
            sys.setprofile(None)
        assert got == found
        return [event for event in made if event in ("call", "c_call")]

    asked = []
    for count in (1, 1000):
        routes = table(*[("", f"/service-{i}/v1") for i in range(count)])
        asked.append([calls(routes, b"/service-0/v1/things/7", 0), calls(routes, b"/nowhere/at/all", None)])
    assert asked[0] == asked[1]
