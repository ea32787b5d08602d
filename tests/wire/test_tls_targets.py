"""Requests to targets over TLS: who is believed, what is said of the rest, and which sessions are resumed."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from lb.core.targets import Retries, Timeouts, TlsClient
from tests.support.alerting_server import refusing_server
from tests.support.front import Front, read_answer, status_of

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
AUTHORITY, ANOTHER = trustme.CA(), trustme.CA()


class SecureTarget:
    """A target on a thread of its own. It answers each request with 200, and may end each connection after it."""

    def __init__(self, context: ssl.SSLContext | None, *, close: bool = False, first: bytes = b"") -> None:
        self.context = context
        self.names: list[str | None] = []
        self.requests = 0
        self._close = close
        self._first = first  # sent before the handshake
        self._loop = asyncio.new_event_loop()
        if context is not None:
            context.sni_callback = lambda _, name, __: self.names.append(name)

    def __enter__(self) -> Self:
        up = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(up,), daemon=True)
        self._thread.start()
        assert up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def resumed(self) -> int:
        """Handshakes that were resumed."""
        assert self.context is not None
        return self.context.session_stats()["hits"]

    def _run(self, up: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda *_: None)  # handshakes that lb breaks off
        tls = None if self._first else self.context
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls))
        self.port = server.sockets[0].getsockname()[1]
        up.set()
        self._loop.run_forever()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._first:
            writer.write(self._first)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
                if self._close:
                    break
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass
        writer.close()


def serving(*names: str, authority: trustme.CA = AUTHORITY, days: int = 30) -> ssl.SSLContext:
    """A server's context with a certificate for these names; `days` below 0: it has expired."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    authority.issue_cert(*names, not_after=until).configure_cert(context)
    return context


def common_name_alone(folder: Path) -> ssl.SSLContext:
    """A certificate that is its own authority, and has its name as a common name only."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "app.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    (folder / "cn.pem").write_bytes(pem)
    whole = pem + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "cn-both.pem").write_bytes(whole)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cn-both.pem")
    return context


@pytest.fixture
def trust(tmp_path: Path) -> str:
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


class Between(Front):
    """A data plane in front of one such target."""

    def __init__(self, target: SecureTarget | int, tls: TlsClient, host: str = "127.0.0.1", attempts: int = 0) -> None:
        port = target if isinstance(target, int) else target.port
        super().__init__(
            0, ports=(port,), retries=Retries(attempts=attempts), timeouts=Timeouts(connect=2.0), passive=True
        )
        self._tls_of_target = tls
        self._host = host

    def __enter__(self) -> Self:
        super().__enter__()
        self.targets = tuple(replace(each, host=self._host, tls=self._tls_of_target) for each in self.targets)
        addresses = {each.id: ("127.0.0.1",) for each in self.targets}
        self.call(lambda: self.apply(addresses=addresses))
        return self

    def refusal(self, request: bytes = GET) -> tuple[int, str, str]:
        """Status and reason of a request's answer, and its result in the attempt log."""
        answer = self.send(request, wait=5.0)
        [record] = self.call(lambda: self.plane.report().records)
        return status_of(answer), record.reason, "; ".join(record.tries)


def test_the_name_of_the_url_is_sent_and_verified(trust: str) -> None:
    with SecureTarget(serving("app.example")) as target, Between(target, TlsClient(ca_file=trust), "app.example") as lb:
        assert status_of(lb.send(GET)) == 200
        assert target.names == ["app.example"]


def test_a_name_with_the_roots_dot_is_the_same_name(trust: str) -> None:
    with SecureTarget(serving("app.example")) as target:
        with Between(target, TlsClient(ca_file=trust), "app.example.") as lb:
            assert status_of(lb.send(GET)) == 200
        assert target.names == ["app.example"]


def test_an_address_is_verified_and_not_sent(trust: str) -> None:
    with SecureTarget(serving("127.0.0.1")) as target, Between(target, TlsClient(ca_file=trust)) as lb:
        assert status_of(lb.send(GET)) == 200
        assert target.names == [None]


def test_a_client_certificate_is_shown(trust: str, tmp_path: Path) -> None:
    context = serving("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    ANOTHER.configure_trust(context)
    ANOTHER.issue_cert("lb.example").private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    with SecureTarget(context) as target:
        with Between(target, TlsClient(ca_file=trust, cert_file=str(tmp_path / "own.pem"))) as lb:
            assert status_of(lb.send(GET)) == 200
        with Between(target, TlsClient(ca_file=trust)) as lb:
            # asyncio's server refuses without an alert: to lb that is a new connection that ends early.
            status, reason, attempts = lb.refusal()
            assert (status, reason in ("connect_tls", "target_reset")) == (502, True)
            assert attempts.count("not tried again") == 1
            assert ";" not in attempts.replace("; not tried again", "")
        assert target.requests == 1


@pytest.mark.parametrize(
    ("version", "own", "said"),
    [
        (ssl.TLSVersion.TLSv1_3, False, "wants a client certificate, and `tls.cert_file` names none"),
        (
            ssl.TLSVersion.TLSv1_3,
            True,
            "refused the client certificate of `tls.cert_file`: unknown certificate authority",
        ),
        (
            ssl.TLSVersion.TLSv1_2,
            True,
            "refused the client certificate of `tls.cert_file`: unknown certificate authority",
        ),
    ],
)
@pytest.mark.parametrize("request_", [GET, POST])
def test_a_target_that_wants_another_client_certificate_fails_at_once(
    trust: str, tmp_path: Path, version: ssl.TLSVersion, own: bool, said: str, request_: bytes
) -> None:
    """TLS 1.3 tells it after the handshake, in place of the answer: the target has read no request."""
    AUTHORITY.issue_cert("lb.example").private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    tls = TlsClient(ca_file=trust, cert_file=str(tmp_path / "own.pem") if own else "")
    with (
        refusing_server(serving("127.0.0.1"), ANOTHER, version) as port,
        Between(port, tls, attempts=2) as lb,
    ):
        status, reason, attempts = lb.refusal(request=request_)
        [tally] = lb.call(lambda: lb.plane.report(full=True).targets)
    assert (status, reason) == (502, "tls_client_certificate")
    assert said in attempts
    assert attempts.count(said) == 1, "the same target would say the same again"
    assert tally.connect_failures == 1
    assert [alarm.kind for alarm in lb.alarms] == ["tls_client_certificate"]


@pytest.mark.parametrize(
    ("names", "host", "said"),
    [
        (
            ("b.example", "c.example"),
            "a.example",
            "expected the name a.example, but the certificate is for b.example, c",
        ),
        (("*.example",), "a.b.example", "but the certificate is for *.example"),
        (("b.example",), "127.0.0.1", "expected the name 127.0.0.1, but the certificate is for b.example"),
        (("10.0.0.1",), "a.example", "but the certificate is for 10.0.0.1"),
    ],
)
def test_another_name_is_refused_with_what_was_expected_and_got(
    trust: str, names: tuple[str, ...], host: str, said: str
) -> None:
    with SecureTarget(serving(*names)) as target, Between(target, TlsClient(ca_file=trust), host) as lb:
        status, reason, attempts = lb.refusal()
        assert (status, reason) == (502, "tls_verify")
        assert said in attempts
        assert target.requests == 0


def test_many_failures_are_one_look_at_the_certificate(trust: str) -> None:
    with SecureTarget(serving("b.example")) as target:
        with Between(target, TlsClient(ca_file=trust), "a.example") as lb:
            for _ in range(5):
                assert status_of(lb.send(GET)) == 502
        assert len(target.names) == 6


def test_a_name_that_is_a_common_name_alone_is_refused(tmp_path: Path) -> None:
    with SecureTarget(common_name_alone(tmp_path)) as target:
        tls = TlsClient(ca_file=str(tmp_path / "cn.pem"))
        with Between(target, tls, "app.example") as lb:
            status, reason, attempts = lb.refusal()
        assert (status, reason) == (502, "tls_verify")
        assert "has no name in its subjectAltName" in attempts
        assert target.requests == 0


def test_another_authority_and_an_expired_certificate_have_reasons_of_their_own(trust: str) -> None:
    with SecureTarget(serving("127.0.0.1", authority=ANOTHER)) as target:
        with Between(target, TlsClient(ca_file=trust)) as lb:
            status, reason, attempts = lb.refusal()
            assert (status, reason) == (502, "tls_verify")
            assert f"expected a certificate of an authority in {trust}, but got another one" in attempts
        with Between(target, TlsClient()) as lb:
            status, reason, attempts = lb.refusal()
            assert (status, reason) == (502, "tls_verify")
            assert "an authority of the system's store" in attempts
        with Between(target, TlsClient(verify=False)) as lb:
            assert status_of(lb.send(GET)) == 200
    with SecureTarget(serving("127.0.0.1", days=-1)) as target, Between(target, TlsClient(ca_file=trust)) as lb:
        status, reason, attempts = lb.refusal()
        assert (status, reason) == (502, "tls_expired")
        assert "it has expired" in attempts


@pytest.mark.parametrize("first", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x00", b"220 hello\r\n", b"\x16\x03\x01"])
def test_plain_bytes_before_the_handshake_break_it_off(trust: str, first: bytes) -> None:
    """They are never taken for an answer."""
    with SecureTarget(serving("127.0.0.1"), first=first) as target, Between(target, TlsClient(ca_file=trust)) as lb:
        status, reason, _ = lb.refusal()
        assert (status, reason) in {(502, "connect_tls"), (504, "timeout_connect")}
        assert target.requests == 0


def test_authorities_that_cannot_be_read_are_no_reason_to_trust_anybody(tmp_path: Path) -> None:
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    with SecureTarget(serving("127.0.0.1")) as target:
        for file in ("missing.pem", "broken.pem"):
            with Between(target, TlsClient(ca_file=str(tmp_path / file))) as lb:
                status, reason, attempts = lb.refusal()
                assert (status, reason) == (502, "connect_tls"), file
                assert "its TLS files cannot be used" in attempts
        assert target.requests == 0
        assert target.names == []


@pytest.fixture(params=["1.2", "1.3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[request.param]


@pytest.fixture
def closing(version: ssl.TLSVersion) -> Iterator[SecureTarget]:
    """A target that ends each connection after its answer."""
    context = serving("127.0.0.1")
    context.minimum_version = context.maximum_version = version
    with SecureTarget(context, close=True) as target:
        yield target


def test_a_session_is_resumed_after_its_connection_has_ended(trust: str, closing: SecureTarget) -> None:
    with Between(closing, TlsClient(ca_file=trust)) as lb:
        for _ in range(10):
            assert status_of(lb.send(GET)) == 200
    assert closing.resumed >= 8


def test_a_session_is_resumed_beside_its_connection(trust: str) -> None:
    slow = serving("127.0.0.1")
    with SecureTarget(slow) as target, Between(target, TlsClient(ca_file=trust)) as lb:
        assert status_of(lb.send(GET)) == 200
        clients: list[socket.socket] = [lb.connect() for _ in range(8)]
        for client in clients:
            client.sendall(GET)
        assert [status_of(read_answer(client)) for client in clients] == [200] * 8
        for client in clients:
            client.close()
        assert target.resumed >= len(target.names) - 1, "one full handshake is enough for all"


def test_other_settings_resume_no_session(trust: str, closing: SecureTarget) -> None:
    """A session that began without verification must not make up for it."""
    with Between(closing, TlsClient(verify=False)) as lb:
        for _ in range(3):
            assert status_of(lb.send(GET)) == 200
        before = closing.resumed
        assert before
        lb.targets = tuple(replace(each, tls=TlsClient(ca_file=trust)) for each in lb.targets)
        lb.call(lambda: lb.apply(addresses={each.id: ("127.0.0.1",) for each in lb.targets}))
        assert status_of(lb.send(GET)) == 200
        assert closing.resumed == before
