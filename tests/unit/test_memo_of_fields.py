"""What steps make of a connection's fields is made once, however many connections take turns."""

from __future__ import annotations

import pytest

from lb.http.changed_fields import FieldChanges
from lb.http.h1.parse import read_request, read_request_fields
from lb.http.identity_fields import IdentityFields
from lb.http.message import RequestHead


def head(number: int) -> RequestHead:
    fields = read_request_fields(b"Host: a\r\nX-User: forged\r\nX-N: %d\r\n" % number, 32768, 100)
    fields.cached_lines = b"\r\n" + b"".join(fields.forwarded_lines)
    return read_request(b"GET / HTTP/1.1", 14, fields, 8192)


def test_connections_that_take_turns_keep_what_was_made_of_their_fields() -> None:
    identity = IdentityFields([b"x-user"])
    one, two = head(1), head(2)
    new = [b"X-User: anna\r\n"]
    made = [identity.head_with(each, new).fields for each in (one, two)]
    assert b"X-User: anna\r\n" in made[0].forwarded_lines
    assert b"X-User: forged\r\n" not in made[0].forwarded_lines
    assert [identity.head_with(each, new).fields is former for each, former in zip((one, two), made, strict=True)] == [
        True,
        True,
    ]
    other = identity.head_with(one, [b"X-User: bo\r\n"]).fields
    assert b"X-User: bo\r\n" in other.forwarded_lines, "another user of the same fields is told"
    assert b"X-User: anna\r\n" not in other.forwarded_lines


@pytest.mark.parametrize(
    ("text", "steady"),
    [("x", True), ("{client_ip}", True), ("{tls.version}", True), ("{client_ip} {path}", False), ("{host}", False)],
)
def test_what_a_request_alone_decides_is_made_each_time(text: str, steady: bool) -> None:
    assert FieldChanges([("X-A", text)], [], []).steady is steady
