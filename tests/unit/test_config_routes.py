"""Routes in the file: what is an error, and what `lb check` warns of, each with the places of both routes."""

from __future__ import annotations

import pytest

from lb.config.check.lint import lint
from lb.config.diff import diff
from lb.config.load import examine, load_text
from lb.config.resolve import resolve
from lb.config.yaml.problems import ConfigError
from lb.core.guards import ForwardAuth
from lb.core.targets import StepRule

SERVICES = "services:\n  s: {pools: {p: {targets: ['h:1', 'h:2']}}}\n  t: {pools: {p: {targets: ['h:3', 'h:4']}}}\n"


def errors(*routes: str) -> list[tuple[int, str, str]]:
    text = SERVICES + "routes:\n" + "".join(f"  - {route}\n" for route in routes)
    try:
        load_text(text)
    except ConfigError as error:
        return [(each.line, each.message, each.hint) for each in error.problems]
    return []


def warnings(*routes: str, more: str = "") -> list[tuple[int, str, str]]:
    text = SERVICES + "routes:\n" + "".join(f"  - {route}\n" for route in routes) + more
    found = lint(examine(text, "f.yaml", {}, base=""))
    return [(each.line, each.code, each.message) for each in found if each.code.startswith("route-")]


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ("{service: s, match: {path: /a, path_exact: /b}}", "path and path_exact are given"),
        ("{service: s, host: a.org, match: {host: b.org}}", "host is given twice"),
        ("{service: s, path: /a, match: {path_exact: /b}}", "a path is given here and beside"),
        ("{service: s, match: {path_regex: '/a(?=b)'}}", "more than one pass"),
        ("{service: s, match: {path_regex: '(/a)\\1'}}", "is not supported"),
        ("{service: s, match: {path_regex: '.*a.{20}'}}", "too ambiguous"),
        ("{service: s, match: {path_regex: 'users/[0-9]+'}}", "matches no path"),
        ("{service: s, match: {headers: {x: '/(/'}}}", "is no regular expression here"),
        ("{service: s, match: {method: [get]}}", "methods are case-sensitive"),
        ("{service: s, match: {method: []}}", "method is empty"),
        ("{service: s, match: {clients: [300.0.0.0/8]}}", "network"),
        ("{service: s, match: {clients: [unix:/run/x]}}", "network"),
        ("{service: s, match: {protocol: [spdy]}}", "is not one of the choices"),
        ("{path: /}", "the route goes nowhere"),
        ("{service: s, answer: {status: 404}}", "service and answer are given"),
        ("{redirect: {to: 'https://a.org'}, answer: {status: 404}}", "redirect and answer are given"),
        ("{redirect: {}}", "leads to where the client is"),
        ("{redirect: {status: 308}}", "leads to where the client is"),
        ("{redirect: {to: /x, status: 200}}", "200 is no"),
        ("{redirect: {to: //evil.org}}", "no goal of a redirect"),
        ("{redirect: {to: 'https://{host}/x'}}", "no goal of a redirect"),
        ("{redirect: {to: '/x?{who}'}}", "there is no variable {who}"),
        ("{redirect: {to: /x, replace_prefix: {prefix: /a, to: /b}}}", "has a path already"),
        ("{redirect: {to: /x}, steps: [{strip_prefix: /a}]}", "strip_prefix changes nothing here"),
        ("{answer: {status: 99}}", "99 is out of range"),
        ("{answer: {status: 204, body: x}}", "204 has no body"),
        ("{service: s, steps: [{strip_prefix: /a, host: b}]}", "strip_prefix and host are in one entry"),
        ("{service: s, split: {s: 1, t: 1}}", "service and split are given"),
        ("{split: {}}", "no service of the split has a weight above 0"),
        ("{split: {s: 0, t: 0}}", "no service of the split has a weight above 0"),
        ("{split: {s: 1, u: 1}}", "there is no service 'u'"),
        ("{service: s, fallback: u}", "there is no service 'u'"),
        ("{service: s, fallback: s}", "s gets the requests anyway"),
        ("{split: {s: 1, t: 1}, fallback: t}", "t gets the requests anyway"),
        ("{answer: {status: 404}, fallback: t}", "a fallback is for a route with a service"),
        ("{service: s, split_by: client}", "there is no `split`"),
        ("{split: {s: -1}}", "-1 is out of range"),
        ("{service: s, steps: [{rate_limit: {rate: 10}}]}", "is not a rate"),
        ("{service: s, steps: [{concurrency: {limit: 0}}]}", "0 is out of range"),
        ("{service: s, steps: [{fault: {percent: 5%, abort: 503}}]}", "until"),
        ("{service: s, steps: [{fault: {percent: 5%, until: tomorrow, abort: 503}}]}", "is not a moment"),
        ("{service: s, steps: [{fault: {percent: 5%, until: '2026-12-24T00:00:00', abort: 503}}]}", "no time zone"),
        ("{service: s, steps: [{fault: {percent: 5%, until: '2026-12-24T00:00:00Z'}}]}", "the fault does nothing"),
        ("{service: s, steps: [{fault: {percent: 5%, until: '2026-12-24T00:00:00Z', abort: 200}}]}", "out of range"),
        ("{service: s, steps: [{bandwidth: {rate: 10}}]}", "10 is out of range"),
        ("{service: s, steps: [{rate_limit: {rate: 0/s}}]}", "is not a rate"),
        ("{service: s, steps: [{rate_limit: {burst: 5}}]}", "rate"),
        ("{service: s, steps: [{rate_limit: {rate: 10/s, key: path}}]}", "'path' is not a key"),
        ("{service: s, steps: [{rate_limit: {rate: 10/s, burst: 0}}]}", "0 is out of range"),
        ("{service: s, steps: [{}]}", "the step has no key"),
        ("{service: s, steps: [{allow: []}]}", "allow is empty"),
        ("{service: s, steps: [{deny: [office]}]}", "network"),
        ("{service: s, steps: [{basic_auth: {users_file: u, user_header: X-Forwarded-For}}]}", "frames messages"),
        ("{service: s, steps: [{api_keys: {keys_file: k, header: Host}}]}", "frames messages"),
        ("{service: s, steps: [{cors: {origins: [a.org]}}]}", "is no origin"),
        ("{service: s, steps: [{cors: {origins: ['https://a*.org']}}]}", "is no origin"),
        ("{service: s, steps: [{cors: {origins: ['https://a.org/']}}]}", "is no origin"),
        ("{service: s, steps: [{cors: {origins: ['*'], credentials: true}}]}", "for named origins"),
        ("{service: s, steps: [{location: {prefix: '', to: /}}]}", "prefix"),
        ("{redirect: {to: /x}, steps: [{cookie_path: {prefix: /, to: /a}}]}", "cookie_path changes nothing here"),
        ("{service: s, steps: [{hsts: {max_age: forever}}]}", "forever"),
        ("{service: s, steps: [{rewrite: {pattern: /a, to: '/{1}'}}]}", "there is no group 1"),
        ("{service: s, steps: [{rewrite: {pattern: '/(a', to: /b}}]}", "cannot be matched"),
        ("{service: s, steps: [{rewrite: {pattern: '/(.*?)', to: /b}}]}", "a lazy repetition"),
        ("{service: s, steps: [{rewrite: {pattern: '/(.*)', to: 'http://b/{1}'}}]}", "does not begin with /"),
        ("{service: s, steps: [{rewrite: {pattern: /a}}]}", "to"),
        ("{redirect: {to: /x}, steps: [{rewrite: {pattern: /a, to: /b}}]}", "rewrite changes nothing here"),
        ("{service: s, max_response: -1}", "max_response"),
        ("{service: s, steps: [{compress: {types: []}}]}", "types is empty"),
        ("{service: s, steps: [{compress: {types: [html]}}]}", "is no media type"),
        ("{service: s, steps: [{compress: {codings: [deflate]}}]}", "is not one of the choices"),
        ("{redirect: {to: /x}, steps: [{compress: {}}]}", "compress changes nothing here"),
        ("{service: s, steps: [{jwt: {}}]}", "says where the keys are"),
        ("{service: s, steps: [{jwt: {jwks: 'ftp://a/b'}}]}", "ftp"),
        ("{service: s, steps: [{jwt: {jwks: 'https://a/b', algorithms: [HS256]}}]}", "is not one of the choices"),
        ("{service: s, steps: [{jwt: {jwks: 'https://a/b', claims: {Via: sub}}}]}", "frames messages"),
        ("{service: s, steps: [{forward_auth: {}}]}", "says what is asked"),
        ("{service: s, steps: [{forward_auth: {service: s, url: 'http://a:1/'}}]}", "says what is asked"),
        ("{service: s, steps: [{forward_auth: {service: u}}]}", "there is no service 'u'"),
        ("{service: s, steps: [{forward_auth: {url: '127.0.0.1:1'}}]}", "is not the URL of a server"),
        ("{service: s, steps: [{forward_auth: {url: 'http://a:b/'}}]}", "a:b"),
        ("{service: s, steps: [{forward_auth: {service: s, copy: [Content-Length]}}]}", "frames messages"),
        ("{service: s, steps: [{request_headers: {}}]}", "request_headers changes nothing"),
        ("{service: s, steps: [{request_headers: {set: {content-length: '1'}}}]}", "frames messages"),
        ("{service: s, steps: [{request_headers: {remove: [X-Forwarded-For]}}]}", "frames messages"),
        ("{service: s, steps: [{request_headers: {set: {Host: a}}}]}", "Host is a step of its own"),
        ("{service: s, steps: [{response_headers: {add: {Date: x}}}]}", "frames messages"),
        ("{service: s, steps: [{response_headers: {add: {X-A: '{clientip}'}}}]}", "there is no variable {clientip}"),
    ],
)
def test_errors_of_a_route(route: str, message: str) -> None:
    found = errors(route)
    assert len(found) == 1, found
    line, text, _ = found[0]
    assert line == 5
    assert message in text


def test_two_routes_that_no_request_can_tell_apart() -> None:
    same = "{service: %s, match: {path: /a, method: [%s], headers: {%s: '1', b: '*'}}}"
    found = errors(same % ("s", "GET, PUT", "X-A"), "{service: t}", same % ("t", "PUT, GET", "x-a"))
    assert [(line, text.partition(", so")[0]) for line, text, _ in found] == [
        (7, "routes[0] (line 5) has the same host, path and conditions (any host, path /a)")
    ]


def test_the_order_of_the_file_decides_between_equals() -> None:
    found = warnings("{service: s, match: {headers: {a: '1'}}}", "{service: t, match: {headers: {b: '1'}}}")
    assert [(line, code) for line, code, _ in found] == [(6, "route-order")]
    assert "routes[0] (/, line 5)" in found[0][2]
    apart = ("{service: s, match: {headers: {a: '1'}}}", "{service: t, match: {headers: {a: '2'}}}")
    assert not warnings(*apart, "{service: t, match: {headers: {a: '3'}, method: [GET]}}")
    assert not warnings("{service: s, match: {clients: [unix]}}", "{service: s, match: {clients: [11.0.0.0/8]}}")
    assert not warnings("{service: s, match: {clients: [10.0.0.0/8]}}", "{service: s, match: {clients: [11.0.0.0/8]}}")


@pytest.mark.parametrize(
    ("routes", "line", "message"),
    [
        (("{service: s}", "{service: t, match: {path_regex: '/.*'}}"), 5, "routes[1] (~/.*, line 6)"),
        (("{service: s, path: /a}", "{service: t, match: {path_regex: '/a(/.*)?'}}"), 0, ""),
        (("{service: s, path: /a/}", "{service: t, match: {path_regex: '/a/.*|/a'}}"), 0, ""),
        (("{service: s}", "{service: t, match: {scheme: https}}"), 6, "no listener has `tls`"),
        (("{service: s}", "{service: t, match: {protocol: [grpc]}}"), 6, "speaks HTTP/2"),
        (("{service: s}", "{service: t, path: /a//b}"), 6, "get 400"),
        (("{service: s, path: /a/}", "{service: t, path: /a//b}"), 6, "get 400"),
        (("{service: s, path: /a%20b}", "{service: t}"), 0, ""),
    ],
)
def test_routes_that_no_request_reaches(routes: tuple[str, ...], line: int, message: str) -> None:
    found = [each for each in warnings(*routes) if each[1] == "route-unreachable"]
    if not line:
        assert not found
        return
    assert [each[0] for each in found] == [line]
    assert message in found[0][2]


def test_changes_of_routes() -> None:
    def world(*routes: str):
        return resolve(load_text(SERVICES + "routes:\n" + "".join(f"  - {route}\n" for route in routes)), 1)

    here = world("{service: s}", "{service: s, match: {path_exact: /a}}", "{service: s, match: {method: [GET]}}")
    there = world("{service: s}", "{service: t, match: {path_exact: /a}}", "{service: s, match: {method: [PUT]}}")
    said = [f"{change.kind} {change.subject}: {change.text}" for change in diff(here, there).changes]
    assert said == [
        "add route /: to its service, for new requests",
        "drain route /: is gone",
        "change route =/a: s → t",
    ]


@pytest.mark.parametrize(
    ("to", "parts"),
    [
        ("https://a.org", ("https", "a.org", 0, "", None)),
        ("https://a.org:8443/x", ("https", "a.org", 8443, "/x", None)),
        ("http://[::1]:80/x?", ("http", "[::1]", 80, "/x", "")),
        ("https://[::1]/x?y={path}", ("https", "[::1]", 0, "/x", "y={path}")),
        ("https://a.org?x=http://b", ("https", "a.org", 0, "", "x=http://b")),
        ("/x", ("", "", 0, "/x", None)),
        ("/x?u=http://b", ("", "", 0, "/x", "u=http://b")),
        ("?x=1", ("", "", 0, "", "x=1")),
    ],
)
def test_the_goal_of_a_redirect(to: str, parts: tuple[object, ...]) -> None:
    made = resolve(load_text(f"{SERVICES}routes:\n  - {{redirect: {{to: '{to}'}}}}\n"), 1).snapshot.routes[0].redirect
    assert made is not None
    assert (made.scheme, made.host, made.port, made.path, made.query) == parts


def test_steps_keep_their_order() -> None:
    guards = "{allow: [10.0.0.0/8, 10.0.0.0/8]}, {deny: [unix]}"
    changes = "{request_headers: {set: {A: b}, add: {C: d}, remove: [E]}}, {strip_prefix: /a}, {host: h.org}"
    steps = f"[{guards}, {changes}]"
    made = resolve(load_text(f"{SERVICES}routes:\n  - {{service: s, steps: {steps}}}\n"), 1).snapshot.routes[0].steps
    assert made == (
        StepRule("allow", networks=("10.0.0.0/8",)),
        StepRule("deny", networks=("unix",)),
        StepRule("request_headers", replaced=(("A", "b"),), added=(("C", "d"),), removed=("E",)),
        StepRule("strip_prefix", "/a", "/"),
        StepRule("host", to="h.org"),
    )


def test_a_url_of_forward_auth_is_a_service() -> None:
    routes = "\n".join(
        f"  - {{service: s, path: {path}, steps: [{{forward_auth: {{url: '{url}', copy: [X-User]}}}}]}}"
        for path, url in (
            ("/a", "http://127.0.0.1:9091/verify?x=1"),
            ("/b", "http://127.0.0.1:9091"),
            ("/c", "https://[::1]:8443/v"),
        )
    )
    made = resolve(load_text(f"{SERVICES}routes:\n{routes}\n"), 1)
    rules = [route.steps[0].forward_auth for route in made.snapshot.routes]
    assert rules == [
        ForwardAuth("auth-127.0.0.1-9091", "/verify?x=1", ("X-User",)),
        ForwardAuth("auth-127.0.0.1-9091", "/", ("X-User",)),
        ForwardAuth("auth-https-1-8443", "/v", ("X-User",)),
    ]
    assert {target.id for target in made.targets.values()} >= {
        "auth-127.0.0.1-9091/auth/127.0.0.1:9091",
        "auth-https-1-8443/auth/[::1]:8443",
    }
    assert not warnings("{service: s, steps: [{forward_auth: {url: 'http://127.0.0.1:9091/verify'}}]}")


def test_security_headers() -> None:
    def added(settings: str) -> dict[str, str]:
        text = f"{SERVICES}routes:\n  - {{service: s, steps: [{{security_headers: {settings}}}]}}\n"
        return dict(resolve(load_text(text), 1).snapshot.routes[0].steps[0].added)

    assert added("{}") == {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN",
        "Referrer-Policy": "strict-origin-when-cross-origin",
    }
    assert added("{frame: any, referrer: '', isolate: true, content_policy: \"default-src 'self'\"}") == {
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Content-Security-Policy": "default-src 'self'",
    }
