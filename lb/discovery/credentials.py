"""Files with tokens and certificates that a source shows its server. Each is read whole, within a bound. Blocks."""

from __future__ import annotations

from pathlib import Path

from lb.discovery.source import NoAnswer

#: Octets of one file that are read at most.
MOST_OCTETS = 1 << 20


def read_text(path: Path, what: str) -> str:
    """A token or a name. Raises `NoAnswer`; `what`: the noun in that."""
    try:
        text = read_octets(path, what).decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable() or not text.isascii():
        raise NoAnswer(f"{path} holds no text that could be {what}")
    return text


def read_octets(path: Path, what: str) -> bytes:
    """Raises `NoAnswer`; `what`: the noun in that."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MOST_OCTETS + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise NoAnswer(f"{what} cannot be read from {path}: {reason}") from None
    if len(data) > MOST_OCTETS:
        raise NoAnswer(f"{path} is longer than {MOST_OCTETS >> 20} MiB")
    return data
