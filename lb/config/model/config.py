"""The whole file. Every field's text is its reference; docs/configuration.md and the JSON Schema are made from it.

The short form (`backends: […]`) is turned into the long one before anything is validated, so that the rest of the
program knows one form only.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from lb.config.model.acme import Acme, ExternalAccount
from lb.config.model.checks import AnyReadiness, Check, ClientTls, Expect, Hook, Liveness, OnFailure, Readiness
from lb.config.model.discovery import Consul, Discover, Dns, Docker, Kubernetes, Python
from lb.config.model.fields import (
    Bounds,
    Duration,
    FilePath,
    Flag,
    LogPath,
    Name,
    Network,
    PageStatus,
    Percent,
    Period,
    Size,
    TargetUrl,
    Whole,
)
from lb.config.model.guards import with_auth_services
from lb.config.model.hsts import Hsts
from lb.config.model.listeners import (
    Admin,
    AdminTls,
    AnyListener,
    CertificateSource,
    ClientAuth,
    Listener,
    ListenerLimits,
    ListenerTimeouts,
    Redirect,
    ServerTls,
    Token,
)
from lb.config.model.releases import Analysis, Bake, MirrorTo, Preview, Rollout, Sticky
from lb.config.model.routes import Match, Route
from lb.config.model.section import Section
from lb.config.model.services import (
    Balance,
    Breaker,
    Damping,
    Outlier,
    Pool,
    Retries,
    Service,
    SlowStart,
    Target,
    Timeouts,
)

__all__ = [
    "AccessLog", "Acme", "Admin", "AdminTls", "Analysis", "Bake", "Balance", "Breaker", "Canary", "CertificateSource",
    "Check", "ClientAuth", "ClientTls", "Config", "Consul", "Damping", "Discover", "Dns", "Docker", "Expect",
    "ExternalAccount", "Hook", "Hsts", "Kubernetes", "Listener", "ListenerLimits", "ListenerTimeouts", "Liveness",
    "Log", "Match", "MirrorTo", "OnFailure", "Outlier", "Pool", "Preview", "Python", "Readiness", "Redirect", "Retries",
    "Rollout", "Route", "ServerTls", "Service", "SlowStart", "Sticky", "Target", "Timeouts", "Token", "WorkerLimits",
]  # fmt: skip

#: Keys of the short form: `backends`, and what may stand beside it of the one service that it means.
SHORT = ("backends", "readiness", "liveness", "balance")
DEFAULT = "default"


class AccessLog(Section):
    """One line for each request."""

    format: Literal["json", "combined", "off"] = "json"
    """`json`: one object a line. `combined`: the format of Apache and nginx. `off`: none."""
    path: LogPath = "-"
    """File to append to, `-` for stdout. SIGUSR1 reopens it. Relative paths begin at this file's folder."""
    sample: Percent = 1.0
    """Share of the successful requests that are written; failed ones always are."""


def access_log_from_text(value: Any) -> Any:
    return {"format": value} if isinstance(value, str) else value


class Log(Section):
    """The log of `lb` itself, on stderr: one line per state change."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is written."""
    format: Literal["text", "json"] = "text"
    """`text` for people, `json` for collectors."""


class Canary(Section):
    """A known-good address, probed beside the targets to tell their trouble from `lb`'s own."""

    url: TargetUrl
    """Its address: a gateway, a name server, another instance of `lb`."""
    readiness: AnyReadiness = Field(default_factory=Readiness.defaults)
    """How it is probed. Left out: a TCP check."""


def canary_from_text(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


class WorkerLimits(Section):
    """When a worker process is replaced by a fresh one, or ends."""

    memory: Size = 0
    """Resident memory from which a worker is replaced, gracefully; 0: no limit."""
    hang: Period = 10.0
    """A worker that gave no sign of life for this long is replaced."""
    orphan: Period = 3600.0
    """Workers whose supervisor is gone serve on for this long, then drain and end, since no target is probed meanwhile.
    They say so once a minute. `lb run`, started again within this time, takes them over."""


class Config(Section):
    """A configuration file."""

    listeners: Annotated[list[AnyListener], Field(min_length=1)] = Field(
        default_factory=lambda: [Listener.model_construct(bind="0.0.0.0:8080")]
    )
    """Addresses that accept clients: mappings, or bind addresses alone. Left out: `0.0.0.0:8080`."""
    admin: Admin = Field(default_factory=Admin.defaults)
    """The admin port: dashboard, API, metrics."""
    acme: dict[Name, Acme] = Field(default_factory=dict)
    """Authorities that lb orders certificates from by itself, by a name that `certificates` of a listener takes them
    by: `{acme: NAME, names: [HOST]}`."""
    services: Annotated[dict[Name, Service], Field(min_length=1)]
    """Services that clients may ask for: each has pools of targets."""
    routes: list[Route] = Field(default_factory=list)
    """Which requests go to which service. Left out: everything goes to the one service there is."""
    canary: Annotated[Canary, BeforeValidator(canary_from_text, json_schema_input_type=str | Canary)] | None = None
    """A reference address outside of the pools that is known to be good; its URL alone may stand here. While it
    answers, many silent targets are at fault themselves. While it does not, `lb`'s own network is, and what the probes
    had decided last is kept for the services' `patience`."""
    trusted_proxies: list[Network] = Field(default_factory=list)
    """Networks of proxies in front. Clients from these networks may keep their X-Forwarded-For, -Proto, -Host,
    Forwarded and X-Request-Id; from every other client they are replaced. X-Real-IP and other such fields pass from
    them alone."""
    error_pages: dict[PageStatus, FilePath] | None = None
    """HTML pages for lb's own answers (404, 429, 503, …), by status or class: `{404: lost.html, 5xx: error.html}`. With
    it, also as `{}`, clients that ask for HTML get the page, or a short one of lb's, and all others a problem document
    in JSON (RFC 9457). Left out: plain text. Answers of targets stay as they are."""
    access_log: Annotated[
        AccessLog,
        BeforeValidator(access_log_from_text, json_schema_input_type=Literal["json", "combined", "off"] | AccessLog),
    ] = Field(default_factory=AccessLog.defaults)
    """One line for each request; a format alone may stand here: `access_log: off`."""
    log: Log = Field(default_factory=Log.defaults)
    """The log of `lb` itself."""
    workers: Annotated[Whole, Bounds(0, 256)] = 0
    """Worker processes; 0: one for each core. `lb run --workers` overrides it."""
    worker_limits: WorkerLimits = Field(default_factory=WorkerLimits.defaults)
    """When a worker is replaced."""
    lame_duck: Duration = 0.0
    """After SIGTERM `/readyz` says 503 for this long while clients are still served, so that a balancer in front can
    notice. Traefik's `requestAcceptGraceTimeout`, there 0s as well."""
    drain: Duration = 30.0
    """After that, requests in flight may take this long; then they are cut. Kubernetes gives 30s; Traefik: 10s."""
    state_dir: FilePath = Field(default=".lb", validate_default=True)
    """Folder for persisted switches, drains and events. **A relative path begins at this file's folder**, not where
    `lb` is started."""
    watch: Flag = False
    """Reload when the file, or a certificate, key or token that it names, changes, as `lb reload` would."""

    @model_validator(mode="before")
    @classmethod
    def _lengthen(cls, data: Any) -> Any:
        return with_auth_services(lengthen(data)) if isinstance(data, dict) else data

    def route_list(self) -> list[Route]:
        """The routes, or the one that is meant when there are none."""
        return self.routes or [Route.model_construct(service=next(iter(self.services)))]


def lengthen(data: dict[Any, Any]) -> dict[Any, Any]:
    """The long form of a file that has `backends`; without the `x-…` keys that hold anchors."""
    data = {key: value for key, value in data.items() if not (isinstance(key, str) and key.startswith("x-"))}
    if "backends" not in data or "services" in data:
        return data
    service: dict[str, Any] = {"pools": {DEFAULT: {"targets": data["backends"]}}}
    service |= {key: data[key] for key in SHORT[1:] if key in data}
    return {key: value for key, value in data.items() if key not in SHORT} | {"services": {DEFAULT: service}}


def origin(path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Where a value of the long form stands in the short one."""
    match path:
        case ("services", "default", "pools", "default", "targets", *rest):
            return ("backends", *rest)
        case ("services", "default", "pools", *_) | ("services",) | ("services", "default"):
            return ("backends",)
        case ("services", "default", *rest):
            return tuple(rest)
    return path
