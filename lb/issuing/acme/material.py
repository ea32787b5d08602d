"""The keys, requests and certificates of ACME, as PEM and DER. Pure, but for the random numbers of a new key.

Keys are ECDSA P-256: every client of the last ten years has it, and a handshake costs a fraction of RSA's.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lb.issuing.acme import jose

#: `id-pe-acmeIdentifier` of RFC 8737.
ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")


class Unusable(Exception):  # noqa: N818 - it says what the certificate is
    """A certificate that an authority has sent, or that is on the disk, and cannot be served; the text says why."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What lb has to know about a certificate. Times are Unix times."""

    names: frozenset[str]
    not_before: float
    not_after: float
    issuer: str
    ari_id: str  # of RFC 9773; empty: it names no key of its issuer


def new_key() -> str:
    """A private key as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem.decode()


def signing_request(key: str, names: Sequence[str]) -> bytes:
    """DER. The common name stays empty: it is deprecated, and holds 64 characters at most."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
    request = builder.sign(_private(key), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def facts(chain: bytes, key: str | None = None) -> Facts:
    """Of the first certificate of a PEM chain. Raises `Unusable`, also where `key` is not the certificate's."""
    try:
        leaf = x509.load_pem_x509_certificate(chain)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issuer = leaf.issuer.rfc4514_string()
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise Unusable(f"not a certificate with names: {error}") from None
    if key is not None and _spki(leaf.public_key()) != _spki(_private(key).public_key()):
        raise Unusable("the certificate is for another key")
    return Facts(
        frozenset(name.lower() for name in names.get_values_for_type(x509.DNSName)),
        leaf.not_valid_before_utc.timestamp(),
        leaf.not_valid_after_utc.timestamp(),
        issuer,
        _ari_id(leaf),
    )


def challenge_certificate(name: str, key_authorization: str, now: datetime | None = None) -> bytes:
    """Key and certificate for TLS-ALPN-01 (RFC 8737), as one PEM text. It is valid for a week: an authority looks at
    nothing but the name and the digest."""
    now = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    digest = hashlib.sha256(key_authorization.encode()).digest()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lb ACME challenge")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        # The value is an OCTET STRING of 32 bytes, in DER.
        .add_extension(x509.UnrecognizedExtension(ACME_IDENTIFIER, b"\x04\x20" + digest), True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem + certificate.public_bytes(serialization.Encoding.PEM)


def readable(expiry: float) -> str:
    """A Unix time for people, in UTC."""
    return datetime.fromtimestamp(expiry, UTC).strftime("%Y-%m-%d %H:%M UTC")


def pem_only(chain: bytes) -> bytes:
    """The certificates of an answer, without anything around them. Raises `Unusable` where there is none."""
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    found = []
    for piece in chain.split(begin)[1:]:
        body, closed, _ = piece.partition(end)
        if not closed:
            raise Unusable("the chain breaks off in a certificate")
        pem = begin + body + end + b"\n"
        try:
            ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
        except ValueError as error:  # UnicodeDecodeError and binascii.Error are such errors
            raise Unusable(f"not a chain of certificates: {error}") from None
        found.append(pem)
    if not found:
        raise Unusable("no certificate is in it")
    return b"".join(found)


def _ari_id(leaf: x509.Certificate) -> str:
    """RFC 9773 section 4.1: the issuer's key identifier and the serial number's DER bytes."""
    try:
        issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except (x509.ExtensionNotFound, ValueError):
        return ""
    serial = leaf.serial_number
    octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big")  # a leading zero where the first bit is set
    return f"{jose.encode(issuer)}.{jose.encode(octets)}" if issuer else ""


def _private(key: str) -> ec.EllipticCurvePrivateKey:
    """Raises `Unusable`."""
    try:
        loaded = serialization.load_pem_private_key(key.encode(), None)
    except (ValueError, TypeError) as error:
        raise Unusable(f"not a private key: {error}") from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise Unusable("not an ECDSA key")
    return loaded


def _spki(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined,no-any-return]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
