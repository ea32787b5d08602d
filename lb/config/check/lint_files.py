"""Faults of the files that a configuration names which are valid today: dates, names and modes.

The caller passes the time, in seconds since the epoch. Files that cannot be read at all are errors, found by `files`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path as FilePath

from lb.config.check import acme, lint_certificates
from lb.config.check.file_modes import mode, modes_of_admin
from lb.config.check.lint_checks import Warned
from lb.config.model.checks import ClientTls
from lb.config.model.config import Config
from lb.config.yaml.tree import Path


def warnings(config: Config, now: float) -> Iterator[Warned]:
    """All warnings about certificates, keys, tokens and secrets."""
    yield from lint_certificates.warnings(config, now)
    yield from acme.warnings(config)
    yield from access_log_warnings(config)
    if config.admin.tls is not None:
        yield from lint_certificates.dates(("admin", "tls", "cert_file"), config.admin.tls.cert_file, now)
    yield from modes_of_admin(config)
    for name, service in config.services.items():
        yield from _client(("services", name, "tls"), service.tls, now)
        if service.affinity is not None:
            yield from mode(("services", name, "affinity", "secret_file"), service.affinity.secret_file, "the secret")
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
        yield from lint_certificates.dates((*at, "cert_file"), tls.cert_file, now)
        yield from mode((*at, "key_file"), tls.key_file, "the key")
