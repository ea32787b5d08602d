"""A certificate file's contents: its names, when it is valid, its chain, and why it and its key cannot be used.

The `ssl` module reads such files without saying what is in them, so `cryptography` reads them once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lb.core.certificates import covers, folded

if TYPE_CHECKING:
    from cryptography import x509

#: Seconds before its end from which a certificate is worth a warning. ACME clients renew at a third of 90 days.
SOON = 14 * 86400.0


@dataclass(frozen=True, slots=True)
class Leaf:
    """The first certificate of a file. Times are seconds since the epoch; names are lower-case, as in its SAN."""

    not_before: float
    not_after: float
    names: tuple[str, ...]
    algorithm: str = ""  # of its key: ecdsa | rsa | ed25519 | …

    def covers(self, host: str) -> bool:
        """Whether a name is covered: exactly, or by a wildcard for one label (RFC 9525 section 6.3)."""
        return any(covers(name, folded(host)) for name in self.names)


@dataclass(frozen=True, slots=True)
class Link:
    """One certificate of a chain, for people."""

    subject: str
    issuer: str
    not_after: float


@dataclass(frozen=True, slots=True)
class Chain:
    """The certificates of a file, in its order, and what is wrong with their order."""

    links: tuple[Link, ...]
    fault: str = ""  # empty: each certificate is followed by its issuer, up to one that clients may have


def read(file: str) -> Leaf | None:
    """The first certificate of a PEM file; None: there is none that can be read."""
    try:
        return parse(Path(file).read_bytes())
    except OSError:
        return None


def parse(data: bytes) -> Leaf | None:
    """The first certificate of a PEM text; None: there is none that can be read."""
    from cryptography import x509  # large, and most files name no certificate

    try:
        leaf = x509.load_pem_x509_certificates(data)[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        listed: tuple[str, ...] = ()
    except ValueError:
        return None
    else:
        hosts = names.get_values_for_type(x509.DNSName)
        addresses = names.get_values_for_type(x509.IPAddress)
        listed = (*(name.lower() for name in hosts), *(str(address) for address in addresses))
    times = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    return Leaf(*times, listed, _algorithm(leaf))


def _algorithm(leaf: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    key = leaf.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "ecdsa"
    return "rsa" if isinstance(key, rsa.RSAPublicKey) else type(key).__name__.removesuffix("PublicKey").lower()


def chain(data: bytes) -> Chain | None:
    """The chain of a PEM text; None: it cannot be read."""
    from cryptography import x509

    try:
        certificates = x509.load_pem_x509_certificates(data)
    except ValueError:
        return None
    links = (
        Link(each.subject.rfc4514_string(), each.issuer.rfc4514_string(), each.not_valid_after_utc.timestamp())
        for each in certificates
    )
    return Chain(tuple(links), _chain_fault(certificates))


def _chain_fault(certificates: list[x509.Certificate]) -> str:
    current, rest = certificates[0], certificates[1:]
    while current.subject != current.issuer:
        issuer = current.issuer.rfc4514_string()
        position = next((at for at, each in enumerate(rest) if _issued(current, each)), None)
        if position is None:
            if rest:
                return f"the certificate of {issuer} is missing before {rest[0].subject.rfc4514_string()}"
            return f"the certificate of {issuer} is missing" if _has_public_issuer(current) else ""
        if position:
            return f"{rest[0].subject.rfc4514_string()} stands before the certificate of {issuer}: the order is wrong"
        current = rest.pop(0)
    return f"{rest[0].subject.rfc4514_string()} does not belong to the chain" if rest else ""


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if certificate.issuer != issuer.subject:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # another key of the same name, or an algorithm that this library does not know
        return False
    return True


def _has_public_issuer(certificate: x509.Certificate) -> bool:
    """Whether its issuer is one that clients do not have by themselves.

    An authority of one's own is often a root that signs by itself, and a file without it is complete. Public
    authorities sign with intermediate ones, and their certificates say where the issuer's is to be had."""
    from cryptography import x509
    from cryptography.x509.oid import AuthorityInformationAccessOID

    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return any(each.access_method == AuthorityInformationAccessOID.CA_ISSUERS for each in access)


def pair_fault(cert_file: str, key_file: str) -> tuple[str, str, str] | None:
    """(key of the setting, what is wrong, what to do) of a pair that cannot be used, judged by its text alone."""
    return contents_fault(cert_file, key_file, Path(cert_file).read_bytes(), Path(key_file).read_bytes())


def contents_fault(cert_file: str, key_file: str, cert: bytes, key: bytes) -> tuple[str, str, str] | None:
    """As `pair_fault`, of contents that were read."""
    if b"PRIVATE KEY-----" in cert and b"BEGIN CERTIFICATE" not in cert and b"BEGIN CERTIFICATE" in key:
        return "cert_file", f"{cert_file} is a key, and {key_file} a certificate", "Swap `cert_file` and `key_file`."
    if b"BEGIN CERTIFICATE" not in cert:
        hint = f"Write it as PEM: openssl x509 -inform DER -in {cert_file} -out FILE"
        return "cert_file", f"{cert_file} holds no certificate in PEM form", hint
    if b"PRIVATE KEY-----" not in key:
        hint = f"Write it as PEM: openssl pkey -inform DER -in {key_file} -out FILE"
        return "key_file", f"{key_file} holds no private key in PEM form", hint
    if b"ENCRYPTED" in key:
        hint = f"Write it without: openssl pkey -in {key_file} -out FILE; chmod 600 FILE"
        return "key_file", f"{key_file} has a passphrase, and nobody can type it in when lb starts", hint
    return None
