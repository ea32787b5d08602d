"""The identity of a client that has shown a certificate, as fields for targets.

`Client-Cert` and `Client-Cert-Chain` are RFC 9440's. Every other value is text that a target can compare: printable
ASCII, with all other bytes percent-encoded, so that no certificate can put a line break or a second field into a head.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Iterable
from typing import Any

from lb.core.certificates import OFF, TlsServer

#: The values that a field may have.
CERTIFICATE = "certificate"
CHAIN = "chain"
VERIFIED = "verified"

_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "domainComponent": "DC",
    "userId": "UID",
    "emailAddress": "emailAddress",
    "serialNumber": "serialNumber",
}
_ESCAPED = frozenset(',+"\\<>;=')


def identity_of(tls: TlsServer, handshake: ssl.SSLObject) -> bytes | None:
    """The lines that a connection's requests get; None: its listener does not verify clients.

    Without a certificate, only fields of the kind `verified` are written."""
    if all(client.mode == OFF for client in tls.clients()):
        return None
    der = handshake.getpeercert(binary_form=True)
    lines = [f"{name}: {value}\r\n" for name, kind in tls.client_fields if (value := _value(kind, der, handshake))]
    return "".join(lines).encode("ascii")


def _value(kind: str, der: bytes | None, handshake: ssl.SSLObject) -> str:
    if kind == VERIFIED:
        return "none" if der is None else "success"
    if der is None:
        return ""
    if kind == CERTIFICATE:
        return _bytes(der)
    if kind == CHAIN:
        return ", ".join(map(_bytes, _chain(handshake)[1:]))
    if kind == "fingerprint":
        return hashlib.sha256(der).hexdigest()
    decoded: dict[str, Any] = handshake.getpeercert() or {}
    if kind in ("subject", "issuer"):
        return _printable(_name(decoded.get(kind, ())))
    if kind == "serial":
        return str(decoded.get("serialNumber", ""))
    return _printable(", ".join(f"{type}:{value}" for type, value in decoded.get("subjectAltName", ())))


def _bytes(data: bytes) -> str:
    """A byte sequence (RFC 9651 section 3.3.5)."""
    return f":{base64.b64encode(data).decode()}:"


def _chain(handshake: ssl.SSLObject) -> list[bytes]:
    """The certificates of the client's verified chain, its own first and without the root (RFC 9440 section 2.3)."""
    source: Any = handshake  # public from Python 3.13 on
    if not hasattr(source, "get_verified_chain"):
        source = getattr(handshake, "_sslobj", None)
    if not hasattr(source, "get_verified_chain"):
        return []
    found = [each if isinstance(each, bytes) else each.public_bytes(_DER) for each in source.get_verified_chain() or ()]
    return found[:-1] if len(found) > 1 else found


#: The form of `_ssl.Certificate.public_bytes` that is not PEM.
_DER = getattr(ssl, "ENCODING_DER", 2)


def _name(parts: Iterable[Iterable[tuple[str, str]]]) -> str:
    """A distinguished name in the order of RFC 4514: the most specific part first."""
    named = [
        "+".join(f"{_SHORT.get(type, type)}={_escaped(value)}" for type, value in part)
        for part in reversed(list(parts))
    ]
    return ",".join(named)


def _escaped(value: str) -> str:
    text = "".join(f"\\{each}" if each in _ESCAPED else each for each in value)
    return f"\\{text}" if text[:1] in ("#", " ") else text


def _printable(text: str) -> str:
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte != 0x25 else f"%{byte:02X}"
        for byte in text.encode("utf-8", "replace")
    )
