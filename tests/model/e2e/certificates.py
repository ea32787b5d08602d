"""Certificates of the targets, and the authority that lb trusts."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import trustme

from tests.model.e2e.world import RealWorld
from tests.model.peers import Backend

_authorities: list[trustme.CA] = []


def authorities(world: RealWorld) -> Path:
    """The file of those that lb trusts."""
    return world.directory / "authorities.pem"


def renew(world: RealWorld) -> None:
    """A new authority, trusted beside the one before."""
    _authorities.append(trustme.CA())
    text = b"".join(each.cert_pem.bytes() for each in _authorities[-2:])
    authorities(world).write_bytes(text)


def context(world: RealWorld) -> ssl.SSLContext:
    """What a target over TLS shows."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _certify(world, made)
    return made


def show(world: RealWorld, backend: Backend) -> None:
    """From now on new connections see a certificate of the newest authority."""
    _certify(world, backend.tls)


def _certify(world: RealWorld, made: Any) -> None:
    hosts = [f"{world.prefix}.{number}" for number in range(1, 100)]
    _authorities[-1].issue_cert(*hosts).configure_cert(made)
