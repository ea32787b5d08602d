"""Faults of the files that a configuration names which are valid today: dates, names and modes.

The caller passes the time, in seconds since the epoch. Files that cannot be read at all are errors, found by `files`.
"""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Iterator
from pathlib import Path as FilePath

from lb.config.check import certificates
from lb.config.check.certificates import SOON, Certificate
from lb.config.check.lint_checks import Warned
from lb.config.model.checks import ClientTls
from lb.config.model.config import Config
from lb.config.yaml.tree import Path


def warnings(config: Config, now: float) -> Iterator[Warned]:
    """All warnings about certificates, keys and tokens."""
    served: list[Certificate] = []
    plain = False
    for index, listener in enumerate(config.listeners):
        if listener.tls is None:
            plain = plain or listener.redirect is None
            continue
        at: Path = ("listeners", index, "tls")
        yield from _dates((*at, "cert_file"), listener.tls.cert_file, now)
        yield from _mode((*at, "key_file"), listener.tls.key_file, "the key")
        certificate = certificates.read(listener.tls.cert_file)
        if certificate is not None:
            served.append(certificate)
    if served and not plain:
        yield from _names(config, served)
    yield from access_log_warnings(config)
    if config.admin.token_file is not None:
        yield from _mode(("admin", "token_file"), config.admin.token_file, "the token")
    for name, service in config.services.items():
        yield from _client(("services", name, "tls"), service.tls, now)
        for pool_name, pool in service.pools.items():
            for index, target in enumerate(pool.targets):
                yield from _client(("services", name, "pools", pool_name, "targets", index, "tls"), target.tls, now)


def access_log_warnings(config: Config) -> Iterator[Warned]:
    """The log must be a file that lb may append to, or make; lb makes the state directory by itself, no other one.

    Requests are served without it, so this is no error.
    """
    log = config.access_log
    path, folder = FilePath(log.path), FilePath(log.path).parent
    if log.format == "off" or log.path == "-" or folder == FilePath(config.state_dir):
        return
    if path.is_dir():
        why, remedy = "it is a directory", "Name a file in it."
    elif path.exists():
        if os.access(path, os.W_OK):
            return
        why, remedy = "it cannot be written", f"Give lb's user the right: chown, or chmod u+w {path}."
    elif not folder.is_dir():
        why, remedy = f"there is no directory {folder}", f"Make it: mkdir -p {folder}"
    elif not os.access(folder, os.W_OK | os.X_OK):
        why, remedy = f"{folder} is not writable", "Give lb's user the right."
    else:
        return
    yield (
        "access-log-unwritable",
        ("access_log", "path"),
        f"no line of the access log {path} will be kept: {why}",
        remedy,
    )


def _client(at: Path, tls: ClientTls | None, now: float) -> Iterator[Warned]:
    if tls is not None and tls.cert_file is not None and tls.key_file is not None:
        yield from _dates((*at, "cert_file"), tls.cert_file, now)
        yield from _mode((*at, "key_file"), tls.key_file, "the key")


def _dates(at: Path, file: str, now: float) -> Iterator[Warned]:
    certificate = certificates.read(file)
    if certificate is None:
        return
    if certificate.not_after <= now:
        yield (
            "certificate-expired",
            at,
            f"the certificate in {file} ended on {_day(certificate.not_after)}: clients refuse it",
            "Renew it, then `lb reload`.",
        )
    elif certificate.not_before > now:
        yield (
            "certificate-early",
            at,
            f"the certificate in {file} is valid from {_day(certificate.not_before)} on: clients refuse it until then",
            "Look at the clock of this machine, and of the one that issued it.",
        )
    elif certificate.not_after - now < SOON:
        yield (
            "certificate-ends-soon",
            at,
            f"the certificate in {file} ends on {_day(certificate.not_after)}",
            "Renew it, then `lb reload`.",
        )


def _names(config: Config, served: list[Certificate]) -> Iterator[Warned]:
    for index, route in enumerate(config.routes):
        host = route.host
        if not host or host.startswith("["):
            continue
        if not any(host in one.names if host.startswith("*.") else one.covers(host) for one in served):
            listed = ", ".join(dict.fromkeys(name for one in served for name in one.names)) or "none"
            yield (
                "certificate-lacks-name",
                ("routes", index, "host"),
                f"no listener's certificate covers {host}: browsers refuse it",
                f"Names of the certificates: {listed}.",
            )


def _mode(at: Path, file: str, what: str) -> Iterator[Warned]:
    try:
        mode = stat.S_IMODE(FilePath(file).stat().st_mode)
    except OSError:
        return
    if mode & 0o037:
        yield (
            "file-too-open",
            at,
            f"{what} in {file} has mode {mode:04o}: other users of this machine may {_verb(mode)} it",
            f"chmod 600 {file}",
        )


def _verb(mode: int) -> str:
    return "change" if mode & 0o022 else "read"


def _day(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()
