"""Access: the tokens of the admin port, each with a name and roles, and the names by which the port may be called.

The supervisor replaces them at a reload. Only digests of tokens are kept.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from lb.core.roles import ROLES


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a token. `name` is empty for the token that has none, and for anybody where no token is needed."""

    name: str
    roles: frozenset[str]

    def may(self, roles: Iterable[str]) -> bool:
        """Whether it has one of these roles."""
        return not self.roles.isdisjoint(roles)


#: Of `token_file`, and of anybody where no token is needed.
EVERYTHING = Holder("", frozenset(ROLES))


class Access:
    """Who may ask one admin port. Without tokens, anybody may ask everything."""

    def __init__(self, tokens: Iterable[tuple[Holder, str]] = (), names: Iterable[str] = ()) -> None:
        self.use(tokens, names)

    def use(self, tokens: Iterable[tuple[Holder, str]], names: Iterable[str]) -> None:
        """From now on these tokens and names count."""
        self._known = tuple((digest(token.encode()), holder) for holder, token in tokens)
        self.names = frozenset({"localhost", *(name.lower().rstrip(".") for name in names)})

    @property
    def secured(self) -> bool:
        """Whether a token is needed."""
        return bool(self._known)

    def holder(self, given: bytes) -> Holder | None:
        """Who holds the token with this digest. Every token is compared, so that the time tells nothing of them."""
        if not self._known:
            return EVERYTHING
        found = None
        for known, holder in self._known:
            if hmac.compare_digest(known, given):
                found = holder
        return found


def digest(token: bytes) -> bytes:
    """All digests have one length, so that a comparison takes the same time for each."""
    return hashlib.sha256(token).digest()
