"""Whole lines of a stream that comes in any pieces. Pure."""

from __future__ import annotations


class TooLong(ValueError):  # noqa: N818 - it says what a line is
    """A line is longer than lines may be."""


class Lines:
    """Takes pieces, and gives the lines that they end."""

    def __init__(self, longest: int) -> None:
        self._longest = longest  # octets
        self._rest = bytearray()

    @property
    def cut(self) -> bool:
        """Whether the last line has no end."""
        return bool(self._rest)

    def add(self, data: bytes) -> list[bytes]:
        """The lines that this piece ends, without empty ones. Raises `TooLong`."""
        *whole, rest = data.split(b"\n")
        if whole:
            whole[0] = bytes(self._rest) + whole[0]
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > self._longest:
            raise TooLong(f"a line is longer than {self._longest >> 20} MiB")
        return [line for line in whole if line.strip()]
