"""The admin API's answers about certificates."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lb.control.view import View


class LinkView(View):
    """One certificate of a chain."""

    subject: str
    """The name that it is for."""
    issuer: str
    """The name of the authority that signed it."""
    not_after: float
    """Its end, Unix time."""


class CertificateView(View):
    """A certificate that is served."""

    file: str
    """The file that it was read from."""
    source: str
    """The entry of `certificates` that it is from: a file, a directory, an ACME account, or `internal`."""
    algorithm: str
    """The kind of its key: ecdsa, rsa …"""
    names: list[str]
    """The host names and addresses that it is for."""
    not_before: float
    """Its begin, Unix time."""
    not_after: float
    """Its end, Unix time."""
    chain: list[LinkView]
    """The certificates that are sent, itself first."""
    chain_fault: str = ""
    """What is wrong with the chain; empty: nothing."""
    failure: str = ""
    """The last fault of its files; empty: there was none."""
    failed_at: float | None = None
    """When that was found, Unix time."""
    kept: bool = False
    """Whether its files are broken now, so that what was read before is served."""


class RouteView(View):
    """A route that a host's requests may take."""

    host: str
    """Its host; empty: any."""
    path: str
    """Its path prefix."""
    service: str
    """Its service."""


class NameView(View):
    """What a host name gets from one listener."""

    name: str
    """The name, in lower case."""
    listener: str
    """The listener's bind."""
    reason: Literal["exact", "wildcard", "default", "first", "refused"]
    """Why it gets this certificate, in one word."""
    why: str
    """The same in words."""
    not_after: float | None = None
    """The first end among its certificates, Unix time."""
    certificates: list[CertificateView] = Field(default_factory=list)
    """One for each key algorithm. None: clients are refused."""
    client_certificates: Literal["off", "optional", "required"] = "off"
    """Whether clients are asked for a certificate."""
    routes: list[RouteView] = Field(default_factory=list)
    """The routes of its host."""
