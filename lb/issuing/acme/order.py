"""One order at an ACME authority, from the private key to the certificate: which step comes next. Pure.

    place → authorize → finalize → collect → (done)

`OrderRecord` is what has to be on the disk before the next step is taken. With it, a process that comes after a crash
goes on where the one before ended: the state of the order itself is the authority's, and is asked for. So no second
order is placed for one whose address is on the disk, and the key of a finalized order is never lost.

One gap cannot be closed from this side: a process that dies between the authority's answer to `place` and the writing
of the address. Let's Encrypt then returns the same pending order for the same names.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from lb.issuing.acme.answers import Authorization, Challenge, Order, Problem

#: Seconds between two looks at something that the authority works on; the last one stays.
POLLS: Final = (1.0, 1.0, 2.0, 3.0, 5.0, 8.0, 10.0)
#: The longest wait between two looks that the authority may ask for.
LONGEST_POLL: Final = 60.0
#: Seconds that one attempt may take in all. The next attempt goes on with the same order.
ATTEMPT_TIME: Final = 600.0
#: Refusals after which an order cannot be gone on with: the next attempt places a new one.
FATAL: Final = frozenset({"badCSR", "malformed", "orderNotReady", "unauthorized", "userActionRequired"})

Phase = Literal["place", "authorize", "finalize", "collect"]


class OrderRecord(msgspec.Struct, frozen=True):
    """What is on the disk of an order."""

    names: tuple[str, ...]
    directory: str  # of the authority: an order at the staging one is another order
    key: str  # PEM, the private key that the certificate is going to have
    begun: float  # Unix time
    profile: str = ""
    replaces: str = ""  # ARI's id of the certificate that this one is a renewal of
    url: str = ""  # of the order at the authority; empty: it is not placed
    phase: Phase = "place"


@dataclass(frozen=True, slots=True)
class Place:
    """Place the order."""


@dataclass(frozen=True, slots=True)
class FetchOrder:
    """Ask for the state of the order."""


@dataclass(frozen=True, slots=True)
class FetchAuthorization:
    url: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Have the answers to challenges ready at every worker. They replace the ones before."""

    tokens: tuple[tuple[str, str], ...]  # (name, token)


@dataclass(frozen=True, slots=True)
class Respond:
    """Tell the authority that a challenge's answer is ready."""

    url: str


@dataclass(frozen=True, slots=True)
class Finalize:
    """Send the certificate signing request."""

    url: str


@dataclass(frozen=True, slots=True)
class Collect:
    """Fetch the certificate."""

    url: str


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


@dataclass(frozen=True, slots=True)
class Fail:
    """The attempt is over. `keep`: the next one goes on with the same order."""

    reason: str
    keep: bool = False


Action = Place | FetchOrder | FetchAuthorization | Publish | Respond | Finalize | Collect | Wait | Fail


class OrderMachine:
    """An order under way. `next` says what to do; then one of the `on_…` methods is told the result.

    `record` changes with `on_placed` and as phases pass; it has to be on the disk before `next` is called again.
    """

    def __init__(self, record: OrderRecord, challenge: str, started: float) -> None:
        self.record = record
        self._challenge = challenge  # the type that is answered
        self._until = started + ATTEMPT_TIME
        self._order: Order | None = None
        self._authorizations: dict[str, Authorization] = {}
        self._published: frozenset[str] = frozenset()  # tokens that the workers have
        self._responded: set[str] = set()  # addresses of challenges
        self._stale: set[str] = set()  # addresses of authorizations that have to be asked for again
        self._order_is_stale = False
        self._polls = 0
        self._wait = 0.0

    # --- what to do -------------------------------------------------------------------------------------------------

    def next(self, now: float) -> Action:
        """The next step. `now`: Unix time."""
        if now >= self._until:
            return Fail(f"the authority has not finished within {ATTEMPT_TIME:g} s ({self.record.phase})", keep=True)
        if not self.record.url:
            return Place()
        if self._wait:
            seconds, self._wait = self._wait, 0.0
            return Wait(seconds)
        order = self._order
        if order is None or self._order_is_stale:
            return FetchOrder()
        match order.status:
            case "pending":
                return self._authorize(order)
            case "ready":
                return Finalize(order.finalize)
            case "processing":  # `on_order` has it asked for again
                return FetchOrder()
            case "valid":
                if not order.certificate:
                    return Fail("the authority calls the order valid, but names no certificate")
                return Collect(order.certificate)
            case "invalid":
                return self._say_why(order)

    def _authorize(self, order: Order) -> Action:
        for url in order.authorizations:
            if url not in self._authorizations or url in self._stale:
                return FetchAuthorization(url)
        chosen: dict[str, Challenge] = {}  # by the authorization's address
        for url in order.authorizations:
            authorization = self._authorizations[url]
            if authorization.status == "valid":
                continue
            if authorization.status != "pending":
                return Fail(_why_not(authorization))
            challenge = _of_type(authorization, self._challenge)
            if challenge is None:
                offered = ", ".join(each.type for each in authorization.challenges) or "none"
                return Fail(
                    f"{authorization.identifier.value}: the authority offers no {self._challenge} challenge, only: "
                    f"{offered}"
                )
            chosen[url] = challenge
        if not chosen:
            self._order_is_stale = True  # all are valid: the order is about to be ready
            self._look_again()
            return FetchOrder()
        tokens = {challenge.token for challenge in chosen.values()}
        if not tokens <= self._published:
            names = ((self._authorizations[url].identifier.value, each.token) for url, each in chosen.items())
            return Publish(tuple(names))
        for url, challenge in chosen.items():
            if challenge.status == "pending" and challenge.url not in self._responded:
                self._stale.add(url)
                return Respond(challenge.url)
        self._stale |= chosen.keys()
        self._look_again()
        return self._take_wait()

    def _take_wait(self) -> Wait:
        seconds, self._wait = self._wait, 0.0
        return Wait(seconds)

    def _look_again(self) -> None:
        self._wait = self._wait or POLLS[min(self._polls, len(POLLS) - 1)]
        self._polls += 1

    def _say_why(self, order: Order) -> Action:
        """The authorizations know more than the order: ask for them first."""
        for url in order.authorizations:
            if url not in self._authorizations or url in self._stale:
                return FetchAuthorization(url)
            if self._authorizations[url].status == "invalid":
                return Fail(_why_not(self._authorizations[url]))
        return Fail(str(order.error) if order.error else "the authority calls the order invalid and says no more")

    # --- what has happened ------------------------------------------------------------------------------------------

    def on_placed(self, url: str, order: Order) -> None:
        self.record = msgspec.structs.replace(self.record, url=url)
        self.on_order(order)

    def on_order(self, order: Order, retry_after: float = 0.0) -> None:
        """The authority's state of the order, also the answer to `Finalize`."""
        if self._order is None or order.status != self._order.status:
            self._polls, self._wait = 0, 0.0
        self._order, self._order_is_stale = order, order.status == "processing"
        if order.status in ("pending", "processing"):
            self._wait = max(self._wait, min(retry_after, LONGEST_POLL))
        if order.status == "processing":
            self._look_again()
        elif order.status in ("pending", "invalid"):
            self._stale |= self._authorizations.keys()
        phase: Phase = {"pending": "authorize", "ready": "finalize"}.get(order.status, "collect")  # type: ignore[assignment]
        self.record = msgspec.structs.replace(self.record, phase=phase)

    def on_authorization(self, url: str, authorization: Authorization, retry_after: float = 0.0) -> None:
        self._authorizations[url] = authorization
        self._stale.discard(url)
        if any(each.status == "processing" for each in authorization.challenges):
            self._wait = max(self._wait, min(retry_after, LONGEST_POLL))

    def on_published(self, tokens: Collection[str]) -> None:
        """Every worker has the answers."""
        self._published = frozenset(tokens)

    def on_responded(self, url: str) -> None:
        self._responded.add(url)

    def on_refused(self, action: Action, problem: Problem, status: int) -> Fail | None:
        """The authority has refused a step. None: the order is asked for, and goes on from its state."""
        kind = problem.kind
        if isinstance(action, Place):
            if kind == "alreadyReplaced" and self.record.replaces:  # an earlier renewal got as far as that
                self.record = msgspec.structs.replace(self.record, replaces="")
                return None
            return Fail(str(problem))
        if kind == "rateLimited" or status >= 500:
            return Fail(str(problem), keep=True)
        if isinstance(action, Finalize) and kind == "orderNotReady":
            self._order_is_stale = True
            self._look_again()
            return None
        if isinstance(action, Respond):  # answered before a crash: the authorization tells
            self._responded.add(action.url)
            return None
        if isinstance(action, FetchOrder) and status == 404:
            return Fail("the authority does not know the order any more")
        return Fail(str(problem), keep=status != 404 and kind not in FATAL)


def _of_type(authorization: Authorization, kind: str) -> Challenge | None:
    return next((each for each in authorization.challenges if each.type == kind and each.url and each.token), None)


def _why_not(authorization: Authorization) -> str:
    name = authorization.identifier.value
    problem = next((each.error for each in authorization.challenges if each.error is not None), None)
    return f"{name}: {problem}" if problem is not None else f"{name}: the authorization is {authorization.status}"
