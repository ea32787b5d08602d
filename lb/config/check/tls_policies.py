"""Rules for TLS that differ for one name: an error, since neither of them may stand for the other.

A wildcard's rule counts for each name that it covers. Otherwise a new certificate for one host would take the client
certificates away that `*.example.org` asks for, or ask clients of a public host for one.
"""

from __future__ import annotations

from collections.abc import Iterator

from lb.config.certificate_sources import list_directory
from lb.config.check import certificates
from lb.config.model.listeners import CertificateSource, ServerTls
from lb.config.yaml.tree import Path
from lb.core.certificates import folded

#: (path, message, hint) of an error.
Finding = tuple[Path, str, str]
_Rule = tuple[str, str, str | None, str | None]


def errors(at: Path, tls: ServerTls) -> Iterator[Finding]:
    """Reads the certificates where there is more than one rule, and else nothing."""
    sources = tls.sources()
    rules = [_rule(tls, source) for source in sources]
    if len(set(rules)) < 2:
        return
    seen: dict[str, tuple[int, str]] = {}
    claims = [(position, folded(name)) for position, source in enumerate(sources) for name in _names(source)]
    for position, name in claims:
        seen.setdefault(name, (position, name))
    told: set[int] = set()
    for position, name in claims:
        wildcard = f"*.{name.partition('.')[2]}"
        for other, claimed in filter(None, (seen.get(name), seen.get(wildcard))):
            if rules[other] != rules[position] and position not in told:
                told.add(position)
                where = f"`tls.{'.'.join(map(str, tls.source_path(other)))}`".replace("tls.`", "tls`")
                message = f"{name} has two rules for TLS: this one, and the one of {claimed} in {where}"
                hint = "Give both the same `client` and `min_version`, or serve them on listeners of their own."
                yield (*at, *tls.source_path(position)), message, hint


def _rule(tls: ServerTls, source: CertificateSource) -> _Rule:
    client = source.client or tls.client_auth()
    version = source.min_version or tls.min_version
    return (version, client.mode, *((client.ca_file, client.crl_file) if client.mode != "off" else (None, None)))


def _names(source: CertificateSource) -> list[str]:
    """The names of a source's certificates; of files that cannot be read, none."""
    if source.cert_file is not None:
        files = [source.cert_file]
    elif source.directory is not None:
        try:
            files = [cert for cert, _ in list_directory(source.directory).pairs]
        except OSError:
            return []
    else:
        return list(source.names)
    leaves = (certificates.read(file) for file in files)
    return [name for leaf in leaves if leaf is not None for name in leaf.names]
