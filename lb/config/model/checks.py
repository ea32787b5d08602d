"""Readiness and liveness checks: what is asked, what counts as a pass, and what a failed liveness leads to."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from lb.config.model.coerce import Scalar, refuse
from lb.config.model.fields import (
    Argument,
    Bounds,
    CheckPath,
    Duration,
    ExpectedText,
    ExpectedValue,
    FilePath,
    Flag,
    HeaderName,
    HeaderValue,
    Method,
    Percent,
    Period,
    ServerHost,
    Size,
    Statuses,
    Url,
    Whole,
    Word,
)
from lb.config.model.section import Section

Protocol = Literal["http", "https", "tcp", "grpc", "command", "none"]
PROTOCOLS: tuple[str, ...] = ("http", "https", "tcp", "grpc", "command", "none")

#: Keys that ask something of HTTP, and so tell the protocol when it is left out.
HTTP_KEYS = ("path", "method", "headers", "expect", "ignore_1xx", "max_body")


class ClientTls(Section):
    """How a target is spoken to over TLS."""

    verify: Flag = True
    """Check the certificate and the name in it. Marathon, Kubernetes and AWS never verify their probes."""
    server_name: Word = ""
    """The name that is sent (SNI) and verified. Left out: the host of the target's URL."""
    ca_file: FilePath | None = None
    """PEM file with the authorities that are trusted. Left out: the system's authorities."""
    cert_file: FilePath | None = None
    """PEM file with a certificate to present to the target; needs `key_file`."""
    key_file: FilePath | None = None
    """PEM file with the key of `cert_file`."""


class Expect(Section):
    """The conditions for an answer to count as a pass. All that is given must hold."""

    status: Statuses = ((200, 299),)
    """Status codes and ranges. Redirects are not followed: list 301 or so if that is an answer to expect.
    Kubernetes and Marathon: 200-399; Envoy and Caddy: 200."""
    body: ExpectedText = ""
    """A text that the body must contain, or a `/regular expression/` that must match somewhere in it.
    The search has a quarter of a second; a pattern that takes longer on an answer is a failure that says so."""
    headers: dict[HeaderName, ExpectedValue] = Field(default_factory=dict)
    """Headers that the answer must have, with these values; a value may be a `/regular expression/` as well."""


def expect_from_status(value: Any) -> Any:
    return {"status": value} if isinstance(value, str | int | list) else value


def command_from_text(value: Any) -> Any:
    """A text is for the shell, a list is not."""
    return ["/bin/sh", "-c", str(value)] if isinstance(value, str) and value else value


Command = Annotated[list[Argument], BeforeValidator(command_from_text, json_schema_input_type=str | list[Argument])]


class Check(Section):
    """The common settings of both kinds of check."""

    protocol: Protocol | None = None
    """`http`: a request is answered as `expect` says. `https`: the same over TLS. `tcp`: the connection is accepted.
    `grpc`: `grpc.health.v1` answers SERVING. `command`: a program ends with status 0. `none`: never probed, taken as
    ready. Left out: `command` or `grpc` if `command` or `grpc_service` is given, `http` if anything about HTTP is
    (`path`, `expect`, …), else `tcp`. An `http` check of an `https://` target on its own port uses TLS as well, and
    one of an `h2c://` or `h2://` target HTTP/2."""
    path: CheckPath = "/"
    """Path (and query) that is asked for."""
    method: Method = "GET"
    """Request method. HAProxy: OPTIONS."""
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Headers to send; `Host` replaces the target's address there."""
    host: ServerHost = ""
    """Probe this host instead of the target's: a sidecar or a shared agent."""
    port: Annotated[Whole, Bounds(0, 65535)] = 0
    """Probe this port instead of the target's; 0: the target's."""
    expect: Annotated[
        Expect, BeforeValidator(expect_from_status, json_schema_input_type=str | int | list[str | int] | Expect)
    ] = Field(default_factory=Expect.defaults)
    """The condition for a pass; a status list alone may stand here: `expect: 200-399`."""
    ignore_1xx: Flag = False
    """An informational answer (100 to 199) where the final one should be changes nothing: neither pass nor failure.
    Marathon's `ignoreHttp1xx`."""
    interval: Period = 2.0
    """From the start of one probe to the start of the next. HAProxy: 2s; Kubernetes: 10s; Traefik, Caddy: 30s."""
    timeout: Period = 1.0
    """A probe that takes longer, from connecting to the last byte that is read, has failed. Kubernetes: 1s."""
    rise: Annotated[Whole, Bounds(1)] = 2
    """Passes in a row after which a target that was out is in again. The first entry ever needs one. HAProxy: 2."""
    fall: Annotated[Whole, Bounds(1)] = 3
    """Failures in a row after which a target is out; a pass in between starts the count anew. HAProxy: 3."""
    grace: Duration = 30.0
    """Failures of a target that never passed do not count for this long after it was first seen: it is starting.
    The first pass ends it. Marathon's `gracePeriodSeconds` (there 300s)."""
    jitter: Percent = 0.1
    """Each wait is shorter, at random, by up to this share of it, so that probes of many targets spread out."""
    fast_interval: Duration = 0.0
    """Interval while a decision is open (some failures while ready, some passes while not, or not yet probed).
    `0s`: the interval. HAProxy's `fastinter`."""
    down_interval: Duration = 0.0
    """Interval while the target is out and every probe fails. `0s`: the interval. HAProxy's `downinter`."""
    max_body: Size = 65536
    """Bytes of an answer's body that are read. The text for `expect.body` must be within."""
    tls: ClientTls | None = None
    """TLS of an `https` or `grpc` check. Left out: the target's own `tls`."""
    grpc_service: Word = ""
    """Service name to ask `grpc.health.v1` about; empty: the server as a whole."""
    command: Command = Field(default_factory=list)
    """Program to run: a list is run as it is, a text by `/bin/sh -c`. It finds `LB_TARGET_HOST`, `LB_TARGET_PORT` and
    `LB_TARGET_ADDRESS` (the IP address that is checked, where the host is a name)
    in its environment. At `timeout` its whole process group is killed."""

    def kind(self) -> str:
        """The protocol, given or concluded."""
        if self.protocol is not None:
            return self.protocol
        if self.command:
            return "command"
        if self.grpc_service:
            return "grpc"
        return "http" if self.model_fields_set.intersection(HTTP_KEYS) else "tcp"


class Readiness(Check):
    """Decides whether a target gets traffic."""


class Hook(Section):
    """Something to run or to call at a moment of a release."""

    command: Command = Field(default_factory=list)
    """Program to run: a list is run as it is, a text by `/bin/sh -c`. The details are in its environment (`LB_…`)."""
    webhook: Url = ""
    """URL that gets a POST with a JSON body."""
    timeout: Period = 30.0
    """A hook that takes longer is killed, or given up, and has failed."""


class OnFailure(Section):
    """The action for a target that failed its liveness check `fall` times in a row."""

    command: Command = Field(default_factory=list)
    """Program to run, `docker restart …` for example: a list is run as it is, a text by `/bin/sh -c`. It finds
    `LB_TARGET_HOST`, `LB_TARGET_PORT` and `LB_TARGET` in its environment."""
    webhook: Url = ""
    """URL that gets a POST with a JSON body that names the target and what its last probe found."""
    timeout: Period = 30.0
    """A command that takes longer is killed; a webhook is given up."""
    backoff: Period = 10.0
    """Wait before a second try for the same target; it doubles with each further one. Kubernetes: 10s."""
    max_backoff: Period = 300.0
    """Longest wait between two tries. Kubernetes: 5m."""
    per_hour: Annotated[Whole, Bounds(1)] = 6
    """Tries for one target within an hour; after that it is left alone and said so."""
    at_once: Annotated[Whole, Bounds(1)] = 1
    """Targets of one pool that are being restarted at one time: a failing dependency must not restart a whole pool."""


class Liveness(Check):
    """Decides whether a target should be restarted. It never takes traffic away: that is readiness' part."""

    interval: Period = 10.0
    """From the start of one probe to the start of the next. Kubernetes: 10s; Marathon: 60s."""
    rise: Annotated[Whole, Bounds(1)] = 1
    """Passes in a row after which it counts as alive again. Kubernetes: 1."""
    fall: Annotated[Whole, Bounds(0)] = 3
    """Failures in a row after which `on_failure` runs; 0: never. Kubernetes: 3; Marathon: 3, and kills on the 4th."""
    on_failure: OnFailure | None = None
    """The action then. Left out: it is shown and logged, and nothing else."""


READINESS_ALLOWED = "a mapping of options, a path such as /health/readiness, or one of tcp, http, none"


def check_from_text(value: Any) -> Any:
    """`/path` is an HTTP check, a protocol's name a check with its defaults."""
    if not isinstance(value, str) or isinstance(value, Scalar):
        return value
    if value.startswith("/"):
        return {"protocol": "http", "path": value}
    if value in ("http", "https", "tcp", "grpc", "none"):
        return {"protocol": value}
    return refuse(f"{str(value)!r} is neither a path nor a protocol", READINESS_ALLOWED, f"/{value}" if value else "")


AnyReadiness = Annotated[Readiness, BeforeValidator(check_from_text, json_schema_input_type=str | Readiness)]
AnyLiveness = Annotated[Liveness, BeforeValidator(check_from_text, json_schema_input_type=str | Liveness)]
