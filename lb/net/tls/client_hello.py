"""The ClientHello, read before OpenSSL reads it: it names the server, and so the certificate (RFC 8446, RFC 6066).

Python's `ssl` shows the server name alone, and that only within the handshake. The bytes themselves say which name,
protocols, versions and signatures a client offers, however they were cut into records and segments. OpenSSL gets the
same bytes afterwards; `session` holds both readings of the name against each other.

Whatever is read in two ways by two parsers is refused here: a second extension of one kind, a list of names with more
than one, lengths that do not add up.
"""

from __future__ import annotations

import re
import struct
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

_EXTENSION: Final = struct.Struct(">HH")
_ONE_NAME: Final = struct.Struct(">HBH")
_FORMATS: Final = {size: f">{size // 2}H" for size in range(0, 128, 2)}  # of lists, by their bytes

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


def _read(message: bytes) -> ClientHello:
    try:
        return _read_whole(message)
    except (struct.error, IndexError):
        raise _malformed("a length in the ClientHello that does not fit") from None


def _read_whole(message: bytes) -> ClientHello:
    """Raises `HelloError`, or `struct.error` or IndexError where the message ends too early. Written out: this is done
    for each connection."""
    size = len(message)
    version = message[0] << 8 | message[1]
    if message[34] > 32:
        raise _malformed("a session id longer than 32 bytes")
    at = 35 + message[34]
    ciphers, at = _numbers(message, at + 2, message[at] << 8 | message[at + 1])
    if not message[at]:
        raise _malformed("no compression method")
    at += 1 + message[at]
    extensions: dict[int, bytes] = {}
    if at != size:
        end = at + 2 + (message[at] << 8 | message[at + 1])
        at += 2
        if end != size:
            raise _malformed("a block of extensions that does not fit the ClientHello")
        while at < size:
            kind, length = _EXTENSION.unpack_from(message, at)
            at += 4
            if kind in extensions:
                raise _malformed(f"extension {kind} twice", 47)
            extensions[kind] = message[at : at + length]
            at += length
        if at != size:
            raise _malformed("an extension that does not fit the ClientHello")
    name, protocols, versions = extensions.get(_SERVER_NAME), extensions.get(_ALPN), extensions.get(_VERSIONS)
    return ClientHello(
        "" if name is None else _server_name(name),
        () if protocols is None else _protocols(protocols),
        _older(version) if versions is None else _versions(versions),
        _list(extensions.get(_SIGNATURES)),
        _list(extensions.get(_GROUPS)),
        ciphers,
    )


def _server_name(extension: bytes) -> str:
    """The one name of the extension (RFC 6066 section 3): a list's length, a kind, a name's length, the name."""
    size = len(extension)
    listed, kind, length = _ONE_NAME.unpack_from(extension)
    if listed != size - 2 or kind or length != size - 5:
        raise _malformed("a list of server names that is not one host name")
    folded = fold(extension[5:].decode("latin-1"))
    if not _NAME.fullmatch(folded):
        raise _malformed("a server name that no host can have")
    return folded


def _protocols(extension: bytes) -> tuple[str, ...]:
    size = len(extension)
    if size < 4 or extension[0] << 8 | extension[1] != size - 2:
        raise _malformed("a list of protocols that does not fit")
    names: list[str] = []
    at = 2
    while at < size:
        length = extension[at]
        at += 1
        if not length or at + length > size:
            raise _malformed("a protocol without a name, or with one that does not fit")
        names.append(extension[at : at + length].decode("latin-1"))
        at += length
    return tuple(names)


def _versions(extension: bytes) -> tuple[int, ...]:
    """The versions on offer, without the values that test whether a server ignores new ones (RFC 8701)."""
    offered, end = _numbers(extension, 1, extension[0])
    if end != len(extension):
        raise _malformed("bytes behind the list of versions")
    return tuple([version for version in offered if 0x0300 <= version <= TLS_1_3])


def _older(version: int) -> tuple[int, ...]:
    """The versions of a client that lists none."""
    return tuple(range(min(version, TLS_1_2), 0x02FF, -1))


def _list(extension: bytes | None) -> tuple[int, ...]:
    if extension is None:
        return ()
    values, end = _numbers(extension, 2, extension[0] << 8 | extension[1])
    if end != len(extension):
        raise _malformed("bytes behind a list")
    return values


def _numbers(data: bytes, at: int, size: int) -> tuple[tuple[int, ...], int]:
    """Numbers of two bytes each, and where the bytes behind them begin."""
    if size % 2:
        raise _malformed("a list of an odd number of bytes")
    return struct.unpack_from(_FORMATS.get(size) or f">{size // 2}H", data, at), at + size
