"""A listener's TLS as values, and which certificate a name gets. Pure.

A name is compared in lower case and without its trailing dot. A certificate that names it exactly comes before one
that covers it by a wildcard, and a wildcard stands for one label (RFC 9525 section 6.3). Of several certificates with
the same name, each key algorithm has one: OpenSSL takes the one that the client can verify. Of several with the same
algorithm, the one that is valid now and ends last is chosen; of equal ones, the first of the file. So the choice is
the same in every worker and at every start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

#: Reasons of a choice.
EXACT = "exact"
WILDCARD = "wildcard"
DEFAULT = "default"  # the certificate that `default` names
FIRST = "first"  # there is no `default`: the first certificate of the file

OFF = "off"
OPTIONAL = "optional"
REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Source:
    """Where certificates come from: a pair of files, a directory of pairs, an ACME account, or lb's own authority."""

    cert_file: str = ""
    key_file: str = ""
    directory: str = ""
    acme: str = ""  # the account's name
    internal: bool = False
    names: tuple[str, ...] = ()  # what to ask the ACME server or the authority for
    stored: tuple[str, ...] = ()  # for each name, the file in which lb keeps the certificate with its key
    min_version: str = ""  # empty: the listener's
    client: ClientAuth | None = None  # None: the listener's

    def __str__(self) -> str:
        if self.acme:
            return f"acme {self.acme}"
        return "internal" if self.internal else self.directory or self.cert_file


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key. `names` are its SAN's host names and addresses; times are seconds since the epoch."""

    cert_file: str
    key_file: str
    source: int = field(default=0, compare=False)  # the position of its source; the same files are the same everywhere
    names: tuple[str, ...] = ()
    algorithm: str = ""  # of its key: ecdsa | rsa | ed25519 | …
    not_before: float = 0.0
    not_after: float = 0.0
    digests: tuple[str, ...] = ()  # of the contents of both files

    def is_valid(self, now: float) -> bool:
        return self.not_before <= now < self.not_after


@dataclass(frozen=True, slots=True)
class ClientAuth:
    """Whether clients show a certificate, and which authorities' ones are accepted."""

    mode: str = OFF  # off | optional | required
    ca_file: str = ""
    crl_file: str = ""
    digests: tuple[str, ...] = ()  # of the contents of both files


@dataclass(frozen=True, slots=True)
class Policy:
    """What a handshake demands, whichever certificate it shows."""

    min_version: str = "1.2"
    client: ClientAuth = ClientAuth()
    alpn: tuple[str, ...] = ("http/1.1",)


@dataclass(frozen=True, slots=True)
class TlsServer:
    """How a listener speaks TLS."""

    sources: tuple[Source, ...] = ()
    default: str = ""  # the name whose certificate is for clients that name no host, or an unknown one
    strict_sni: bool = False  # clients that name an unknown host are refused
    min_version: str = "1.2"
    client: ClientAuth = ClientAuth()
    client_fields: tuple[tuple[str, str], ...] = ()  # names of fields with a client's identity → kind of their values
    certificates: tuple[Certificate, ...] = ()  # the contents of the sources, in their order
    alpn: tuple[str, ...] = ("http/1.1",)  # the protocols to choose from, the preferred one first

    def policy(self) -> Policy:
        """Of names whose source has no policy of its own."""
        return Policy(self.min_version, self.client, self.alpn)

    def policy_of(self, certificate: Certificate) -> Policy:
        """Of the names of a certificate."""
        if certificate.source >= len(self.sources):
            return self.policy()
        source = self.sources[certificate.source]
        client = self.client if source.client is None else source.client
        return Policy(source.min_version or self.min_version, client, self.alpn)

    def clients(self) -> list[ClientAuth]:
        """How clients are verified: as the listener says, and as its sources do."""
        return [self.client, *(source.client for source in self.sources if source.client is not None)]


def digests_of(tls: TlsServer) -> set[str]:
    """Of the contents of a listener's TLS files."""
    found = {digest for each in tls.certificates for digest in each.digests}
    return found.union(*(client.digests for client in tls.clients())) - {""}


@dataclass(frozen=True, slots=True)
class Choice:
    """What a name gets: one certificate for each key algorithm, and why."""

    certificates: tuple[Certificate, ...]
    reason: str  # EXACT | WILDCARD | DEFAULT | FIRST
    matched: str = ""  # the certificate's name that fits; empty: none does
    policy: Policy = Policy()


def folded(name: str) -> str:
    """A host name as it is compared."""
    return name.strip().rstrip(".").lower()


def covers(pattern: str, name: str) -> bool:
    """Whether a certificate's name covers a folded host name."""
    return pattern == name or (pattern.startswith("*.") and pattern[2:] == name.partition(".")[2] and "." in name)


class CertificateTable:
    """The choice among a listener's certificates, as of `now`."""

    def __init__(self, tls: TlsServer, now: float) -> None:
        self._strict = tls.strict_sni
        # A name that lb has ordered a certificate for must not get another name's meanwhile: browsers would warn.
        self._ordered = {folded(name) for source in tls.sources for name in source.names}
        by_name: dict[str, list[Certificate]] = {}
        for certificate in tls.certificates:
            for name in certificate.names:
                by_name.setdefault(folded(name), []).append(certificate)
        self._tls = tls
        # Two policies for one name are an error of the file. Where they come later, by a renewed certificate, the name
        # is refused: neither policy may stand for the other.
        self._refused = {name for name, found in by_name.items() if len({tls.policy_of(each) for each in found}) > 1}
        self._by_name = {name: preferred(found, now) for name, found in by_name.items() if name not in self._refused}
        self._default = self._named_default(tls)

    def _named_default(self, tls: TlsServer) -> Choice | None:
        if tls.default:
            found = self._matching(folded(tls.default))
            return Choice(found.certificates, DEFAULT, found.matched, found.policy) if found is not None else None
        if tls.strict_sni or not tls.certificates:
            return None
        first = tls.certificates[0]
        twins = next((each for each in self._by_name.values() if first in each), (first,))
        return None if self._refused.intersection(map(folded, first.names)) else self._choice(twins, FIRST, "")

    def _choice(self, certificates: tuple[Certificate, ...], reason: str, matched: str) -> Choice:
        return Choice(certificates, reason, matched, self._tls.policy_of(certificates[0]))

    def choose(self, server_name: str | None) -> Choice | None:
        """What a client gets that asks for `server_name` (None: it names no host). None: it is refused."""
        name = folded(server_name or "")
        if not name:
            return self._default
        found = self._matching(name)
        refused = self._strict or name in self._ordered or not self._refused.isdisjoint((name, _wildcard(name)))
        return found if found is not None or refused else self._default

    def _matching(self, name: str) -> Choice | None:
        exact = self._by_name.get(name)
        if exact is not None:
            return self._choice(exact, EXACT, name)
        wildcard = _wildcard(name)
        found = self._by_name.get(wildcard) if name not in self._refused else None
        return self._choice(found, WILDCARD, wildcard) if found is not None else None

    def names(self) -> dict[str, tuple[Certificate, ...]]:
        """Every name that has a certificate, in the file's order, with the certificates that are chosen for it."""
        return self._by_name

    def choices(self) -> Iterable[tuple[tuple[Certificate, ...], Policy]]:
        """Every result that `choose` can have, each once, as certificates and policy."""
        found = [(each, self._tls.policy_of(each[0])) for each in self._by_name.values()]
        if self._default is not None:
            found.append((self._default.certificates, self._default.policy))
        return dict.fromkeys(found)


def _wildcard(name: str) -> str:
    """The wildcard that covers a name; empty: none can."""
    return f"*.{name.partition('.')[2]}" if "." in name else ""


def preferred(certificates: Sequence[Certificate], now: float) -> tuple[Certificate, ...]:
    """One certificate for each key algorithm; certificates that are not valid now count only where no other one is."""
    valid = [each for each in certificates if each.is_valid(now)] or certificates
    best: dict[str, Certificate] = {}
    for each in valid:
        known = best.get(each.algorithm)
        if known is None or each.not_after > known.not_after:
            best[each.algorithm] = each
    return tuple(best.values())
