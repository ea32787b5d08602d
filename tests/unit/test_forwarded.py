"""What a trusted proxy says about the client: both forms, in agreement, whatever came."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.http.forwarded import Forwarding, extend, parse

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = rf'{_TOKEN}=(?:{_TOKEN}|"(?:[^"\\]|\\.)*")'
#: RFC 7239 section 4, written once more from the RFC.
_STRICT = re.compile(rf"[ \t]*({_PAIR}(?:;{_PAIR})*)[ \t]*(?:,|$)")
OWN = b'for=10.0.0.1;host="in";proto=http'


def sent(
    forwarded: tuple[bytes, ...] = (),
    forwarded_for: tuple[bytes, ...] = (),
    proto: bytes = b"",
    host: bytes = b"",
) -> Forwarding:
    return extend(list(forwarded), list(forwarded_for), proto, host, peer=b"10.0.0.1", proto=b"http", host=b"in")


def elements(value: bytes) -> list[str] | None:
    """The elements of a value as the RFC has them, or None if it is malformed."""
    text, at, found = value.decode("latin-1"), 0, []
    while at < len(text):
        match = _STRICT.match(text, at)
        if match is None:
            return None
        found.append(match[1])
        at = match.end()
    return found


def leftmost(name: str, value: bytes) -> str:
    match = re.search(rf'(?i)\b{name}="?\[?([^;,"\]]+)', value.decode())
    return match[1] if match else ""


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ({}, (b"10.0.0.1", b"http", b"in", OWN)),
        (
            {"forwarded_for": (b"203.0.113.7",), "proto": b"https", "host": b"shop.example"},
            (
                b"203.0.113.7, 10.0.0.1",
                b"https",
                b"shop.example",
                b"for=203.0.113.7;host=shop.example;proto=https, " + OWN,
            ),
        ),
        # one field alone speaks for the whole way
        ({"proto": b"https"}, (b"10.0.0.1", b"https", b"in", b'for=10.0.0.1;host="in";proto=https')),
        ({"host": b"a.b"}, (b"10.0.0.1", b"http", b"a.b", b'for=10.0.0.1;host="a.b";proto=http')),
        ({"forwarded_for": (b"1.2.3.4",)}, (b"1.2.3.4, 10.0.0.1", b"http", b"in", b"for=1.2.3.4, " + OWN)),
        # Forwarded alone
        (
            {"forwarded": (b'for="[2001:db8::1]:4711";host="shop.example:8443";proto=https',)},
            (
                b"2001:db8::1, 10.0.0.1",
                b"https",
                b"shop.example:8443",
                b'for="[2001:db8::1]:4711";host="shop.example:8443";proto=https, ' + OWN,
            ),
        ),
        (
            {"forwarded": (b"for=192.0.2.1:80", b"proto=https;by=_x")},
            (b"192.0.2.1, 10.0.0.1", b"https", b"in", b'for="192.0.2.1:80", proto=https;by=_x, ' + OWN),
        ),
        ({"forwarded": (b"proto=https",)}, (b"10.0.0.1", b"https", b"in", b"proto=https, " + OWN)),
        # both: each is extended, what only one says holds for both
        (
            {"forwarded": (b"for=1.1.1.1",), "forwarded_for": (b"1.1.1.1",), "proto": b"https"},
            (b"1.1.1.1, 10.0.0.1", b"https", b"in", b'for=1.1.1.1, for=10.0.0.1;host="in";proto=https'),
        ),
        # lists, empty elements, several lines, spellings
        (
            {"forwarded_for": (b" 1.1.1.1,, 2001:db8::1 ,", b"", b"[::1]:80, unknown"), "proto": b"https, http"},
            (
                b"1.1.1.1, 2001:db8::1, [::1]:80, unknown, 10.0.0.1",
                b"https, http",
                b"in",
                b'for=1.1.1.1;proto=https, for="[2001:db8::1]", for="[::1]:80", for=unknown, ' + OWN,
            ),
        ),
        (
            {"forwarded": (b", For=1.1.1.1 ; Proto=https,,", b"for=_hidden")},
            (b"1.1.1.1, _hidden, 10.0.0.1", b"https", b"in", b"For=1.1.1.1;Proto=https, for=_hidden, " + OWN),
        ),
        # what no address can be keeps its place
        (
            {"forwarded_for": (b'"1.1.1.1, a b',)},
            (b"unknown, unknown, 10.0.0.1", b"http", b"in", b"for=unknown, for=unknown, " + OWN),
        ),
        ({"proto": b'ht"tp', "host": b'a"b'}, (b"10.0.0.1", b"http", b"in", OWN)),
    ],
)
def test_both_forms_agree(what: dict[str, object], expected: tuple[bytes, ...]) -> None:
    assert sent(**what) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [b'for="192.0.2.1', b'for="a\\"', b'host="a', b'"', b"for", b"for=", b"=a", b"for=1 2", b"for=a;for=b", b'a="x"y'],
)
def test_a_malformed_forwarded_counts_as_not_sent(value: bytes) -> None:
    assert sent((value,), (b"192.0.2.9",)) == sent((), (b"192.0.2.9",))
    assert sent((b"for=1.1.1.1", value)) == sent()
    assert sent((value, b"for=1.1.1.1")) == sent(), "a quote that opens in one line and closes in the next is open"


@given(
    st.lists(st.text('for=hst;, "\\[]:1_\tpo').map(str.encode), max_size=4),
    st.lists(st.binary(max_size=30), max_size=3),
)
def test_the_last_element_is_always_the_own_hop(forwarded: list[bytes], forwarded_for: list[bytes]) -> None:
    result = sent(tuple(forwarded), tuple(forwarded_for))
    found = elements(result.forwarded)
    assert found is not None, result.forwarded
    assert found[-1].startswith("for=10.0.0.1;")
    assert result.forwarded_for.split(b", ")[-1] == b"10.0.0.1"
    assert b" " not in result.forwarded_for.replace(b", ", b",")
    hops = len(result.forwarded_for.split(b", "))
    if forwarded_for and not parse(forwarded):
        assert hops == len(found)


@given(
    st.lists(st.sampled_from([b"for=1.1.1.1", b"for=_a;proto=https", b"host=h", b"proto=wss"]), max_size=3),
    st.lists(st.sampled_from([b"1.1.1.1", b"2001:db8::1", b"_a"]), max_size=3),
    st.sampled_from([b"", b"https", b"http"]),
    st.sampled_from([b"", b"h.example"]),
)
def test_one_form_alone_is_told_in_both(forwarded: list[bytes], hops: list[bytes], proto: bytes, host: bytes) -> None:
    for result in (sent(tuple(forwarded)), sent((), tuple(hops), proto, host)):
        assert leftmost("proto", result.forwarded) == result.proto.decode()
        assert leftmost("host", result.forwarded) == result.host.decode()
        assert leftmost("for", result.forwarded) == result.forwarded_for.split(b", ")[0].decode()


def test_many_parameters_take_no_quadratic_time() -> None:
    line = b";".join(b"p%d=1" % i for i in range(5000))
    assert len(parse([line])[0]) == 5000
