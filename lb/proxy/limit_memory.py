"""The memory of limits: pieces that all workers have (memfd_create(2)), each with a secret at its beginning.

A key has its place in a piece by a hash with the secret, so no client chooses it.
"""

from __future__ import annotations

import os
import tempfile
from hashlib import blake2b
from typing import Final

#: Bytes of the secret. After it comes, in eight bytes, how many regions have ever been given out.
SECRET: Final = 32
#: Worker processes at one time, those that drain included. Each writes a region of its own. One more process has none,
#: and counts for itself.
REGIONS: Final = 64


def create_memory(name: str, size: int) -> int:
    """A piece of so many bytes, with its secret; returns its descriptor. Raises OSError."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    os.pwrite(fd, os.urandom(SECRET), 0)
    return fd


def mark_of(secret: bytes, limit: bytes, key: bytes) -> int:
    """What stands for a key of a limit; never 0."""
    digest = blake2b(limit + b"\0" + key, digest_size=8, key=secret).digest()
    return int.from_bytes(digest, "little") >> 1 | 1
