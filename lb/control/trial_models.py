"""The admin API's messages about a request that is tried without any traffic."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lb.control.view import View, Wanted


class TrialRequest(Wanted):
    """A request to be tried. Nothing of it is sent."""

    method: str = Field(default="GET", pattern=r"^[!-~]{1,32}$", examples=["GET"])
    """Its method."""
    url: str = Field(pattern=r"^[!-~]{1,8192}$", examples=["https://www.example.org/greeting?x=1"])
    """`https://HOST/PATH`, `http://HOST/PATH` or `/PATH`."""
    headers: list[Annotated[str, Field(pattern=r"^[!-~]+: ?[ -~]*$", max_length=8192)]] = Field(
        default_factory=list, max_length=100, examples=[["Cookie: beta=1"]]
    )
    """Its header fields, `NAME: VALUE`."""
    client: str = Field(default="127.0.0.1", pattern=r"^(?:unix|[0-9a-fA-F:.]{2,45})$", examples=["10.0.0.7"])
    """The client's address; `unix` for a Unix socket."""
    http: Literal["1.0", "1.1", "2"] = "1.1"
    """The version of HTTP."""


class OwnAnswer(View):
    """An answer that lb gives by itself."""

    status: int
    """Its status."""
    reason: str
    """Why, as the access log and `lb_rejected_total` have it."""
    head: str
    """Its head, or what is wrong with the request."""


class Destination(View):
    """Where a request would go."""

    service: str
    """The service."""
    pool: str
    """The pool."""
    targets: list[str]
    """Ids of the targets, one of which would get it."""
    head: str
    """The head that it would get, as HTTP/1.1. An ellipsis stands for the request's id."""


class Reading(View):
    """One way to read an ambiguous path."""

    path: str
    """The path, read so."""
    route: str | None
    """The route that it would take; null: none."""


class OtherRoute(View):
    """A route that does not take the request."""

    index: int
    """Its place in the file, from 0."""
    route: str
    """Its name, or its host and path."""
    reasons: list[str]
    """Why not."""


class Trial(View):
    """What would become of a request. `lb route test --json` prints the same."""

    route: str | None
    """The route that takes it; null: none does."""
    index: int | None
    """Its place in the file, from 0."""
    steps: list[str]
    """The route's steps, in order."""
    met: list[str]
    """The steps that the request meets; the last one may answer it."""
    answer: OwnAnswer | None
    """lb's own answer; null: a target answers."""
    target: Destination | None
    """Where it goes; null: lb answers."""
    readings: list[Reading]
    """Of a path that is refused as ambiguous: all ways to read it."""
    notes: list[str]
    """What else there is to say."""
    others: list[OtherRoute]
    """The other routes, in the order of the file; of more than 100, the ones with the fewest reasons."""
