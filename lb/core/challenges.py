"""The answers to challenges of certificate authorities (RFC 8555 section 8.3, RFC 8737), as one message to workers.

A challenge may come to any worker, so all have every answer before an authority is told that it is ready.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: Where an authority looks for the answer to an HTTP-01 challenge; the token follows.
PATH = "/.well-known/acme-challenge/"


@dataclass(frozen=True, slots=True)
class Challenges:
    """All answers of the moment: whole state, so that a repeated one harms nothing."""

    version: int
    #: (token, key authorization) of HTTP-01.
    tokens: tuple[tuple[str, str], ...] = ()
    #: (host name, PEM of key and certificate) of TLS-ALPN-01.
    certificates: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
