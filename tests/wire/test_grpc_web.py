"""gRPC-Web from browsers (routes with `grpc_web`), over HTTP/1.1 and HTTP/2, to a target that is sent gRPC."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator

import pytest

from tests.support.front import Front, with_listener
from tests.support.h2_client import Client
from tests.support.h2_peer import POST
from tests.wire.grpc_messages import message, says, statuses, trailers_only, with_status
from tests.wire.http2 import silent

H2C = with_listener(http2=True)
Answer = tuple[int, dict[str, str], bytes]
#: (status, fields, body) of an answer to a call with this content type, further fields and body.
Call = Callable[..., Answer]


@pytest.fixture
def front() -> Iterator[Front]:
    with Front(listener=H2C, grpc_web=True) as running:
        running.with_script(says(with_status(0, b"grpc-message: fine\r\n")))
        yield running


def over_http1(
    front: Front, content_type: str, body: bytes, *more: tuple[str, str]
) -> tuple[int, dict[str, str], bytes]:
    lines = "".join(f"{name}: {value}\r\n" for name, value in more)
    head = (
        f"POST /s/M HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    )
    answer = front.send(head.encode() + body)
    block, _, rest = answer.partition(b"\r\n\r\n")
    first, *fields = block.decode().split("\r\n")
    named = {name.lower(): value for name, _, value in (line.partition(": ") for line in fields)}
    if named.get("transfer-encoding") == "chunked":
        pieces = []
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            pieces.append(rest[: int(size, 16)])
            rest = rest[int(size, 16) + 2 :]
        rest = b"".join(pieces)
    return int(first.split()[1]), named, rest


def over_http2(
    front: Front, content_type: str, body: bytes, *more: tuple[str, str]
) -> tuple[int, dict[str, str], bytes]:
    with Client(front) as client:
        fields = [*POST[:2], (":path", "/s/M"), POST[3], ("content-type", content_type), *more]
        client.send(client.frames.headers(1, fields, False), client.frames.data(1, body, True))
        return client.answer(1)


CALLS = pytest.mark.parametrize("call", [over_http1, over_http2])
TRAILER = b"grpc-status:0\r\ngrpc-message:fine\r\n"
FRAME = b"\x80" + len(TRAILER).to_bytes(4, "big") + TRAILER


@CALLS
def test_the_binary_form(front: Front, call: Call) -> None:
    status, fields, body = call(front, "application/grpc-web+proto", message(b"hi"))
    assert (status, fields["content-type"]) == (200, "application/grpc-web")
    assert body == message(b"hello") + FRAME
    [request] = front.origin.requests
    lower = request.lower()
    assert lower.startswith(b"post /s/m http/1.1\r\n")
    assert lower.count(b"content-type: application/grpc+proto\r\n") == 1
    assert lower.count(b"\r\nte: trailers\r\n") == 1
    assert lower.count(b"\r\nconnection: te\r\n") == 1
    assert message(b"hi") in request
    assert statuses(front) == {0: 1}


@CALLS
def test_the_text_form(front: Front, call: Call) -> None:
    text = base64.b64encode(message(b"hi")) + base64.b64encode(message(b"again"))
    status, fields, body = call(front, "application/grpc-web-text", text)
    assert (status, fields["content-type"]) == (200, "application/grpc-web-text")
    assert body == base64.b64encode(message(b"hello")) + base64.b64encode(FRAME)
    [request] = front.origin.requests
    assert message(b"hi") + message(b"again") in request
    assert b"content-length" not in request.lower()
    assert request.lower().count(b"transfer-encoding: chunked") == 1


@CALLS
def test_text_that_is_no_base64(front: Front, call: Call) -> None:
    status, fields, _ = call(front, "application/grpc-web-text", b"!!!")
    assert (status, fields["grpc-status"]) == (200, "13")
    assert not any(b"!!!" in request for request in front.origin.requests)


@CALLS
def test_trailers_alone_stay_in_the_head(front: Front, call: Call) -> None:
    front.with_script(says(trailers_only(5)))
    status, fields, body = call(front, "application/grpc-web", message(b"hi"))
    assert (status, fields["grpc-status"], body) == (200, "5", b"")
    assert fields["content-type"] == "application/grpc-web"
    assert statuses(front) == {5: 1}


@CALLS
def test_lbs_own_answer(call: Call) -> None:
    with Front(listener=H2C, grpc_web=True, ports=(1,)) as front:
        status, fields, body = call(front, "application/grpc-web+proto", message(b"hi"))
        assert (status, fields["grpc-status"], body) == (200, "14", b"")
        assert fields["content-type"] == "application/grpc-web+proto"
        assert fields["grpc-message"] == "lb: 502 connect_refused"
        assert statuses(front) == {14: 1}


@CALLS
@pytest.mark.timing
def test_a_deadline(front: Front, call: Call) -> None:
    front.with_script(silent())
    assert call(front, "application/grpc-web", message(b"hi"), ("grpc-timeout", "200m"))[1]["grpc-status"] == "4"


@CALLS
def test_what_is_no_call_is_left_alone(front: Front, call: Call) -> None:
    plain = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nno"
    front.with_script(says(plain))
    assert call(front, "text/plain", b"x")[::2] == (404, b"no")
    status, fields, body = call(front, "application/grpc-web", message(b"hi"))
    assert (status, fields["content-type"], body) == (404, "text/html", b"no")


@CALLS
def test_a_route_that_does_not_ask_for_it(call: Call) -> None:
    with Front(listener=H2C) as front:
        call(front, "application/grpc-web", message(b"hi"))
        assert b"content-type: application/grpc-web\r\n" in front.origin.requests[0].lower()


def test_a_body_in_pieces(front: Front) -> None:
    text = base64.b64encode(message(b"hi"))
    with Client(front) as client:
        fields = [*POST, ("content-type", "application/grpc-web-text")]
        client.ask(1, fields, end=False)
        for at in range(len(text)):
            client.send(client.frames.data(1, text[at : at + 1]))
        client.send(client.frames.data(1, b"", True))
        assert client.answer(1)[0] == 200
    got = b"".join(part for part in front.origin.requests[0].split(b"\r\n\r\n", 1)[1].split(b"\r\n")[1::2])
    assert got == message(b"hi")


def test_a_kept_connection_serves_on(front: Front) -> None:
    """The translated answer's end is where the client's connection expects it."""
    with front.connect() as sock:
        for _ in range(3):
            body = message(b"hi")
            lines = f"Content-Type: application/grpc-web\r\nContent-Length: {len(body)}\r\n"
            lines = f"Content-Type: application/grpc-web\r\nContent-Length: {len(body)}\r\n"
            head = f"POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"
            sock.sendall(head.encode() + body)
            data = b""
            while not data.endswith(b"0\r\n\r\n"):
                data += sock.recv(65536)
            assert FRAME in data
