"""A certificate file's contents: its names, when it is valid, and why it and its key cannot be used.

The `ssl` module reads such files without saying what is in them, so `cryptography` reads them once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Seconds before its end from which a certificate is worth a warning. ACME clients renew at a third of 90 days.
SOON = 14 * 86400.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """The first certificate of a file. Times are seconds since the epoch; names are lower-case, as in its SAN."""

    not_before: float
    not_after: float
    names: tuple[str, ...]

    def covers(self, host: str) -> bool:
        """Whether a name is covered: exactly, or by a wildcard for one label (RFC 9525 section 6.3)."""
        host = host.lower().rstrip(".")
        return host in self.names or f"*.{host.partition('.')[2]}" in self.names


def read(file: str) -> Certificate | None:
    """The first certificate of a PEM file; None: there is none that can be read."""
    from cryptography import x509  # large, and most files name no certificate

    try:
        leaf = x509.load_pem_x509_certificates(Path(file).read_bytes())[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        listed: tuple[str, ...] = ()
    except (OSError, ValueError):
        return None
    else:
        hosts = names.get_values_for_type(x509.DNSName)
        addresses = names.get_values_for_type(x509.IPAddress)
        listed = (*(name.lower() for name in hosts), *(str(address) for address in addresses))
    return Certificate(leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp(), listed)


def pair_fault(cert_file: str, key_file: str) -> tuple[str, str, str] | None:
    """(key of the setting, what is wrong, what to do) of a pair that cannot be used, judged by its text alone."""
    certificate, key = _text(cert_file), _text(key_file)
    if "PRIVATE KEY-----" in certificate and "BEGIN CERTIFICATE" not in certificate and "BEGIN CERTIFICATE" in key:
        return "cert_file", f"{cert_file} is a key, and {key_file} a certificate", "Swap `cert_file` and `key_file`."
    if "BEGIN CERTIFICATE" not in certificate:
        hint = f"Write it as PEM: openssl x509 -inform DER -in {cert_file} -out FILE"
        return "cert_file", f"{cert_file} holds no certificate in PEM form", hint
    if "PRIVATE KEY-----" not in key:
        hint = f"Write it as PEM: openssl pkey -inform DER -in {key_file} -out FILE"
        return "key_file", f"{key_file} holds no private key in PEM form", hint
    if "ENCRYPTED" in key:
        hint = f"Write it without: openssl pkey -in {key_file} -out FILE; chmod 600 FILE"
        return "key_file", f"{key_file} has a passphrase, and nobody can type it in when lb starts", hint
    return None


def _text(file: str) -> str:
    return Path(file).read_bytes().decode("latin-1")
