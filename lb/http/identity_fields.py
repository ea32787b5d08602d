"""Fields by which lb tells a target who sends a request. What a client has sent under these names is removed first.

A name stands for all of its spellings, since servers take `X_User` and `X.User` for `X-User`. They are removed whether
lb then sets them or not. So no client can say who it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from lb.http.message import RequestFields, RequestHead

_ODD: Final = re.compile(rb"[^0-9a-z]")


def usual(name: bytes) -> bytes:
    """The name that all spellings of a field's name have in common."""
    return _ODD.sub(b"-", name.lower())


class IdentityFields:
    """The fields that one step sets, by their names."""

    __slots__ = ("_usual",)

    def __init__(self, names: Sequence[bytes]) -> None:
        self._usual = frozenset([usual(name) for name in names])

    def head_with(self, head: RequestHead, new: list[bytes]) -> RequestHead:
        """The head for the target with these whole lines, and with nothing else of these names."""
        fields = head.fields
        known = fields.remembered(self)
        if isinstance(known, Told) and known.new == new:  # a connection repeats its fields, and its user with them
            made = known.made
        else:
            names = self._usual
            gone = [line for line in fields.forwarded_lines if usual(line[: line.find(b":")]) in names]
            made = fields.with_changes(new, gone) if new or gone else fields
            fields.remember(self, Told(new, made))
        if made is fields:
            return head
        return RequestHead(head.method, head.target, head.path, head.minor, head.host, made)


class Told:
    """What a target is told: these lines, in these fields."""

    __slots__ = ("made", "new")

    def __init__(self, new: list[bytes], made: RequestFields) -> None:
        self.new = new
        self.made = made
