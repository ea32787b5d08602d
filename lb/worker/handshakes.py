"""TLS handshakes leave a trace: each is counted by its result, and a failed one is said now and then."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from lb.net.tls.client_hello import PLAIN_HTTP
from lb.net.tls.transport import BAD_PROXY_HEADER, CLOSED, OK, OVERLOAD, STOPPED, TIMEOUT, UNTRUSTED_PROXY, Outcome

if TYPE_CHECKING:
    from lb.proxy.stats import Stats

#: Seconds between two lines about the same kind of failure on the same listener.
SAID_EVERY = 10.0

#: Result of a handshake → its reason in `lb_rejected_total`; `FAILED` stands for all other ones.
REASONS = {
    PLAIN_HTTP: "tls_plain_http",
    TIMEOUT: "tls_timeout",
    CLOSED: "tls_closed",
    STOPPED: "tls_closed",
    OVERLOAD: "tls_overload",
    BAD_PROXY_HEADER: "bad_proxy_header",
    UNTRUSTED_PROXY: "proxy_protocol_untrusted",
}
FAILED = "tls_handshake"


class Handshakes:
    """Counts a worker's handshakes, and says failed ones at a bounded rate."""

    def __init__(self, stats: Stats, say: Callable[[str], None], clock: Callable[[], float] = monotonic) -> None:
        self._stats = stats
        self._say = say
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}  # (bind, result) → when said last, how many since

    def ended(self, bind: str, outcome: Outcome) -> None:
        """A handshake on the listener `bind` is over."""
        result, known = outcome.result, outcome.established
        if known is not None:
            self._stats.handshake(bind, known.version, result, outcome.seconds, known.resumed)
            return
        self._stats.handshake(bind, "", result, outcome.seconds, False)
        self._stats.reject(REASONS.get(result, FAILED))
        if result in (OK, CLOSED, STOPPED):  # balancers' TCP checks and port scans close all day
            return
        now = self._clock()
        before, unsaid = self._said.get((bind, result), (-SAID_EVERY, 0))
        if now - before < SAID_EVERY:
            self._said[bind, result] = before, unsaid + 1
            return
        self._said[bind, result] = now, 0
        more = f" ({unsaid} more such failures before this one)" if unsaid else ""
        self._say(f"listener {bind}: {_words(outcome)}{more}")

    def forget(self, bind: str) -> None:
        """The listener is gone."""
        self._said = {key: value for key, value in self._said.items() if key[0] != bind}


def _words(outcome: Outcome) -> str:
    peer = outcome.peer
    if outcome.result == PLAIN_HTTP:
        return f"{peer} sent plain HTTP, but this listener speaks TLS: use https://"
    if outcome.result == TIMEOUT:
        return f"{peer} did not finish its TLS handshake in time"
    if outcome.result == OVERLOAD:
        return f"the TLS handshake of {peer} was given up: too many are under way"
    name = f" for {outcome.server_name}" if outcome.server_name else ""
    detail = outcome.detail or outcome.result.replace("_", " ")
    return f"the TLS handshake with {peer}{name} failed: {detail}"
