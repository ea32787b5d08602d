"""Guards of routes for tests: users and keys, the steps that ask for them, and requests that show them."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import bcrypt

from lb.core.guards import ApiKeys, BasicAuth
from lb.core.targets import API_KEYS, BASIC_AUTH, StepRule
from tests.support.front import Front, status_of


def ask(front: Front, fields: bytes = b"", line: bytes = b"GET /admin") -> int:
    return status_of(front.send(line + b" HTTP/1.1\r\nHost: a.example\r\n" + fields + b"\r\n"))


USERS = (
    b"anna:"
    + bcrypt.hashpw("gehe\u00fcim".encode(), bcrypt.gensalt(4))
    + b"\nbo:"
    + bcrypt.hashpw(b"x:y", bcrypt.gensalt(4))
)
FILES = (("d1", USERS),)


def basic(rule: BasicAuth, digest: str = "d1") -> StepRule:
    return StepRule(BASIC_AUTH, file="users", digest=digest, basic_auth=rule)


LOGIN = basic(BasicAuth('of"fice', "Remote-User"))


def credentials(user: str = "anna", password: str = "gehe\u00fcim", scheme: bytes = b"Basic") -> bytes:
    return b"Authorization: " + scheme + b" " + base64.b64encode(f"{user}:{password}".encode()) + b"\r\n"


KEY = b"0123456789abcdef-shop"
HASHED = hashlib.sha256(b"another-key-of-the-office").hexdigest().encode()
KEYS = (("k1", b"# keys\nshop:" + KEY + b"\noffice:sha256:" + HASHED + b"\n"),)


def keys(**rule: Any) -> StepRule:
    return StepRule(API_KEYS, file="keys", digest="k1", api_keys=ApiKeys(**{"header": "X-Api-Key", **rule}))
