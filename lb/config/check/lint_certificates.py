"""Faults of certificates that are valid today: dates, names, chains, and files that belong to no pair.

The caller passes the time, in seconds since the epoch. Pairs that cannot be used at all are errors, found by `files`;
but one of a directory takes no other one along, so it is a warning.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath

from lb.config.certificate_sources import list_directory
from lb.config.check import certificates
from lb.config.check.certificates import SOON, Leaf
from lb.config.check.file_modes import mode
from lb.config.check.lint_checks import Warned
from lb.config.model.config import Config
from lb.config.model.listeners import CertificateSource, ServerTls
from lb.config.resolve import internal_names
from lb.config.yaml.tree import Path
from lb.core.certificates import Certificate, CertificateTable, TlsServer, covers, folded


@dataclass(frozen=True, slots=True)
class _Found:
    """A certificate that a listener serves, and the setting that it is from."""

    path: Path
    cert_file: str
    leaf: Leaf


def warnings(config: Config, now: float) -> Iterator[Warned]:
    """All warnings about listeners' certificates."""
    served: list[_Found] = []
    plain = False
    expected: list[str] = []  # names whose certificates lb orders or makes: they may not be on the disk yet
    for index, listener in enumerate(config.listeners):
        if listener.tls is None:
            plain = plain or listener.redirect is None
            continue
        at: Path = ("listeners", index, "tls")
        found: list[_Found] = []
        ordered: list[str] = []
        for position, source in enumerate(listener.tls.sources()):
            ordered += _ordered(source, config)
            path = (*at, *listener.tls.source_path(position))
            if source.cert_file is not None and source.key_file is not None:
                found += _served((*path, "cert_file"), source.cert_file)
                yield from mode((*path, "key_file"), source.key_file, "the key")
            elif source.directory is not None:
                yield from _strays((*path, "directory"), source.directory)
                for cert_file, key_file in _pairs(source.directory):
                    found += _served((*path, "directory"), cert_file)
                    yield from mode((*path, "directory"), key_file, "the key")
        for each in found:
            yield from dates(each.path, each.cert_file, now)
            yield from _chain(each)
        yield from _twice(found, now)
        yield from _default(at, listener.tls, [each.leaf for each in found], ordered)
        served += found
        expected += ordered
    if (served or expected) and not plain:
        yield from _names(config, [each.leaf for each in served], expected)


def _ordered(source: CertificateSource, config: Config) -> list[str]:
    """The names that a source has certificates of an authority for, or will have."""
    if source.acme is None and source.authority is None:
        return []
    return source.names or list(internal_names(config))


def _served(path: Path, cert_file: str) -> list[_Found]:
    leaf = certificates.read(cert_file)
    return [_Found(path, cert_file, leaf)] if leaf is not None else []


def _pairs(directory: str) -> tuple[tuple[str, str], ...]:
    try:
        return list_directory(directory).pairs
    except OSError:
        return ()


def _strays(at: Path, directory: str) -> Iterator[Warned]:
    try:
        listing = list_directory(directory)
    except OSError:
        return
    for file, why in listing.strays:
        yield "certificate-stray", at, f"{file} is not served: {why}", "Complete the pair, or move the file away."
    for cert_file, key_file in listing.pairs:
        fault = _fault(cert_file, key_file)
        if fault:
            yield "certificate-unusable", at, f"{fault}: it is not served", "Give the pair that belongs together."
    if not listing.pairs:
        yield "certificate-none", at, f"there is no certificate in {directory}", "Put NAME.pem and NAME.key into it."


def _fault(cert_file: str, key_file: str) -> str:
    try:
        fault = certificates.pair_fault(cert_file, key_file)
    except OSError as error:
        return f"{error.filename} cannot be read: {(error.strerror or str(error)).lower()}"
    if fault is not None:
        return fault[1]
    from lb.net.tls import contexts  # slow to import, and most files name no directory

    reason = contexts.pair_error(cert_file, key_file)
    if reason == "KEY_VALUES_MISMATCH":
        return f"{key_file} is not the key of {cert_file}"
    return f"{cert_file} and {key_file} cannot be used: {contexts.in_words(reason)}" if reason else ""


def _chain(found: _Found) -> Iterator[Warned]:
    try:
        chain = certificates.chain(FilePath(found.cert_file).read_bytes())
    except OSError:
        return
    if chain is not None and chain.fault:
        yield (
            "certificate-chain",
            found.path,
            f"the chain in {found.cert_file} is not complete: {chain.fault}. Some clients refuse it",
            "After the certificate comes its issuer's, and so on, without the root: often called fullchain.pem.",
        )


def _twice(found: list[_Found], now: float) -> Iterator[Warned]:
    """Names of two certificates with keys of the same algorithm."""
    values = [
        Certificate(each.cert_file, "", 0, leaf.names, leaf.algorithm, leaf.not_before, leaf.not_after)
        for each in found
        for leaf in (each.leaf,)
    ]
    table = CertificateTable(TlsServer(certificates=tuple(values)), now)
    for each, value in zip(found, values, strict=True):
        for name in value.names:
            chosen = next((one for one in table.names()[folded(name)] if one.algorithm == value.algorithm), None)
            if chosen is not None and chosen != value:
                yield (
                    "certificate-twice",
                    each.path,
                    f"{name} has another certificate, {chosen.cert_file}, which ends later or comes first: "
                    f"{each.cert_file} is not served for it",
                    "Remove one of them.",
                )


def _default(at: Path, tls: ServerTls, served: list[Leaf], ordered: list[str]) -> Iterator[Warned]:
    if tls.default and (served or ordered) and not _is_covered(tls.default, served, ordered):
        yield (
            "certificate-no-default",
            (*at, "default"),
            f"no certificate covers {tls.default}: clients that name no host are refused",
            f"Names of the certificates: {_listed(served, ordered)}.",
        )


def dates(at: Path, file: str, now: float) -> Iterator[Warned]:
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


def _names(config: Config, served: list[Leaf], ordered: list[str]) -> Iterator[Warned]:
    for index, route in enumerate(config.routes):
        host = route.for_host()
        if not host or host.startswith("["):
            continue
        if not _is_covered(host, served, ordered):
            yield (
                "certificate-lacks-name",
                ("routes", index, "host") if route.host else ("routes", index, "match", "host"),
                f"no listener's certificate covers {host}: browsers refuse it",
                f"Names of the certificates: {_listed(served, ordered)}.",
            )


def _is_covered(host: str, served: list[Leaf], ordered: list[str]) -> bool:
    """Whether a certificate covers a host; one for a wildcard covers a route's wildcard."""
    names = [*(name for one in served for name in one.names), *map(folded, ordered)]
    return host in names if host.startswith("*.") else any(covers(name, folded(host)) for name in names)


def _listed(served: list[Leaf], ordered: list[str]) -> str:
    names = list(dict.fromkeys([*(name for one in served for name in one.names), *ordered]))
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (", ".join(names[:10]) or "none") + more


def _day(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()
