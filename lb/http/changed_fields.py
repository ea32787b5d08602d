"""Header fields that a route sets, adds or removes, in this order; nothing here changes a message's framing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from lb.http.template import OF_ONE_REQUEST, REQUEST_ID, VARIABLES, Template, Values

_ODD: Final = re.compile(rb"[^0-9a-z]")
#: Fields that frame a message, belong to one connection, or are lb's own: no route changes them.
FIXED_IN_REQUESTS: Final = frozenset(
    """connection content-length expect forwarded http2-settings keep-alive max-forwards proxy-connection te trailer
    transfer-encoding upgrade via x-forwarded-for x-forwarded-host x-forwarded-proto
    x-request-id""".split()  # noqa: SIM905 - a list of so many is harder to read
)
FIXED_IN_ANSWERS: Final = frozenset(
    """connection content-length date keep-alive proxy-connection trailer transfer-encoding upgrade
    x-request-id""".split()  # noqa: SIM905 - the same
)


class FieldChanges:
    """The changes of one step. A name stands for all of its spellings, since servers take `X_A` for `X-A`."""

    __slots__ = ("_add", "_remove", "_set", "of_head", "static", "steady")

    def __init__(
        self, replaced: Sequence[tuple[str, str]], added: Sequence[tuple[str, str]], removed: Sequence[str]
    ) -> None:
        self._set = [(name.encode() + b": ", Template(text)) for name, text in replaced]
        self._add = [(name.encode() + b": ", Template(text)) for name, text in added]
        names = [*[name for name, _ in replaced], *removed]
        self._remove = frozenset([_usual(name.encode()) for name in names])
        self.static = True  # the changes are the same for every request
        self.steady = True  # …for every request of a connection with the same fields
        self.of_head = True  # …with the same whole head
        for _, template in [*self._set, *self._add]:
            self.static = self.static and template.static
            self.steady = self.steady and not (template.variables & OF_ONE_REQUEST)
            self.of_head = self.of_head and VARIABLES[REQUEST_ID] not in template.variables

    def apply(self, lines: Sequence[bytes], values: Values) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """(the lines that stay, the lines that are new, the lines that are gone). Raises `BadValue`."""
        new = [b"%b%b\r\n" % (name, template.expand(values)) for name, template in [*self._set, *self._add]]
        removed = self._remove
        if not removed:
            return list(lines), new, []
        kept: list[bytes] = []
        gone: list[bytes] = []
        for line in lines:
            (gone if _usual(line[: line.find(b":")]) in removed else kept).append(line)
        return kept, new, gone


def _usual(name: bytes) -> bytes:
    return _ODD.sub(b"-", name.lower())
