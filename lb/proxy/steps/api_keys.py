"""Lets clients in by a key of theirs, in a header field of its own or as a bearer token.

A request that has the field more than once is refused, and other spellings of its name are removed: lb and the target
could go by different ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lb.core.guards import ApiKeys
from lb.core.key_file import digest_of
from lb.http.credentials import Several, only_value, read_bearer
from lb.http.h1.replies import Reply
from lb.http.identity_fields import IdentityFields
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange

_SEVERAL: Final = Reply(400, "credentials", "the field of the key is given more than once")


class ApiKeysStep(Step):
    """One file of keys: names by the digests of keys."""

    __slots__ = ("_bearer", "_fields", "_header", "_keys", "_name_header", "_refusal", "_removes")

    def __init__(self, rule: ApiKeys, keys: dict[bytes, bytes]) -> None:
        self._keys = keys
        self._header = rule.header.lower().encode()
        self._bearer = self._header == b"authorization"
        self._name_header = rule.name_header.encode()
        self._removes = rule.remove_key
        self._fields = IdentityFields([name for name in (self._header, self._name_header) if name])
        scheme = b"Bearer" if self._bearer else b"ApiKey"
        self._refusal = Reply(401, "unauthorized", "this needs a valid key", b"WWW-Authenticate: " + scheme + b"\r\n")

    def name(self) -> str:
        return "api_keys"

    def steady(self) -> bool:
        return True

    def before(self, exchange: Exchange) -> Reply | None:
        try:
            sent = only_value(exchange.received.fields, self._header)
        except Several:
            return _SEVERAL
        key = read_bearer(sent) if self._bearer else sent
        name = self._keys.get(digest_of(key)) if key else None
        if name is None:
            return self._refusal
        new = [] if self._removes else [self._header + b": " + sent + b"\r\n"]
        if self._name_header:
            new.append(self._name_header + b": " + name + b"\r\n")
        exchange.head = self._fields.head_with(exchange.head, new)
        exchange.omits_trailers = True
        return None
