"""A running lb and Pebble: certificates are ordered, served by every worker, kept, renewed, and seen in every view."""

from __future__ import annotations

import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509

from tests.support.eventually import eventually
from tests.support.pebble import Pebble, needs_pebble
from tests.support.ports import free_ports
from tests.support.stage import Backend, Lb, Stage, ask

pytestmark = needs_pebble

NAMES = ("a.example.org", "b.example.org")


class Door:
    """The ports at which lb listens and Pebble looks for answers."""

    def __init__(self, folder: Path) -> None:
        self.http, self.https = free_ports(2)
        self.pebble = Pebble(folder, http_port=self.http, tls_port=self.https)

    def file(self, stage: Stage, backend: Backend, names: tuple[str, ...] = NAMES, **entry: str) -> Path:
        settings = {"directory": self.pebble.directory, "ca_file": str(self.pebble.ca_file), **entry}
        return stage.file(f"""\
listeners:
  - {{bind: "127.0.0.1:{self.http}", redirect: https}}
  - bind: 127.0.0.1:{self.https}
    tls: {{certificates: [{{acme: pebble, names: [{", ".join(names)}]}}]}}
admin: {{bind: "127.0.0.1:0"}}
acme:
  pebble: {{{", ".join(f"{key}: {value!r}" for key, value in settings.items())}}}
state_dir: ./state
access_log: off
backends: ["{backend.address}"]
""")


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    door = Door(tmp_path / "pebble")
    yield door
    door.pebble.close()


@pytest.fixture
def backend(stage: Stage) -> Backend:
    return stage.backend()


def shown(lb: Lb, name: str, port: int) -> x509.Certificate | None:
    """The certificate that a name is shown; None: the handshake is refused with alert 112."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            context.wrap_socket(plain, server_hostname=name) as tls,
        ):
            return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    except ssl.SSLError as error:
        if error.reason == "TLSV1_UNRECOGNIZED_NAME":
            return None
        raise


def serials(lb: Lb, name: str, port: int) -> set[int]:
    """Over many connections, so that every worker is met."""
    found = {shown(lb, name, port) for _ in range(12)}
    return {each.serial_number if each is not None else 0 for each in found}


def renewal(lb: Lb, name: str) -> Any:
    (entry,) = ask(f"{lb.admin}/api/v1/certificates/{name}").json
    return entry["renewal"]


@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01"])
def test_certificates_are_ordered_and_served_by_every_worker(
    challenge: str, stage: Stage, door: Door, backend: Backend
) -> None:
    lb = stage.start(door.file(stage, backend, challenge=challenge), workers=3)
    for name in NAMES:
        eventually(lambda name=name: shown(lb, name, door.https) is not None, 60, lb.errors.read_text())
    eventually(lambda: all(len(serials(lb, name, door.https)) == 1 for name in NAMES))
    root = x509.load_pem_x509_certificate(door.pebble.root().encode())
    found = shown(lb, NAMES[0], door.https)
    assert found is not None
    assert found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    ) == [NAMES[0]]
    assert root is not None
    assert shown(lb, "unknown.example.org", door.https) is not None  # not strict: the first certificate
    redirect = ask_plain(door.http, "/.well-known/acme-challenge/unknown")
    assert redirect.startswith(b"HTTP/1.1 308 ")


def ask_plain(port: int, path: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a.example.org\r\nConnection: close\r\n\r\n".encode())
        return sock.recv(65536)


def test_a_restart_without_the_authority_serves_what_is_stored(stage: Stage, door: Door, backend: Backend) -> None:
    path = door.file(stage, backend, NAMES[:1])
    lb = stage.start(path)
    eventually(lambda: shown(lb, NAMES[0], door.https), 60, lb.errors.read_text())
    eventually(lambda: len(serials(lb, NAMES[0], door.https)) == 1, 10, "every worker has it")
    (before,) = serials(lb, NAMES[0], door.https)
    lb.stop()
    door.pebble.stop()
    lb = stage.start(door.file(stage, backend, (NAMES[0], "new.example.org")))
    assert serials(lb, NAMES[0], door.https) == {before}
    assert shown(lb, "new.example.org", door.https) is None
    eventually(lambda: renewal(lb, "new.example.org")["failures"] == 1, 30)
    told = renewal(lb, "new.example.org")
    assert told["waiting_since"] > time.time() - 60
    assert 0 < told["next_attempt"] - time.time() < 70
    assert "Cannot connect" in told["failure"]
    status = lb.cli("status").stdout
    assert "! certificate new.example.org: waiting for pebble since" in status
    assert "Cannot connect" in " ".join(status.split())
    listed = lb.cli("certificates").stdout
    assert "new.example.org" in listed
    assert "refused" in listed
    one = " ".join(lb.cli("certificates", "new.example.org").stdout.split())
    assert "waiting for pebble since" in one
    assert "next attempt in" in one
    why = " ".join(lb.cli("explain", "new.example.org").stdout.split())
    assert "waits for its first certificate from pebble, and is refused until then" in why
    assert "The last attempt failed" in why
    metrics = lb.metrics()
    assert metrics['lb_certificate_renewals_total{name="new.example.org",result="failed"}'] == 1
    assert metrics['lb_certificate_failing{name="new.example.org"}'] == 1
    assert metrics['lb_certificate_failing{name="a.example.org"}'] == 0
    door.pebble.start()
    assert lb.cli("certificates", "renew", "new.example.org").returncode == 0
    eventually(lambda: shown(lb, "new.example.org", door.https), 60, lb.errors.read_text())
    assert lb.metrics()['lb_certificate_renewals_total{name="new.example.org",result="ok"}'] == 1
    assert "waiting" not in lb.cli("status").stdout


def test_an_operator_renews_a_name_and_connections_live_on(stage: Stage, door: Door, backend: Backend) -> None:
    lb = stage.start(door.file(stage, backend, NAMES[:1]))
    eventually(lambda: shown(lb, NAMES[0], door.https), 60, lb.errors.read_text())
    eventually(lambda: len(serials(lb, NAMES[0], door.https)) == 1, 10, "every worker has it")
    (before,) = serials(lb, NAMES[0], door.https)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = urlsplit(f"https://127.0.0.1:{door.https}")
    plain = socket.create_connection((address.hostname or "", address.port or 0), 10)
    with context.wrap_socket(plain, server_hostname=NAMES[0]) as kept:
        answer = lb.cli("certificates", "renew", NAMES[0])
        assert answer.returncode == 0, answer.stderr
        assert "is ordered anew" in answer.stdout
        eventually(lambda: before not in serials(lb, NAMES[0], door.https), 60, lb.errors.read_text())
        kept.sendall(b"GET / HTTP/1.1\r\nHost: a.example.org\r\n\r\n")
        assert kept.recv(65536).startswith(b"HTTP/1.1 200")
    other = lb.cli("certificates", "renew", "c.example.org")
    assert other.returncode == 1
    assert "lb gets no certificate for c.example.org" in " ".join(other.stderr.split())
    events = lb.cli("events").stdout
    assert "certificate for a.example.org renewed, valid until" in " ".join(events.split())


@pytest.mark.slow
def test_whenever_lb_is_killed_the_next_one_brings_the_certificate(stage: Stage, door: Door, backend: Backend) -> None:
    """SIGKILL to the supervisor at several moments of an order; its workers live on, and the next lb goes on."""
    path = door.file(stage, backend, NAMES[:1])
    for pause in (0.0, 0.05, 0.1, 0.2, 0.4):
        lb = stage.start(path)
        time.sleep(pause)
        lb.process.send_signal(signal.SIGKILL)
        lb.process.wait(5)
    lb = stage.start(path)
    eventually(lambda: shown(lb, NAMES[0], door.https), 60, lb.errors.read_text())
    eventually(lambda: len(serials(lb, NAMES[0], door.https)) == 1)


def test_a_name_that_is_added_by_a_reload_is_ordered_and_the_others_stay(
    stage: Stage, door: Door, backend: Backend
) -> None:
    lb = stage.start(door.file(stage, backend, NAMES[:1]))
    eventually(lambda: shown(lb, NAMES[0], door.https), 60, lb.errors.read_text())
    eventually(lambda: len(serials(lb, NAMES[0], door.https)) == 1, 10, "every worker has it")
    (before,) = serials(lb, NAMES[0], door.https)
    door.file(stage, backend, NAMES)
    assert lb.cli("reload").returncode == 0
    eventually(lambda: shown(lb, NAMES[1], door.https), 60, lb.errors.read_text())
    assert serials(lb, NAMES[0], door.https) == {before}
