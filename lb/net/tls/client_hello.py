"""The ClientHello, read before OpenSSL reads it: it names the server, and so the certificate (RFC 8446, RFC 6066).

Python's `ssl` shows the server name alone, and that only within the handshake. The bytes themselves say which name,
protocols, versions and signatures a client offers, however they were cut into records and segments. OpenSSL gets the
same bytes afterwards; `session` holds both readings of the name against each other.

Whatever is read in two ways by two parsers is refused here: a second extension of one kind, a list of names with more
than one, lengths that do not add up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

#: Bytes of a ClientHello. One with a post-quantum key share has 2 KiB (OpenSSL's limit is 128 KiB).
HELLO_LIMIT: Final = 32768
#: Records that it may be cut into: each is looked at again when more bytes come. OpenSSL's smallest fragment has 512.
RECORDS: Final = 64
#: Bytes in all before it is whole.
WIRE_LIMIT: Final = HELLO_LIMIT + 4 + 5 * RECORDS
#: Bytes that decide whether a connection speaks plain HTTP. The longest registered method has 17 (UPDATEREDIRECTREF).
HTTP_BEGINS: Final = 40

# Reasons of `HelloError`.
PLAIN_HTTP: Final = "plain_http"
NOT_TLS: Final = "not_tls"
MALFORMED: Final = "malformed_hello"
TOO_LARGE: Final = "hello_too_large"

TLS_1_2: Final = 0x0303
TLS_1_3: Final = 0x0304

_HANDSHAKE: Final = 22  # type of a record
_CLIENT_HELLO: Final = 1  # type of a handshake message
_RECORD_LIMIT: Final = 16384  # RFC 8446 section 5.1

# Types of extensions.
_SERVER_NAME: Final = 0
_GROUPS: Final = 10
_SIGNATURES: Final = 13
_ALPN: Final = 16
_VERSIONS: Final = 43

# A method (RFC 9110 section 5.6.2), a space, the first byte of a target; a PROXY line looks the same.
_REQUEST: Final = re.compile(rb"(?!PROXY )[!#-'*+.0-9A-Z^-z|~-]{1,32} (?:/|\*|[0-9A-Za-z])")
_BEGIN_OF_REQUEST: Final = re.compile(rb"[!#-'*+.0-9A-Z^-z|~-]{1,32} ?")
_NAME: Final = re.compile(r"[a-z0-9_.:*-]{1,253}")

#: Signature schemes made with a key on a curve, and with an RSA key (RFC 8446 section 4.2.3; a low byte of 3 or 1 is
#: the pair of hash and signature of TLS 1.2).
_ECDSA: Final = frozenset({0x0203, 0x0303, 0x0403, 0x0503, 0x0603, 0x0807, 0x0808})
_RSA: Final = frozenset({0x0201, 0x0301, 0x0401, 0x0501, 0x0601, 0x0804, 0x0805, 0x0806, 0x0809, 0x080A, 0x080B})
#: Cipher suites of TLS 1.2 for a certificate with a key on a curve; all other ones that OpenSSL offers are for RSA.
_ECDSA_CIPHERS: Final = frozenset(
    {0xC009, 0xC00A, 0xC023, 0xC024, 0xC02B, 0xC02C, 0xC05C, 0xC05D, 0xC072, 0xC073, 0xC0AC, 0xC0AD, 0xC0AE, 0xC0AF}
    | {0xCCA9}
)


class HelloError(Exception):
    """Bytes that are no ClientHello. `reason` is a label; `alert` is the answer of TLS, 0 for bytes that are no TLS."""

    def __init__(self, reason: str, detail: str, alert: int = 0) -> None:
        super().__init__(detail)
        self.reason = reason
        self.alert = alert


@dataclass(frozen=True, slots=True)
class ClientHello:
    """A client's offer."""

    server_name: str = ""  # in lower case, without the trailing dot; "": none
    alpn: tuple[str, ...] = ()  # protocols, the preferred one first; one character for each byte
    versions: tuple[int, ...] = (TLS_1_2,)
    signatures: tuple[int, ...] = ()  # schemes; empty: the client names none, which only TLS 1.2 permits
    groups: tuple[int, ...] = ()
    ciphers: tuple[int, ...] = ()

    @property
    def ecdsa(self) -> bool:
        """Whether a certificate with a key on a curve can be used."""
        if TLS_1_3 in self.versions:
            return not _ECDSA.isdisjoint(self.signatures)
        suits = not self.signatures or not _ECDSA.isdisjoint(self.signatures)
        return suits and not _ECDSA_CIPHERS.isdisjoint(self.ciphers)

    @property
    def rsa(self) -> bool:
        """Whether a certificate with an RSA key can be used."""
        return not self.signatures or not _RSA.isdisjoint(self.signatures)


def parse(data: bytes) -> ClientHello | None:
    """The ClientHello that a connection begins with; None when it is not whole yet. Raises `HelloError`."""
    if not data:
        return None
    if data[0] != _HANDSHAKE:
        _refuse_other(data)
        return None
    message = _message(data)
    return None if message is None else _read(message)


def fold(name: str) -> str:
    """A server name as names are compared: in lower case, without the trailing dot or spaces."""
    return name.strip(" ").removesuffix(".").lower()


def _refuse_other(data: bytes) -> None:
    """Refuse bytes that are no record of a handshake, once enough have come to say what they are."""
    begin = data[:HTTP_BEGINS]
    if _REQUEST.match(begin):
        raise HelloError(PLAIN_HTTP, "plain HTTP")
    if _BEGIN_OF_REQUEST.fullmatch(begin) and len(begin) < HTTP_BEGINS:
        return
    raise HelloError(NOT_TLS, "the connection does not begin with a TLS handshake")


def _message(data: bytes) -> bytes | None:
    """The body of the ClientHello, put together from its records; None when it is not whole."""
    fragments: list[bytes] = []
    size = at = 0
    expected = -1
    while expected < 0 or size < expected:
        if len(data) < at + 5:
            # A record that is no handshake is refused by its first byte.
            if at < len(data) and data[at] != _HANDSHAKE:
                raise _malformed("another kind of record within the ClientHello", 10)
            return None
        if data[at] != _HANDSHAKE or data[at + 1] != 3:
            raise _malformed("another kind of record within the ClientHello", 10)
        if len(fragments) == RECORDS:
            raise HelloError(TOO_LARGE, f"a ClientHello in more than {RECORDS} records", 50)
        length = data[at + 3] << 8 | data[at + 4]
        if not 0 < length <= _RECORD_LIMIT:
            raise _malformed("a record of an impossible size")
        at += 5
        fragment = data[at : at + length]
        fragments.append(fragment)
        size += len(fragment)
        at += length
        if expected < 0 and size >= 4:
            head = b"".join(fragments)[:4]
            if head[0] != _CLIENT_HELLO:
                raise _malformed("the first message is no ClientHello", 10)
            expected = 4 + int.from_bytes(head[1:], "big")
            if expected > 4 + HELLO_LIMIT:
                raise HelloError(TOO_LARGE, f"a ClientHello of {expected - 4} bytes; {HELLO_LIMIT} are the most", 50)
        if len(fragment) < length and (expected < 0 or size < expected):
            return None
    if size > expected:
        raise _malformed("bytes behind the ClientHello", 10)
    return b"".join(fragments)[4:]


def _malformed(detail: str, alert: int = 50) -> HelloError:
    """Alert 50: decode_error; 10: unexpected_message."""
    return HelloError(MALFORMED, detail, alert)


class _Reader:
    """Takes values from the begin of some bytes. Raises `HelloError` where there are too few."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise _malformed("a length in the ClientHello that does not fit")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Bytes behind their length, which has `size` bytes itself."""
        return self.take(self.number(size))

    @property
    def rest(self) -> int:
        return len(self._data) - self._at


def _read(message: bytes) -> ClientHello:
    reader = _Reader(message)
    version = reader.number(2)
    reader.take(32)
    if len(reader.vector(1)) > 32:
        raise _malformed("a session id longer than 32 bytes")
    ciphers = _numbers(reader.vector(2))
    if not reader.vector(1):
        raise _malformed("no compression method")
    extensions: dict[int, bytes] = {}
    if reader.rest:
        block = _Reader(reader.vector(2))
        while block.rest:
            kind = block.number(2)
            if kind in extensions:
                raise _malformed(f"extension {kind} twice", 47)
            extensions[kind] = block.vector(2)
    if reader.rest:
        raise _malformed("bytes behind the extensions")
    return ClientHello(
        _server_name(extensions.get(_SERVER_NAME)),
        _protocols(extensions.get(_ALPN)),
        _versions(extensions.get(_VERSIONS), version),
        _list(extensions.get(_SIGNATURES)),
        _list(extensions.get(_GROUPS)),
        ciphers,
    )


def _server_name(extension: bytes | None) -> str:
    """The one name of the extension (RFC 6066 section 3)."""
    if extension is None:
        return ""
    names = _whole(extension, 2)
    kind = names.number(1)
    name = names.vector(2)
    if kind or names.rest:
        raise _malformed("a list of server names that is not one host name")
    folded = fold(name.decode("latin-1"))
    if not _NAME.fullmatch(folded):
        raise HelloError(MALFORMED, "a server name that no host can have", 50)
    return folded


def _protocols(extension: bytes | None) -> tuple[str, ...]:
    if extension is None:
        return ()
    reader = _whole(extension, 2)
    names: list[str] = []
    while reader.rest:
        name = reader.vector(1)
        if not name:
            raise _malformed("an empty name of a protocol")
        names.append(name.decode("latin-1"))
    if not names:
        raise _malformed("an empty list of protocols")
    return tuple(names)


def _versions(extension: bytes | None, legacy: int) -> tuple[int, ...]:
    """The versions on offer, without the values that test whether a server ignores new ones (RFC 8701)."""
    if extension is None:
        return tuple(range(min(legacy, TLS_1_2), 0x02FF, -1))
    reader = _Reader(extension)
    offered = _numbers(reader.vector(1))
    if reader.rest:
        raise _malformed("bytes behind the list of versions")
    return tuple(version for version in offered if 0x0300 <= version <= TLS_1_3)


def _list(extension: bytes | None) -> tuple[int, ...]:
    if extension is None:
        return ()
    reader = _Reader(extension)
    values = _numbers(reader.vector(2))
    if reader.rest:
        raise _malformed("bytes behind a list")
    return values


def _whole(extension: bytes, size: int) -> _Reader:
    """The one vector that an extension is."""
    reader = _Reader(extension)
    inner = reader.vector(size)
    if reader.rest:
        raise _malformed("bytes behind a list")
    return _Reader(inner)


def _numbers(data: bytes) -> tuple[int, ...]:
    """Numbers of two bytes each."""
    if len(data) % 2:
        raise _malformed("a list of an odd number of bytes")
    return tuple(data[at] << 8 | data[at + 1] for at in range(0, len(data), 2))
