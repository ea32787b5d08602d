"""Text of bytes that come from outside, safe for a terminal and a log."""

from __future__ import annotations

#: Characters that are shown where the caller gives no limit.
SHOWN = 200


def printable(data: bytes, limit: int = SHOWN) -> str:
    """`data` as text of at most `limit` characters; control characters are escaped, line ends stay."""
    text = data[: limit * 4].decode("utf-8", "replace")[:limit]
    if not text.replace("\n", "").isprintable():
        text = "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
    text = text.strip("\n")
    return f"{text}…" if len(data) > limit else text
