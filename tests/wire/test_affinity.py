"""The cookie of a client's target on the wire: over both versions of HTTP, with TLS, and beside what steps change."""

from __future__ import annotations

import json
import re
import ssl
from pathlib import Path

import trustme

from lb.core.affinity import TargetCookie
from lb.core.targets import COOKIE_PATH, RESPONSE_HEADERS, AccessLog, Affinity, StepRule
from tests.support.front import Front, answers, read_answer, status_of, with_listener
from tests.support.h2_client import GET, Client

SECRET = b"0123456789abcdef"
AFFINE = {"affinity": Affinity("lb_target", "secret", "d"), "files": (("d", SECRET),)}
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


def ask(front: Front, value: bytes = b"", line: bytes = b"GET /", fields: bytes = b"") -> tuple[int, bytes]:
    """The number of the origin that has answered, and the new cookie's value."""
    before = [len(origin.requests) for origin in front.origins]
    cookie = b"Cookie: session=1; lb_target=" + value + b"\r\n" if value else b""
    answer = front.send(line + b" HTTP/1.1\r\nHost: a.example\r\n" + cookie + fields + b"\r\n")
    assert status_of(answer) == 200
    [number] = [at for at, origin in enumerate(front.origins) if len(origin.requests) > before[at]]
    if value:
        assert cookie in front.origins[number].requests[-1], "the target gets all cookies"
    return number, given(answer)


def given(answer: bytes) -> bytes:
    found: list[bytes] = re.findall(rb"\r\n(Set-Cookie: lb_target=.*)", answer)
    assert len(found) <= 1
    return found[0].partition(b"=")[2].partition(b";")[0] if found else b""


def test_over_http1() -> None:
    with Front(3, **AFFINE) as front:
        number, value = ask(front)
        assert value
        for line in (b"GET /x?y", b"HEAD /", b"DELETE /z"):
            for _ in range(3):
                assert ask(front, value, line) == (number, b"")
        assert len({ask(front)[0] for _ in range(6)}) == 3
        assert front.at_rest()


def test_over_http2() -> None:
    with Front(3, listener=with_listener(http2=True, http1=False), **AFFINE) as front, Client(front) as client:
        client.ask(1)
        status, fields, _ = client.answer(1)
        value = fields["set-cookie"].partition("=")[2].partition(";")[0]
        assert status == 200
        met = [len(origin.requests) for origin in front.origins].index(1)
        for stream in range(3, 19, 2):  # browsers send cookies as fields of their own (RFC 9113 section 8.2.3)
            client.ask(stream, [*GET, ("cookie", "a=b"), ("cookie", f"lb_target={value}")])
            assert "set-cookie" not in client.answer(stream)[1]
        assert len(front.origins[met].requests) == 9
        assert front.at_rest()


def test_a_value_holds_for_another_lb_with_the_same_secret() -> None:
    with Front(3, **AFFINE) as one:
        number, value = ask(one)
        ports = tuple(origin.port for origin in one.origins)
        assert value == TargetCookie("c", [SECRET]).value(f"s/p/127.0.0.1:{ports[number]}")
        with Front(ports=tuple(reversed(ports)), **AFFINE) as two:
            asked = len(one.origins[number].requests)
            for _ in range(4):
                answer = two.send(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: lb_target=" + value + b"\r\n\r\n")
                assert not given(answer)
            assert len(one.origins[number].requests) == asked + 4


def test_steps_do_not_change_it() -> None:
    steps = (
        StepRule(COOKIE_PATH, "/", "/v1/"),
        StepRule(RESPONSE_HEADERS, removed=("Set-Cookie",)),
    )
    own = b"HTTP/1.1 200 OK\r\nSet-Cookie: own=1; Path=/\r\nContent-Length: 2\r\n\r\nok"
    with Front(steps=steps, **AFFINE) as front:
        front.with_script(answers(own))
        answer = front.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"own=1" not in answer
        assert re.search(rb"\r\nSet-Cookie: lb_target=[\w-]{22}; Path=/; HttpOnly; SameSite=Lax\r\n", answer)


def test_cookies_of_the_target_stay() -> None:
    own = b"HTTP/1.1 200 OK\r\nSet-Cookie: own=1\r\nContent-Length: 2\r\n\r\nok"
    with Front(**AFFINE) as front:
        front.with_script(answers(own))
        answer = front.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.count(b"Set-Cookie: ") == 2


def test_a_chunked_answer_and_what_follows_on_its_connection() -> None:
    with Front(**AFFINE) as front:
        front.with_script(answers(CHUNKED))
        with front.connect() as sock:
            for _ in range(3):
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = read_answer(sock)
                assert given(answer)
                assert answer.endswith(b"\r\n\r\n2\r\nok\r\n0\r\n\r\n")


def test_with_https_it_is_for_https_alone() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("a.example").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with Front(tls=context, **AFFINE) as front, trusting.wrap_socket(front.connect(), server_hostname="a.example") as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        assert b"; SameSite=Lax; Secure\r\n" in read_answer(s)
    for trusted in ((), ("127.0.0.1",)):
        with Front(trusted_proxies=trusted, **AFFINE) as front:
            answer = front.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n")
            assert (b"; SameSite=Lax; Secure\r\n" in answer) is bool(trusted)


def test_a_target_that_is_gone_leaves_its_clients_to_others(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with Front(2, access_log=AccessLog("json", str(file)), **AFFINE) as front:
        number, value = ask(front)
        front.call(front.origins[number].refuse)
        front.call(lambda: [lane.close_idle() for lane in front.plane.lanes.values()])
        other, new = ask(front, value)
        assert other != number
        assert new
        assert ask(front, new) == (other, b"")
        log = front.plane.log
        assert log is not None
        front.call(log.flush)
        front.call(log.close)
    ids = [f"s/p/127.0.0.1:{origin.port}" for origin in front.origins]
    remarks = [json.loads(line).get("remarks") for line in file.read_text().splitlines()]
    assert remarks == [
        [f"affinity: no cookie yet, new one for {ids[number]}"],
        [f"affinity: {ids[number]} has failed this request, fell over to {ids[other]}"],
        [f"affinity: kept to {ids[other]}"],
    ]
