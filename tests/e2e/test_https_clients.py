"""Clients as people have them, at a listener with lb's own authority: each verifies the certificate it is shown."""

from __future__ import annotations

import base64
import hashlib
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.stage import Lb, Stage

CONFIG = """\
listeners:
  - bind: 127.0.0.1:0
    protocols: [h2, http/1.1]
    tls: {certificates: [internal]}
admin: {bind: 127.0.0.1:0}
state_dir: ./state
access_log: off
"""


@pytest.fixture
def lb(stage: Stage) -> Lb:
    return stage.start(stage.file(f"{CONFIG}backends: ['{stage.backend().address}']\n"))


@pytest.fixture
def root(lb: Lb, stage: Stage) -> Path:
    return stage.folder / "state/internal/root.pem"


def url(lb: Lb) -> str:
    return f"https://localhost:{lb.url.rpartition(':')[2]}/"


def run(*command: str, given: str = "", within: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a client; the test is skipped where it is not installed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=within, check=False)


@pytest.mark.parametrize(("option", "version"), [("--http1.1", "1.1"), ("--http2", "2"), ("--http1.0", "1.1")])
@pytest.mark.parametrize("most", ["1.2", "1.3"])
def test_curl(lb: Lb, root: Path, option: str, version: str, most: str) -> None:
    done = run("curl", "-sS", option, "--tls-max", most, "--cacert", str(root), "-w", "\n%{http_version}", url(lb))
    assert done.returncode == 0, done.stderr
    assert "Hello, World!" in done.stdout
    assert done.stdout.rpartition("\n")[2] == version


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl(lb: Lb, root: Path, stage: Stage, version: str) -> None:
    where = ["s_client", "-connect", url(lb)[8:-1], "-servername", "localhost", "-CAfile", str(root), version]
    session = str(stage.folder / "session.pem")
    asks = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    first = run("openssl", *where, "-verify_return_error", "-sess_out", session, "-ign_eof", given=asks)
    assert "Verify return code: 0 (ok)" in first.stdout
    assert "Hello, World!" in first.stdout
    second = run("openssl", *where, "-sess_in", session, "-ign_eof", given=asks)
    assert "Reused, TLSv1" in second.stdout
    assert "Hello, World!" in second.stdout


def test_openssl_and_obsolete_suites(lb: Lb) -> None:
    """Suites without authenticated encryption are no choice any more; HTTP/2 forbids them."""
    where = ["s_client", "-connect", url(lb)[8:-1], "-tls1_2", "-cipher"]
    assert "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256" in run("openssl", *where, "ECDHE-ECDSA-AES128-GCM-SHA256").stdout
    refused = run("openssl", *where, "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA@SECLEVEL=0")
    assert "handshake failure" in refused.stderr
    assert "(NONE)" in refused.stdout


def test_h2load(lb: Lb) -> None:
    done = run("h2load", "-n", "200", "-c", "10", "-m", "5", url(lb))
    assert "200 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout
    assert "Application protocol: h2" in done.stdout


@pytest.mark.slow
def test_java(lb: Lb, root: Path) -> None:
    done = run("java", str(Path(__file__).parent / "java/Get.java"), url(lb), str(root), within=120.0)
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert [line.split()[:2] for line in answers] == [["HTTP_1_1", "200"]] * 3 + [["HTTP_2", "200"]] * 3
    assert all("Hello, World!" in line for line in answers)


@pytest.mark.slow
def test_chromium(lb: Lb, stage: Stage) -> None:
    """It trusts the one key: an authority of lb's own would have to be installed for the whole machine."""
    shown = ssl.get_server_certificate(("127.0.0.1", int(lb.url.rpartition(":")[2])))
    key = x509.load_pem_x509_certificate(shown.encode()).public_key()
    key_hash = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    options += [f"--user-data-dir={stage.folder / 'profile'}"]
    trusts = f"--ignore-certificate-errors-spki-list={base64.b64encode(key_hash).decode()}"
    assert "Hello, World!" in run("chromium", *options, trusts, url(lb), within=120.0).stdout
    assert "Hello, World!" not in run("chromium", *options, url(lb), within=120.0).stdout
