"""Clients' certificates at a real listener: their identity reaches the target, and no client can claim one."""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from lb.core.certificates import Certificate, ClientAuth, TlsServer
from lb.core.targets import Listener
from lb.http.h1 import parse
from lb.net.tls.contexts import server_context
from tests.support.certificates import Authority
from tests.support.front import Front
from tests.support.h2_client import Client
from tests.support.h2_peer import GET

ROOT = Authority("Root")
AUTHORITY = Authority("Intermediate", issuer=ROOT)
FIELDS = (
    ("Client-Cert", "certificate"),
    ("Client-Cert-Chain", "chain"),
    ("X-Client-Subject", "subject"),
    ("X-Client-Issuer", "issuer"),
    ("X-Client-Names", "names"),
    ("X-Client-Print", "fingerprint"),
    ("X-Client-Serial", "serial"),
    ("X-Client-Verified", "verified"),
)
SPELLINGS = ("Client-Cert", "client_cert", "Client.Cert", "CLIENT-CERT-CHAIN", "X_Client_Subject", "x-client.verified")
OTHERS = ("X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info", "X-SSL-Client-CN", "X_SSL_Verify")


@pytest.fixture(autouse=True)
def own_fields() -> Iterator[None]:
    yield
    parse.own(())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    AUTHORITY.issue("a.test").write(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    return tmp_path


def listening(folder: Path, mode: str) -> tuple[Listener, ssl.SSLContext]:
    certificate = Certificate(str(folder / "server.pem"), str(folder / "server.key"))
    client = ClientAuth(mode, str(folder / "ca.pem"))
    tls = TlsServer(certificates=(certificate,), client=client, client_fields=FIELDS)
    return Listener("127.0.0.1:0", tls=tls), server_context((certificate,), tls.policy())


def asking(folder: Path, name: str = "") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if name:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def fields_of(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode().partition(": ")
        assert name not in found, f"{name} came twice"
        found[name] = value
    return found


def request(*more: str) -> bytes:
    return "\r\n".join(("GET / HTTP/1.1", "Host: a.test", *more, "", "")).encode()


def forged() -> list[str]:
    return [f"{name}: forged" for name in (*SPELLINGS, *OTHERS)]


def asked(front: Front, folder: Path, client: str, *more: str) -> dict[str, str]:
    """The fields that the target got."""
    front.origin.requests.clear()
    with asking(folder, client).wrap_socket(front.connect()) as connection:
        connection.sendall(request(*more))
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(request(*more, "X-Second: of a kept connection"))
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    first, second = map(fields_of, front.origin.requests)
    assert second.pop("X-Second") and {**second, "X-Request-Id": ""} == {**first, "X-Request-Id": ""}
    return first


def test_a_verified_client_is_told_to_the_target_whatever_it_claims(folder: Path) -> None:
    issued = AUTHORITY.issue("c.test", "10.1.2.3", client=True, subject="Zoë, Chief\r\nX-Evil: 1")
    issued.write(folder, "client")
    listener, context = listening(folder, "required")
    with Front(listener=listener, tls=context) as front:
        got = asked(front, folder, "client", *forged())
    der = issued.certificate.public_bytes(Encoding.DER)
    between = AUTHORITY.certificate.public_bytes(Encoding.DER)
    assert got["Client-Cert"] == f":{base64.b64encode(der).decode()}:"
    assert got["Client-Cert-Chain"] in (f":{base64.b64encode(between).decode()}:",)
    assert got["X-Client-Subject"] == "CN=Zo%C3%AB\\, Chief%0D%0AX-Evil: 1"
    assert got["X-Client-Issuer"] == "CN=Intermediate"
    assert got["X-Client-Names"] == "DNS:c.test, IP Address:10.1.2.3"
    assert got["X-Client-Print"] == hashlib.sha256(der).hexdigest()
    assert int(got["X-Client-Serial"], 16) == issued.certificate.serial_number
    assert got["X-Client-Verified"] == "success"
    assert "forged" not in got.values()


def test_over_http_2_as_well(folder: Path) -> None:
    AUTHORITY.issue("c.test", client=True).write(folder, "client")
    listener, context = listening(folder, "required")
    context.set_alpn_protocols(["h2"])
    ours = asking(folder, "client")
    ours.set_alpn_protocols(["h2"])
    claims = [(name.lower(), "forged") for name in (*SPELLINGS, *OTHERS)]
    with Front(listener=replace(listener, http2=True), tls=context) as front:
        with Client(ours.wrap_socket(front.connect())) as client:
            for stream in (1, 3, 5):
                client.ask(stream, [*GET, *claims])
                assert client.answer(stream)[0] == 200
        for got in map(fields_of, front.origin.requests):
            assert got["X-Client-Names"] == "DNS:c.test"
            assert got["X-Client-Verified"] == "success"
            assert "forged" not in got.values()


def test_fields_of_another_listener_are_removed_over_http_2(folder: Path) -> None:
    listener, _ = listening(folder, "required")
    with Front(listener=Listener("h2c", http2=True)) as front, Client(front) as client:
        fields = [*GET, ("x-client-subject", "forged")]
        for stream in (1, 3, 5):
            client.ask(stream, fields)
            client.answer(stream)
        assert b"forged" in front.origin.requests[-1]
        snapshot = replace(front.snapshot, version=9, listeners=(*front.snapshot.listeners, listener))
        front.call(lambda: front.plane.apply(snapshot))
        client.ask(7, fields)
        client.answer(7)
        assert b"forged" not in front.origin.requests[-1]


def test_a_client_without_a_certificate_has_no_identity(folder: Path) -> None:
    listener, context = listening(folder, "optional")
    with Front(listener=listener, tls=context, trusted_proxies=("127.0.0.1/32",)) as front:
        got = asked(front, folder, "", *forged())
    assert got["X-Client-Verified"] == "none"
    assert not {"Client-Cert", "Client-Cert-Chain", "X-Client-Subject"} & got.keys()
    assert "forged" not in got.values(), "not even a trusted proxy says who this client is: the handshake does"


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("spelling", [*SPELLINGS[:4], *OTHERS])
def test_identity_is_removed_where_clients_are_not_verified(folder: Path, spelling: str, tls: bool) -> None:
    """On plain listeners, and where TLS asks for no certificate, without any setting."""
    _, context = listening(folder, "off")
    with Front(tls=context if tls else None) as front:
        plain = front.connect()
        with asking(folder).wrap_socket(plain) if tls else plain as connection:
            connection.sendall(request(f"{spelling}: forged"))
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        assert "forged" not in fields_of(front.origin.requests[0]).values()


def test_fields_of_another_listener_are_removed_on_kept_connections_as_well(folder: Path) -> None:
    listener, _ = listening(folder, "required")
    with Front() as front, front.connect() as connection:
        for _ in range(2):
            connection.sendall(request("X-Client-Subject: forged"))
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        assert fields_of(front.origin.requests[1])["X-Client-Subject"] == "forged", "it is nobody's field yet"

        def configure() -> None:
            parse.own(())
            front.plane.apply(replace(front.snapshot, version=9, listeners=(*front.snapshot.listeners, listener)))

        front.call(configure)
        connection.sendall(request("X-Client-Subject: forged"))
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        assert "forged" not in fields_of(front.origin.requests[2]).values()


@pytest.mark.parametrize("client", ["", "client", None])
def test_a_route_for_certified_clients_refuses_all_others(folder: Path, client: str | None) -> None:
    """`None`: over a plain listener."""
    AUTHORITY.issue(client=True).write(folder, "client")
    listener, context = listening(folder, "optional")
    tls = context if client is not None else None
    with Front(listener=listener if tls else None, tls=tls, client_certificate=True) as front:
        plain = front.connect()
        with asking(folder, client or "").wrap_socket(plain) if tls else plain as connection:
            connection.sendall(request(*forged()))
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200" if client else b"HTTP/1.1 403")
        assert len(front.origin.requests) == bool(client)
        reasons = front.call(lambda: dict(front.plane.stats.rejected))
        assert reasons.get("client_certificate_required", 0) == (not client)
