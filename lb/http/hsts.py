"""Strict-Transport-Security (RFC 6797): which answers carry it, and a response's head with it."""

from __future__ import annotations

import re
from typing import Final

from lb.http.h1.parse import host_name
from lb.http.message import ResponseHead

#: A name whose last label is a number is an IPv4 address for browsers (WHATWG URL, "ends in a number").
_ADDRESS: Final = re.compile(rb"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_PRESENT: Final = re.compile(rb"(?i)(?:\A|\n)strict-transport-security:")


def value(max_age: int, include_subdomains: bool, preload: bool) -> str:
    """The field's value (section 6.1)."""
    return f"max-age={max_age}{'; includeSubDomains' * include_subdomains}{'; preload' * preload}"


def is_for(host: bytes) -> bool:
    """Whether a host, as spelt by the client, may have a policy: names may, and addresses may not (section 8.1.1)."""
    name = host_name(host)
    return bool(name) and name[:1] != b"[" and _ADDRESS.fullmatch(name) is None


def with_policy(response: ResponseHead, line: bytes) -> ResponseHead:
    """The same head with the policy's line. A policy of the target stays, as a second one would be ignored (section
    8.1)."""
    lines = response.fields.forwarded_lines
    return response if _PRESENT.search(lines) else response.with_lines(lines + line)
