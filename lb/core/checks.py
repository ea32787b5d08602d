"""Checks: the question of a probe, and the condition for a pass. A verdict holds for one `CheckSpec` only.

Durations are seconds, sizes bytes. Defaults are the documented ones; `config` fills the values in.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256

from lb.core.targets import Target, TlsClient


@dataclass(frozen=True, slots=True)
class Expect:
    """Conditions for an answer: status within the ranges, body (substring, or /regex/), headers (name → value)."""

    status: tuple[tuple[int, int], ...] = ((200, 299),)
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """One readiness or liveness check."""

    protocol: str = "tcp"  # http | https | tcp | grpc | command | none
    path: str = "/"
    method: str = "GET"
    host: str = ""  # probe another address…
    port: int = 0  # …or another port than the target's
    headers: tuple[tuple[str, str], ...] = ()
    expect: Expect = Expect()
    ignore_1xx: bool = False  # Marathon's ignoreHttp1xx
    interval: float = 2.0
    timeout: float = 1.0
    rise: int = 2
    fall: int = 3
    grace: float = 30.0
    jitter: float = 0.1  # share of the interval
    fast_interval: float = 0.0  # while a verdict is in doubt; 0: `interval`
    down_interval: float = 0.0  # while out of rotation; 0: `interval`
    max_body: int = 65536  # bytes of the answer that are read
    tls: TlsClient | None = None
    grpc_service: str = ""
    command: tuple[str, ...] = ()
    #: `http` and `https` ask over HTTP/2, as the target speaks it. (Not in `repr`: `identity` of other checks stays.)
    http2: bool = field(default=False, repr=False)


@dataclass(frozen=True, slots=True)
class OnFailure:
    """The actions when a target's liveness has failed `fall` times in a row: a command, a webhook, or both."""

    command: tuple[str, ...] = ()
    webhook: str = ""  # URL that gets a POST with a JSON body
    timeout: float = 30.0
    backoff: float = 10.0  # seconds until the second try; doubles with each further one…
    max_backoff: float = 300.0  # …up to this (Kubernetes' CrashLoopBackOff: 10 s to 5 min)
    per_hour: int = 6  # tries for one target within an hour
    at_once: int = 1  # targets of one pool that are being restarted at one time


@dataclass(frozen=True, slots=True)
class Checks:
    """Both checks of one target. Readiness gates traffic; liveness asks for a restart."""

    readiness: CheckSpec = CheckSpec()
    liveness: CheckSpec | None = None
    on_failure: OnFailure | None = None


def definition(spec: CheckSpec) -> CheckSpec:
    """A check's question and expected answer, without its timing. Verdicts are shared by equal definitions only."""
    return replace(
        spec, interval=0.0, timeout=0.0, rise=0, fall=0, grace=0.0, jitter=0.0, fast_interval=0.0, down_interval=0.0
    )


def identity(target: Target, spec: CheckSpec) -> str:
    """Short name of "this question, asked of this address": a verdict that outlives a restart is kept by it."""
    asked = repr((target.host, target.port, target.tls, definition(spec))) + (" over HTTP/2" if spec.http2 else "")
    return sha256(asked.encode()).hexdigest()[:20]
