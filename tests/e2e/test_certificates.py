"""Certificates of a running lb: renewed by a reload and by the watch, one broken pair beside good ones, and seen."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509

from tests.support.certificates import DAY, Authority, Issued
from tests.support.eventually import eventually
from tests.support.stage import Backend, Lb, Stage

AUTHORITY = Authority()


def hello(lb: Lb, name: str | None) -> tuple[ssl.SSLSocket, int]:
    """A connection, and the serial number of the certificate that it was shown."""
    address = urlsplit(lb.url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection((address.hostname or "", address.port or 0), timeout=10)
    try:
        connection = context.wrap_socket(plain, server_hostname=name)
    except BaseException:
        plain.close()
        raise
    der = connection.getpeercert(binary_form=True)
    assert der is not None
    return connection, x509.load_der_x509_certificate(der).serial_number


def serial(lb: Lb, name: str | None) -> int:
    """The serial number of the certificate that a name gets."""
    connection, number = hello(lb, name)
    connection.close()
    return number


def get(connection: ssl.SSLSocket, host: str = "a.test") -> bytes:
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return connection.recv(65536)


@pytest.fixture
def folder(stage: Stage) -> Path:
    return stage.folder / "certs"


@pytest.fixture
def backend(stage: Stage) -> Backend:
    return stage.backend()


def start(stage: Stage, backend: Backend, tls: str = "certificates: [{directory: certs}], default: a.test") -> Lb:
    text = (
        f"listeners: [{{bind: '127.0.0.1:0', tls: {{{tls}}}}}]\nadmin: {{bind: 127.0.0.1:0}}\nstate_dir: ./state\n"
        f"access_log: off\nworkers: 2\nbackends: ['{backend.address}']\n"
    )
    return stage.start(stage.file(text))


def put(folder: Path, *names: str, **options: float) -> dict[str, Issued]:
    issued = {name: AUTHORITY.issue(name, **options) for name in names}  # type: ignore[arg-type]
    for name, each in issued.items():
        each.write(folder, name)
    return issued


def all_serve(lb: Lb, name: str, issued: Issued) -> bool:
    return {serial(lb, name) for _ in range(8)} == {issued.certificate.serial_number}


def flat(text: str) -> str:
    return " ".join(text.split())


def test_a_reload_takes_renewed_certificates_and_connections_live_on(
    stage: Stage, folder: Path, backend: Backend
) -> None:
    first = put(folder, "a.test", "b.test")
    lb = start(stage, backend)
    for name, issued in first.items():
        assert serial(lb, name) == issued.certificate.serial_number
    open_before, _ = hello(lb, "a.test")
    assert get(open_before).startswith(b"HTTP/1.1 200")
    second = put(folder, "a.test", "c.test")
    answer = lb.cli("reload")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    for name, issued in (first | second).items():
        assert all_serve(lb, name, issued), name
    assert get(open_before).startswith(b"HTTP/1.1 200"), "a connection of before lives on"
    open_before.close()
    assert lb.metrics()["lb_config_last_reload_successful"] == 1


@pytest.mark.parametrize("fault", ["key of another", "garbage", "no key", "expired", "early", "passphrase"])
def test_one_broken_pair_keeps_its_certificate_and_the_others_are_renewed(
    fault: str, stage: Stage, folder: Path, backend: Backend
) -> None:
    first = put(folder, "a.test", "b.test", "c.test")
    lb = start(stage, backend)
    renewed = put(folder, "a.test", "c.test")
    broken, key = folder / "b.test.pem", folder / "b.test.key"
    if fault == "key of another":
        broken.write_bytes(AUTHORITY.issue("b.test").cert_pem)
    elif fault == "garbage":
        broken.write_bytes(b"-----BEGIN CERTIFICATE-----\nnoise\n-----END CERTIFICATE-----\n")
    elif fault == "no key":
        key.unlink()
    elif fault == "expired":
        put(folder, "b.test", ends=-60.0)
    elif fault == "early":
        put(folder, "b.test", starts=DAY)
    else:
        key.write_bytes(key.read_bytes().replace(b"PRIVATE KEY", b"ENCRYPTED PRIVATE KEY"))
    answer = lb.cli("reload")
    assert answer.returncode == 1, answer.stdout
    assert "Partial: 1 certificate could not be taken" in flat(answer.stdout) and "b.test" in answer.stdout
    for name, issued in ({**first, **renewed}).items():
        assert all_serve(lb, name, issued), name
    metrics = lb.metrics()
    assert metrics["lb_tls_certificates_unusable"] == 1 and metrics["lb_config_last_reload_successful"] == 0
    assert metrics['lb_config_reloads_total{result="partial"}'] >= 1
    assert "b.test" in lb.status()["config"]["last_error"]
    assert "b.test" in lb.errors.read_text()
    shown = lb.cli("certificates", "b.test")
    assert "last failure" in shown.stdout, shown.stdout
    put(folder, "b.test")
    assert lb.cli("reload").returncode == 0
    assert lb.metrics()["lb_tls_certificates_unusable"] == 0


def test_the_watch_takes_renamed_added_and_removed_files(stage: Stage, folder: Path, backend: Backend) -> None:
    first = put(folder, "a.test", "b.test")
    lb = start(stage, backend)
    second = put(folder, "b.test", "c.test")
    for name, issued in ({**first, **second}).items():
        eventually(lambda name=name, issued=issued: all_serve(lb, name, issued), 20.0, what=name)  # type: ignore[misc]
    for ending in ("pem", "key"):
        (folder / f"c.test.{ending}").unlink()
    eventually(lambda: serial(lb, "c.test") == first["a.test"].certificate.serial_number, 20.0, "the default")


def test_the_watch_sees_a_config_map_turn(stage: Stage, backend: Backend) -> None:
    """Kubernetes: NAME is a link into `..data`, which is a link that is turned to another directory in one step."""
    folder = stage.folder / "certs"
    folder.mkdir()
    old = put(folder / "..0", "a.test")["a.test"]
    (folder / "..data").symlink_to("..0")
    for ending in ("pem", "key"):
        (folder / f"a.test.{ending}").symlink_to(f"..data/a.test.{ending}")
    lb = start(stage, backend)
    assert serial(lb, "a.test") == old.certificate.serial_number
    new = put(folder / "..1", "a.test")["a.test"]
    (folder / "..new").symlink_to("..1")
    (folder / "..new").replace(folder / "..data")
    shutil.rmtree(folder / "..0")
    eventually(lambda: all_serve(lb, "a.test", new), 20.0)
    assert lb.metrics()["lb_tls_certificates_unusable"] == 0


def test_the_watch_waits_for_the_second_half_of_a_pair(stage: Stage, folder: Path, backend: Backend) -> None:
    [first] = put(folder, "a.test").values()
    lb = start(stage, backend)
    new = AUTHORITY.issue("a.test")
    (folder / "a.test.pem").write_bytes(new.cert_pem)
    seen = [lb.metrics()["lb_tls_certificates_unusable"] for _ in range(10)]
    assert all_serve(lb, "a.test", first)
    (folder / "a.test.key").write_bytes(new.key_pem)
    eventually(lambda: all_serve(lb, "a.test", new), 20.0)
    assert set(seen) == {0.0} and lb.metrics()["lb_tls_certificates_unusable"] == 0


def test_sighup_takes_renewed_certificates(stage: Stage, folder: Path, backend: Backend) -> None:
    put(folder, "a.test")
    lb = start(stage, backend)
    [new] = put(folder, "a.test").values()
    lb.process.send_signal(signal.SIGHUP)
    eventually(lambda: all_serve(lb, "a.test", new), 20.0)


def test_at_the_start_an_expired_certificate_is_served_and_a_wrong_key_is_an_error(
    stage: Stage, folder: Path, backend: Backend
) -> None:
    expired = put(folder, "a.test", ends=-60.0)["a.test"]
    lb = start(stage, backend, "cert_file: certs/a.test.pem, key_file: certs/a.test.key")
    assert serial(lb, "a.test") == expired.certificate.serial_number
    assert "clients refuse it" in lb.errors.read_text()
    assert lb.stop() == 0
    (folder / "a.test.key").write_bytes(AUTHORITY.issue("a.test").key_pem)
    with pytest.raises(RuntimeError, match=r"(?s)yaml:1:\d+:.*is not the key of"):
        start(stage, backend, "cert_file: certs/a.test.pem, key_file: certs/a.test.key")


def test_a_broken_pair_of_a_directory_does_not_stop_the_start(stage: Stage, folder: Path, backend: Backend) -> None:
    good = put(folder, "a.test", "b.test")["a.test"]
    (folder / "b.test.key").write_bytes(good.key_pem)
    (folder / "notes.txt").write_text("a stray file")
    lb = start(stage, backend)
    assert all_serve(lb, "a.test", good)
    assert lb.metrics()["lb_tls_certificates_unusable"] == 1 and "b.test.key is not the key" in lb.errors.read_text()


def test_what_a_name_gets_is_seen(stage: Stage, folder: Path, backend: Backend) -> None:
    put(folder, "a.test", "*.b.test")
    lb = start(stage, backend)
    listed = json.loads(lb.cli("certificates", "--json").stdout)
    assert {(each["name"], each["reason"]) for each in listed} == {("a.test", "exact"), ("*.b.test", "wildcard")}
    assert "a.test" in lb.cli("certificates").stdout
    [one] = json.loads(lb.cli("certificates", "X.b.test.", "--json").stdout)
    assert (one["name"], one["reason"], one["routes"][0]["service"]) == ("x.b.test", "wildcard", "default")
    [other] = json.loads(lb.cli("certificates", "other.test", "--json").stdout)
    assert other["reason"] == "default" and other["certificates"][0]["names"] == ["a.test"]
    told = flat(lb.cli("explain", "x.b.test").stdout)
    assert "a certificate covers it by *.b.test" in told and "go to default" in told
    metrics = lb.metrics()
    assert metrics['lb_tls_certificate_not_after_seconds{name="a.test"}'] > 1e9
