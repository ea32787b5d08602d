"""Refuses requests with 429 that come more often than a route allows: by client, header, cookie, or all together.

All workers take tokens from the same buckets (`proxy.rate_table`), so the rate is that of the whole lb.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

from lb.core.networks import limited_as
from lb.core.rate_limit import TokenBucket, retry_after
from lb.core.targets import RateLimit
from lb.http.h1.replies import Reply
from lb.http.message import ResponseHead
from lb.proxy.context import Context
from lb.proxy.services import AnswerStep, Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange

#: Keys whose place in the table a step remembers, so that it need not be computed for each request.
REMEMBERED: Final = 4096


class RateLimitStep(Step):
    """Takes a token of the key's bucket. Requests without the header or cookie share one bucket."""

    __slots__ = ("_bucket", "_counts", "_limit", "_marks", "_name", "_policy", "_rule", "_table")

    def __init__(self, rule: RateLimit, route: str, context: Context) -> None:
        self._rule = rule
        self._bucket = TokenBucket(rule.number, rule.seconds, rule.burst)
        self._table = context.rates
        self._counts = context.stats.step_counts(route, "rate_limit")
        kind, _, name = rule.key.partition(":")
        self._name = name.encode() if kind == "cookie" else name.lower().encode()
        # With other numbers, it is another limit: its buckets begin full.
        self._limit = repr((route, rule.name, rule.key, rule.number, rule.seconds, rule.burst)).encode()
        self._marks: dict[bytes, int] = {}
        window = max(ceil(self._bucket.window), 1)
        self._policy = b'RateLimit-Policy: "%b";q=%d;w=%d\r\nRateLimit: "%b"' % (
            rule.name.encode(),
            rule.burst,
            window,
            rule.name.encode(),
        )

    def name(self) -> str:
        return "rate_limit"

    def before(self, exchange: Exchange) -> Reply | None:
        key = self._key(exchange)
        mark = self._marks.get(key, 0)
        if not mark:
            mark = self._remember(key)
        now, bucket, rule = exchange.started, self._bucket, self._rule
        full_at = self._table.take(mark, bucket, now)
        if full_at > 0.0:
            self._counts.count("passed")
            if rule.fields and not rule.dry_run:
                left, more = bucket.left(full_at, now), bucket.next_in(full_at, now)
                exchange.answer_steps = [*exchange.answer_steps, Told(b"%b;r=%d;t=%d\r\n" % (self._policy, left, more))]
            return None
        if rule.dry_run:
            self._counts.count("dry_run")
            exchange.remark(f"rate_limit {rule.name}: over the limit (dry run)")
            return None
        seconds = retry_after(-full_at)
        lines = b"%b;r=0;t=%d\r\n" % (self._policy, seconds) if rule.fields else b""
        return Reply(429, "rate_limited", "too many requests; see Retry-After", lines, retry_after=seconds)

    def _key(self, exchange: Exchange) -> bytes:
        key = self._rule.key
        if key == "client":
            client = exchange.client
            return client.peer if not client.trusted else exchange.live.asked(exchange).client()
        if key == "route":
            return b""
        if key == "header:host":
            return exchange.received.host
        fields = exchange.received.fields
        return fields.cookie(self._name) if key.startswith("cookie:") else fields.value(self._name)

    def _remember(self, key: bytes) -> int:
        counted = limited_as(key) if self._rule.key == "client" else key
        mark = self._table.mark(self._limit, counted)
        if len(self._marks) >= REMEMBERED:
            self._marks.clear()
        if len(key) <= 256:
            self._marks[key] = mark
        return mark


class Told(AnswerStep):
    """Adds lines to one answer."""

    __slots__ = ("_lines",)

    def __init__(self, lines: bytes) -> None:
        self._lines = lines

    def before(self, exchange: Exchange) -> Reply | None:
        return None

    def on_answer(self, exchange: Exchange, head: ResponseHead) -> ResponseHead:
        return head.with_lines(head.fields.forwarded_lines + self._lines)
