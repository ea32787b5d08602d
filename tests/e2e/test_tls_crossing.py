"""TLS listeners under load, while certificates are renewed, configurations reloaded, targets drained, workers replaced,
and lb is upgraded: no handshake and no request fails, and the newest certificate is shown."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import trustme

from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.stage import Lb, Stage

NAMES = ("localhost", "127.0.0.1")


class SecureLoad:
    """Clients over TLS: every second one on a kept connection, which it opens again when it has ended."""

    def __init__(self, port: int, ca: Path, clients: int = 6) -> None:
        self.context = ssl.create_default_context(cafile=ca)
        self.port = port
        self.failed: list[str] = []
        self.count = 0
        self.spared = False  # failures are expected now: a worker was killed
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number % 2 == 0,)) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", self.port, timeout=10, context=self.context)

    def _run(self, kept: bool) -> None:
        connection = self._connect()
        fresh = True
        while not self._stop.is_set():
            try:
                connection.request("GET", "/greeting")
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    self._fail(f"{answer.status}: {body[:100]!r}")
                self.count += 1
                fresh = False
                if not kept or answer.will_close:
                    connection.close()
                    fresh = True
            except (OSError, http.client.HTTPException) as error:
                # A kept connection may end as a request is on its way: any client asks again then.
                if fresh or not isinstance(error, (http.client.RemoteDisconnected, ConnectionError)):
                    self._fail(repr(error))
                connection.close()
                connection, fresh = self._connect(), True
            time.sleep(0.005)
        connection.close()

    def _fail(self, what: str) -> None:
        if not self.spared:
            self.failed.append(what)


def put(folder: Path, authority: trustme.CA) -> int:
    """Renew the pair as a tool does, one file after the other; returns the new certificate's number."""
    issued = authority.issue_cert(*NAMES)
    for name, data in (
        ("site.pem", b"".join(blob.bytes() for blob in issued.cert_chain_pems)),
        ("site.key", issued.private_key_pem.bytes()),
    ):
        (folder / f".{name}").write_bytes(data)
        (folder / f".{name}").chmod(0o600)
        (folder / f".{name}").replace(folder / name)
    from cryptography import x509

    return x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).serial_number


def shown(port: int, ca: Path) -> int:
    """The number of the certificate that a new connection gets."""
    made = http.client.HTTPSConnection("localhost", port, context=ssl.create_default_context(cafile=ca), timeout=10)
    made.connect()
    assert isinstance(made.sock, ssl.SSLSocket)
    certificate = made.sock.getpeercert()
    made.close()
    assert certificate is not None
    return int(str(certificate["serialNumber"]), 16)


def everywhere(port: int, ca: Path, number: int) -> None:
    """Every worker shows this certificate."""
    eventually(lambda: {shown(port, ca) for _ in range(12)} == {number}, 20.0, "the renewed certificate is shown")


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def ca(tmp_path: Path) -> tuple[trustme.CA, Path]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return authority, tmp_path / "ca.pem"


def start(stage: Stage, port: int, authority: trustme.CA) -> tuple[Lb, str]:
    put(stage.folder, authority)
    blue, green = stage.pool("blue", 2), stage.pool("green", 1)
    text = (
        f"listeners: [{{bind: '127.0.0.1:{port}', tls: {{cert_file: site.pem, key_file: site.key}}, hsts: {{}}}}]\n"
        "admin: {bind: 127.0.0.1:0}\nstate_dir: ./state\naccess_log: off\ndrain: 5s\n"
        "services:\n  greeting:\n    pools:\n"
        f"      blue: [{', '.join(one.url for one in blue)}]\n      green: [{green[0].url}]\n"
        "    active: blue\n    mirror: {pool: green, percent: 20%}\n"
        "    readiness: {path: /health/readiness, interval: 200ms, timeout: 1s, rise: 1, fall: 3}\n"
        "    rollout: {bake: 0s}\n"
    )
    return stage.start(stage.file(text)), blue[0].address


@contextlib.contextmanager
def under_load(stage: Stage, port: int, authority: trustme.CA, file: Path) -> Iterator[tuple[Lb, str, SecureLoad]]:
    """An lb, one of its targets, and clients, none of which may fail."""
    lb, target = start(stage, port, authority)
    with SecureLoad(port, file) as load:
        eventually(lambda: load.count > 50, 20.0)
        yield lb, target, load
        done = load.count
        eventually(lambda: load.count > done + 50, 20.0)
    assert load.failed == []


def renew(stage: Stage, lb: Lb, authority: trustme.CA) -> int:
    """Put a renewed certificate into force; returns its number."""
    number = put(stage.folder, authority)
    assert lb.cli("reload").returncode == 0
    return number


def test_renewals_reloads_drains_switches_and_an_upgrade_cost_no_client_anything(
    stage: Stage, port: int, ca: tuple[trustme.CA, Path]
) -> None:
    authority, file = ca
    with under_load(stage, port, authority, file) as (lb, target, _):
        for step in range(6):
            number = renew(stage, lb, authority)
            if step % 2:
                assert lb.cli("drain", target, "--wait").returncode == 0
                assert lb.cli("undrain", target).returncode == 0
            else:
                assert lb.cli("switch", "greeting", ("green", "blue")[step % 4 // 2]).returncode == 0
            everywhere(port, file, number)
        before = lb.status()["pid"]
        number = put(stage.folder, authority)
        upgraded = lb.cli("upgrade", timeout=60)
        assert upgraded.returncode == 0, upgraded.stderr
        eventually(lambda: lb.status()["pid"] != before, 20.0)
        everywhere(port, file, number)


def test_a_killed_worker_s_successor_shows_the_newest_certificate(
    stage: Stage, port: int, ca: tuple[trustme.CA, Path]
) -> None:
    authority, file = ca
    with under_load(stage, port, authority, file) as (lb, _, load):
        for _ in range(3):
            number = renew(stage, lb, authority)
            workers = lb.status()["workers"]
            load.spared = True
            os.kill(workers[0], signal.SIGKILL)
            eventually(lambda old=workers: len(set(lb.status()["workers"]) - set(old)) == 1, 20.0, "a successor serves")
            time.sleep(0.5)  # requests of the dead worker's clients fail until then
            load.spared = False
            everywhere(port, file, number)
