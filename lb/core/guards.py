"""The values of steps that have many; `core.targets.StepRule` has one of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """Passwords by RFC 7617. The users are in the step's file."""

    realm: str
    user_header: str = ""  # the field that tells the target the user; empty: none
    remove_authorization: bool = False


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """Keys in a header field. The keys are in the step's file."""

    header: str
    name_header: str = ""  # the field that tells the target whose key it is; empty: none
    remove_key: bool = False


@dataclass(frozen=True, slots=True)
class ForwardAuth:
    """A service that is asked about each request."""

    service: str
    target: str  # path and query of the question
    copied: tuple[str, ...] = ()  # fields of its answer that the target gets
    timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class Jwt:
    """Signed tokens (RFC 7519). The keys are in the step's file, or at its URL."""

    issuers: tuple[str, ...] = ()  # one of which the token must have; empty: any
    audiences: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ()  # empty: the ones that a key is for
    claims: tuple[tuple[str, str], ...] = ()  # (field for the target, claim)
    header: str = "Authorization"
    remove_token: bool = False
    leeway: float = 60.0


@dataclass(frozen=True, slots=True)
class Compression:
    """Which answers get a content coding."""

    types: tuple[str, ...]
    minimum: int = 1024  # bytes; an answer of unknown length is taken for a long one
    codings: tuple[str, ...] = ("zstd", "br", "gzip")


@dataclass(frozen=True, slots=True)
class Cors:
    """Which pages of other origins may read answers."""

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int = -1  # seconds; -1: the answer says nothing of it
