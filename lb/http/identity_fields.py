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

    __slots__ = ("_fields", "_made", "_new", "_usual")

    def __init__(self, names: Sequence[bytes]) -> None:
        self._usual = frozenset([usual(name) for name in names])
        # A connection repeats its fields, and its user with them.
        self._fields: RequestFields | None = None
        self._new: list[bytes] = []
        self._made: RequestFields | None = None

    def head_with(self, head: RequestHead, new: list[bytes]) -> RequestHead:
        """The head for the target with these whole lines, and with nothing else of these names."""
        fields = head.fields
        made = self._made
        if made is None or self._fields is not fields or self._new != new:
            names = self._usual
            gone = [line for line in fields.forwarded_lines if usual(line[: line.find(b":")]) in names]
            made = fields.with_changes(new, gone) if new or gone else fields
            self._fields, self._new, self._made = fields, new, made
        if made is fields:
            return head
        return RequestHead(head.method, head.target, head.path, head.minor, head.host, made)
