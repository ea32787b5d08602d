"""Is the new pool worse than the old one? Statistics that may be looked at every second, on the proxy's own counts.

A release is judged while requests come in, and every look at the figures is a chance to be fooled by noise. So the
bounds used here are *confidence sequences*: they hold at all times together, however often one looks and whenever one
stops. Being sure is then a matter of evidence alone: six failures in a row prove something, one failure does not.

The bound for a share p of requests with some flaw (failed, or slow), k flawed of n seen, is the beta-binomial mixture:

    M_n(p) = B(k + 1/2, n - k + 1/2) / B(1/2, 1/2) / (p^k (1 - p)^(n - k))

If p is the true share, M_n(p) is a martingale that starts at 1. So it ever reaches 1/alpha with probability at most
alpha (Ville's inequality). All p with M_n(p) < 1/alpha are the confidence sequence. Sources: H. Robbins, Statistical
methods related to the law of the iterated logarithm (1970); T. L. Lai, On confidence sequences (1976); S. R. Howard et
al., Time-uniform, nonparametric, nonasymptotic confidence sequences (2021); for its use in releases R. Johari et al.,
Always valid inference (2015). The weights 1/2, 1/2 come from Krichevsky and Trofimov: near the best for every p.

Two pools are compared over the same time, so that what befalls both (a slow database, a burst of bad requests) speaks
against neither. The probability that a new pool as good as the old one is ever called worse is at most `alpha`. The
probability in simulations, and the time to find a bad pool, stand in docs/blue-green.md and are tested.

Outside its scope: state, steps and time; `core.rollout` decides what follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, lgamma, log, log1p
from typing import Literal

from lb.core.report import BUCKETS

#: The share of requests that may be slower than the limit: p99.
TAIL = 0.01
#: Seconds that the new pool's p99 may always be higher: below this, ratios are about the noise of the machine.
LATENCY_SLACK = 0.010
#: Factor up to which the search for "requests still needed" goes.
FAR = 10_000

_LOG_BETA_HALF = 2 * lgamma(0.5) - lgamma(1.0)


@dataclass(frozen=True, slots=True)
class Tally:
    """A pool's answers over some time. `buckets` is as in `core.report`: one more than BUCKETS, not cumulative."""

    requests: int = 0
    errors: int = 0  # 5xx and cut answers, as the clients saw them
    buckets: tuple[int, ...] = ()

    def since(self, base: Tally) -> Tally:
        """The counts after `base`. Counters that went back (a new supervisor counts from 0) are taken from 0."""
        if self.requests < base.requests or self.errors < base.errors:
            return self
        return Tally(self.requests - base.requests, self.errors - base.errors, _minus(self.buckets, base.buckets))

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(self.requests + other.requests, self.errors + other.errors, _plus(self.buckets, other.buckets))

    def slower(self, bound: int) -> int:
        """Requests that took longer than `BUCKETS[bound]` seconds."""
        return sum(self.buckets[bound + 1 :])


@dataclass(frozen=True, slots=True)
class Finding:
    """The judgement on the figures: `worse` is proven; `fine` is within the limits; `unclear` needs `needed` more
    requests."""

    outcome: Literal["worse", "fine", "unclear"]
    text: str
    needed: int = 0


# --- one share -------------------------------------------------------------------------------------------------------


def _log_mixture(k: int, n: int) -> float:
    return lgamma(k + 0.5) + lgamma(n - k + 0.5) - lgamma(n + 1.0) - _LOG_BETA_HALF


def _log_likelihood(k: int, n: int, p: float) -> float:
    """k log p + (n - k) log(1 - p), with 0 log 0 = 0."""
    if (p <= 0.0 and k) or (p >= 1.0 and k < n):
        return -inf
    return (k * log(p) if k else 0.0) + ((n - k) * log1p(-p) if k < n else 0.0)


def proven_above(k: int, n: int, p: float, alpha: float) -> bool:
    """Whether k of n prove a share above p, with an error of at most `alpha` over all looks together."""
    if n == 0 or k <= p * n:
        return False
    return _log_mixture(k, n) - _log_likelihood(k, n, p) >= -log(alpha)


def proven_below(k: int, n: int, p: float, alpha: float) -> bool:
    """Whether k of n prove a share below p, likewise."""
    if n == 0 or k >= p * n:
        return False
    return _log_mixture(k, n) - _log_likelihood(k, n, p) >= -log(alpha)


def lower(k: int, n: int, alpha: float) -> float:
    """The share that the true one is at least."""
    return _edge(0.0, k / n, lambda p: proven_above(k, n, p, alpha)) if n else 0.0


def upper(k: int, n: int, alpha: float) -> float:
    """The share that the true one is at most."""
    return 1.0 - _edge(0.0, 1.0 - k / n, lambda q: proven_below(k, n, 1.0 - q, alpha)) if n else 1.0


def _edge(excluded: float, seen: float, proven: Callable[[float], bool]) -> float:
    """The border between what is proven wrong (near `excluded`) and what is not (near `seen`), by bisection."""
    if not proven(excluded):
        return excluded
    low, high = excluded, seen
    for _ in range(40):
        middle = (low + high) / 2
        if proven(middle):
            low = middle
        else:
            high = middle
    return low


# --- errors ----------------------------------------------------------------------------------------------------------


def errors(new: Tally, old: Tally, margin: float, alpha: float, names: tuple[str, str]) -> Finding:
    """Whether the new pool's share of failed requests is above the old pool's by more than `margin`."""
    text = (
        f"{names[0]} fails {_share(new.errors, new.requests)} of its requests, "
        f"{names[1]} {_share(old.errors, old.requests)}; {_percent(margin)} more would be accepted"
    )
    if more_errors(new, old, margin, alpha):
        return Finding("worse", text)
    if _rate(new.errors, new.requests) <= _rate(old.errors, old.requests) + margin:
        return Finding("fine", text)
    return Finding("unclear", text, _needed(new, old, lambda a, b: more_errors(a, b, margin, alpha)))


def more_errors(new: Tally, old: Tally, margin: float, alpha: float) -> bool:
    """Whether it is proven."""
    if _rate(new.errors, new.requests) <= _rate(old.errors, old.requests) + margin:
        return False
    allowed = upper(old.errors, old.requests, alpha / 2) + margin
    return allowed < 1.0 and proven_above(new.errors, new.requests, allowed, alpha / 2)


# --- latency ---------------------------------------------------------------------------------------------------------


def quantile(buckets: tuple[int, ...], share: float) -> float:
    """Seconds that `share` of the requests stayed below; within a bucket by interpolation, as Prometheus does."""
    rank = share * sum(buckets)
    below = 0
    for i, count in enumerate(buckets):
        if count and below + count >= rank:
            if i == len(BUCKETS):
                return BUCKETS[-1]
            start = BUCKETS[i - 1] if i else 0.0
            return start + (BUCKETS[i] - start) * (rank - below) / count
        below += count
    return 0.0


def latency_limit(old: Tally, ratio: float) -> int | None:
    """The index of the bucket bound that the new pool's p99 must not exceed; None: there is no higher bound."""
    p99 = quantile(old.buckets, 1.0 - TAIL)
    wanted = max(p99 * ratio, p99 + LATENCY_SLACK)
    return next((i for i, bound in enumerate(BUCKETS) if bound >= wanted), None)


def latency(new: Tally, old: Tally, ratio: float, alpha: float, names: tuple[str, str]) -> Finding:
    """Whether the new pool's p99 is above the old pool's by more than the factor `ratio`.

    It is when more than 1 % of the new pool's requests, and a larger share than of the old pool's, take longer than the
    limit. The limit is one of the histogram's bounds and depends on the figures; `alpha` is shared out over all bounds,
    so the choice cannot be a lucky one.
    """
    limit = latency_limit(old, ratio) if old.requests and new.requests else None
    if limit is None:
        return Finding("fine", "no latencies to compare")
    p99_new, p99_old = quantile(new.buckets, 1.0 - TAIL), quantile(old.buckets, 1.0 - TAIL)
    slower = new.slower(limit)
    text = (
        f"the p99 of {names[0]} is about {_seconds(p99_new)}, of {names[1]} {_seconds(p99_old)}; "
        f"{_share(slower, new.requests)} of {names[0]}'s requests take longer than {_seconds(BUCKETS[limit])}, "
        f"{_percent(TAIL)} may"
    )
    if slower_tail(new, old, limit, alpha):
        return Finding("worse", text)
    if slower <= TAIL * new.requests or _rate(slower, new.requests) <= _rate(old.slower(limit), old.requests):
        return Finding("fine", text)
    return Finding("unclear", text, _needed(new, old, lambda a, b: slower_tail(a, b, limit, alpha)))


def slower_tail(new: Tally, old: Tally, limit: int, alpha: float) -> bool:
    """Whether it is proven, for the bound with index `limit`."""
    slower, share = new.slower(limit), alpha / 2 / len(BUCKETS)
    if not proven_above(slower, new.requests, TAIL, share):
        return False
    allowed = max(TAIL, upper(old.slower(limit), old.requests, share))
    return allowed < 1.0 and proven_above(slower, new.requests, allowed, share)


# --- burn rate -------------------------------------------------------------------------------------------------------


def burning(
    short: tuple[int, int], long: tuple[int, int], budget: float, burn: float, alpha: float, accepted: float = 0.0
) -> bool:
    """Whether a budget of flawed requests burns `burn` times too fast, over a short and a long window at once.

    Each window is (flawed, requests). The long window shows that it is more than a blip, the short one that it is still
    going on. Source: The Site Reliability Workbook, 2018, chapter 5 (multiwindow, multi-burn-rate alerts). Little
    traffic must not alarm by chance. So the long window must prove that the budget is exceeded, and `accepted` as well,
    the share that was normal before the release. `alpha` is per window; the caller shares it out over the windows it
    looks at.
    """
    limit = max(budget * burn, accepted)
    return (
        short[0] > limit * short[1]
        and long[0] > limit * long[1]
        and proven_above(long[0], long[1], max(budget, accepted), alpha)
    )


# --- words -----------------------------------------------------------------------------------------------------------


def _needed(new: Tally, old: Tally, worse: Callable[[Tally, Tally], bool]) -> int:
    """About how many more requests to the new pool would settle it, if both went on as they are."""
    for factor in _factors():
        if worse(_times(new, factor), _times(old, factor)):
            return max(1, round(new.requests * (factor - 1)))
    return new.requests * FAR


def _factors() -> list[float]:
    factors, factor = [], 1.1
    while factor < FAR:
        factors.append(factor)
        factor *= 1.25
    return factors


def _times(tally: Tally, factor: float) -> Tally:
    return Tally(
        round(tally.requests * factor),
        round(tally.errors * factor),
        tuple(round(count * factor) for count in tally.buckets),
    )


def _rate(k: int, n: int) -> float:
    return k / n if n else 0.0


def _share(k: int, n: int) -> str:
    return f"{_percent(_rate(k, n))} ({k} of {n})"


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1.0 else f"{seconds:.3g} s"


def _plus(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True)) if a and b else a or b


def _minus(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(0, x - y) for x, y in zip(a, b, strict=True)) if a and b else a
