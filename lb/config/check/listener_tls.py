"""Errors of a listener's TLS settings that need more than one field."""

from __future__ import annotations

from collections.abc import Iterator

from lb.config.model.listeners import CertificateSource, ClientAuth, ServerTls
from lb.config.yaml.tree import Path

#: (path, message, hint) of an error.
Finding = tuple[Path, str, str]

_KINDS = "cert_file with key_file, directory, acme, or authority: internal"


def errors(at: Path, tls: ServerTls) -> Iterator[Finding]:
    """Sources that are none or two, halves of pairs, and clients that nobody could verify."""
    if not tls.sources():
        yield at, "a listener with tls needs a certificate", "Add `cert_file: FILE` and `key_file: FILE`."
    for position, source in enumerate(tls.sources()):
        yield from _source((*at, *tls.source_path(position)), source)
    if tls.client is not None:
        if tls.client_ca_file is not None:
            message = "client and client_ca_file both say how clients are verified"
            yield (*at, "client_ca_file"), message, "Write `ca_file` below `client`, and remove this one."
        else:
            yield from _client((*at, "client"), tls.client)


def _client(at: Path, client: ClientAuth) -> Iterator[Finding]:
    if client.mode != "off" and client.ca_file is None:
        message = f"client: mode {client.mode} needs the authorities that clients' certificates are from"
        yield at, message, "Add `ca_file: FILE`."


def _source(at: Path, source: CertificateSource) -> Iterator[Finding]:
    pair = source.cert_file is not None or source.key_file is not None
    kinds = [
        name
        for name, given in (
            ("cert_file", pair),
            ("directory", source.directory is not None),
            ("acme", source.acme is not None),
            ("authority", source.authority is not None),
        )
        if given
    ]
    if len(kinds) != 1:
        said = f"{' and '.join(kinds)} are given" if kinds else "nothing says where its certificates come from"
        yield at, f"{said}; an entry has one source", f"Allowed: {_KINDS}."
        return
    if pair and (source.cert_file is None or source.key_file is None):
        missing = "key_file" if source.key_file is None else "cert_file"
        yield at, f"a certificate needs both files; {missing!r} is missing", f"Add `{missing}: FILE`."
    if source.names and kinds[0] in ("cert_file", "directory"):
        yield (*at, "names"), "names: these certificates have their names in them", "Remove it."
    if source.client is not None:
        yield from _client((*at, "client"), source.client)
    if kinds == ["acme"] and not source.names:
        yield at, "names is missing: an ACME server is asked for certificates by name", "Add `names: [HOST]`."
