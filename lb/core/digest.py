"""Tells contents apart."""

from __future__ import annotations

import hashlib


def digest(data: bytes) -> str:
    """16 hexadecimal digits: the same for the same bytes."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()
