"""Cross-origin requests (Fetch standard, "CORS protocol"): which origins may read answers, and the fields that say so.

An origin matches exactly, or below a suffix at a label's border, at any depth: `https://*.example.org` takes
`https://a.b.example.org`, and not `https://badexample.org`. With credentials the origin itself is echoed, never `*`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: Methods and fields that need no permission (CORS-safelisted).
_SAFE_METHODS: Final = (b"GET", b"HEAD", b"POST")
_FIELDS: Final = frozenset(
    b"""access-control-allow-credentials access-control-allow-headers access-control-allow-methods
    access-control-allow-origin access-control-expose-headers access-control-max-age""".split()
)


class Policy:
    """The rules of one route."""

    __slots__ = ("_any", "_credentials", "_exact", "_expose", "_headers", "_max_age", "_methods", "_suffixes", "varies")

    def __init__(
        self,
        origins: Sequence[str],
        methods: Sequence[str] = (),
        headers: Sequence[str] = (),
        expose: Sequence[str] = (),
        credentials: bool = False,
        max_age: int = -1,
    ) -> None:
        """As in `core.guards.Cors`."""
        self._any = "*" in origins
        lower = [each.lower().encode() for each in origins]
        self._exact = frozenset([each for each in lower if b"*" not in each])
        #: (scheme and slashes, suffix with its dot and port) of `https://*.a.org:8443`.
        self._suffixes = [(each[: each.index(b"*")], each[each.index(b"*") + 1 :]) for each in lower if b"//*." in each]
        self._credentials = credentials
        self._methods = [each.encode() for each in methods]
        self._headers = [each.lower().encode() for each in headers]
        self._expose = b", ".join([each.encode() for each in expose])
        self._max_age = max_age
        self.varies = not self._any or self._credentials  # the answer depends on the origin

    def takes(self, origin: bytes) -> bool:
        """Whether this origin may read answers."""
        lower = origin.lower()
        if lower in self._exact:
            return True
        if self._any and lower != b"null":
            return True
        for scheme, suffix in self._suffixes:
            first, end = len(scheme), len(lower) - len(suffix)
            if end <= first or not (lower.startswith(scheme) and lower.endswith(suffix)):
                continue  # before the cut: mypyc cannot cut bytes whose end comes before their beginning
            if not set(lower[first:end]) & set(b":/@"):
                return True
        return False

    def lines(self, origin: bytes) -> list[bytes]:
        """The lines of an answer to this origin."""
        made: list[bytes] = []
        if origin and self.takes(origin):
            made.append(b"Access-Control-Allow-Origin: " + (origin if self.varies else b"*") + b"\r\n")
            if self._credentials:
                made.append(b"Access-Control-Allow-Credentials: true\r\n")
        return made

    def answer_lines(self, origin: bytes, lines: bytes) -> bytes:
        """The lines of a target's answer, in which the policy's fields stand instead of its own."""
        kept: list[bytes] = []
        varies = not self.varies
        for line in lines.split(b"\r\n"):
            name, _, value = line.partition(b":")
            lower = name.lower()
            if not line or lower in _FIELDS:
                continue
            if lower == b"vary":
                varies = varies or bool({b"origin", b"*"} & {each.strip().lower() for each in value.split(b",")})
            kept.append(line + b"\r\n")
        made = self.lines(origin)
        if made and self._expose:
            made.append(b"Access-Control-Expose-Headers: " + self._expose + b"\r\n")
        return b"".join([*kept, *made, *([] if varies else [b"Vary: Origin\r\n"])])

    def preflight_lines(self, origin: bytes, method: bytes, headers: bytes) -> bytes:
        """The lines that answer a preflight; one that asks for more than is allowed gets no permission at all."""
        vary = b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
        asked = [each.strip().lower() for each in headers.split(b",") if each.strip()]
        any_header = b"*" in self._headers
        refused = not any_header and [each for each in asked if each not in self._headers]
        if not self.takes(origin) or refused or not (method in self._methods or method in _SAFE_METHODS):
            return vary
        made = self.lines(origin)
        made.append(b"Access-Control-Allow-Methods: " + b", ".join(self._methods or list(_SAFE_METHODS)) + b"\r\n")
        allowed = asked if any_header else self._headers
        if allowed:
            made.append(b"Access-Control-Allow-Headers: " + b", ".join(allowed) + b"\r\n")
        if self._max_age >= 0:
            made.append(b"Access-Control-Max-Age: %d\r\n" % self._max_age)
        return b"".join([*made, vary])
