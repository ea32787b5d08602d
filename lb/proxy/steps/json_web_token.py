"""Lets clients in by a signed token (JWT, RFC 7519), and tells the target of its claims.

A token that has passed is kept, by its hash, until it ends. The keys of a changed configuration, or of a renewed set,
make a new step, so that nothing is kept that they would refuse.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Final

from lb.core.claims import BadToken, check_claims, read_claims, told_lines
from lb.core.guards import Jwt
from lb.http.credentials import Several, only_value, read_bearer
from lb.http.h1.replies import Reply
from lb.http.identity_fields import IdentityFields
from lb.net.jwks import KeySet, UnknownKey, payload_of
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.http.message import RequestFields
    from lb.proxy.exchange import Exchange
    from lb.proxy.guards import Guards

#: Tokens that are kept; the oldest goes first. No token is kept longer than so many seconds.
MOST_KEPT: Final = 10_000
LONGEST: Final = 600.0
_SEVERAL: Final = Reply(400, "credentials", "the field of the token is given more than once")
_NONE: Final = Reply(401, "unauthorized", "this needs a token", b"WWW-Authenticate: Bearer\r\n")
_NO_KEYS: Final = Reply(503, "auth_unavailable", "the keys that would verify the token are not there yet")
_CHALLENGE: Final = b'WWW-Authenticate: Bearer error="invalid_token"\r\n'


class Passed:
    """A token that has passed."""

    __slots__ = ("lines", "until")

    def __init__(self, lines: list[bytes], until: float) -> None:
        self.lines = lines  # for the target, whole
        self.until = until  # Unix time


class JwtStep(Step):
    """One set of keys. None: it has not come yet. `source`: where it comes from."""

    __slots__ = (
        "_bearer",
        "_fields",
        "_guards",
        "_header",
        "_kept",
        "_keys",
        "_rule",
        "_source",
    )

    def __init__(self, rule: Jwt, keys: KeySet | None, source: str, guards: Guards) -> None:
        self._rule = rule
        self._keys = keys
        self._source = source
        self._guards = guards
        self._header = rule.header.lower().encode()
        self._bearer = self._header == b"authorization"
        self._fields = IdentityFields([self._header, *[field.encode() for field, _ in rule.claims]])
        self._kept: dict[bytes, Passed] = {}  # by hash

    def name(self) -> str:
        return "jwt"

    def steady(self) -> bool:
        return True

    def passes_until(self, exchange: Exchange) -> float:
        known = exchange.received.fields.remembered(self)
        return known.until if isinstance(known, Passed) else 0.0

    def before(self, exchange: Exchange) -> Reply | None:
        fields = exchange.received.fields
        now = time.time()
        known = fields.remembered(self)  # a connection repeats its fields, and its token with them
        if not isinstance(known, Passed) or now >= known.until:
            found = self._look(fields, now)
            if not isinstance(found, Passed):
                return found
            known = found
            fields.remember(self, known)
        exchange.head = self._fields.head_with(exchange.head, known.lines)
        exchange.omits_trailers = True
        return None

    def _look(self, fields: RequestFields, now: float) -> Passed | Reply:
        """Find the token: what it lets pass, or why it does not."""
        try:
            sent = only_value(fields, self._header)
        except Several:
            return _SEVERAL
        token = read_bearer(sent) if self._bearer else sent
        if not token:
            return _NONE
        key = hashlib.blake2b(token, digest_size=32).digest()
        kept = self._kept.get(key)
        if kept is None or now >= kept.until:
            if self._keys is None:
                return _NO_KEYS
            try:
                kept = self._verified(token, self._keys, sent, now)
            except UnknownKey as error:
                self._guards.asked_keys.add(self._source)
                return _refusal(error)
            except BadToken as error:
                return _refusal(error)
            self._kept.pop(key, None)
            if len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = kept
        return kept

    def _verified(self, token: bytes, keys: KeySet, sent: bytes, now: float) -> Passed:
        rule = self._rule
        claims = read_claims(payload_of(token, keys, rule.algorithms))
        until = min(check_claims(claims, rule, now), now + LONGEST)
        own = [] if rule.remove_token else [rule.header.encode() + b": " + sent + b"\r\n"]
        return Passed(own + told_lines(claims, rule.claims), until)


def _refusal(error: BadToken) -> Reply:
    return Reply(401, "unauthorized", f"the token is not taken: {error}", _CHALLENGE)
