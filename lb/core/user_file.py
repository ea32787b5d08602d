"""Files of users and their passwords' hashes, as htpasswd writes them: `name:hash`, one user a line.

Hashes are bcrypt (`$2a$`, `$2b$`, `$2y$`) or argon2 (`$argon2id$`, `$argon2i$`, `$argon2d$`). Others are refused: a
graphics card tries billions of MD5 and SHA-1 hashes in a second. So is a cost that would hold a processor for seconds.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_BCRYPT: Final = re.compile(rb"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_ARGON2: Final = re.compile(
    rb"\$argon2(?:id|i|d)\$(?:v=19\$)?m=([0-9]{1,10}),t=([0-9]{1,10}),p=([0-9]{1,5})\$[+/A-Za-z0-9]+\$[+/A-Za-z0-9]+"
)
_NAME: Final = re.compile(rb"[^\x00-\x1f\x7f]+")
#: Of one hash: about two seconds of a processor, and memory in KiB.
MOST_ROUNDS: Final = 14
MOST_MEMORY: Final = 262144
MOST_PASSES: Final = 16
#: The names of hashes that htpasswd can write and lb does not take, by their beginning.
_REFUSED: Final = (
    (b"$apr1$", "apr1 (MD5)"),
    (b"{SHA}", "SHA-1"),
    (b"{SSHA}", "salted SHA-1"),
    (b"{PLAIN}", "a plain password"),
    (b"$1$", "MD5"),
    (b"$5$", "SHA-256 crypt"),
    (b"$6$", "SHA-512 crypt"),
    (b"$2x$", "the faulty bcrypt of before 2011"),
)
WRITE: Final = "Write it by `htpasswd -B FILE NAME`."


class BadLine(NamedTuple):
    """A line that is no user."""

    number: int
    reason: str


def read_users(data: bytes) -> tuple[dict[bytes, bytes], list[BadLine]]:
    """(hashes by name, lines that are no users). Empty lines and comments (`#`) are neither."""
    users: dict[bytes, bytes] = {}
    bad: list[BadLine] = []
    for number, line in enumerate(data.splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        name, colon, rest = text.partition(b":")
        stored = rest.partition(b":")[0]
        fault = "" if colon and name and _NAME.fullmatch(name) else "it is not written as NAME:HASH"
        fault = fault or ("the user is listed twice" if name in users else hash_fault(stored))
        if fault:
            bad.append(BadLine(number, fault))
        else:
            users[name] = stored
    return users, bad


def hash_fault(stored: bytes) -> str:
    """Why a hash is not taken; empty: it is."""
    match = _BCRYPT.fullmatch(stored)
    if match is not None:
        rounds = int(match[1])
        return "" if 4 <= rounds <= MOST_ROUNDS else f"bcrypt's cost is {rounds}, and 4 to {MOST_ROUNDS} are allowed"
    match = _ARGON2.fullmatch(stored)
    if match is not None:
        memory, passes, lanes = (int(number) for number in match.groups())
        if not (8 <= memory <= MOST_MEMORY and 1 <= passes <= MOST_PASSES and 1 <= lanes <= 16):
            return f"argon2's cost is over m={MOST_MEMORY},t={MOST_PASSES},p=16"
        return ""
    for beginning, name in _REFUSED:
        if stored.startswith(beginning):
            return f"its hash is {name}, which is too easily guessed: bcrypt and argon2 are allowed"
    return "its hash is neither bcrypt nor argon2"
