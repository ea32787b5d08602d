"""Certificates of an authority of the test's own: any names, keys, times and chains."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

DAY = 86400.0
#: RSA keys are slow to make: tests share them.
_RSA: list[rsa.RSAPrivateKey] = []


def new_key(algorithm: str = "ecdsa") -> Any:
    """A private key. RSA keys are made once and shared."""
    if algorithm == "ecdsa":
        return ec.generate_private_key(ec.SECP256R1())
    if not _RSA:
        _RSA.append(rsa.generate_private_key(65537, 2048))
    return _RSA[0]


def pem_of(key: Any) -> bytes:
    """A private key's PEM, without a passphrase."""
    return bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _san(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@dataclass
class Issued:
    """A certificate with its key, and the intermediate certificates that belong to it."""

    certificate: x509.Certificate
    key: Any
    chain: list[x509.Certificate] = field(default_factory=list)

    @property
    def cert_pem(self) -> bytes:
        return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in (self.certificate, *self.chain))

    @property
    def key_pem(self) -> bytes:
        return pem_of(self.key)

    def write(self, folder: Path, name: str, ending: str = ".pem") -> None:
        """Put the pair into a folder as `NAME.pem` and `NAME.key`, each by a rename."""
        folder.mkdir(exist_ok=True)
        for file, data in ((f"{name}.key", self.key_pem), (f"{name}{ending}", self.cert_pem)):
            new = folder / f".{file}.new"
            new.write_bytes(data)
            new.chmod(0o600)
            new.replace(folder / file)


class Authority:
    """A certificate authority."""

    def __init__(self, name: str = "Test CA", issuer: Authority | None = None) -> None:
        self.key = new_key()
        self.issuer = issuer
        signer = issuer or self
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(name) if issuer is None else issuer.certificate.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=400))
            .not_valid_after(now + datetime.timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(signer.key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        *hosts: str,
        algorithm: str = "ecdsa",
        starts: float = -DAY,
        ends: float = 90 * DAY,
        subject: str = "",
        client: bool = False,
        public: bool = False,
        key: Any = None,
    ) -> Issued:
        """A certificate for hosts. `starts` and `ends` are seconds from now. `public`: it says where its issuer's
        certificate is to be had, as certificates of public authorities do."""
        key = key or new_key(algorithm)
        now = datetime.datetime.now(datetime.UTC)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject or (hosts[0] if hosts else "nameless")))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(seconds=starts))
            .not_valid_after(now + datetime.timedelta(seconds=ends))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_san(each) for each in hosts]), critical=False)
        if public:
            where = x509.UniformResourceIdentifier("http://ca.example/issuer.crt")
            access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, where)
            builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
        chain = [self.certificate] if self.issuer is not None else []
        return Issued(builder.sign(self.key, hashes.SHA256()), key, chain)

    def revocations(self, *revoked: Issued, ends: float = DAY) -> bytes:
        """A revocation list, as PEM."""
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - datetime.timedelta(days=2))
            .next_update(now + datetime.timedelta(seconds=ends))
        )
        for each in revoked:
            entry = (
                x509.RevokedCertificateBuilder()
                .serial_number(each.certificate.serial_number)
                .revocation_date(now - datetime.timedelta(hours=1))
                .build()
            )
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
