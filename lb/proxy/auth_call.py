"""AuthCall: a request of lb's own to a service, which asks whether a client's request may pass.

It is an exchange like a client's, with the service's targets, connections, retries and timeouts. But no route or step
has a say in it, no client waits for it, and no line of the access log is its own: the client's request has one.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from lb.core.report import BUCKETS
from lb.http.h1.replies import Reply
from lb.http.message import RequestFields, RequestHead, ResponseHead
from lb.proxy.connectionless_stream import ConnectionlessStream
from lb.proxy.crash_counters import BEGUN
from lb.proxy.crash_counters import OVER as OVER_CELL
from lb.proxy.exchange import OVER, QUEUED, Exchange
from lb.proxy.lane import ABANDONED, COMPLETE
from lb.proxy.lane import CUT as CUT_OFF

if TYPE_CHECKING:
    from lb.proxy.client_stream import ClientStream
    from lb.proxy.services import LiveConfig, LiveService

#: Bytes of an answer's body that are kept for the client; a longer answer counts as none.
MOST_KEPT: Final = 65536


class AuthCall(Exchange):
    """One question. It is over when its client stream is told so."""

    __slots__ = ()

    def ask(self, service: LiveService) -> None:
        """Ask one of the service's targets."""
        self.live.copies.add(self)  # so that deadlines and drains find it
        stats = self.context.stats
        stats.begun += 1
        stats.crash_counters[BEGUN] = stats.begun
        self.service = service
        service.in_flight += 1
        service.budget.requests += 1
        self.pool = service.choose(self)
        self._next_lane()

    def leave_queue(self) -> None:
        if self.phase == QUEUED and self.live.services.get(self.service.name) is not self.service:
            # A reload has removed the service. No route may send the question elsewhere.
            self.answer(503, "no_target", "the service is no longer served")
            return
        super().leave_queue()

    def worded(self, reply: Reply) -> Reply:
        return reply  # no client sees it

    def _finish(self, now: float, cut: bool = False, complete: bool = True) -> None:
        self.phase = OVER
        self.live.copies.discard(self)
        seconds = now - self.started
        bucket = bisect_left(BUCKETS, seconds)
        lease, upstream = self.lease, self.upstream
        self.upstream = None
        if lease is not None:
            ours = self.answered_by_proxy or not complete
            outcome = ABANDONED if ours else CUT_OFF if cut else COMPLETE
            lease.release(upstream, outcome, self.status, seconds, bucket, now)
        stats = self.context.stats
        stats.over += 1
        stats.crash_counters[OVER_CELL] = stats.over
        counts = self.pool.counts
        counts.seconds += seconds
        counts.buckets[bucket] += 1
        self.service.in_flight -= 1
        if self.pool.waiting:
            self.pool.wake()
        self.client.done(complete and not cut and not self.answered_by_proxy)


class Questioner(ConnectionlessStream):
    """The client stream of a question: it keeps the answer. A subclass has `answered`."""

    __slots__ = ("answer", "body", "call", "is_over", "size")

    def __init__(self, client: ClientStream) -> None:
        super().__init__(client, trusted=False)
        self.answer: ResponseHead | None = None
        self.body: list[bytes] = []
        self.size = 0  # of the body
        self.call: AuthCall | None = None
        self.is_over = False

    def ask(self, live: LiveConfig, head: RequestHead, request_id: bytes, service: LiveService) -> None:
        """Send the question."""
        self.call = AuthCall(live, self, head)
        self.call.request_id = request_id
        self.call.ask(service)

    def give_up(self) -> None:
        """The answer is needed no more."""
        self.is_over = True
        if self.call is not None:
            self.call.client_lost()

    def answered(self, whole: bool) -> None:
        """The call is over. `whole`: `answer` and `body` are a target's, and complete."""
        raise NotImplementedError

    def send_head(self, response: ResponseHead, piece: bytes, end: bool, last: bool = False) -> None:
        self.answer = response
        self._keep(piece)

    def send_body(self, piece: bytes, end: bool) -> None:
        self._keep(piece)

    def _keep(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size <= MOST_KEPT:
            self.body.append(piece)

    def done(self, complete: bool) -> None:
        if not self.is_over:
            self.is_over = True
            self.answered(complete and self.answer is not None and self.size <= MOST_KEPT)


def question(asked: RequestHead, target: bytes, lines: list[bytes]) -> RequestHead:
    """The head of a question with these whole lines, and lb's own about the client's connection."""
    fields = RequestFields()
    fields.forwarded_lines = lines
    fields.forwarding_lines = asked.fields.forwarding_lines
    fields.cached_lines = b"\r\n" + b"".join(lines) + asked.fields.forwarding_lines
    return RequestHead(b"GET", target, target.partition(b"?")[0], asked.minor, b"", fields)
