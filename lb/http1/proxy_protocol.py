"""The PROXY protocol, versions 1 and 2, as a receiver (HAProxy's proxy-protocol.txt, sections 2.1 and 2.2)."""

from __future__ import annotations

import ipaddress
import re

SIGNATURE_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_V1 = re.compile(
    rb"PROXY (?:(TCP4|TCP6) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})|UNKNOWN.*)"
)
_V1_LIMIT = 107  # the longest line the specification allows, with its CRLF
_V2_LIMIT = 4096


def read(data: bytes) -> tuple[bytes, int] | None:
    """(source address or b"" when it is not told, length of the header), or None while it is unfinished.

    Raises ValueError for anything that is no PROXY header: on a listener that expects one, that is an attack or a
    mistake, and the connection is closed.
    """
    if data[:12] == SIGNATURE_V2[: len(data)]:
        return _read_v2(data)
    if not data.startswith(b"PROXY "[: len(data)]):
        raise ValueError("the connection does not begin with a PROXY header")
    end = data.find(b"\r\n")
    if end < 0:
        if len(data) > _V1_LIMIT:
            raise ValueError("a PROXY line longer than 107 bytes")
        return None
    match = _V1.fullmatch(data, 0, end)
    if match is None or end + 2 > _V1_LIMIT:
        raise ValueError("a malformed PROXY line")
    if match[1] is None:
        return b"", end + 2
    source = ipaddress.ip_address(match[2].decode())
    destination = ipaddress.ip_address(match[3].decode())
    version = 4 if match[1] == b"TCP4" else 6
    if source.version != version or destination.version != version or int(match[4]) > 65535 or int(match[5]) > 65535:
        raise ValueError("a malformed PROXY line")
    return str(source).encode(), end + 2


def _read_v2(data: bytes) -> tuple[bytes, int] | None:
    if len(data) < 16:
        return None
    version, command = data[12] >> 4, data[12] & 0x0F
    family, length = data[13] >> 4, int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1:
        raise ValueError("an unknown version or command in a PROXY v2 header")
    if length > _V2_LIMIT:
        raise ValueError("a PROXY v2 header longer than 4096 bytes")
    if len(data) < 16 + length:
        return None
    if command == 0:  # LOCAL: the sender's own health check
        return b"", 16 + length
    if family == 1 and length >= 12:
        return str(ipaddress.IPv4Address(data[16:20])).encode(), 16 + length
    if family == 2 and length >= 36:
        return str(ipaddress.IPv6Address(data[16:32])).encode(), 16 + length
    return b"", 16 + length
