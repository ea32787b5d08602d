"""Files of API keys: `NAME:KEY` a line, or `NAME:sha256:HEX` with the hash of a key.

Keys are looked up by their SHA-256. So the time of a look-up tells nothing of a key, and a fast hash is enough, as keys
are long and random, unlike passwords.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from lb.core.user_file import BadLine

#: Characters of a key at least.
SHORTEST: Final = 16
_NAME: Final = re.compile(rb"[^\x00-\x1f\x7f:]+")
_HASH: Final = re.compile(rb"[0-9A-Fa-f]{64}")
_KEY: Final = re.compile(rb"[\x21-\x7e]+")
WRITE: Final = "Make a key: head -c 24 /dev/urandom | base64"


def digest_of(key: bytes) -> bytes:
    """What a key is found by."""
    return hashlib.sha256(key).digest()


def read_keys(data: bytes) -> tuple[dict[bytes, bytes], list[BadLine]]:
    """(names by the digests of their keys, lines that are no keys). A name may have several keys, so that they can be
    exchanged one after another."""
    keys: dict[bytes, bytes] = {}
    bad: list[BadLine] = []
    for number, line in enumerate(data.splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        name, _, key = text.partition(b":")
        hashed = key.startswith(b"sha256:")
        if not _NAME.fullmatch(name) or not key:
            bad.append(BadLine(number, "it is not written as NAME:KEY or NAME:sha256:HEX"))
        elif hashed and not _HASH.fullmatch(key[7:]):
            bad.append(BadLine(number, "what follows sha256: are not 64 hexadecimal digits"))
        elif not hashed and (len(key) < SHORTEST or not _KEY.fullmatch(key)):
            bad.append(BadLine(number, f"a key has at least {SHORTEST} printable characters, without spaces"))
        elif keys.setdefault(bytes.fromhex(key[7:].decode()) if hashed else digest_of(key), name) != name:
            bad.append(BadLine(number, "another name has the same key"))
    return keys, bad
