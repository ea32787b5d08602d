"""The admin client: which target a tail means, what a refusal says, what is said when nobody answers."""

import http.server
import os
import pwd
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lb.cli.client import (
    Client,
    Refusal,
    Unreachable,
    did_you_mean,
    in_path,
    match_target,
    who,
)
from lb.cli.failure import Failure

IDS = [
    "greeting/blue/127.0.0.1:5001",
    "greeting/blue/127.0.0.1:5002",
    "greeting/green/127.0.0.1:5003",
    "shop/blue/127.0.0.1:5001",
    "shop/blue/unix:/run/shop.sock",
]


@pytest.mark.parametrize(
    ("tail", "found"),
    [
        ("greeting/blue/127.0.0.1:5001", IDS[0]),
        ("127.0.0.1:5002", IDS[1]),
        ("5003", IDS[2]),
        ("green/127.0.0.1:5003", IDS[2]),
        ("shop.sock", IDS[4]),
        ("shop/blue/127.0.0.1:5001", IDS[3]),
    ],
)
def test_a_tail_names_one_target(tail: str, found: str) -> None:
    assert match_target(tail, IDS) == found


def test_a_tail_that_fits_several_lists_them() -> None:
    with pytest.raises(Failure, match=r"say more of it:\n  greeting/blue/127.0.0.1:5001\n  shop/blue/127.0.0.1:5001$"):
        match_target("5001", IDS)


def test_a_border_beats_a_chance_ending() -> None:
    assert match_target("5001", ["a/b/h:5001", "a/b/h:15001"]) == "a/b/h:5001"


def test_a_tail_that_fits_none_shows_what_there_is() -> None:
    with pytest.raises(Failure, match="no target ends in '9'"):
        match_target("9", IDS)
    with pytest.raises(Failure, match="no targets at all"):
        match_target("9", [])


def test_an_order_has_a_name_without_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LB_ACTOR", "SUDO_USER", "USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    assert who() == pwd.getpwuid(os.getuid()).pw_name


def test_a_target_in_a_url() -> None:
    assert in_path("greeting/blue/127.0.0.1:5001") == "greeting/blue/127.0.0.1:5001"
    assert in_path("a b/ü?#") == "a%20b/%C3%BC%3F%23"


def test_nobody_there_says_where_it_looked_and_how_to_say_where() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        where = f"http://127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(Failure) as raised:
            Client(where).get("/api/v1/status")
    assert where in raised.value.message
    assert "connection refused" in raised.value.message
    assert "--admin URL" in raised.value.message and "LB_ADMIN" in raised.value.message


@pytest.mark.parametrize("where", ["ftp://x", "http://", "http://h:port", "::::"])
def test_an_address_that_is_none(where: str) -> None:
    with pytest.raises(Failure, match="is no address of an admin port"):
        Client(where)


def test_a_scheme_may_be_left_out() -> None:
    client = Client("127.0.0.1:99")
    assert (client.host, client.port, client.tls) == ("127.0.0.1", 99, False)


def test_a_token_file_that_cannot_be_read() -> None:
    with pytest.raises(Failure, match="cannot read the token file /nowhere/at/all"):
        Client("127.0.0.1:99", "/nowhere/at/all")


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers what the test says, and keeps what it was asked."""

    answer: tuple[int, str, bytes] = (200, "application/json", b"{}")
    asked: list[tuple[str, str, str | None]]

    def do_GET(self) -> None:
        type(self).asked.append((self.command, self.path, self.headers["Authorization"]))
        status, kind, body = self.answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def admin() -> Iterator[tuple[str, type[Scripted]]]:
    class Handler(Scripted):
        asked: list[tuple[str, str, str | None]] = []

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", Handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_refusal_tells_each_reason(admin: tuple[str, type[Scripted]]) -> None:
    where, handler = admin
    handler.answer = (
        409,
        "application/problem+json",
        b'{"title": "Not ready", "detail": "green has 1 of 2 targets ready", "status": 409,'
        b' "reasons": [{"target": "greeting/green/127.0.0.1:5003", "reason": "503 from /health"}, "text"]}',
    )
    with pytest.raises(Refusal) as raised:
        Client(where).post("/api/v1/services/greeting/switch", {"to": "green"})
    assert raised.value.status == 409
    assert raised.value.message.splitlines() == [
        "Not ready: green has 1 of 2 targets ready",
        "  greeting/green/127.0.0.1:5003: 503 from /health",
        "  text",
    ]


def test_the_token_goes_with_every_request(admin: tuple[str, type[Scripted]], tmp_path: object) -> None:
    from pathlib import Path

    token = Path(str(tmp_path)) / "token"
    token.write_text("s3cret\n")
    where, handler = admin
    assert Client(where, str(token)).get("/api/v1/status") == {}
    assert handler.asked == [("GET", "/api/v1/status", "Bearer s3cret")]


def test_a_missing_token_is_explained(admin: tuple[str, type[Scripted]]) -> None:
    where, handler = admin
    handler.answer = (401, "application/problem+json", b'{"title": "Unauthorized"}')
    with pytest.raises(Refusal, match="--token-file FILE"):
        Client(where).get("/api/v1/status")


def test_something_else_listens_there(admin: tuple[str, type[Scripted]]) -> None:
    where, handler = admin
    handler.answer = (200, "text/html", b"<html>hello</html>")
    with pytest.raises(Unreachable, match="is no admin port: it answered /api/v1/status with 200"):
        Client(where).get("/api/v1/status")
    handler.answer = (404, "text/html", b"<html>not here</html>")
    with pytest.raises(Unreachable, match="with 404, but not as lb's admin port does") as raised:
        Client(where).get("/api/v1/status")
    assert "--admin URL or LB_ADMIN=URL" in raised.value.message
    with pytest.raises(Unreachable, match="is no admin port"):
        list(Client(where).stream("/api/v1/events"))


def test_tls_spoken_to_a_port_that_does_not(admin: tuple[str, type[Scripted]]) -> None:
    where = admin[0].replace("http", "https")
    with pytest.raises(Unreachable, match="it does not speak TLS") as raised:
        Client(where).get("/api/v1/status")
    assert f"try --admin {admin[0]}" in raised.value.message


def test_a_port_that_answers_gibberish() -> None:
    """A TLS port that is spoken to in plain HTTP answers with an alert, which is no HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"http://127.0.0.1:{server.getsockname()[1]}"

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x15\x03\x01\x00\x02\x02\x46\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unreachable, match="does not answer in HTTP") as raised:
            Client(where).get("/api/v1/status")
        thread.join()
    assert f"try --admin {where.replace('http', 'https')}" in raised.value.message


def test_silence_is_not_taken_for_absence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Client(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.1)
        with pytest.raises(Unreachable, match=r"was reached, but gave no answer within 0\.1 s"):
            client.get("/api/v1/status")
        with pytest.raises(Unreachable, match="The order may still be carried out"):
            client.post("/api/v1/reload", within=0.1)


def test_a_token_that_is_missing_or_wrong(admin: tuple[str, type[Scripted]], tmp_path: Path) -> None:
    where, handler = admin
    handler.answer = (401, "application/problem+json", b'{"title": "Unauthorized", "status": 401}')
    with pytest.raises(Refusal, match=r"wants a token.*--token-file FILE\n.*LB_TOKEN_FILE"):
        Client(where).get("/api/v1/status")
    token = tmp_path / "token"
    token.write_text("guess\n")
    with pytest.raises(Refusal, match=f"The token in {token} is not the one"):
        Client(where, str(token)).get("/api/v1/status")
    assert handler.asked[-1][2] == "Bearer guess"


def test_a_name_that_is_nearly_right() -> None:
    assert did_you_mean("greetin", ["greeting", "shop"]) == " Did you mean greeting?"
    assert did_you_mean("x", ["greeting", "shop"]) == ""
    with pytest.raises(Failure, match=r"Did you mean 127\.0\.0\.1:5002\?"):
        match_target("127.0.0.1:50022", ["greeting/blue/127.0.0.1:5002"])


def test_events_come_with_their_ids(admin: tuple[str, type[Scripted]]) -> None:
    where, handler = admin
    handler.answer = (
        200,
        "text/event-stream",
        b': hi\n\nid: 7\nevent: switch\ndata: {"a":1}\n\nid: 8\ndata: x\ndata: y\n\n',
    )
    assert list(Client(where).stream("/api/v1/events")) == [("7", '{"a":1}'), ("8", "x\ny")]
