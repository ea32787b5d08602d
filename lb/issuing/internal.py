"""lb's own certificate authority, for HTTPS where no public one can vouch: on a laptop, and between one's own machines.

Below `state_dir/internal` are `root.pem` and `root.key`, and a file for each name. A machine trusts all of them once it
trusts the root, which lives for ten years. So its key is as dangerous as any authority's: it never leaves the folder,
which is closed to other users. The certificates live for thirty days and are renewed after twenty.

Everything blocks. A disk that takes nothing leaves the certificates in memory: they are served, and a restart makes
other ones.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lb.config.certificate_sources import internal_file
from lb.config.resolve import LOCALHOST
from lb.issuing.acme.renewal import RENEW_AT
from lb.net import atomic_file

ROOT_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=30)
#: How far back a certificate begins: the clocks of clients differ.
EARLIER = timedelta(hours=1)
#: Bytes of one file that are read at most.
LARGEST = 1 << 20

_LOOPBACK = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))


@dataclass(frozen=True, slots=True)
class Root:
    """The authority's certificate."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def fingerprint(self) -> str:
        """SHA-256, as browsers and `openssl x509 -fingerprint` show it."""
        digest = hashlib.sha256(self.certificate.public_bytes(serialization.Encoding.DER)).hexdigest().upper()
        return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


class InternalAuthority:
    """The authority of one `state_dir`. `tell` gets what people have to hear."""

    def __init__(
        self,
        state_dir: str,
        tell: Callable[[str], None] = lambda text: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.folder = Path(state_dir) / "internal"
        self.trouble = ""  # why the disk takes nothing; empty: it does
        self._state_dir = state_dir
        self._tell = tell
        self._wall = wall
        self._root: Root | None = None
        self._root_stored = False
        self._held: dict[str, bytes] = {}  # by name: certificates that the disk has not taken

    @property
    def in_memory(self) -> frozenset[str]:
        """Names whose certificates the disk has not taken."""
        return frozenset(self._held)

    @property
    def root_file(self) -> Path:
        return self.folder / "root.pem"

    def root(self) -> Root:
        """The root, which is made at the first call of all."""
        if self._root is None or not self._is_fresh(self._root.certificate):
            self._root = self._stored_root()
            self._root_stored = self._root is not None
            self._root = self._root or self._new_root()
        return self._root

    def ensure(self, names: Iterable[str]) -> dict[str, bytes]:
        """Key and certificate for each name, by name. Issues what is missing, and renews what is due."""
        wanted = dict.fromkeys(names)
        self._held = {name: pem for name, pem in list(self._held.items()) if name in wanted}
        if not wanted:
            return {}
        trouble, self.trouble = self.trouble, ""
        root = self.root()
        if not self._root_stored:
            self._store_root(root)
        found = {name: self._certificate(name, root) for name in wanted}
        if self.trouble and self.trouble != trouble:
            self._tell(f"{self.folder}: {self.trouble}; the internal authority's certificates are in memory alone")
        return found

    def _certificate(self, name: str, root: Root) -> bytes:
        path = internal_file(self._state_dir, name)
        pem = self._held.get(name) or _read(path)
        if pem is None or not self._serves(pem, name, root):
            pem = self._held[name] = self._issue(name, root)
        if name in self._held and self._root_stored and self._write(path, pem):
            del self._held[name]
        return pem

    def renew(self, name: str) -> None:
        """Have the next `ensure` issue a new certificate for a name."""
        self._held.pop(name, None)
        with suppress(OSError):
            internal_file(self._state_dir, name).unlink()

    # --- the root ---------------------------------------------------------------------------------------------------

    def _stored_root(self) -> Root | None:
        certificate, key = _read(self.root_file), _read(self.folder / "root.key")
        if certificate is None or key is None:
            return None
        try:
            loaded = serialization.load_pem_private_key(key, None)
            root = x509.load_pem_x509_certificate(certificate)
            assert isinstance(loaded, ec.EllipticCurvePrivateKey)
            assert loaded.public_key() == root.public_key()
        except (ValueError, TypeError, AssertionError):
            self._tell(f"{self.root_file} and its key cannot be used: a new authority is made, to be trusted anew")
            return None
        if not self._is_fresh(root):
            self._tell(f"{self.root_file} ends soon: a new authority is made, to be trusted anew")
            return None
        return Root(root, loaded)

    def _new_root(self) -> Root:
        now = datetime.fromtimestamp(self._wall(), UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        common = f"lb internal authority {socket.gethostname()} {now:%Y-%m-%d}"[:64]
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - EARLIER)
            .not_valid_after(now + ROOT_LIFE)
            .add_extension(x509.BasicConstraints(True, 0), True)
            .add_extension(usage, True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .sign(key, hashes.SHA256())
        )
        return Root(certificate, key)

    def _store_root(self, root: Root) -> None:
        # The key first: a root without its key would have to be made again after it was trusted.
        key = _key_pem(root.key)
        self._root_stored = self._write(self.folder / "root.key", key) and self._write(self.root_file, root.pem())
        if self._root_stored:
            self._tell(f"a certificate authority was made, {self.root_file}; see `lb certificates trust`")

    # --- certificates -----------------------------------------------------------------------------------------------

    def _serves(self, pem: bytes, name: str, root: Root) -> bool:
        """Whether a certificate is still good: from this root, for this name, and not due."""
        try:
            leaf = x509.load_pem_x509_certificate(pem)
            leaf.verify_directly_issued_by(root.certificate)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        return name in names.get_values_for_type(x509.DNSName) and self._is_fresh(leaf)

    def _is_fresh(self, certificate: x509.Certificate) -> bool:
        begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        return begin <= self._wall() < begin + (end - begin) * RENEW_AT

    def _issue(self, name: str, root: Root) -> bytes:
        now = datetime.fromtimestamp(self._wall(), UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(name)]
        if name == LOCALHOST:
            names += [x509.IPAddress(address) for address in _LOOPBACK]
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        identifier = root.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))  # for people
            .issuer_name(root.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - EARLIER)
            .not_valid_after(now + LEAF_LIFE)
            .add_extension(x509.SubjectAlternativeName(names), False)
            .add_extension(x509.BasicConstraints(False, None), True)
            .add_extension(usage, True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False)
            .sign(root.key, hashes.SHA256())
        )
        return _key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM)

    # --- files ------------------------------------------------------------------------------------------------------

    def _write(self, path: Path, data: bytes) -> bool:
        """Whether the disk has taken it."""
        try:
            for folder in (self.folder.parent, self.folder):
                with suppress(FileExistsError):
                    folder.mkdir(0o700)
            atomic_file.write(path, data, durable=path.name.startswith("root."))
        except OSError as error:
            self.trouble = (error.strerror or str(error)).lower()
            return False
        return True


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError:
        return None
    return data if len(data) <= LARGEST else None
