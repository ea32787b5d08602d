"""Whether a failed try of a request may be made again, and the client's answer if not.

The rules, each learnt from a peer:
- never once a byte of a response has been passed on (nginx, Pingora);
- nothing sent: always, whatever the method (HAProxy's conn-failure). Such tries add no load to a target that is up, so
  they are bounded by `attempts`, not by the budget;
- sent, no response byte: idempotent requests (RFC 9110 section 9.2.2), and to another target alone. Otherwise a target
  that received a request and broke off would be asked the same again, and its fault would stay hidden;
- any other request only with the kernel's proof that the target never received it (`unprocessed`);
- a request of HTTP/2 that the target's GOAWAY leaves out, or that it has refused: always, whatever the method (RFC 9113
  section 8.7). After a second refusal the budget decides, as refusals may mean that the target has too much to do;
- a WebSocket that a target of HTTP/2 does not take (RFC 8441): until all targets have been tried, each once. Such a
  target has been sent nothing, and says by its settings alone that it takes none;
- a pooled connection that the target closed as we wrote to it is not the client's problem. Such replays are free, and
  bounded only so that they end;
- 502, 503, 504 as answers: idempotent requests, if the service lists the status;
- a retry budget bounds all other retries, so that they cannot multiply an outage (Finagle, Linkerd).
"""

from __future__ import annotations

from typing import Final, NamedTuple

# Where a try failed.
CONNECT: Final = 0
SEND: Final = 1
HEAD: Final = 2
BODY: Final = 3
PHASES: Final = ("connect", "send", "head", "body")

# Why.
REFUSED: Final = 0
UNREACHABLE: Final = 1
TIMEOUT: Final = 2
RESET: Final = 3
GARBAGE: Final = 4
STATUS: Final = 5
TLS_VERIFY: Final = 6  # a certificate of another name or authority
TLS_EXPIRED: Final = 7  # a certificate that is not valid by its dates
TLS: Final = 8  # no handshake for another reason
TLS_CLIENT_CERTIFICATE: Final = 9  # the target wants a client certificate, or refuses lb's
GONE: Final = 10  # HTTP/2: a GOAWAY leaves the request out
REFUSED_STREAM: Final = 11  # HTTP/2: the target was not willing to begin it
NO_UPGRADE: Final = 12  # a WebSocket, and the target speaks HTTP/2
CAUSES: Final = (
    "refused",
    "unreachable",
    "timeout",
    "reset",
    "garbage",
    "status",
    "tls_verify",
    "tls_expired",
    "tls",
    "tls_client_certificate",
    "goaway",
    "refused_stream",
    "no_upgrade",
)
#: Causes that the same target shows again a moment later: a certificate has to be exchanged, on either side.
LASTING: Final = (TLS_VERIFY, TLS_EXPIRED, TLS_CLIENT_CERTIFICATE)

#: Tries beyond `attempts` for a request whose connections were closed before it reached a target.
FREE: Final = 8
#: The decision to try again; any other value is the status to answer.
RETRY: Final = 0
#: The decision to cut the client's connection, because its answer has begun.
CUT: Final = -1


class Failure(NamedTuple):
    """The failure of one try. `text` does not name the target; the caller adds its name."""

    phase: int
    cause: int
    text: str  # for the log, the 502's body and `explain`
    reused: bool = False  # the connection came from the pool
    unprocessed: bool = False  # proof that the target has not received the request
    status: int = 0  # the target's answer, when that is the cause
    timer: str = ""  # which timeout fired: connect | send | response | per_try | read
    idle: float = -1.0  # it broke off: seconds that the connection had been idle before; -1: no doubt why
    elapsed: float = 0.0  # …and seconds from the request to the end


class Decision(NamedTuple):
    """The decision on a failed try: `RETRY`, `CUT` or the status to answer, and the reason against another try."""

    action: int
    why: str = ""


class RetryBudget:
    """Retries may be `ratio` of the requests of the last ten to twenty seconds, and `floor` per second besides."""

    __slots__ = ("_before", "_rotated", "floor", "ratio", "requests", "retries")

    WINDOW = 10.0

    def __init__(self, ratio: float, floor: int, now: float) -> None:
        self.ratio = ratio
        self.floor = floor
        self.requests = 0  # in this window; the hot path adds to it
        self.retries = 0
        self._before = (0, 0)  # the window before this one
        self._rotated = now

    def withdraw(self, now: float) -> bool:
        """Take one retry, if there is one to take."""
        elapsed = now - self._rotated
        if elapsed >= self.WINDOW:
            self._before = (self.requests, self.retries) if elapsed < 2 * self.WINDOW else (0, 0)
            self.requests = self.retries = 0
            self._rotated = now
        requests, retries = self._before
        allowed = self.ratio * (requests + self.requests) + self.floor * self.WINDOW
        if retries + self.retries + 1 > allowed:
            return False
        self.retries += 1
        return True


def decide(
    failure: Failure,
    *,
    started: bool,
    idempotent: bool,
    replayable: bool,
    attempt: int,
    attempts: int,
    statuses: tuple[int, ...],
    elsewhere: bool,
    budget: RetryBudget,
    now: float,
) -> Decision:
    """Whether to try again.

    `started`: a response byte has gone to the client. `replayable`: all of the request that was read is still held.
    `attempt` counts the tries made so far less one (0 for the first); `attempts` is how many may follow the first.
    `elsewhere`: there is a target that has not been tried.
    """
    if started:
        return Decision(CUT, "its answer had begun")
    why = _why_not(failure, idempotent, replayable, attempt, attempts, statuses, elsewhere)
    refused_again = failure.cause == REFUSED_STREAM and attempt > 0
    unprocessed = failure.unprocessed and not refused_again
    bounded = not (unprocessed or failure.phase == CONNECT or (failure.reused and failure.cause == RESET))
    if not why and bounded and not budget.withdraw(now):
        why = "`retries.budget` is used up"
    return Decision(_answer(failure), why) if why else Decision(RETRY)


def _why_not(
    failure: Failure,
    idempotent: bool,
    replayable: bool,
    attempt: int,
    attempts: int,
    statuses: tuple[int, ...],
    elsewhere: bool,
) -> str:
    """Why a try is not made again, the budget aside; empty: it may be."""
    if not replayable:
        return "its body is longer than `retries.replay`"
    used_up = f"`retries.attempts: {attempts}` is used up"
    if failure.cause == NO_UPGRADE:
        return "" if elsewhere else "no other target may be tried"
    if failure.unprocessed:
        return "" if attempt < attempts + FREE else used_up
    if failure.phase == CONNECT:
        if failure.cause in LASTING and not elsewhere:
            return "there is no other target to try"
        return "" if attempt < attempts else used_up
    if not idempotent:
        return "the target may have acted on it, and its method is not idempotent"
    if failure.reused and failure.cause == RESET:
        # Most likely the pooled connection was stale: one replay beyond `attempts`.
        return "" if attempt <= attempts else used_up
    if attempt >= attempts:
        return used_up
    if failure.cause == STATUS and failure.status not in statuses:
        return f"`retries.statuses` does not list {failure.status}"
    if failure.cause == TIMEOUT and failure.timer != "per_try" and 504 not in statuses:
        return "`retries.statuses` does not list 504"
    return "" if elsewhere else "there is no other target to try"


def _answer(failure: Failure) -> int:
    if failure.cause == STATUS:
        return failure.status  # when retries are exhausted the target's own answer is shown (Caddy)
    if failure.cause == TIMEOUT:
        return 504
    return 502
