"""Whether the files that a configuration names can be used: certificates, keys, authorities, the admin token.

Looked at while loading, so that a reload with a wrong certificate is refused whole instead of breaking a listener.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path as FilePath

from lb.config.certificate_sources import list_directory
from lb.config.check import acme, certificates, error_pages, step_files, tls_policies
from lb.config.check.consistency import Finding
from lb.config.model.checks import ClientTls
from lb.config.model.config import Config
from lb.config.model.listeners import ClientAuth, ServerTls
from lb.config.model.merging import merged_checks
from lb.config.yaml.tree import Path

SHORTEST_TOKEN = 16


def errors(config: Config, served: Collection[tuple[str, str]] = ()) -> Iterator[Finding]:
    """`served`: certificates of listeners, as files of certificate and key, that are served on when they are broken."""
    for index, listener in enumerate(config.listeners):
        if listener.tls is not None:
            yield from _listener(("listeners", index, "tls"), listener.tls, served)
    if config.acme:
        yield from acme.file_errors(config)
    if config.admin.tls is not None:
        yield from _pair(("admin", "tls"), config.admin.tls.cert_file, config.admin.tls.key_file)
    yield from _tokens(config)
    yield from step_files.errors(config)
    yield from error_pages.errors(config)
    for name, service in config.services.items():
        place: Path = ("services", name)
        if service.tls is not None:
            yield from _client((*place, "tls"), service.tls)
        for pool_name, pool in service.pools.items():
            for index, target in enumerate(pool.targets):
                if target.tls is not None:
                    yield from _client((*place, "pools", pool_name, "targets", index, "tls"), target.tls)
            for kind, settings in pool.discover.over_tls() if pool.discover is not None else ():
                yield from _client((*place, "pools", pool_name, "discover", kind, "tls"), settings)
        for path, check in merged_checks(place, service):
            if check.tls is not None and "tls" in check.model_fields_set:
                yield from _client((*path, "tls"), check.tls)


def _listener(at: Path, tls: ServerTls, served: Collection[tuple[str, str]]) -> Iterator[Finding]:
    for position, source in enumerate(tls.sources()):
        path = (*at, *tls.source_path(position))
        if source.cert_file is not None and source.key_file is not None:
            if (source.cert_file, source.key_file) not in served:
                yield from _pair(path, source.cert_file, source.key_file)
        elif source.directory is not None:
            try:
                list_directory(source.directory)
            except OSError as error:
                if not any(FilePath(cert).parent == FilePath(source.directory) for cert, _ in served):
                    reason = (error.strerror or str(error)).lower()
                    message = f"certificates cannot be read from {source.directory}: {reason}"
                    yield (*path, "directory"), message, "Relative paths begin at this file's folder."
        if source.client is not None:
            yield from _clients((*path, "client"), source.client)
    yield from _authorities((*at, "client_ca_file"), tls.client_ca_file)
    if tls.client is not None:
        yield from _clients((*at, "client"), tls.client)
    yield from tls_policies.errors(at, tls)


def _clients(at: Path, client: ClientAuth) -> Iterator[Finding]:
    if client.mode == "off":
        return
    yield from _authorities((*at, "ca_file"), client.ca_file)
    if client.crl_file is not None:
        yield from _lists((*at, "crl_file"), client.crl_file)


def _lists(at: Path, file: str) -> Iterator[Finding]:
    unread = list(_unreadable(at, file, "the revocation lists"))
    if unread:
        yield from unread
        return
    if b"BEGIN X509 CRL" not in FilePath(file).read_bytes():
        hint = f"Write it as PEM: openssl crl -inform DER -in {file} -out FILE"
        yield at, f"{file} holds no revocation list in PEM form", hint
        return
    from lb.net.tls import contexts

    reason = contexts.authorities_error(file)
    if reason:
        yield at, f"{file} holds no revocation list: {contexts.in_words(reason)}", "It must be a PEM file."


def _client(at: Path, settings: ClientTls) -> Iterator[Finding]:
    if settings.cert_file is not None and settings.key_file is not None:
        yield from _pair(at, settings.cert_file, settings.key_file)
    yield from _authorities((*at, "ca_file"), settings.ca_file)


def _pair(at: Path, cert_file: str, key_file: str) -> Iterator[Finding]:
    unread = [
        *_unreadable((*at, "cert_file"), cert_file, "the certificate"),
        *_unreadable((*at, "key_file"), key_file, "the key"),
    ]
    if unread:
        yield from unread
        return
    fault = certificates.pair_fault(cert_file, key_file)
    if fault is not None:
        key, message, hint = fault
        yield (*at, key), message, hint
        return
    from lb.net.tls import contexts  # slow to import (asyncio, ssl), and most files name no certificate

    reason = contexts.pair_error(cert_file, key_file)
    if reason == "KEY_VALUES_MISMATCH":
        yield (*at, "key_file"), f"{key_file} is not the key of {cert_file}", "Give the pair that belongs together."
    elif reason:
        hint = "Both must be PEM files; the key must have no passphrase."
        yield (*at, "cert_file"), f"{cert_file} and {key_file} cannot be used: {contexts.in_words(reason)}", hint


def _authorities(at: Path, file: str | None) -> Iterator[Finding]:
    if file is None:
        return
    unread = list(_unreadable(at, file, "the authorities"))
    if unread:
        yield from unread
        return
    from lb.net.tls import contexts

    reason = contexts.authorities_error(file)
    if reason:
        yield at, f"{file} holds no certificates: {contexts.in_words(reason)}", "It must be a PEM file."


def _tokens(config: Config) -> Iterator[Finding]:
    seen: dict[str, str] = {}  # token → file
    for place, file in config.admin.token_files():
        at: Path = ("admin", *place)
        wrong = list(_token(at, file))
        yield from wrong
        if wrong:
            continue
        with contextlib.suppress(OSError):
            other = seen.setdefault(FilePath(file).read_text().strip(), file)
            if other != file:
                yield at, f"{file} holds the same token as {other}", "Each token belongs to one name: make another one."


def _token(at: Path, file: str) -> Iterator[Finding]:
    unread = list(_unreadable(at, file, "the token"))
    if unread:
        yield from unread
        return
    try:
        token = FilePath(file).read_text().strip()
    except (OSError, UnicodeDecodeError):
        yield at, f"{file} is not a text file", "Put one line with the token into it."
        return
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        yield (
            at,
            f"{file} must hold one token of at least {SHORTEST_TOKEN} printable characters, without spaces",
            "Make one: head -c 24 /dev/urandom | base64",
        )


def _unreadable(at: Path, file: str, what: str) -> Iterator[Finding]:
    try:
        with FilePath(file).open("rb") as stream:
            stream.read(1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        yield at, f"{what} cannot be read from {file}: {reason}", "Relative paths begin at this file's folder."
