"""Routes of a file against requests as they come; among them Gateway API's conformance cases for HTTPRoute, re-told.

Source of those: kubernetes-sigs/gateway-api, conformance/tests, httproute-*.yaml. A rule with several matches there is
several routes here.
"""

from __future__ import annotations

import pytest

from tests.support.routing import service_for, snapshot_of

MATCHING = """
  - {path: /, service: v1}
  - {match: {headers: {version: one}}, service: v1}
  - {path: /v2, service: v2}
  - {match: {headers: {version: two}}, service: v2}
"""
EXACT = """
  - {match: {path_exact: /one}, service: v1}
  - {match: {path_exact: /two}, service: v2}
"""
ORDER = """
  - {match: {path_exact: /match/exact/one}, service: v3}
  - {match: {path_exact: /match/exact}, service: v2}
  - {match: {path: /match}, service: v1}
  - {match: {path: /match/prefix/one}, service: v2}
  - {match: {path: /match/prefix/}, service: v1}
  - {match: {path: /match/}, service: v3}
"""
HEADERS = """
  - {match: {headers: {version: one}}, service: v1}
  - {match: {headers: {version: two}}, service: v2}
  - {match: {headers: {version: two, color: orange}}, service: v1}
  - {match: {headers: {color: blue}}, service: v1}
  - {match: {headers: {color: green}}, service: v1}
  - {match: {headers: {color: red}}, service: v2}
  - {match: {headers: {color: yellow}}, service: v2}
"""
QUERY = """
  - {match: {query: {animal: whale}}, service: v1}
  - {match: {query: {animal: dolphin}}, service: v2}
  - {match: {query: {animal: dolphin, color: blue}}, service: v3}
  - {match: {query: {ANIMAL: Whale}}, service: v3}
  - {match: {path: /path1, query: {animal: whale}}, service: v1}
  - {match: {headers: {version: one}, query: {animal: whale}}, service: v2}
  - {match: {path: /path2, headers: {version: two}, query: {animal: whale}}, service: v3}
  - {match: {path: /path3, query: {animal: shark}}, service: v1}
"""
METHODS = """
  - {match: {method: [POST]}, service: v1}
  - {match: {method: [GET]}, service: v2}
  - {match: {path: /path1, method: [GET]}, service: v1}
  - {match: {method: [PUT], headers: {version: one}}, service: v2}
  - {match: {path: /path2, method: [POST], headers: {version: two}}, service: v3}
  - {match: {path: /path3, method: [PATCH]}, service: v1}
  - {match: {path: /path4, method: [DELETE]}, service: v2}
  - {match: {path: /path5}, service: v1}
  - {match: {path: /path5, method: [PATCH]}, service: v2}
  - {match: {path: /path5, headers: {version: four}}, service: v3}
"""
HOSTS = """
  - {host: very.specific.com, path: /s1, service: v1}
  - {host: "*.wildcard.io", path: /s2, service: v2}
  - {host: foo.wildcard.io, path: /s2, service: v3}
  - {host: "*.anotherwildcard.io", path: /s4, service: v1}
"""
CASES = [
    (MATCHING, "GET /", (), "v1"),
    (MATCHING, "GET /example", (), "v1"),
    (MATCHING, "GET /", ("Version: one",), "v1"),
    (MATCHING, "GET /v2", (), "v2"),
    (MATCHING, "GET /v2/", (), "v2"),
    (MATCHING, "GET /v2/example", (), "v2"),
    (MATCHING, "GET /v2example", (), "v1"),
    (MATCHING, "GET /foo/v2/example", (), "v1"),
    (MATCHING, "GET /", ("Version: two",), "v2"),
    (EXACT, "GET /one", (), "v1"),
    (EXACT, "GET /two", (), "v2"),
    (EXACT, "GET /", (), "404"),
    (EXACT, "GET /one/example", (), "404"),
    (EXACT, "GET /two/", (), "404"),
    (EXACT, "GET /Two", (), "404"),
    (ORDER, "GET /match/exact/one", (), "v3"),
    (ORDER, "GET /match/exact", (), "v2"),
    (ORDER, "GET /match", (), "v1"),
    (ORDER, "GET /match/prefix/one", (), "v2"),
    (ORDER, "GET /match/prefix/two", (), "v1"),
    (ORDER, "GET /match/prefix/one/any", (), "v2"),
    (ORDER, "GET /match/any", (), "v3"),
    (HEADERS, "GET /", ("Version: one",), "v1"),
    (HEADERS, "GET /", ("Version: two",), "v2"),
    (HEADERS, "GET /", ("Version: two", "Color: orange"), "v1"),
    (HEADERS, "GET /", ("Color: blue",), "v1"),
    (HEADERS, "GET /", ("Color: green",), "v1"),
    (HEADERS, "GET /", ("Color: red",), "v2"),
    (HEADERS, "GET /", ("Color: yellow",), "v2"),
    (HEADERS, "GET /", ("Version: two", "Color: blue"), "v2"),
    (HEADERS, "GET /", ("Color: orange",), "404"),
    (HEADERS, "GET /", ("Some-Other-Header: one",), "404"),
    (HEADERS, "GET /", ("Version: one", "Version: two"), "404"),
    (QUERY, "GET /?animal=whale", (), "v1"),
    (QUERY, "GET /?animal=dolphin", (), "v2"),
    (QUERY, "GET /?animal=whale&otherparam=irrelevant", (), "v1"),
    (QUERY, "GET /?animal=dolphin&color=yellow", (), "v2"),
    (QUERY, "GET /?color=blue&animal=dolphin", (), "v3"),
    (QUERY, "GET /?ANIMAL=Whale", (), "v3"),
    (QUERY, "GET /?animal=whale&animal=dolphin", (), "v1"),
    (QUERY, "GET /?animal=%77hale", (), "v1"),
    (QUERY, "GET /path1?animal=whale", (), "v1"),
    (QUERY, "GET /?animal=whale", ("Version: one",), "v2"),
    (QUERY, "GET /path2?animal=whale", ("Version: two",), "v3"),
    (QUERY, "GET /path3?animal=shark", (), "v1"),
    (QUERY, "GET /path3?animal=whale", (), "v1"),
    (QUERY, "GET /?color=blue", (), "404"),
    (QUERY, "GET /?animal=dog", (), "404"),
    (QUERY, "GET /", (), "404"),
    (METHODS, "POST /", (), "v1"),
    (METHODS, "GET /", (), "v2"),
    (METHODS, "HEAD /", (), "404"),
    (METHODS, "GET /path1", (), "v1"),
    (METHODS, "PUT /", ("Version: one",), "v2"),
    (METHODS, "POST /path2", ("Version: two",), "v3"),
    (METHODS, "PATCH /path3", (), "v1"),
    (METHODS, "DELETE /path4", (), "v2"),
    (METHODS, "PATCH /path5", (), "v2"),
    (METHODS, "PATCH /path5", ("Version: four",), "v2"),
    (METHODS, "GET /path5", ("Version: four",), "v3"),
]


@pytest.mark.parametrize(("routes", "line", "fields", "expected"), CASES)
def test_gateway_api(routes: str, line: str, fields: tuple[str, ...], expected: str) -> None:
    assert service_for(snapshot_of(routes), line, *fields) == expected


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("very.specific.com", "/s1", "v1"),
        ("very.specific.com:1234", "/s1", "v1"),
        ("VERY.specific.COM.", "/s1", "v1"),
        ("non.matching.com", "/s1", "404"),
        ("foo.nonmatchingwildcard.io", "/s1", "404"),
        ("very.specific.com", "/non-matching-prefix", "404"),
        ("bar.wildcard.io", "/s2", "v2"),
        ("foo.bar.wildcard.io", "/s2", "v2"),
        ("foo.wildcard.io", "/s2", "v3"),
        ("wildcard.io", "/s2", "404"),
        ("one.anotherwildcard.io", "/s4", "v1"),
    ],
)
def test_gateway_api_host_names(host: str, path: str, expected: str) -> None:
    assert service_for(snapshot_of(HOSTS), f"GET {path}", host=host) == expected


def test_a_pattern_ranks_by_the_segments_that_it_begins_with() -> None:
    routes = snapshot_of("""
  - {path: /, service: v1}
  - {match: {path_regex: "/users/[0-9]+(/.*)?"}, service: v2}
  - {path: /users/1, service: v3}
  - {path: /users, service: v1}
""")
    assert service_for(routes, "GET /users/12") == "v2"
    assert service_for(routes, "GET /users/12/x") == "v2"
    assert service_for(routes, "GET /users/1") == "v3"
    assert service_for(routes, "GET /users/1/x") == "v3"
    assert service_for(routes, "GET /users/x") == "v1"
    assert service_for(routes, "GET /users/12x") == "v1"


def test_values_by_pattern_and_by_being_there() -> None:
    routes = snapshot_of("""
  - {match: {cookies: {beta: "/(on|yes)/"}}, service: v1}
  - {match: {headers: {x-debug: "*"}}, service: v2}
""")
    assert service_for(routes, "GET /", "Cookie: a=b; beta=yes") == "v1"
    assert service_for(routes, "GET /", "Cookie: beta=yess") == "404"
    assert service_for(routes, "GET /", "X-Debug:") == "v2"
    assert service_for(routes, "GET /") == "404"


OFFICE = """
  - {path: /, service: v1}
  - {match: {path: /, clients: [10.0.0.0/8, "2001:db8::/32"]}, service: v2}
  - {match: {path: /, scheme: https}, service: v3}
"""


@pytest.mark.parametrize(
    ("peer", "fields", "expected"),
    [
        (b"10.1.2.3", (), "v2"),
        (b"192.0.2.1", (), "v1"),
        (b"192.0.2.1", ("X-Forwarded-For: 10.1.2.3",), "v1"),  # nobody believes it
        (b"127.0.0.1", ("X-Forwarded-For: 10.1.2.3",), "v2"),
        (b"127.0.0.1", ("X-Forwarded-For: 10.1.2.3, 192.0.2.9",), "v1"),  # the last one that no trusted proxy has
        (b"127.0.0.1", ("X-Forwarded-For: 192.0.2.9, 10.1.2.3, 127.0.0.2",), "v2"),
        (b"127.0.0.1", ("X-Forwarded-For: 10.1.2.3, nonsense",), "v1"),  # then it is the peer
        (b"127.0.0.1", ("X-Forwarded-For: [2001:db8::1]:443",), "v2"),
        (b"127.0.0.1", ('Forwarded: for="[2001:db8::1]"',), "v2"),
        (b"127.0.0.1", ("X-Forwarded-Proto: https",), "v3"),
        (b"192.0.2.1", ("X-Forwarded-Proto: https",), "v1"),
    ],
)
def test_client_networks_and_schemes_behind_trusted_proxies(
    peer: bytes, fields: tuple[str, ...], expected: str
) -> None:
    routes = snapshot_of(OFFICE, more="trusted_proxies: [127.0.0.0/8]")
    assert service_for(routes, "GET /", *fields, peer=peer, trusted=peer.startswith(b"127.")) == expected


def test_protocols() -> None:
    routes = snapshot_of("""
  - {path: /, service: v1}
  - {match: {path: /, protocol: [websocket]}, service: v2}
  - {match: {path: /, protocol: [http/1.0]}, service: v3}
""")
    assert service_for(routes, "GET /") == "v1"
    assert service_for(routes, "GET /", "Connection: Upgrade", "Upgrade: WebSocket") == "v2"


def test_a_spelling_of_a_path_chooses_no_other_route() -> None:
    routes = snapshot_of("""
  - {path: /, service: v1}
  - {match: {path: /admin, clients: [10.0.0.0/8]}, service: v2}
""")
    assert service_for(routes, "GET /x/..%2fadmin", peer=b"10.0.0.1") == "400"
    assert service_for(routes, "GET /x/..%2fadmin", peer=b"192.0.2.1") == "v1"  # /admin itself is v1's for this client
    assert service_for(routes, "GET /admin", peer=b"192.0.2.1") == "v1"
