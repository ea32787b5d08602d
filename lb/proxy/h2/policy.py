"""Policy: a listener's Strict-Transport-Security, added to the heads of answers."""

from __future__ import annotations

from lb.http.hsts import is_for, with_policy
from lb.http.message import ResponseHead


class Policy:
    """A listener's Strict-Transport-Security, and the last head that it was added to."""

    __slots__ = ("_from", "_line", "_made")

    def __init__(self, value: str) -> None:
        self._line = b"Strict-Transport-Security: " + value.encode() + b"\r\n"
        self._from: ResponseHead | None = None
        self._made: ResponseHead | None = None

    def apply(self, response: ResponseHead, host: bytes) -> ResponseHead:
        """The head with the policy, where the host may have one."""
        if not is_for(host):
            return response
        if self._made is None or self._from is not response:
            self._from, self._made = response, with_policy(response, self._line)
        return self._made
