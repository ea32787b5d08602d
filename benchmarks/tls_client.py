"""A client's side of full TLS 1.3 handshakes (RFC 8446), sans I/O, that costs less than the server's side.

OpenSSL's client decodes the certificate anew for each handshake and takes 4.6 million instructions (callgrind): on a
machine that both share, it is the client that would be measured. Here a certificate is decoded once, and all
connections have one key share. What the server has to prove is checked each time: its signature under the certificate's
key, and its Finished. Nothing is resumed. The chain is not checked: callers judge certificates.

One suite (TLS_AES_128_GCM_SHA256), one group (X25519) and one signature (ECDSA P-256, SHA-256); no alert is sent.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# Content types (section 5.1), handshake types (section 4) and extensions (section 4.2).
CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
SERVER_HELLO, CERTIFICATE, CERTIFICATE_VERIFY, FINISHED = 2, 11, 15, 20
SERVER_NAME, GROUPS, SIGNATURES, VERSIONS, PSK_MODES, KEY_SHARE = 0, 10, 13, 43, 45, 51
SUITE, X25519, ECDSA_P256 = 0x1301, 0x1D, 0x0403
#: What the server signs is this and the transcript's hash (section 4.4.3).
SIGNED: Final = b" " * 64 + b"TLS 1.3, server CertificateVerify\0"
LENGTH: Final = 32  # of SHA-256


class TLSError(Exception):
    """The server broke the protocol, sent an alert, or has not proved what it claims."""


def _vector(size: int, content: bytes) -> bytes:
    """A vector with its length in `size` bytes before it (section 3.4)."""
    return len(content).to_bytes(size, "big") + content


def _expand(secret: bytes, label: bytes, context: bytes, length: int = LENGTH) -> bytes:
    """HKDF-Expand-Label (section 7.1) of at most one block."""
    info = length.to_bytes(2, "big") + _vector(1, b"tls13 " + label) + _vector(1, context) + b"\1"
    return hmac.digest(secret, info, "sha256")[:length]


_NOTHING: Final = hashlib.sha256().digest()
#: The secret before the key exchange, as there is no PSK (section 7.1).
_EARLY: Final = _expand(hmac.digest(bytes(LENGTH), bytes(LENGTH), "sha256"), b"derived", _NOTHING)


class Identity:
    """What is made once: a key share, and the certificates that were seen."""

    def __init__(self) -> None:
        self.private = X25519PrivateKey.generate()
        share = _vector(2, X25519.to_bytes(2, "big") + _vector(2, self.private.public_key().public_bytes_raw()))
        self.extensions = b"".join(
            kind.to_bytes(2, "big") + _vector(2, content)
            for kind, content in (
                (GROUPS, _vector(2, X25519.to_bytes(2, "big"))),
                (SIGNATURES, _vector(2, ECDSA_P256.to_bytes(2, "big"))),
                (VERSIONS, _vector(1, b"\3\4")),
                (PSK_MODES, b"\1\1"),  # without it no server sends tickets, as it does to ordinary clients
                (KEY_SHARE, share),
            )
        )
        self.certificates: dict[bytes, x509.Certificate] = {}
        self.keys: dict[bytes, EllipticCurvePublicKey] = {}

    def certificate(self, der: bytes) -> x509.Certificate:
        """A certificate; raises TLSError if its key is no ECDSA key."""
        found = self.certificates.get(der)
        if found is None:
            found = x509.load_der_x509_certificate(der)
            key = found.public_key()
            if not isinstance(key, EllipticCurvePublicKey):
                raise TLSError("the certificate has no ECDSA key")
            self.certificates[der], self.keys[der] = found, key
        return found


class _Direction:
    """The record protection of one direction (section 5.2)."""

    def __init__(self, secret: bytes) -> None:
        self.aead = AESGCM(_expand(secret, b"key", b"", 16))
        self.iv = int.from_bytes(_expand(secret, b"iv", b"", 12), "big")
        self.number = 0

    def _nonce(self) -> bytes:
        self.number += 1
        return (self.iv ^ (self.number - 1)).to_bytes(12, "big")

    def seal(self, kind: int, content: bytes) -> bytes:
        header = b"\x17\3\3" + (len(content) + 17).to_bytes(2, "big")
        return header + self.aead.encrypt(self._nonce(), content + bytes([kind]), header)

    def open(self, header: bytes, body: bytes) -> tuple[int, bytes]:
        """(content type, content); raises TLSError."""
        try:
            plain = self.aead.decrypt(self._nonce(), body, header).rstrip(b"\0")
        except InvalidTag:
            raise TLSError("a record cannot be decrypted") from None
        if not plain:
            raise TLSError("a record without a content type")
        return plain[-1], plain[:-1]


class Client:
    """One connection: `hello` goes out first, then whatever `receive` returns."""

    def __init__(self, identity: Identity, name: str, request: bytes) -> None:
        host = b"\0" + _vector(2, name.encode())
        server_name = SERVER_NAME.to_bytes(2, "big") + _vector(2, _vector(2, host))
        body = b"\3\3" + os.urandom(32) + b"\0" + _vector(2, SUITE.to_bytes(2, "big")) + b"\1\0"
        message = b"\1" + _vector(3, body + _vector(2, server_name + identity.extensions))
        self.hello = b"\x16\3\1" + _vector(2, message)
        self.certificate: x509.Certificate | None = None  # once the server has proved that it has its key
        self.answer = b""  # what the server has said under the handshake's protection
        self._identity = identity
        self._request = request
        self._transcript = hashlib.sha256(message)
        self._received = b""  # less than a record
        self._messages = b""  # less than a handshake message
        self._der = b""
        self._proved = False
        self._theirs: _Direction | None = None

    def receive(self, data: bytes) -> bytes:
        """Take in what came; returns what is to be sent: once, Finished and the request. Raises TLSError."""
        self._received += data
        out = b""
        while len(self._received) >= 5:
            end = 5 + int.from_bytes(self._received[3:5], "big")
            if len(self._received) < end:
                break
            header, body, self._received = self._received[:5], self._received[5:end], self._received[end:]
            kind = header[0]
            if kind == CHANGE_CIPHER_SPEC:
                continue
            if self._theirs is not None:
                kind, body = self._theirs.open(header, body)
            if kind == ALERT:
                if body == b"\1\0":  # close_notify
                    continue
                raise TLSError(f"alert {body[-1] if body else body!r}")
            if kind == HANDSHAKE and self.certificate is None:
                out += self._handshake(body)
            elif kind == APPLICATION_DATA and self.certificate is not None:
                self.answer += body
            elif kind != HANDSHAKE:
                raise TLSError(f"a record of type {kind}")
        return out

    def _handshake(self, data: bytes) -> bytes:
        self._messages += data
        out = b""
        while len(self._messages) >= 4:
            end = 4 + int.from_bytes(self._messages[1:4], "big")
            if len(self._messages) < end:
                break
            message, self._messages = self._messages[:end], self._messages[end:]
            kind, body = message[0], message[4:]
            if (kind == SERVER_HELLO) == (self._theirs is not None):
                raise TLSError(f"a handshake message of type {kind} at the wrong time")
            if kind == CERTIFICATE_VERIFY:
                self._verify(body)
            elif kind == FINISHED:
                self._check_finished(body)
            self._transcript.update(message)
            if kind == SERVER_HELLO:
                self._exchange(body)
            elif kind == CERTIFICATE:
                # A request context, a list of entries, of which the first is the server's own (section 4.4.2).
                begin = 1 + body[0] + 3
                self._der = body[begin + 3 : begin + 3 + int.from_bytes(body[begin : begin + 3], "big")]
            elif kind == FINISHED:
                out = self._finish()
        return out

    def _exchange(self, body: bytes) -> None:
        """ServerHello: the handshake's secrets (section 7.1)."""
        at = 34 + 1 + body[34]
        if int.from_bytes(body[at : at + 2], "big") != SUITE:
            raise TLSError("another cipher suite")
        at += 5
        extensions = dict[int, bytes]()
        while at < len(body):
            length = int.from_bytes(body[at + 2 : at + 4], "big")
            extensions[int.from_bytes(body[at : at + 2], "big")] = body[at + 4 : at + 4 + length]
            at += 4 + length
        share = extensions.get(KEY_SHARE, b"")
        if extensions.get(VERSIONS) != b"\3\4" or len(share) != 36:
            raise TLSError("no TLS 1.3 with a key share")
        shared = self._identity.private.exchange(X25519PublicKey.from_public_bytes(share[4:]))
        secret = hmac.digest(_EARLY, shared, "sha256")
        hello = self._transcript.digest()
        self._ours_secret = _expand(secret, b"c hs traffic", hello)
        self._theirs_secret = _expand(secret, b"s hs traffic", hello)
        self._master = hmac.digest(_expand(secret, b"derived", _NOTHING), bytes(LENGTH), "sha256")
        self._theirs = _Direction(self._theirs_secret)

    def _verify(self, body: bytes) -> None:
        """CertificateVerify: the server has the certificate's key."""
        if int.from_bytes(body[:2], "big") != ECDSA_P256:
            raise TLSError("another signature algorithm")
        self._identity.certificate(self._der)
        try:
            key = self._identity.keys[self._der]
            key.verify(body[4:], SIGNED + self._transcript.digest(), ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise TLSError("the signature does not fit the certificate") from None
        self._proved = True

    def _check_finished(self, body: bytes) -> None:
        """The server has seen the same handshake (section 4.4.4)."""
        wanted = hmac.digest(_expand(self._theirs_secret, b"finished", b""), self._transcript.digest(), "sha256")
        if not self._proved or body != wanted:
            raise TLSError("the handshake was not proved")

    def _finish(self) -> bytes:
        """Our Finished, and the request."""
        seen = self._transcript.digest()
        proof = hmac.digest(_expand(self._ours_secret, b"finished", b""), seen, "sha256")
        finished = _Direction(self._ours_secret).seal(HANDSHAKE, bytes([FINISHED]) + _vector(3, proof))
        self._theirs = _Direction(_expand(self._master, b"s ap traffic", seen))
        self.certificate = self._identity.certificate(self._der)
        ours = _Direction(_expand(self._master, b"c ap traffic", seen))
        return finished + ours.seal(APPLICATION_DATA, self._request)
