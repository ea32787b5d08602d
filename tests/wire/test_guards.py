"""Guards of a route on the wire: who may pass, and every way around them that is known from other proxies."""

from __future__ import annotations

import time

import bcrypt
import pytest

from lb.core.guards import BasicAuth
from lb.core.targets import ALLOW, DENY, Answer, StepRule
from tests.support.eventually import eventually
from tests.support.front import Front, status_of, with_listener
from tests.support.guards import FILES, HASHED, KEY, KEYS, LOGIN, ask, basic, credentials, keys
from tests.support.h2_client import GET, Client

OFFICE = StepRule(ALLOW, networks=("10.0.0.0/8", "2001:db8::/32"))
NO_GUESTS = StepRule(DENY, networks=("10.9.0.0/16",))


@pytest.mark.parametrize(
    ("trusted", "fields", "status"),
    [
        ((), b"", 403),
        # Nobody but a trusted proxy tells the client's address.
        ((), b"X-Forwarded-For: 10.0.0.1\r\n", 403),
        ((), b"Forwarded: for=10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\nX_Forwarded_For: 10.0.0.1\r\n", 403),
        (("127.0.0.1",), b"X-Forwarded-For: 10.0.0.1\r\n", 200),
        (("127.0.0.1",), b'Forwarded: for="[2001:db8::7]:80"\r\n', 200),
        (("127.0.0.1",), b"X-Forwarded-For: 192.0.2.1\r\n", 403),
        (("127.0.0.1",), b"X-Forwarded-For: 10.9.0.1\r\n", 403),
        # What a client has written before its proxy's entry does not count, nor does what is no address.
        (("127.0.0.1",), b"X-Forwarded-For: 10.0.0.1, 192.0.2.1\r\n", 403),
        (("127.0.0.1",), b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 192.0.2.1\r\n", 403),
        (("127.0.0.1",), b"Forwarded: for=10.0.0.1\r\nX-Forwarded-For: 192.0.2.1\r\n", 403),
        (("127.0.0.1",), b"X-Forwarded-For: 10.0.0.1, office\r\n", 403),
        (("127.0.0.1",), b"Connection: X-Forwarded-For\r\nX-Forwarded-For: 192.0.2.1\r\n", 403),
        (("127.0.0.1",), b"", 403),
    ],
)
def test_client_networks(trusted: tuple[str, ...], fields: bytes, status: int) -> None:
    with Front(steps=(NO_GUESTS, OFFICE), trusted_proxies=trusted) as front:
        assert ask(front, fields) == status
        assert len(front.origin.requests) == (status == 200)
        assert front.at_rest()


def test_clients_of_a_unix_socket(tmp_path: object) -> None:
    with Front(steps=(StepRule(ALLOW, networks=("unix",)),), unix=f"{tmp_path}/lb.sock") as front:
        assert ask(front) == 200
    with Front(steps=(StepRule(DENY, networks=("unix",)),), unix=f"{tmp_path}/other.sock") as front:
        assert ask(front) == 403


@pytest.mark.parametrize(
    "fields",
    [
        b"X-HTTP-Method-Override: GET\r\n",
        b"X-Original-URL: /\r\nX-Rewrite-URL: /\r\n",
        b"Upgrade: h2c\r\n",
        b"Expect: x\r\n",
    ],
)
@pytest.mark.parametrize(
    "line", [b"GET /admin", b"HEAD /admin", b"OPTIONS *", b"PURGE /admin", b"GET http://b.example/"]
)
def test_no_spelling_gets_around_a_guard(fields: bytes, line: bytes) -> None:
    with Front(steps=(OFFICE,)) as front:
        assert ask(front, fields, line) in (403, 400, 417)
        assert not front.origin.requests


def test_a_guard_comes_before_an_answer() -> None:
    with Front(steps=(OFFICE,), answer=Answer(200, "secret")) as front:
        answer = front.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert status_of(answer) == 403
        assert b"secret" not in answer


def test_over_http2() -> None:
    with Front(steps=(OFFICE,), listener=with_listener(http2=True)) as front, Client(front) as client:
        client.ask(1, [*GET, ("x-forwarded-for", "10.0.0.1")])
        assert client.answer(1)[0] == 403
        assert not front.origin.requests


# --- basic auth -------------------------------------------------------------------------------------------------------


def test_a_right_password_passes_and_the_target_learns_the_user() -> None:
    with Front(steps=(LOGIN,), files=FILES) as front:
        forged = b"remote-user: root\r\nRemote_User: root\r\nREMOTE.USER: root\r\n"
        for scheme in (b"Basic", b"basic", b"BASIC"):
            assert ask(front, credentials(scheme=scheme) + forged) == 200
        for request in front.origin.requests:
            assert request.lower().count(b"remote") == 1
            assert b"\r\nRemote-User: anna\r\n" in request
            assert b"\r\nAuthorization: " in request
        assert ask(front, credentials("bo", "x:y")) == 200
        assert b"\r\nRemote-User: bo\r\n" in front.origin.requests[-1]
        assert front.plane.guards.passwords.computed == 2
        assert front.at_rest()


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        credentials(password="wrong"),
        credentials("ANNA"),
        credentials("nobody"),
        credentials("nobody", "x:y"),  # right for another user
        credentials("", "gehe\u00fcim"),
        credentials("anna", ""),
        credentials("anna", "gehe\u00fcim\0"),
        credentials("anna", "gehe\u00fcim "),
        credentials(scheme=b"Bearer"),
        b"Authorization: Basic\r\n",
        b"Authorization: Basic %%%\r\n",
        b"Authorization: Basic YW5uYQ\r\n",
        b"Authorization: anna:gehe\r\n",
        b"Proxy-" + credentials(),
        b"Remote-User: anna\r\nX-Forwarded-User: anna\r\n",
        b"Cookie: Authorization=Basic\r\n",
    ],
)
def test_no_other_way_in(fields: bytes) -> None:
    with Front(steps=(LOGIN,), files=FILES) as front:
        for _ in range(2):
            answer = front.send(b"GET /admin HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
            assert status_of(answer) == 401
            assert b'\r\nWWW-Authenticate: Basic realm="of\\"fice", charset="UTF-8"\r\n' in answer
        assert not front.origin.requests
        assert front.plane.stats.rejected == {"unauthorized": 2}
        assert front.at_rest()


def test_two_credentials_are_ambiguous() -> None:
    with Front(steps=(LOGIN,), files=FILES) as front:
        assert ask(front, credentials() + credentials("bo", "x:y")) == 400
        assert ask(front, credentials() + b"authorization: x\r\n") == 400
        assert not front.origin.requests


def test_the_password_may_stay_here() -> None:
    with Front(steps=(basic(BasicAuth("r", remove_authorization=True)),), files=FILES) as front:
        assert ask(front, credentials()) == 200
        assert b"uthorization" not in front.origin.requests[0]


def test_no_users_let_nobody_in() -> None:
    for digest in ("", "gone"):
        with Front(steps=(basic(BasicAuth("r"), digest),), files=FILES) as front:
            assert ask(front, credentials()) == 401


def test_a_changed_file_counts_at_once() -> None:
    with Front(steps=(LOGIN,), files=FILES) as front:
        assert ask(front, credentials()) == 200
        changed = (("d2", b"anna:" + bcrypt.hashpw(b"new", bcrypt.gensalt(4))),)
        front.call(lambda: front.apply(steps=(basic(BasicAuth("r"), "d2"),), files=changed))
        assert ask(front, credentials()) == 401
        assert ask(front, credentials("anna", "new")) == 200


def test_an_unknown_user_costs_a_hash_too() -> None:
    with Front(steps=(LOGIN,), files=FILES) as front:
        ask(front, credentials("nobody", "a"))
        ask(front, credentials("anna", "a"))
        assert front.plane.guards.passwords.computed == 2


def test_a_body_and_its_trailers_wait_for_the_password() -> None:
    with Front(steps=(LOGIN,), files=FILES, trailers="pass") as front:
        head = b"POST /admin HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Remote-User\r\n"
        body = b"5\r\nhello\r\n0\r\nRemote-User: root\r\nX-Sum: 1\r\n\r\n"
        assert status_of(front.send(head + credentials() + b"\r\n" + body)) == 200
        request = front.origin.requests[0]
        assert b"hello" in request
        assert b"root" not in request  # a server may take a trailer for a field
        with front.connect() as sock:
            sock.sendall(head + credentials("bo", "x:y") + b"\r\n5\r\nhe")
            time.sleep(0.1)
            sock.sendall(b"llo\r\n0\r\nRemote-User: root\r\n\r\n")
            assert b" 200 " in sock.recv(1000)
        assert b"root" not in front.origin.requests[1]


def test_a_right_password_is_kept_and_a_client_may_go_meanwhile() -> None:
    slow = (("d1", b"anna:" + bcrypt.hashpw(b"slow", bcrypt.gensalt(10))),)
    with Front(steps=(LOGIN,), files=slow) as front:
        for _ in range(3):
            assert ask(front, credentials("anna", "slow")) == 200
        assert front.plane.guards.passwords.computed == 1
        for password in ("a", "b", "c"):
            with front.connect() as gone:
                gone.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n" + credentials("anna", password) + b"\r\n")
        assert ask(front, credentials("anna", "slow")) == 200
        assert len(front.origin.requests) == 4
        eventually(front.at_rest)


def test_basic_auth_over_http2_and_to_a_target_of_http2() -> None:
    value = credentials().decode().partition(": ")[2].strip()
    with Front(steps=(LOGIN,), files=FILES, listener=with_listener(http2=True)) as front, Client(front) as client:
        client.ask(1)
        assert client.answer(1)[0] == 401
        client.ask(3, [*GET, ("authorization", value), ("remote_user", "root")])
        assert client.answer(3)[0] == 200
        assert b"\r\nRemote-User: anna\r\n" in front.origin.requests[0]
        assert b"root" not in front.origin.requests[0]


def test_a_websocket_needs_the_password_too() -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    with Front(steps=(LOGIN,), files=FILES) as front:
        assert ask(front, upgrade) == 401
        assert not front.origin.requests
        assert ask(front, upgrade + credentials()) == 200
        assert b"Upgrade: websocket\r\n" in front.origin.requests[0]


# --- API keys ---------------------------------------------------------------------------------------------------------


def test_a_key_lets_in_and_the_target_learns_whose_it_is() -> None:
    with Front(steps=(keys(name_header="X-Client"),), files=KEYS) as front:
        assert (
            ask(front, b"x-api-key: " + KEY + b"\r\nX_Api_Key: forged\r\nX-Client: root\r\nx.client: root\r\n") == 200
        )
        assert ask(front, b"X-API-KEY:another-key-of-the-office\r\n") == 200
        first, second = front.origin.requests
        assert b"\r\nX-Client: shop\r\n" in first
        assert b"\r\nX-Client: office\r\n" in second
        assert b"root" not in first
        assert b"forged" not in first
        assert first.lower().count(b"x-api-key: " + KEY) == 1


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"", 401),
        (b"X-Api-Key:\r\n", 401),
        (b"X-Api-Key: " + KEY[:-1] + b"\r\n", 401),
        (b"X-Api-Key: " + KEY + b"x\r\n", 401),
        (b"X-Api-Key: sha256:" + HASHED + b"\r\n", 401),
        (b"X_Api_Key: " + KEY + b"\r\n", 401),
        (b"X-Api-Key: shop\r\n", 401),
        (b"Authorization: Bearer " + KEY + b"\r\n", 401),
        (b"X-Api-Key: " + KEY + b"\r\nX-Api-Key: " + KEY + b"\r\n", 400),
        (b"X-Api-Key: a, " + KEY + b"\r\n", 401),
    ],
)
def test_nothing_else_lets_in(fields: bytes, status: int) -> None:
    with Front(steps=(keys(),), files=KEYS) as front:
        assert ask(front, fields) == status
        assert ask(front, fields, b"GET /?x-api-key=" + KEY) == status
        assert not front.origin.requests
    with Front(steps=(keys(),)) as front:  # without its file
        assert ask(front, b"X-Api-Key: " + KEY + b"\r\n") == 401


def test_a_key_as_a_bearer_token_that_stays_here() -> None:
    with Front(steps=(keys(header="Authorization", remove_key=True),), files=KEYS) as front:
        assert ask(front, b"authorization: bearer " + KEY + b"\r\n") == 200
        assert b"uthorization" not in front.origin.requests[0]
        assert ask(front, b"Authorization: Basic " + KEY + b"\r\n") == 401
        assert ask(front, b"Authorization: " + KEY + b"\r\n") == 401
