"""Affinity: the cookie that brings a client back to its target, and the values that stand for the targets.

A value is a keyed hash (HMAC-SHA-256) of the target's address. So it is the same in every worker, after a restart and
after a reload that moves or renames the target. It says nothing of the address, and without the secret nobody can make
one. (Caddy's cookie policy has the same, with the address alone.) A value that stands for no target is passed over.

A file of secrets has one a line. The first makes new values; the values of all of them are taken, so that a secret can
be exchanged without moving clients.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from typing import Final

from lb.core.user_file import BadLine

#: Characters of a secret at least, and secrets of a file at most.
SHORTEST: Final = 16
MOST: Final = 8
#: Bytes of the hash that a value has.
SIZE: Final = 16
WRITE: Final = "Make one: head -c 24 /dev/urandom | base64"
_SECRET: Final = re.compile(rb"[\x21-\x7e]+")
#: What else is hashed, so that the secret may serve another purpose as well.
_PURPOSE: Final = b"lb affinity\0"


def read_secrets(data: bytes) -> tuple[list[bytes], list[BadLine]]:
    """(secrets, lines that are none)."""
    secrets: list[bytes] = []
    bad: list[BadLine] = []
    for number, line in enumerate(data.splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        if len(text) < SHORTEST or not _SECRET.fullmatch(text):
            bad.append(BadLine(number, f"a secret has at least {SHORTEST} printable characters, without spaces"))
        elif len(secrets) == MOST:
            bad.append(BadLine(number, f"there are more than {MOST} secrets"))
        else:
            secrets.append(text)
    return secrets, bad


def place_of(id: str) -> str:
    """The hashed part of a target's id: its address, whatever its service and pool are called."""
    return id.split("/", 2)[-1]


class TargetCookie:
    """The cookie of one service. Targets have numbers from 1 on; 0 stands for none."""

    __slots__ = ("_last", "_numbers", "_places", "_secrets", "_values", "name", "several")

    def __init__(self, name: str, secrets: Sequence[bytes]) -> None:
        self.name = name.encode()
        self.several = len(secrets) > 1  # a target has several values, and the newest is to be in use
        self._secrets = secrets
        self._last = 0  # the newest number
        self._places: dict[str, int] = {}  # numbers by address
        self._values: dict[int, list[bytes]] = {}  # by number, one for each secret
        self._numbers: dict[bytes, int] = {}  # numbers by value

    def know(self, ids: Iterable[str]) -> None:
        """These are all targets that there are."""
        places = {place_of(id) for id in ids}
        for gone in self._places.keys() - places:
            for value in self._values.pop(self._places.pop(gone)):
                del self._numbers[value]
        for place in places:
            self._learn(place)

    def number(self, id: str) -> int:
        """The number of a target."""
        return self._learn(place_of(id))

    def value(self, id: str) -> bytes:
        """The value that stands for a target in new cookies."""
        return self._values[self.number(id)][0]

    def _learn(self, place: str) -> int:
        number = self._places.get(place, 0)
        if not number:
            self._last += 1
            number = self._places[place] = self._last
            values = self._values[number] = [_value(secret, place) for secret in self._secrets]
            for value in values:
                self._numbers[value] = number
        return number

    def meant_by(self, values: Iterable[bytes]) -> int:
        """The target that the first known value stands for; 0: there is none. Values are looked up by their hash alone,
        and knowing one of them gives no more than its target."""
        for value in values:
            number = self._numbers.get(value, 0)
            if number:
                return number
        return 0


def _value(secret: bytes, place: str) -> bytes:
    digest = hmac.digest(secret, _PURPOSE + place.encode(), "sha256")
    return urlsafe_b64encode(digest[:SIZE]).rstrip(b"=")
