"""A running lb and Pebble: certificates are ordered, served by every worker, kept, renewed, and seen in every view."""

from __future__ import annotations

import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.eventually import eventually
from tests.support.pebble import Pebble, needs_pebble
from tests.support.ports import free_ports
from tests.support.stage import Backend, Lb, Stage

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
    (before,) = serials(lb, NAMES[0], door.https)
    door.file(stage, backend, NAMES)
    assert lb.cli("reload").returncode == 0
    eventually(lambda: shown(lb, NAMES[1], door.https), 60, lb.errors.read_text())
    assert serials(lb, NAMES[0], door.https) == {before}
