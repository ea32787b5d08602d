"""The PROXY protocol, versions 1 and 2, as a receiver (HAProxy's proxy-protocol.txt, sections 2.1 and 2.2).

Addresses come out in one spelling. An IPv4 address that is mapped into IPv6 (`::ffff:192.0.2.1`, RFC 4291 section
2.5.5.2) is the IPv4 address, as in networks, limits and logs.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

SIGNATURE_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
#: Section 2.1: single spaces, ports without leading zeros. All bytes after `UNKNOWN ` up to the CRLF are to be ignored.
_V1: Final = re.compile(
    rb"PROXY (?:(TCP4|TCP6) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39}) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"
    rb"|UNKNOWN(?: [\x20-\x7e]*)?)"
)
_V1_LIMIT: Final = 107  # the longest line the specification allows, with its CRLF
_V2_LIMIT: Final = 4096
_V2_FIXED: Final = 16  # bytes before the addresses

# Section 2.2: the upper half of the 14th byte is the address family, the lower half the transport.
_UNSPEC, _INET, _INET6, _UNIX = range(4)
_STREAM: Final = 1
#: Bytes of both addresses and ports, by family.
_ADDRESS_SIZES: Final = {_INET: 12, _INET6: 36, _UNIX: 216}


def read(data: bytes) -> tuple[bytes, int] | None:
    """(source address, or b"" when the header has none; length of the header), or None while it is unfinished.

    Raises ValueError for bytes that are no PROXY header. A listener that expects a header closes the connection then:
    it is an attack or a mistake.
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
    return _text(source), end + 2


def _text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address).encode()


def _read_v2(data: bytes) -> tuple[bytes, int] | None:
    if len(data) < _V2_FIXED:
        return None
    version, command = data[12] >> 4, data[12] & 0x0F
    family, transport = data[13] >> 4, data[13] & 0x0F
    length = int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1:
        raise ValueError("an unknown version or command in a PROXY v2 header")
    if length > _V2_LIMIT:
        raise ValueError("a PROXY v2 header longer than 4096 bytes")
    end = _V2_FIXED + length
    if len(data) < end:
        return None
    if command == 0:  # LOCAL: the sender's own health check; the block is to be discarded, family included
        return b"", end
    if family > _UNIX or transport > 2:
        raise ValueError("an unknown address family or transport in a PROXY v2 header")
    if family == _UNSPEC:  # the block is to be ignored
        return b"", end
    tlvs = _V2_FIXED + _ADDRESS_SIZES[family]
    if tlvs > end:
        raise ValueError("a PROXY v2 header too short for its addresses")
    _check_tlvs(data, tlvs, end)
    if transport != _STREAM or family == _UNIX:  # no connection of an HTTP client
        return b"", end
    size = 4 if family == _INET else 16
    return _text(ipaddress.ip_address(data[_V2_FIXED : _V2_FIXED + size])), end


def _check_tlvs(data: bytes, at: int, end: int) -> None:
    """Refuse additional values (one byte of type, two of length) that do not fill their block exactly."""
    while at < end:
        if at + 3 > end:
            raise ValueError("a PROXY v2 header with a torn additional value")
        at += 3 + int.from_bytes(data[at + 1 : at + 3], "big")
    if at > end:
        raise ValueError("a PROXY v2 header whose additional values are longer than it")
