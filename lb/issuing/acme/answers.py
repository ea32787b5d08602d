"""The answers of an ACME authority as values: what the client relies on is checked, and everything else is skipped.

An answer that is no such value is nonsense: `Nonsense` says what was wrong with it. Pure.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeVar

import msgspec

#: An address that the authority names. It is only ever asked over the scheme of the directory.
Address = Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]+$", max_length=2048)]
#: A token becomes a part of a path, so that nothing but base64url may be in it.
Token = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+$", max_length=512)]
#: Authorizations of an order, or challenges of an authorization.
MANY = 1000


class Nonsense(Exception):  # noqa: N818 - it says what the answer is
    """An answer that is not one of ACME."""


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """Facts about an authority."""

    external_account_required: bool = False
    profiles: dict[str, str] = {}


class Directory(msgspec.Struct, frozen=True, rename="camel"):
    """Where an authority takes which order."""

    new_nonce: Address
    new_account: Address
    new_order: Address
    renewal_info: Address = ""
    meta: Meta = Meta()


class Identifier(msgspec.Struct, frozen=True):
    """A name that a certificate is for."""

    value: str
    type: str = "dns"


class Problem(msgspec.Struct, frozen=True):
    """Why an authority refuses (RFC 7807)."""

    type: str = "about:blank"
    detail: str = ""
    subproblems: list[Problem] = []
    identifier: Identifier | None = None

    @property
    def kind(self) -> str:
        """`rateLimited` of `urn:ietf:params:acme:error:rateLimited`."""
        return self.type.rpartition(":")[2]

    def __str__(self) -> str:
        parts = [f"{each.identifier.value}: {each.detail}" for each in self.subproblems[:3] if each.identifier]
        text = f"{self.kind}: {'; '.join([self.detail, *parts])}" if self.detail or parts else self.kind
        return text if len(text) <= LONGEST_DETAIL else text[: LONGEST_DETAIL - 1] + "…"


#: Characters of an authority's explanation that are shown.
LONGEST_DETAIL = 500


class Order(msgspec.Struct, frozen=True):
    """The state of an order."""

    status: Literal["pending", "ready", "processing", "valid", "invalid"]
    finalize: Address
    authorizations: Annotated[list[Address], msgspec.Meta(max_length=MANY)] = []
    identifiers: Annotated[list[Identifier], msgspec.Meta(max_length=MANY)] = []
    certificate: Address = ""
    error: Problem | None = None


class Challenge(msgspec.Struct, frozen=True):
    """One way to show that a name is controlled."""

    type: str
    url: Address = ""
    status: Literal["pending", "processing", "valid", "invalid"] = "pending"
    token: Token = ""
    error: Problem | None = None


class Authorization(msgspec.Struct, frozen=True):
    """Whether control of a name was shown."""

    status: Literal["pending", "valid", "invalid", "deactivated", "expired", "revoked"]
    identifier: Identifier
    challenges: Annotated[list[Challenge], msgspec.Meta(max_length=MANY)] = []


class Window(msgspec.Struct, frozen=True):
    """The time in which an authority wants a certificate renewed (RFC 9773)."""

    start: datetime
    end: datetime


class RenewalInfo(msgspec.Struct, frozen=True, rename="camel"):
    """`renewalInfo` of one certificate."""

    suggested_window: Window
    explanation_url: str = msgspec.field(name="explanationURL", default="")


Answer = TypeVar("Answer", Directory, Order, Challenge, Authorization, RenewalInfo)


def read(kind: type[Answer], body: bytes) -> Answer:
    """An answer as a value. Raises `Nonsense`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Nonsense(f"no {kind.__name__.lower()}: {error}") from None


def read_problem(body: bytes) -> Problem:
    """The explanation of a refusal, as far as there is one: proxies in front of an authority answer in HTML."""
    try:
        return msgspec.json.decode(body, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Problem()
