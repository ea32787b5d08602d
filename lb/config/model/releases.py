"""How a release goes: the gate before a switch, its steps, the watch over it, previews and mirrored requests."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from lb.config.model.checks import Hook
from lb.config.model.coerce import refuse
from lb.config.model.fields import (
    Bounds,
    ClientKey,
    CookieName,
    Duration,
    FilePath,
    Flag,
    HeaderName,
    HeaderValue,
    MinReady,
    Number,
    Percent,
    Period,
    Reference,
    RouteHost,
    Size,
    Whole,
)
from lb.config.model.section import Section
from lb.core.quorum import Quorum


class Sticky(Section):
    """How a client stays on one version while two of them share the traffic."""

    by: ClientKey = ""
    """`client` (its address), `header:NAME` or `cookie:NAME`. Left out: each request is decided by itself, and so is a
    request without that header or cookie: `lb` sets no cookie."""
    asset_fallback: Flag = False
    """While a rollout splits the traffic, one version may answer a GET or HEAD with 404. The other version is then
    asked: the page came from there. Requests of previews are not."""


class Affinity(Section):
    """Keeps a client at one target by a cookie of lb's own, as long as that target is in rotation. The pool is chosen
    before, so it never leads to another version. A client whose target is not in rotation goes by `balance`, and gets a
    new cookie."""

    cookie: CookieName = "lb_target"
    """Name of the cookie. It goes on to the targets like all cookies."""
    secret_file: FilePath
    """File of secrets of 16 characters or more, one a line. The first makes new values, and those of the other ones are
    still taken, so that a secret can be exchanged. Any lb with the same secret takes the cookie. It is read with the
    configuration: `lb reload` takes changes in."""


class Preview(Section):
    """Requests that carry a header or cookie, or come for a host, go to `pool` whether it is active or not. While that
    pool has no ready target they go to `fallback`, or get 503: another version is not what they ask for."""

    pool: Reference
    """Where they go."""
    header: HeaderName = ""
    """Header that chooses; the first of that name counts, and its value must be `value`."""
    cookie: HeaderName = ""
    """Cookie that chooses; its value must be `value`."""
    value: HeaderValue = ""
    """Value of the header or cookie. Left out: any value will do, as long as the header or cookie is there."""
    host: RouteHost = ""
    """Host that chooses, such as green.example.org or *.green.example.org; the port does not matter."""


class MirrorTo(Section):
    """Copies of requests to another pool, whose answers are thrown away. The originals never wait for them. A pool gets
    no copy of a request that it serves itself, so a copy is sent when its original's answer begins. Copies count for no
    bound, queue, limiter, retry budget or ejection, and not as requests."""

    pool: Reference
    """Where the copies go."""
    percent: Percent
    """Share of the requests that are copied."""
    concurrency: Annotated[Whole, Bounds(1)] = 64
    """Copies under way at one time, per worker; more are dropped, and counted as `dropped`. So is a copy whose target
    has no room, or whose connection a client's request needs."""
    max_body: Size = 65536
    """Requests with a longer body are not copied."""


class Analysis(Section):
    """How the new pool is compared with the old one over the same time."""

    error_rate: Percent = 0.01
    """The new pool's share of failed requests may be higher by this much."""
    latency: Annotated[Number, Bounds(1, 1000)] = 1.5
    """The new pool's p99 may be this many times the old pool's."""
    ready: Percent = 1.0
    """Share of the new pool's targets that must stay ready."""
    min_requests: Annotated[Whole, Bounds(1)] = 100
    """Requests to the new pool before its figures say anything. Until then the answer is NOT ENOUGH DATA, and the step
    is held."""
    false_alarm: Percent = 0.01
    """How often a release that is as good as the old one may be rolled back by chance."""


class Bake(Section):
    """The watch that goes on after a full switch."""

    time: Duration = 60.0
    """How long; `0s`: no watch."""
    budget: Percent = 0.01
    """Share of failed requests that is acceptable; burn is measured in multiples of it."""
    short_window: Period = 10.0
    """Short window: the trouble must still be there to count."""
    long_window: Period = 60.0
    """Long window: the trouble must be more than a blip to count."""
    burn: Annotated[Number, Bounds(1, 1000)] = 5.0
    """Multiple of `budget` that both windows must exceed."""


def bake_from_text(value: Any) -> Any:
    return {"time": value} if isinstance(value, str | int | float) else value


def _steps(steps: list[int]) -> list[int]:
    if not steps or steps[-1] != 100 or any(a >= b for a, b in itertools.pairwise(steps)) or steps[0] < 1:
        refuse(f"{steps} does not lead to 100", "percentages that grow, the last one 100, such as [5, 25, 50, 100]")
    return steps


class Rollout(Section):
    """The conditions of a switch, and how it is watched. `lb switch` overrides it for one switch."""

    min_ready: MinReady = Quorum()
    """Targets of the new pool that must be ready: a percentage or a number. Drains are refused below it as well."""
    steps: Annotated[list[Whole], AfterValidator(_steps)] = Field(default_factory=lambda: [100])
    """Percentages of the traffic that go to the new pool, one step after the other; `[100]`: all at once."""
    step_time: Period = 60.0
    """Length of each step but the last."""
    analysis: Analysis = Field(default_factory=Analysis.defaults)
    """The measures that judge each step."""
    bake: Annotated[Bake, BeforeValidator(bake_from_text, json_schema_input_type=str | Bake)] = Field(
        default_factory=Bake.defaults
    )
    """The watch after the last step; a duration alone may stand here."""
    freeze_on_fail: Flag = False
    """Stop where it is and raise the alarm instead of rolling back: for releases that cannot go back."""
    after_restart: Literal["resume", "rollback"] = "resume"
    """Handling of a rollout that was under way when `lb` was stopped or died."""
    pre: Hook | None = None
    """Runs before anything changes; if it fails, nothing does."""
    post: Hook | None = None
    """Runs when the old pool is drained, or the rollout was rolled back: the moment to scale it down."""
