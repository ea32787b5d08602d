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


class RenewalView(View):
    """How the certificate fares that lb orders for a name by itself."""

    name: str
    """The host name."""
    authority: str
    """The entry of `acme`."""
    not_after: float | None = None
    """The end of the certificate there is, Unix time."""
    waiting_since: float | None = None
    """Since when the name is without any certificate, Unix time."""
    next_attempt: float
    """When it is ordered next, Unix time."""
    why: str
    """The reason for that time."""
    under_way: str = ""
    """The step of the order that is under way: begin, place, authorize, finalize, collect. Empty: none is."""
    failures: int = 0
    """Failed attempts in a row."""
    failed_at: float | None = None
    """When the last one failed, Unix time."""
    failure: str = ""
    """Why it failed."""
    in_memory: bool = False
    """Whether the disk has not taken it, so that a restart would lose it."""
    window_start: float | None = None
    """The begin of the authority's renewal window, Unix time."""
    window_end: float | None = None
    """Its end."""


class RenewResult(View):
    """An order to renew a certificate is under way."""

    under_way: list[str]
    """What is done, in words. How it went is in `renewal` of the name, and an event."""


class AuthorityView(View):
    """lb's own certificate authority."""

    file: str
    """The file of its certificate."""
    subject: str
    """Its name."""
    not_after: float
    """Its end, Unix time."""
    fingerprint: str
    """SHA-256 of its certificate."""
    pem: str
    """Its certificate, for whoever is to trust it."""


class RouteView(View):
    """A route that a host's requests may take."""

    host: str
    """Its host; empty: any."""
    path: str
    """Its path prefix; with `=` before it the whole path, with `~` a regular expression."""
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
    renewal: RenewalView | None = None
    """How its certificate fares, where lb orders it by itself."""
    routes: list[RouteView] = Field(default_factory=list)
    """The routes of its host."""
