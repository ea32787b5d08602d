"""Lets clients in by name and password (RFC 7617).

An unknown user takes as long as a wrong password: the password is checked against another user's hash. A request with
two Authorization fields is refused, since lb and the target could go by different ones.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from lb.core.guards import BasicAuth
from lb.http.credentials import Several, only_value, quoted, read_basic
from lb.http.h1.replies import Reply
from lb.http.identity_fields import IdentityFields
from lb.proxy.hold import Hold
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange
    from lb.proxy.passwords import Passwords

#: Seconds that a request waits for its password to be checked.
WAITS: Final = 10.0
_BUSY: Final = Reply(503, "auth_busy", "too many passwords are being checked")
_SEVERAL: Final = Reply(400, "credentials", "Authorization is given more than once")


class BasicAuthStep(Step):
    """One file of users. `users` are hashes by name."""

    __slots__ = ("_fields", "_passwords", "_refusal", "_removes", "_rule", "_stored", "_user_header", "_users")

    def __init__(self, rule: BasicAuth, users: dict[bytes, bytes], passwords: Passwords) -> None:
        self._rule = rule
        self._users = users
        self._stored = list(users.values())
        self._passwords = passwords
        self._user_header = rule.user_header.encode()
        names = [self._user_header] if rule.user_header else []
        names += [b"authorization"] if rule.remove_authorization else []
        self._removes = bool(names)
        self._fields = IdentityFields(names)
        challenge = b"WWW-Authenticate: Basic realm=" + quoted(rule.realm.encode()) + b', charset="UTF-8"\r\n'
        self._refusal = Reply(401, "unauthorized", "this needs a user name and a password", challenge)

    def name(self) -> str:
        return "basic_auth"

    def before(self, exchange: Exchange) -> Reply | None:
        try:
            value = only_value(exchange.received.fields, b"authorization")
        except Several:
            return _SEVERAL
        credentials = read_basic(value)
        if credentials is None or not self._stored:
            return self._refusal
        user, password = credentials
        stored = self._users.get(user)
        exists = stored is not None
        if stored is None:
            stored = self._stored[hashlib.blake2b(user, digest_size=2).digest()[0] % len(self._stored)]
        key = self._passwords.key_of(user, password, stored)
        right = self._passwords.known(key)
        if right is None:
            return exchange.hold(PasswordHold(self, exchange, user if exists else b"", key, password, stored), WAITS)
        return self.admit(exchange, user) if right and exists else self._refusal

    def admit(self, exchange: Exchange, user: bytes) -> Reply | None:
        """The password is right; b"": of an unknown user, whose password is never right."""
        if not user:
            return self._refusal
        if self._removes:
            new = [self._user_header + b": " + user + b"\r\n"] if self._user_header else []
            exchange.head = self._fields.head_with(exchange.head, new)
            exchange.omits_trailers = True
        return None

    @property
    def passwords(self) -> Passwords:
        """Where passwords are checked."""
        return self._passwords

    @property
    def refusal(self) -> Reply:
        """The answer to a wrong password."""
        return self._refusal


class PasswordHold(Hold):
    """A request whose password is being checked."""

    __slots__ = ("_exchange", "_key", "_password", "_step", "_stored", "_user")

    def __init__(
        self, step: BasicAuthStep, exchange: Exchange, user: bytes, key: bytes, password: bytes, stored: bytes
    ) -> None:
        super().__init__(_BUSY)
        self._step = step
        self._exchange = exchange
        self._user = user
        self._key = key
        self._password = password
        self._stored = stored

    @property
    def peer(self) -> bytes:
        """The client's address."""
        return self._exchange.peer

    def begin(self) -> None:
        if not self._step.passwords.check(self._key, self._password, self._stored, self):
            self._exchange.go_on(self, _BUSY)

    def decided(self, right: bool) -> None:
        """The result is there."""
        reply = self._step.admit(self._exchange, self._user) if right else self._step.refusal
        self._exchange.go_on(self, reply)

    def cancel(self) -> None:
        self._step.passwords.forget(self._key, self)
