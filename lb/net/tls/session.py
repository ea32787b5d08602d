"""Session: one server-side TLS connection without any I/O: bytes of the wire go in, bytes for either side come out.

It stands on Python's `ssl.SSLObject`. All sessions of an event loop share one pair of memory buffers, since each call
leaves both empty. A pair for each connection would keep the memory of its largest write for as long as it lives.

Records are told apart here, by their five bytes of header, and decrypted one at a time. So reading stops at any record
when the reader has enough. Records that carry no data (KeyUpdate, and renegotiation, which is refused) are counted: a
peer that sends nothing else costs processor time, and is cut off (HAProxy 91004114f).

Nothing is read ahead: OpenSSL takes one record's bytes, and an unfinished record waits in its buffer, which it gives
back afterwards.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Final, NamedTuple

from lb.net.tls.client_hello import fold

#: Bytes of plaintext in a record, and bytes that its encryption may add (RFC 8446 section 5.2; TLS 1.2: 2048).
RECORD: Final = 16384
_RECORD_LIMIT: Final = RECORD + 2048
_HEADER: Final = 5
#: Records without data that a peer may send within so many seconds. (Peers renew keys after gigabytes.)
CONTROL_RECORDS: Final = 64
CONTROL_SECONDS: Final = 60.0

# Why a handshake fails, or a connection later on, as labels.
FAILED: Final = "failed"
NAME_MISMATCH: Final = "name_mismatch"
NO_SHARED_VERSION: Final = "no_shared_version"
NO_SHARED_CIPHER: Final = "no_shared_cipher"
NO_SHARED_PROTOCOL: Final = "no_shared_protocol"
CERTIFICATE_MISSING: Final = "client_certificate_missing"
CERTIFICATE_EXPIRED: Final = "client_certificate_expired"
CERTIFICATE_REVOKED: Final = "client_certificate_revoked"
CERTIFICATE_UNTRUSTED: Final = "client_certificate_untrusted"
CERTIFICATE_BAD: Final = "client_certificate_bad"
DISTRUSTED: Final = "distrusted"  # the client does not accept lb's certificate
CLIENT_ALERT: Final = "client_alert"  # the client has ended the handshake for another reason
CONTROL_FLOOD: Final = "control_flood"

#: OpenSSL's reason → label. All other ones are `FAILED`, or an alert of the client.
_REASONS: Final = {
    "NO_SHARED_CIPHER": NO_SHARED_CIPHER,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": NO_SHARED_CIPHER,
    "NO_SHARED_SIGNATURE_ALGORITHMS": NO_SHARED_CIPHER,
    "NO_SUITABLE_GROUPS": NO_SHARED_CIPHER,
    "NO_SUITABLE_KEY_SHARE": NO_SHARED_CIPHER,
    "NO_SHARED_GROUPS": NO_SHARED_CIPHER,
    "UNSUPPORTED_PROTOCOL": NO_SHARED_VERSION,
    "VERSION_TOO_LOW": NO_SHARED_VERSION,
    "WRONG_VERSION_NUMBER": NO_SHARED_VERSION,
    "WRONG_SSL_VERSION": NO_SHARED_VERSION,
    "INAPPROPRIATE_FALLBACK": NO_SHARED_VERSION,
    "NO_PROTOCOLS_AVAILABLE": NO_SHARED_VERSION,
    "NO_APPLICATION_PROTOCOL": NO_SHARED_PROTOCOL,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": CERTIFICATE_MISSING,
    "CERTIFICATE_VERIFY_FAILED": CERTIFICATE_BAD,
}
#: OpenSSL's codes for what is wrong with a certificate (X509_V_ERR_…) → label; all other ones are `CERTIFICATE_BAD`.
_VERIFY_CODES: Final = {
    9: CERTIFICATE_EXPIRED,  # not yet valid
    10: CERTIFICATE_EXPIRED,
    23: CERTIFICATE_REVOKED,
    2: CERTIFICATE_UNTRUSTED,
    18: CERTIFICATE_UNTRUSTED,
    19: CERTIFICATE_UNTRUSTED,
    20: CERTIFICATE_UNTRUSTED,
    21: CERTIFICATE_UNTRUSTED,
    27: CERTIFICATE_UNTRUSTED,
}
#: Alerts by which a client refuses a certificate, as the end of OpenSSL's reason.
_DISTRUST: Final = (
    "ALERT_UNKNOWN_CA",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_REVOKED",
    "ALERT_UNSUPPORTED_CERTIFICATE",
)


class SessionError(Exception):
    """The connection cannot go on. `reason` is a label, `alert` the bytes for the peer."""

    def __init__(self, reason: str, detail: str, alert: bytes = b"") -> None:
        super().__init__(detail)
        self.reason = reason
        self.alert = alert


class Established(NamedTuple):
    """What a handshake came to."""

    version: str  # "TLSv1.3"
    cipher: str
    resumed: bool
    server_name: str  # "": the client named none
    alpn: str  # "": none was agreed upon
    client_certificate: bool = False  # the client has shown one, and it was verified


class Buffers:
    """The pair of memory buffers that the sessions of one event loop share. Both are empty between two calls."""

    __slots__ = ("incoming", "outgoing")

    def __init__(self) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()

    def clear(self) -> None:
        """Throw away what a call has left."""
        if self.incoming.pending:
            self.incoming.read()
        if self.outgoing.pending:
            self.outgoing.read()


class _Observed(ssl.SSLObject):
    """OpenSSL's side of a session, with the name that was read before."""

    expected_name = ""
    mismatch = False


def _check_name(tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
    """OpenSSL has read the server name, once for each ClientHello. It must be the one that was selected by."""
    if isinstance(tls, _Observed) and fold(name or "") != tls.expected_name:
        tls.mismatch = True
        return ssl.ALERT_DESCRIPTION_ILLEGAL_PARAMETER
    return None


def prepare(context: ssl.SSLContext) -> None:
    """Make a context one for sessions. Done once; a callback for the server name that it had is replaced."""
    context.sslobject_class = _Observed
    context.sni_callback = _check_name
    context.options |= ssl.OP_NO_RENEGOTIATION


class Session:
    """One connection's TLS."""

    __slots__ = (
        "_buffers",
        "_controls",
        "_controls_since",
        "_head",
        "_missing",
        "_tickets",
        "_tls",
        "ended",
        "name",
        "output",
        "position",
        "rest",
    )

    def __init__(self, buffers: Buffers, context: ssl.SSLContext, name: str) -> None:
        if context.sslobject_class is not _Observed:
            prepare(context)
        tls = context.wrap_bio(buffers.incoming, buffers.outgoing, server_side=True)
        if isinstance(tls, _Observed):
            tls.expected_name = name
        self._tls = tls
        self._buffers = buffers
        self.name = name
        self.output = b""  # for the peer, after `handshake` and `open`
        self.rest = b""  # what came behind the handshake
        self.position = 0  # where in its data `open` has stopped
        self.ended = False  # the peer has sent close_notify
        self._tickets = b""  # records of the handshake's end that go out with the first records behind it
        self._head = b""  # the begin of a record's header
        self._missing = 0  # bytes of an unfinished record that are still to come
        self._controls = 0  # records without data…
        self._controls_since = 0.0  # …since then

    @property
    def tls(self) -> ssl.SSLObject:
        """OpenSSL's side of it."""
        return self._tls

    # --- handshake --------------------------------------------------------------------------------------------------

    def handshake(self, data: bytes) -> bool:
        """Go on with the handshake; True: it is over. `output` is for the peer, `rest` is what came behind the
        handshake. Where a request came with the handshake's last bytes, tickets wait for the answer: one system call
        and one segment less. Raises `SessionError`."""
        incoming, outgoing = self._buffers.incoming, self._buffers.outgoing
        try:
            incoming.write(data)
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self.output = outgoing.read() if outgoing.pending else b""
            if incoming.pending:
                self._buffers.clear()
                raise SessionError(FAILED, "OpenSSL has left bytes of a handshake") from None
            return False
        except (ssl.SSLError, OSError, ValueError) as error:
            raise self._failed(error) from None
        output = outgoing.read() if outgoing.pending else b""
        if incoming.pending:
            self.rest = incoming.read()
            self._tickets, output = output, b""
        self.output = output
        return True

    def established(self) -> Established:
        """What the handshake came to."""
        tls = self._tls
        cipher = tls.cipher()
        return Established(
            tls.version() or "",
            cipher[0] if cipher is not None else "",
            bool(tls.session_reused),
            self.name,
            tls.selected_alpn_protocol() or "",
            tls.getpeercert(binary_form=True) is not None,  # a client shows none unasked (RFC 8446 section 4.4.2)
        )

    def _failed(self, error: Exception) -> SessionError:
        """The failure in words, and the alert that OpenSSL wrote for the peer."""
        outgoing = self._buffers.outgoing
        alert = self._with_tickets(outgoing.read()) if outgoing.pending else b""
        self._buffers.clear()
        if isinstance(self._tls, _Observed) and self._tls.mismatch:
            return SessionError(NAME_MISMATCH, "the server name has changed within the handshake", alert)
        return SessionError(reason_of(error), _words(error), alert)

    # --- data -------------------------------------------------------------------------------------------------------

    def open(self, data: bytes, at: int) -> bytes | None:
        """The plaintext of the record that begins, or goes on, at `at`; `position` is where the next one begins.

        Empty: the record carried none; see `ended` and `output`. None: it is not whole yet. Raises `SessionError`.
        """
        size = len(data)
        if self._missing:
            end = at + self._missing
            length = RECORD
        else:
            head = self._head
            if head or size - at < _HEADER:
                taken = _HEADER - len(head)
                head += data[at : at + taken]
                if len(head) < _HEADER:
                    self._head = head
                    self.position = size
                    self._feed(data[at:])
                    return None
                self._head = b""
                length = head[3] << 8 | head[4]
                end = at + taken + length
            else:
                length = data[at + 3] << 8 | data[at + 4]
                end = at + _HEADER + length
            if length > _RECORD_LIMIT:
                raise SessionError(FAILED, "a record of an impossible size")
        incoming = self._buffers.incoming
        if end > size:
            self._missing = end - size
            self.position = size
            self._feed(data[at:] if at else data)
            return None
        self._missing = 0
        self.position = end
        try:
            incoming.write(data if not at and end == size else memoryview(data)[at:end])
            plain = self._tls.read(length)
        except ssl.SSLWantReadError:
            plain = b""
        except ssl.SSLZeroReturnError:
            plain = b""
            self.ended = True
        except (ssl.SSLError, OSError, ValueError) as error:
            raise self._failed(error) from None
        else:
            self.ended = not plain
        if incoming.pending:
            self._buffers.clear()
            raise SessionError(FAILED, "OpenSSL has left bytes of a record")
        if not plain:
            outgoing = self._buffers.outgoing
            self.output = self._with_tickets(outgoing.read()) if outgoing.pending else b""
        return plain

    def _feed(self, data: bytes) -> None:
        """A part of a record, which OpenSSL keeps."""
        buffers = self._buffers
        try:
            buffers.incoming.write(data)
            self._tls.read(RECORD)
        except ssl.SSLWantReadError:
            if not buffers.incoming.pending:
                return
        except (ssl.SSLError, OSError, ValueError) as error:
            raise self._failed(error) from None
        buffers.clear()
        raise SessionError(FAILED, "OpenSSL has read a part of a record as a whole one")

    def count_control(self, now: float) -> None:
        """The last record carried no data. Raises `SessionError` when the peer sends too many of them."""
        if now - self._controls_since > CONTROL_SECONDS:
            self._controls_since = now
            self._controls = 0
        self._controls += 1
        if self._controls > CONTROL_RECORDS:
            raise SessionError(CONTROL_FLOOD, f"more than {CONTROL_RECORDS} records without data in a minute")

    def seal(self, data: bytes | memoryview) -> bytes:
        """The records that carry `data`. Raises `SessionError`."""
        buffers = self._buffers
        try:
            sent = self._tls.write(data)
            if sent == len(data):
                return buffers.outgoing.read() if not self._tickets else self._with_tickets(buffers.outgoing.read())
            view = memoryview(data)
            while sent < len(data):
                sent += self._tls.write(view[sent:])
        except (ssl.SSLError, OSError, ValueError) as error:
            raise self._failed(error) from None
        return self._with_tickets(buffers.outgoing.read())

    def finish(self) -> bytes:
        """The close_notify of this side. What the peer sends can still be read."""
        buffers = self._buffers
        with contextlib.suppress(ssl.SSLError, OSError, ValueError):  # mostly: the peer has yet to send its own
            self._tls.unwrap()
        closing = self._with_tickets(buffers.outgoing.read()) if buffers.outgoing.pending else b""
        buffers.clear()
        return closing

    def _with_tickets(self, records: bytes) -> bytes:
        """Records in the order in which they were made."""
        tickets, self._tickets = self._tickets, b""
        return tickets + records


def alert(code: int) -> bytes:
    """The record of a fatal alert, before any key has been agreed upon."""
    return b"\x15\x03\x03\x00\x02\x02" + bytes((code,))


def reason_of(error: Exception) -> str:
    """The label for an error of a handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_CODES.get(error.verify_code, CERTIFICATE_BAD)
    reason: str = getattr(error, "reason", None) or ""
    if "_ALERT_" in reason:
        return DISTRUSTED if reason.endswith(_DISTRUST) else CLIENT_ALERT
    return _REASONS.get(reason, FAILED)


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    reason: str = getattr(error, "reason", None) or str(error)
    return reason.replace("_", " ").lower()
