"""Warnings about the files that a configuration names: when certificates end, what they cover, who may read keys."""

from __future__ import annotations

import datetime
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from lb.config.check import certificates
from lb.config.check.lint import lint
from lb.config.load import load_with_source
from lb.config.yaml.problems import Problem

DAY = 86400.0
FILE = """\
backends: [http://10.0.0.1:1, http://10.0.0.2:1]
readiness: /r
listeners: [{bind: 127.0.0.1:0, tls: {cert_file: cert.pem, key_file: key.pem}}]
routes: [{service: default, host: www.example.org}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    issue(tmp_path, "www.example.org")
    path = tmp_path / "f.yaml"
    path.write_text(FILE)
    return path


def issue(folder: Path, *names: str, ends: float = 300 * DAY) -> None:
    expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=ends)
    issued = trustme.CA().issue_cert(*names, not_after=expires)
    (folder / "key.pem").write_bytes(issued.private_key_pem.bytes())
    (folder / "key.pem").chmod(0o600)
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))


def found(file: Path, now: float | None = None) -> list[Problem]:
    return lint(load_with_source(file, {}), time.time() if now is None else now)


def test_a_good_pair_has_no_warning(file: Path) -> None:
    assert found(file) == []


def test_dates(file: Path) -> None:
    leaf = x509.load_pem_x509_certificate((file.parent / "cert.pem").read_bytes())
    for now, code in (
        (time.time() + 301 * DAY, "certificate-expired"),
        (time.time() + 290 * DAY, "certificate-ends-soon"),
        (leaf.not_valid_before_utc.timestamp() - DAY, "certificate-early"),
    ):
        (one,) = found(file, now)
        assert (one.code, one.path) == (code, "listeners[0].tls.cert_file")
        assert one.hint


@pytest.mark.parametrize(
    ("names", "covered"),
    [
        (("www.example.org",), True),
        (("*.example.org",), True),
        (("WWW.Example.ORG",), True),
        (("example.org",), False),
        (("*.www.example.org",), False),
    ],
)
def test_names(file: Path, names: tuple[str, ...], covered: bool) -> None:
    issue(file.parent, *names)
    codes = [one.code for one in found(file)]
    assert codes == ([] if covered else ["certificate-lacks-name"])


def test_a_plain_listener_may_serve_the_name(file: Path) -> None:
    issue(file.parent, "other.example.org")
    file.write_text(FILE.replace("listeners: [", "listeners: [127.0.0.1:0, "))
    assert found(file) == []


def test_modes_of_keys_and_tokens(file: Path) -> None:
    (file.parent / "token").write_text("0123456789abcdef\n")
    file.write_text(f"{FILE}admin: {{token_file: token}}\n")
    for mode, verb in ((0o644, "read"), (0o660, "change"), (0o602, "change")):
        for name in ("key.pem", "token"):
            (file.parent / name).chmod(mode)
        assert [(one.code, f"may {verb} it" in one.message) for one in found(file)] == [("file-too-open", True)] * 2
    for name in ("key.pem", "token"):
        (file.parent / name).chmod(0o640)
    assert found(file) == [], "a group that may read it is how packages share keys"


def test_an_access_log_that_cannot_be_opened(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    text = "backends: [http://10.0.0.1:1, http://10.0.0.2:1]\nreadiness: /r\naccess_log: {path: %s}\n"
    for path, said in (
        ("/nonexistent/dir/access.log", "there is no directory /nonexistent/dir"),
        (str(tmp_path), "it is a directory"),
    ):
        file.write_text(text % path)
        (one,) = found(file)
        assert (one.code, one.path) == ("access-log-unwritable", "access_log.path")
        assert said in one.message
    for path in ("access.log", ".lb/access.log", "/dev/stdout"):
        file.write_text(text % path)
        assert found(file) == []


def test_a_file_that_is_no_certificate_has_no_dates(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert certificates.read(str(tmp_path / "x")) is None
    assert certificates.read(str(tmp_path / "gone")) is None


def test_check_strict_refuses_what_has_ended(file: Path) -> None:
    issue(file.parent, "www.example.org", ends=-DAY)
    command = [sys.executable, "-m", "lb", "check", "--strict", "--ignore", "single-target", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "[certificate-expired]" in done.stdout
    assert subprocess.run([*command, "--no-files"], capture_output=True, timeout=60).returncode == 0
