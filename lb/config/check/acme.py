"""Errors and warnings about certificates that lb orders by itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path as FilePath
from urllib.parse import urlsplit

from lb.config.check.file_modes import mode
from lb.config.check.lint_checks import Warned
from lb.config.check.messages import did_you_mean
from lb.config.model.addresses import parse_bind
from lb.config.model.config import Config
from lb.config.yaml.tree import Path

#: (path, message, hint) of an error.
Finding = tuple[Path, str, str]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ADDRESS = re.compile(r"[0-9.]+|\[.*\]")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
#: Where an authority asks, by the kind of challenge.
_PORTS = {"http-01": 80, "tls-alpn-01": 443}


def errors(config: Config, known: Collection[str] = ()) -> Iterator[Finding]:
    """Authorities that are not defined, names that they cannot vouch for, addresses that are not safe. `known`: names
    of authorities as they stand in the file, also where their definition is broken."""
    defined = {*config.acme, *known}
    for at, name, names in _sources(config):
        if name not in defined:
            hint = did_you_mean(name, defined) or "Define it: `acme: {NAME: {email: …}}`."
            yield (*at, "acme"), f"there is no acme entry {name!r}", hint
        for index, host in enumerate(names):
            if host.startswith("*."):
                message = f"{host}: a wildcard needs a dns-01 challenge, which lb does not answer"
                yield (*at, "names", index), message, "Name the hosts, or take its certificate from files."
            elif _ADDRESS.fullmatch(host):
                message = f"{host}: certificates are ordered for host names, not for addresses"
                yield (*at, "names", index), message, "Use `internal`, or a certificate from files."
    for name, entry in config.acme.items():
        at = ("acme", name)
        for key in ("directory", "staging"):
            url = getattr(entry, key)
            parts = urlsplit(url or "")
            if url is not None and parts.scheme != "https" and parts.hostname not in _LOOPBACK:
                message = f"{url}: an authority is spoken to over https"
                yield (*at, key), message, "Write https://…; plain http is for tests at a loopback address."
        if entry.email and not _EMAIL.fullmatch(entry.email):
            yield (*at, "email"), f"{entry.email!r} is not an e-mail address", "NAME@HOST"


def file_errors(config: Config) -> Iterator[Finding]:
    """Files of authorities that cannot be used."""
    from lb.net.tls import contexts

    for name, entry in config.acme.items():
        at = ("acme", name)
        if entry.ca_file is not None and (reason := contexts.authorities_error(entry.ca_file)):
            message = f"{entry.ca_file} holds no authorities: {contexts.in_words(reason).lower()}"
            yield (*at, "ca_file"), message, "It must be a PEM file."
        if entry.eab is not None:
            yield from _key(("acme", name, "eab", "key_file"), entry.eab.key_file)


def _key(at: Path, file: str) -> Iterator[Finding]:
    try:
        text = FilePath(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        yield at, f"the key cannot be read from {file}: {reason.lower()}", "Relative paths begin at this file's folder."
        return
    if not re.fullmatch(r"[A-Za-z0-9_-]+={0,2}", text):
        yield at, f"{file} does not hold a key as base64url text", "Put the authority's HMAC key there, on one line."


def warnings(config: Config) -> Iterator[Warned]:
    """Settings with which no certificate may come."""
    used = {name for _, name, _ in _sources(config)}
    for name, entry in config.acme.items():
        if name not in used:
            message = f"no listener takes certificates from {name}"
            yield "acme-unused", ("acme", name), message, f"`tls: {{certificates: [{{acme: {name}, names: […]}}]}}`"
            continue
        port = _PORTS[entry.challenge]
        fitting = (each for each in config.listeners if (each.tls is None) == (entry.challenge == "http-01"))
        if not any(parse_bind(each.bind).port == port for each in fitting):
            kind = "plain" if port == 80 else "TLS"
            yield (
                "acme-port",
                ("acme", name),
                f"the authority asks at port {port} ({entry.challenge}), and no {kind} listener has it",
                f"Add a listener for it, unless port {port} is forwarded to one of them.",
            )
        if entry.eab is not None:
            yield from mode(("acme", name, "eab", "key_file"), entry.eab.key_file, "the key")


def _sources(config: Config) -> Iterator[tuple[Path, str, list[str]]]:
    """(path, authority, names) of each source that is an ACME authority."""
    for index, listener in enumerate(config.listeners):
        if listener.tls is None:
            continue
        for position, source in enumerate(listener.tls.sources()):
            if source.acme is not None:
                at: Path = ("listeners", index, "tls", *listener.tls.source_path(position))
                yield at, source.acme, source.names
