"""A listener that redirects to https answers each request with the same URL there, and serves none."""

from __future__ import annotations

import socket

import pytest

from tests.support.front import Front, read_answer, status_of, with_listener


def location(answer: bytes) -> bytes:
    """The URL that a redirect names."""
    assert status_of(answer) == 308, answer
    [line] = [line for line in answer.split(b"\r\n") if line.startswith(b"Location: ")]
    return line.removeprefix(b"Location: ")


@pytest.mark.parametrize(
    ("request_line", "host", "url"),
    [
        (b"GET /", b"a.example", b"https://a.example/"),
        (b"GET /a%2Fb/../c?x=1&y=%20", b"a.example", b"https://a.example/a%2Fb/../c?x=1&y=%20"),
        (b"GET /x?", b"a.example", b"https://a.example/x?"),
        (b"GET //evil.example/x", b"a.example", b"https://a.example//evil.example/x"),
        (b"GET /\\evil.example", b"a.example", b"https://a.example/\\evil.example"),
        (b"GET /x", b"a.example:80", b"https://a.example/x"),
        (b"GET /x", b"A.Example.:8080", b"https://A.Example./x"),
        (b"GET /x", b"192.0.2.1:80", b"https://192.0.2.1/x"),
        (b"GET /x", b"[2001:db8::1]:80", b"https://[2001:db8::1]/x"),
        (b"DELETE /x", b"a.example", b"https://a.example/x"),
        (b"PROPFIND /x", b"a.example", b"https://a.example/x"),
        (b"OPTIONS *", b"a.example", b"https://a.example"),
        (b"GET http://a.example:80/x?y", b"a.example:80", b"https://a.example/x?y"),
        (b"GET http://a.example", b"a.example", b"https://a.example/"),
    ],
)
def test_host_path_and_query_stay(request_line: bytes, host: bytes, url: bytes) -> None:
    with Front(listener=with_listener(redirect=":443")) as front:
        answer = front.send(request_line + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert location(answer) == url
        assert front.origin.connections == 0


def test_another_port_is_named() -> None:
    with Front(listener=with_listener(redirect="0.0.0.0:8443")) as front:
        for host, url in ((b"a:80", b"https://a:8443/x"), (b"[::1]", b"https://[::1]:8443/x")):
            assert location(front.send(b"GET /x HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")) == url


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /x HTTP/1.0\r\n", 400),
        (b"GET /x HTTP/1.1\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost:\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a/b\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a@b\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400),
        (b"GET http://b/x HTTP/1.1\r\nHost: a\r\n", 400),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n", 501),
        (b"GET /x HTTP/1.0\r\nHost: a\r\n", 308),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n", 308),
        (b"OPTIONS /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n", 308),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n", 308),
    ],
)
def test_a_request_is_checked_as_on_any_listener(head: bytes, status: int) -> None:
    with Front(listener=with_listener(redirect=":443")) as front:
        answer = front.send(head + b"\r\n")
        assert status_of(answer) == status
        assert b"100 Continue" not in answer
        assert front.origin.connections == 0


def test_a_connection_is_kept_and_a_body_is_not_waited_for() -> None:
    with Front(listener=with_listener(redirect=":443")) as front, front.connect() as client:
        for path in (b"/1", b"/2"):
            client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            assert location(read_answer(client)) == b"https://a" + path
        client.sendall(b"POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        answer = read_answer(client)
        assert location(answer) == b"https://a/3"
        assert b"Connection: close\r\n" in answer


def test_a_head_request_gets_no_body() -> None:
    with Front(listener=with_listener(redirect=":443")) as front, front.connect() as client:
        client.sendall(b"HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert location(read_answer(client, head_only=True)) == b"https://a/1"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""


def test_redirects_are_counted_under_no_service() -> None:
    with Front(listener=with_listener(redirect=":443")) as front:
        front.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        front.call(front.apply)
        front.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert front.plane.stats.rejected == {"https_redirect": 2}
        report = front.call(front.plane.report)
        [none] = [pool for pool in report.pools if pool.service == "none"]
        assert none.codes[308] == 2
        assert front.at_rest()
