"""The readings of a path: what a target may take it for, besides what it says byte by byte.

A path goes to the target as it came. Targets read paths in different ways: some decode `%2F`, merge `//`, remove `..`
or cut `;parameters` off. A rule that looks at the bytes alone is passed by `/x/..;/admin` where the target then serves
`/admin`. So a route is chosen for each reading. Where the readings choose different routes, the path is ambiguous and
is refused (`core.routing`). Where they agree, it does not matter which one the target has.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

#: Whether a path may have more than one reading.
ODD: Final = re.compile(rb"[%\\;]|//|/\.")
#: Readings that are compared, and their bytes in all. A path with more is made to have them, and is refused: so nobody
#: has lb compare for milliseconds.
MOST: Final = 48
MOST_BYTES: Final = 32768
_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
#: Escapes of visible ASCII. All other ones stay: no route's path has the characters that they stand for.
_ESCAPE: Final = re.compile(rb"%(2[1-9A-Fa-f]|[3-6][0-9A-Fa-f]|7[0-9A-Ea-e])")
#: Escapes of letters, digits, `-`, `.`, `_` and `~`, which mean the same as the character (RFC 3986 section 6.2.2.2).
_UNRESERVED: Final = re.compile(rb"%(2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])")
_PARAMETERS: Final = re.compile(rb";[^/]*+")
_SLASHES: Final = re.compile(rb"//++")


class Unreadable(Exception):  # noqa: N818 - it says what is wrong
    """The path is broken, or has too many readings; the text says which."""


def readings(path: bytes) -> list[bytes]:
    """All readings of a path, itself first. Raises `Unreadable`.

    They come from the steps that servers take, each done or left out, in the order in which servers take them.
    """
    if _BROKEN_ESCAPE.search(path):
        raise Unreadable("a % in the path begins no escape of two hexadecimal digits")
    found = [path]
    size = len(path)
    for ways in _STEPS:
        for reading in list(found):
            for way in ways:
                other = way(reading)
                if other not in found:
                    found.append(other)
                    size += len(other)
                    if len(found) > MOST or (size > MOST_BYTES and len(found) > 2):
                        raise Unreadable("the path can be read in too many ways")
    return found


def _decoded_unreserved(path: bytes) -> bytes:
    return _UNRESERVED.sub(_character, path) if b"%" in path else path


def _decoded(path: bytes) -> bytes:
    return _ESCAPE.sub(_character, path) if b"%" in path else path


def _character(match: re.Match[bytes]) -> bytes:
    return bytes((int(match[1], 16),))


def _decoded_twice(path: bytes) -> bytes:
    return _decoded(_decoded(path)) if b"%25" in path else path


def _slashed(path: bytes) -> bytes:
    return path.replace(b"\\", b"/")


def _without_parameters(path: bytes) -> bytes:
    return _PARAMETERS.sub(b"", path) if b";" in path else path


def _merged(path: bytes) -> bytes:
    return _SLASHES.sub(b"/", path) if b"//" in path else path


def without_dots(path: bytes) -> bytes:
    """The path without `.` and `..` segments (RFC 3986 section 5.2.4). Raises `Unreadable` if it leads above the
    root."""
    if b"/." not in path:
        return path
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if not kept:
                raise Unreadable("the path leads above the root")
            kept.pop()
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)


_STEPS: Final[tuple[tuple[Callable[[bytes], bytes], ...], ...]] = (
    (_without_parameters,),
    (_decoded_unreserved, _decoded, _decoded_twice),
    (_slashed,),
    (_without_parameters,),
    (_merged,),
    (without_dots,),
    (_merged,),
)
