"""Client certificates by name: SNI and Host in every combination, and a reload whose authorities are broken."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.certificates import Authority
from tests.support.eventually import eventually
from tests.support.h2_client import Client
from tests.support.stage import Lb, Stage

ROOT, OTHER = Authority("Root"), Authority("Other")
CONFIG = """\
listeners:
  - bind: 127.0.0.1:0
    protocols: [h2, http/1.1]
    tls:
      certificates:
        - {cert_file: a.test.pem, key_file: a.test.key}
        - {cert_file: c.test.pem, key_file: c.test.key}
        - {cert_file: b.test.pem, key_file: b.test.key, client: {mode: required, ca_file: ca.pem}}
        - {cert_file: d.test.pem, key_file: d.test.key, min_version: '1.3'}
admin: {bind: 127.0.0.1:0}
state_dir: ./state
access_log: off
"""


def ask(
    lb: Lb,
    sni: str | None,
    *hosts: str,
    certificate: Path | None = None,
    most: ssl.TLSVersion | None = None,
    path: str = "/",
) -> list[int]:
    """The statuses of requests for these hosts on one connection."""
    address = urlsplit(lb.url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if most is not None:
        context.maximum_version = most
    if certificate is not None:
        context.load_cert_chain(certificate.with_suffix(".pem"), certificate.with_suffix(".key"))
    found = []
    with (
        socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=sni) as connection,
    ):
        for host in hosts:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answer = connection.recv(65536)
            found.append(int(answer.split(b" ")[1]))
            if found[-1] == 421:
                assert b"Connection: close" in answer
                break
    return found


@pytest.fixture
def lb(stage: Stage) -> Lb:
    for name in ("a.test", "b.test", "c.test", "d.test"):
        ROOT.issue(name).write(stage.folder, name)
    ROOT.issue(client=True).write(stage.folder, "client")
    OTHER.issue(client=True).write(stage.folder, "stranger")
    (stage.folder / "ca.pem").write_bytes(ROOT.pem)
    return stage.start(stage.file(f"{CONFIG}backends: ['{stage.backend().address}']\n"))


def test_host_and_server_name_have_one_policy(lb: Lb, stage: Stage) -> None:
    client = stage.folder / "client"
    for sni, hosts, statuses in (
        ("a.test", ("a.test", "A.TEST.", "a.test:443"), [200, 200, 200]),
        ("a.test", ("c.test", "a.test"), [200, 200]),  # the same policy: domain fronting is no one's business
        ("a.test", ("unknown.test",), [200]),  # no certificate, so no policy: the routes decide
        ("a.test", ("b.test",), [421]),
        ("a.test", ("a.test", "B.test."), [200, 421]),
        (None, ("a.test",), [200]),
        (None, ("b.test",), [421]),
        (None, ("b.test.",), [421]),
        ("unknown.test", ("b.test",), [421]),
    ):
        assert ask(lb, sni, *hosts) == statuses, (sni, hosts)
    assert ask(lb, "b.test", "b.test", "B.test", certificate=client) == [200, 200]
    assert ask(lb, "b.test", "b.test", "a.test", certificate=client) == [200, 421]
    metrics = lb.metrics()
    assert metrics['lb_rejected_total{reason="misdirected"}'] == 6


def test_a_misdirected_request_of_http2_ends_no_other(lb: Lb) -> None:
    """It gets 421, and its connection goes on: browsers send requests for all names of a certificate on one."""
    address = urlsplit(lb.url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection((address.hostname or "", address.port or 0), timeout=10)
    with Client(context.wrap_socket(plain, server_hostname="a.test")) as client:
        for stream, host in ((1, "a.test"), (3, "b.test"), (5, "c.test"), (7, "B.Test.")):
            client.ask(stream, [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", host)])
        assert [client.answer(stream)[0] for stream in (1, 3, 5, 7)] == [200, 421, 200, 421]


@pytest.mark.parametrize("sni", ["b.test", "B.TEST", "b.test."])
@pytest.mark.parametrize("certificate", [None, "stranger"])
def test_no_spelling_of_a_name_comes_in_without_its_certificate(
    lb: Lb, stage: Stage, sni: str, certificate: str | None
) -> None:
    shown = stage.folder / certificate if certificate else None
    with pytest.raises((ssl.SSLError, ConnectionError)):
        assert ask(lb, sni, "b.test", certificate=shown) == []


def test_the_least_version_is_the_names_own(lb: Lb) -> None:
    assert ask(lb, "a.test", "a.test", most=ssl.TLSVersion.TLSv1_2) == [200]
    assert ask(lb, "d.test", "d.test") == [200]
    with pytest.raises(ssl.SSLError):
        ask(lb, "d.test", "d.test", most=ssl.TLSVersion.TLSv1_2)
    assert ask(lb, "a.test", "d.test", most=ssl.TLSVersion.TLSv1_2) == [421]


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        ([], None),
        (["http/1.1"], "http/1.1"),
        (["http/1.0"], "http/1.0"),
        (["spdy/3", "http/1.1", "h2"], "h2"),
        (["spdy/3"], ""),
        (["acme-tls/1"], ""),
    ],
)
def test_a_client_of_other_protocols_alone_is_told_by_an_alert(lb: Lb, offered: list[str], agreed: str | None) -> None:
    """RFC 7301 section 3.2. OpenSSL's server would go on without a protocol."""
    address = urlsplit(lb.url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if offered:
        context.set_alpn_protocols(offered)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as plain:
        if agreed == "":
            with pytest.raises(ssl.SSLError) as caught:
                context.wrap_socket(plain, server_hostname="a.test")
            assert "no application protocol" in str(caught.value)
            eventually(
                lambda: any('result="no_shared_protocol"' in name for name in lb.metrics()), 10.0, "it is counted"
            )
            return
        with context.wrap_socket(plain, server_hostname="a.test") as connection:
            assert connection.selected_alpn_protocol() == agreed


def test_broken_authorities_let_nobody_in_who_could_not_come_in_before(lb: Lb, stage: Stage) -> None:
    client, stranger = stage.folder / "client", stage.folder / "stranger"
    (stage.folder / "ca.pem").write_text("broken")
    assert lb.cli("reload").returncode == 1
    assert ask(lb, "b.test", "b.test", certificate=client) == [200]
    (stage.folder / "ca.pem").unlink()
    assert lb.cli("reload").returncode == 1
    for shown in (None, stranger):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(lb, "b.test", "b.test", certificate=shown)
    (stage.folder / "ca.pem").write_bytes(OTHER.pem)
    assert lb.cli("reload").returncode == 0
    assert ask(lb, "b.test", "b.test", certificate=stranger) == [200]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(lb, "b.test", "b.test", certificate=client)


def test_one_route_of_a_host_is_for_certified_clients_alone(lb: Lb, stage: Stage) -> None:
    text = CONFIG.replace(
        "- {cert_file: a.test.pem, key_file: a.test.key}",
        ("- {cert_file: a.test.pem, key_file: a.test.key, client: {mode: optional, ca_file: ca.pem}}"),
    )
    routes = (
        "routes:\n- {service: default, path: /}\n- {service: default, host: a.test, path: /}\n"
        "- {service: default, host: a.test, path: /greeting, client_certificate: true}\n"
    )
    stage.file(f"{text}backends: ['{stage.backends[0].address}']\n{routes}")
    assert lb.cli("reload").returncode == 0
    client = stage.folder / "client"
    assert ask(lb, "a.test", "a.test") == [200] and ask(lb, "c.test", "c.test") == [200]
    assert ask(lb, "a.test", "a.test", path="/greeting") == [403]
    assert ask(lb, "a.test", "a.test", path="/greeting", certificate=client) == [200]
    assert ask(lb, "c.test", "a.test", path="/greeting") == [421]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(lb, "a.test", "a.test", certificate=stage.folder / "stranger")
