"""Refuses requests with 429 that come more often than a route allows: by client, header, cookie, or all together.

All workers take tokens from the same buckets (`proxy.rate_table`), so the rate is that of the whole lb.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from lb.core.rate_limit import TokenBucket, retry_after
from lb.core.targets import RateLimit
from lb.http.h1.replies import Reply
from lb.http.message import ResponseHead
from lb.proxy.context import Context
from lb.proxy.limit_key import LimitKey
from lb.proxy.services import AnswerStep, Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class RateLimitStep(Step):
    """Takes a token of the key's bucket. Requests without the header or cookie share one bucket."""

    __slots__ = ("_bucket", "_counts", "_key", "_policy", "_rule", "_table", "_tells")

    def __init__(self, rule: RateLimit, route: str, context: Context) -> None:
        self._rule = rule
        self._tells = rule.fields and not rule.dry_run  # of the limit, in each answer
        self._bucket = TokenBucket(rule.number, rule.seconds, rule.burst)
        self._table = context.rates
        self._counts = context.stats.step_counts(route, "rate_limit")
        # With other numbers, it is another limit: its buckets begin full.
        limit = repr((route, rule.name, rule.key, rule.number, rule.seconds, rule.burst)).encode()
        self._key = LimitKey(rule.key, limit, context.rates.mark)
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
        mark = self._key.mark(exchange)
        now, bucket = exchange.started, self._bucket
        full_at = self._table.take(mark, bucket, now)
        if full_at > 0.0:
            self._counts.count("passed")
            if self._tells:
                left, more = bucket.left(full_at, now), bucket.next_in(full_at, now)
                exchange.answer_steps = [*exchange.answer_steps, Told(b"%b;r=%d;t=%d\r\n" % (self._policy, left, more))]
            return None
        rule = self._rule
        if rule.dry_run:
            self._counts.count("dry_run")
            exchange.remark(f"rate_limit {rule.name}: over the limit (dry run)")
            return None
        seconds = retry_after(-full_at)
        lines = b"%b;r=0;t=%d\r\n" % (self._policy, seconds) if rule.fields else b""
        return Reply(429, "rate_limited", "too many requests; see Retry-After", lines, retry_after=seconds)


class Told(AnswerStep):
    """Adds lines to one answer."""

    __slots__ = ("_lines",)

    def __init__(self, lines: bytes) -> None:
        self._lines = lines

    def before(self, exchange: Exchange) -> Reply | None:
        return None

    def on_answer(self, exchange: Exchange, head: ResponseHead) -> ResponseHead:
        return head.with_lines(head.fields.forwarded_lines + self._lines)
