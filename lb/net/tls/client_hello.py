"""The ClientHello, read before OpenSSL reads it: it names the server, and so the certificate (RFC 8446, RFC 6066).

Python's `ssl` shows the server name alone, and that only within the handshake. The bytes themselves say which name and
which protocols a client offers, however they were cut into records and segments. OpenSSL gets the same bytes
afterwards; `session` holds both readings of the name against each other.

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

_HANDSHAKE: Final = 22  # type of a record
_CLIENT_HELLO: Final = 1  # type of a handshake message
_RECORD_LIMIT: Final = 16384  # RFC 8446 section 5.1

# Types of extensions.
_SERVER_NAME: Final = 0
_ALPN: Final = 16

# A method (RFC 9110 section 5.6.2), a space, the first byte of a target; a PROXY line looks the same.
_REQUEST: Final = re.compile(rb"(?!PROXY )[!#-'*+.0-9A-Z^-z|~-]{1,32} (?:/|\*|[0-9A-Za-z])")
_BEGIN_OF_REQUEST: Final = re.compile(rb"[!#-'*+.0-9A-Z^-z|~-]{1,32} ?")
_NAME: Final = re.compile(r"[a-z0-9_.:*-]{1,253}")

_EXTENSION: Final = struct.Struct(">HH")
_ONE_NAME: Final = struct.Struct(">HBH")


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
    if len(data) > 9 and data[1] == 3 and data[5] == _CLIENT_HELLO:
        # Nearly every client: one record that is the whole message.
        length, size = data[3] << 8 | data[4], data[6] << 16 | data[7] << 8 | data[8]
        if length == size + 4 <= _RECORD_LIMIT and len(data) >= length + 5:
            return data[9 : length + 5]
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
    """Raises `HelloError`, or `struct.error` or IndexError where the message ends too early.

    Only what lb decides by is read. Every other list is OpenSSL's to read, and to refuse."""
    size = len(message)
    if message[34] > 32:
        raise _malformed("a session id longer than 32 bytes")
    at = 35 + message[34]
    ciphers = message[at] << 8 | message[at + 1]
    if ciphers % 2:
        raise _malformed("a list of an odd number of bytes")
    at += 2 + ciphers
    if not message[at]:
        raise _malformed("no compression method")
    at += 1 + message[at]
    name = ""
    protocols: tuple[str, ...] = ()
    if at != size:
        end = at + 2 + (message[at] << 8 | message[at + 1])
        at += 2
        if end != size:
            raise _malformed("a block of extensions that does not fit the ClientHello")
        kinds: set[int] = set()
        while at < size:
            kind, length = _EXTENSION.unpack_from(message, at)
            at += 4
            if kind in kinds:
                raise _malformed(f"extension {kind} twice", 47)
            kinds.add(kind)
            if kind == _SERVER_NAME:
                name = _server_name(message[at : at + length])
            elif kind == _ALPN:
                protocols = _protocols(message[at : at + length])
            at += length
        if at != size:
            raise _malformed("an extension that does not fit the ClientHello")
    return ClientHello(name, protocols)


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
