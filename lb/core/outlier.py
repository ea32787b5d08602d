"""Which targets fail their clients while their probes pass, and may be taken out for it. Pure; `now` is seconds.

A probe asks one question on one path; traffic asks all of them. So the requests themselves are evidence, and five
rules judge it (Envoy's outlier detection, its formulas, and where we differ the reason):

- connections in a row that could not be made. The stay outside is short (`Ejection.connect_base`): the next probe goes
  the very way that failed, so its pass proves something.
- failures in a row, of any kind, as one worker saw them; one success resets them.
- a share of failed requests in the window, when the other targets of the pool have at most half of it.
- success rate below mean - deviations × standard deviation of the pool, and by more than chance explains: Envoy's rule
  alone ejects the unluckiest of ten good targets (`test_a_healthy_pool_is_left_alone`). With few targets it can never
  be met (one dead of three is 1.2 deviations off), which is why the rule before it exists.
- mean latency above a multiple of the peers' median, by choice.

A target that returns from an ejection is on probation for as long as six windows. A quarter of the evidence is enough
to send it back. So a target which fails half of its requests costs few of them at each return (Linkerd lets one
through).

Two rules bind them all. At most `max_ejected` of a pool is out at one time; one target always may be, but never the
last one in rotation. An ejection helps only clients that have another target (nginx never marks down a group of one).
And nothing is ejected for what its peers do as well. A URL that makes every target answer 500 is the application's
fault and ejects no target (Traefik's passive check takes the whole service).

Outside its scope: how long an ejection lasts (`lifecycle`), and the immediate reaction to a refused connection (each
worker has its own).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, log, sqrt
from typing import NamedTuple

from lb.core.report import Alarm, TargetTally

BUCKETS = 10
#: -ln of the probability below which chance is no explanation. It is one in a thousand million, because every target is
#: looked at twice a second for years.
CHANCE = log(1e9)
#: Windows for which a target that has returned is on probation, and how many times less evidence is then enough.
PROBATION = 6
LENIENCY = 4


@dataclass(frozen=True, slots=True)
class Outlier:
    """When a target's own traffic speaks against it. Defaults are Envoy's unless the comment says otherwise."""

    consecutive_failures: int = 5  # requests in a row that failed in any way; 0: off
    consecutive_connect: int = (
        3  # connections in a row that could not be made (ours: they cost clients a retry); 0: off
    )
    failure_share: float = 0.3  # of a window's requests (Envoy: 85 %, and not enforced); 0: off
    minimum: int = 20  # requests in the window below which shares and latencies say nothing (Envoy: 50)…
    rate_minimum: int = 100  # …and success rates
    window: float = 10.0  # seconds
    peers: int = 3  # targets with `minimum` requests that a comparison of all needs (Envoy: 5)
    deviations: float = 1.9  # success rate below mean - deviations × standard deviation; 0: off
    latency: float = 0.0  # times the peers' median that its own mean latency may be; 0: off
    max_ejected: float = 0.34  # share of a pool that may be out at one time (Envoy: 10 %)

    @property
    def off(self) -> bool:
        return not (
            self.consecutive_failures
            or self.consecutive_connect
            or self.failure_share
            or self.deviations
            or self.latency
        )


class Suspect(NamedTuple):
    """A target that is to be ejected, and why. `quick`: it only could not be connected to."""

    target: str
    reason: str
    quick: bool = False


class Window:
    """Results of the last `seconds`: a ring of ten buckets, so that old results leave a tenth at a time.

    Its sums are kept, not made: thousands of targets are looked at twice a second.
    """

    __slots__ = ("_at", "_failed", "_ok", "_rows", "_seconds", "_width")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / BUCKETS
        self._at = 0  # number of the newest bucket's span
        self.clear()

    def add(self, ok: int, failed: int, seconds: float, now: float) -> None:
        self._turn(now)
        row = self._at % BUCKETS
        before = self._rows[row]
        self._rows[row] = before[0] + ok, before[1] + failed, before[2] + seconds
        self._ok += ok
        self._failed += failed
        self._seconds += seconds

    def sums(self, now: float) -> tuple[int, int, float]:
        """(succeeded, failed, seconds spent) within the window."""
        self._turn(now)
        return self._ok, self._failed, self._seconds

    def clear(self) -> None:
        self._rows = [_NOTHING] * BUCKETS
        self._ok = self._failed = 0
        self._seconds = 0.0

    def _turn(self, now: float) -> None:
        at = int(now / self._width)
        if at <= self._at:
            return
        if at >= self._at + BUCKETS:
            self.clear()  # and what rounding has left
        for passed in range(max(self._at + 1, at - BUCKETS + 1), at + 1):
            ok, failed, seconds = self._rows[passed % BUCKETS]
            self._rows[passed % BUCKETS] = _NOTHING
            self._ok -= ok
            self._failed -= failed
            self._seconds -= seconds
        self._at = at


#: A bucket in which nothing has happened.
_NOTHING = (0, 0, 0.0)


class _Heard:
    """The newest report of one worker on one target: cumulative, so only differences count."""

    __slots__ = ("connects", "connects_floor", "failed", "floor", "ok", "seconds", "streak")

    def __init__(self) -> None:
        self.ok = 0
        self.failed = 0
        self.seconds = 0.0
        self.connects = 0
        self.streak = 0
        self.floor = 0  # the streak that was held against it already
        self.connects_floor = 0  # connect failures before the present streak


class Ejector:
    """The targets of one pool. Feed it what workers report; `sweep` returns the targets to eject."""

    def __init__(self, rules: Outlier) -> None:
        self.rules = rules
        self._windows: dict[str, Window] = {}
        self._heard: dict[str, dict[tuple[int, int], _Heard]] = {}
        self._probation: dict[str, float] = {}  # target → until when
        self._causes: dict[str, str] = {}  # target → how it failed the last time that an alarm told of
        self._away: set[str] = set()  # targets that were not in rotation at the last sweep
        self._failing: dict[str, None] = {}  # targets that may have a failure in a row, the longest known first
        self._failed_at = -inf  # when a failure was last put into any window

    def tally(self, worker: tuple[int, int], tally: TargetTally, now: float) -> None:
        """A worker's newest counters of one target. `worker` is its number and its incarnation."""
        failed = _failures(tally)
        heard = self._heard.get(tally.target, {}).get(worker)
        if heard is None:
            heard = self._of(tally.target, worker)
            heard.floor = max(0, tally.streak - failed)  # counted under a former name, which this lb never knew
        ok_more, failed_more = tally.successes - heard.ok, failed - heard.failed
        if ok_more or failed_more:
            window = self._windows.get(tally.target)
            if window is None:
                window = self._windows[tally.target] = Window(self.rules.window)
            window.add(ok_more, failed_more, tally.seconds - heard.seconds, now)
            if failed_more:
                self._failed_at = now
        if ok_more:
            heard.floor = 0  # whatever was held against it is over
        if ok_more or tally.streak == 0:
            heard.connects_floor = max(heard.connects, tally.connect_failures - tally.streak)
        heard.ok, heard.failed, heard.seconds = tally.successes, failed, tally.seconds
        heard.connects = tally.connect_failures
        heard.streak = tally.streak
        if tally.streak:
            self._failing.setdefault(tally.target)

    def inherit(self, worker: tuple[int, int], tally: TargetTally) -> None:
        """A worker's counters of one target from before this supervisor heard of it: only what follows is evidence.

        The supervisor before this one has judged them. A worker that has just started has none.
        """
        heard = self._of(tally.target, worker)
        heard.ok, heard.failed, heard.seconds = tally.successes, _failures(tally), tally.seconds
        heard.connects = heard.connects_floor = tally.connect_failures
        heard.streak = heard.floor = tally.streak

    def gone(self, worker: tuple[int, int]) -> None:
        """A worker has ended: its failures in a row, which no success can end any more, are dropped."""
        for workers in self._heard.values():
            workers.pop(worker, None)

    def alarm(self, worker: tuple[int, int], alarm: Alarm) -> None:
        """A worker just saw a target fail, ahead of its next report."""
        heard = self._of(alarm.target, worker)
        if alarm.streak < heard.streak:
            heard.floor = 0  # it succeeded in between
        heard.streak = alarm.streak
        self._failing.setdefault(alarm.target)
        self._causes[alarm.target] = alarm.text

    def configure(self, rules: Outlier) -> None:
        """Judge by these rules from now on; evidence of a window of another length is dropped."""
        if rules.window != self.rules.window:
            self._windows.clear()
        self.rules = rules

    def rename(self, old: str, new: str, former: Ejector) -> None:
        """`new` is what `former` knows as `old`. Workers count anew for it, but its failures in a row go on."""
        for worker, before in former._heard.pop(old, {}).items():
            heard = self._of(new, worker)
            heard.streak, heard.floor = before.streak, before.floor
            self._failing.setdefault(new)
        window, until = former._windows.pop(old, None), former._probation.pop(old, None)
        if window is not None and former.rules.window == self.rules.window:
            self._windows[new] = window
            self._failed_at = max(self._failed_at, former._failed_at)
        if until is not None:
            self._probation[new] = until
        if old in former._away:
            self._away.add(new)

    def forget(self, keep: Iterable[str]) -> None:
        """Drop the records of all targets but these."""
        kept = set(keep)
        self._away &= kept
        for records in (self._windows, self._heard, self._probation, self._causes, self._failing):
            for target in [target for target in records if target not in kept]:
                del records[target]

    def drop(self, targets: Iterable[str]) -> None:
        """Drop the records of these targets."""
        for target in targets:
            self._away.discard(target)
            for records in (self._windows, self._heard, self._probation, self._causes, self._failing):
                records.pop(target, None)

    def sweep(self, states: Mapping[str, str], now: float) -> list[Suspect]:
        """The targets to eject. `states` says of each target of the pool: `in` if it can serve, `ejected`, `idle` if it
        is ready but has weight 0, or else `out`. An idle target replaces no other one, and is no part of the share."""
        outside = {target: state for target, state in states.items() if state != "in"}
        for target, state in outside.items():
            self._reset_evidence(target)
            if state == "ejected":
                self._probation[target] = now + PROBATION * self.rules.window
        for target in [target for target in self._away if states.get(target) == "in"]:
            self._reset_evidence(target)  # it is back: what has failed since the last sweep was sent before it left
            self._away.discard(target)
        self._away.update(outside)
        room = self._room(outside.values(), len(states) - len(outside))
        if room <= 0 or not self._any_evidence(now):
            return []
        sums = {target: window.sums(now) for target, window in self._windows.items() if states.get(target) == "in"}
        peers = _Peers(sums)
        failing = [target for target in self._failing if states.get(target) == "in"]
        suspects = [suspect for target in failing if (suspect := self._in_a_row(target, peers)) is not None]
        if not suspects:
            suspects = self._against_peers(sums, now)
        suspects.sort(key=lambda suspect: -_failed_share(sums.get(suspect.target, (0, 0, 0.0))))
        for suspect in suspects[:room]:
            self._reset_evidence(suspect.target)
        return suspects[:room]

    # --- the rules ---------------------------------------------------------------------------------------------------

    def _any_evidence(self, now: float) -> bool:
        """Whether any target may be suspected. With thousands of targets it is the usual case that none is."""
        self._failing = {target: None for target in self._failing if self._longest_row(target)[0]}
        return bool(self._failing) or bool(self.rules.latency) or now - self._failed_at <= self.rules.window

    def _room(self, outside: Collection[str], rotating: int) -> int:
        """How many more may be ejected now. `outside`: the states of all targets that cannot serve."""
        ejected = sum(1 for state in outside if state == "ejected")
        counted = rotating + sum(1 for state in outside if state != "idle")
        allowed = max(1, int(self.rules.max_ejected * counted + 1e-9))
        return min(allowed - ejected, rotating - 1)

    def _longest_row(self, target: str) -> tuple[int, int]:
        """(failures in a row that a worker has seen, connections in a row that could not be made)."""
        refused = streak = 0
        for heard in self._heard.get(target, {}).values():
            in_row = heard.streak - heard.floor
            if in_row:
                streak = max(streak, in_row)
                refused = max(refused, min(heard.connects - heard.connects_floor, in_row))
        return streak, refused

    def _in_a_row(self, target: str, peers: _Peers) -> Suspect | None:
        rules = self.rules
        streak, refused = self._longest_row(target)
        if rules.consecutive_connect and refused >= rules.consecutive_connect:
            suspect = Suspect(
                target, f"{refused} connections in a row could not be made{self._cause(target)}", quick=True
            )
        elif rules.consecutive_failures and streak >= rules.consecutive_failures:
            suspect = Suspect(target, f"{streak} requests in a row failed{self._cause(target)}")
        else:
            return None
        return suspect if peers.share_without(target) < 0.5 else None

    def _cause(self, target: str) -> str:
        cause = self._causes.get(target)
        return f" (last: {cause})" if cause else ""

    def _against_peers(self, sums: Mapping[str, tuple[int, int, float]], now: float) -> list[Suspect]:
        rules = self.rules
        leniency = {target: LENIENCY if now < self._probation.get(target, 0.0) else 1 for target in sums}
        counted = {
            target: (ok, bad, seconds)
            for target, (ok, bad, seconds) in sums.items()
            if (ok + bad) * leniency[target] >= rules.minimum
        }
        everybody = _Peers(counted)
        if not (everybody.any_failed or rules.latency):
            return []  # the usual case: thousands of targets need not be compared twice a second
        suspects: dict[str, Suspect] = {}
        for target, (ok, bad, _) in counted.items():
            share = bad / (ok + bad)
            peers = everybody.share_without(target)
            if (
                rules.failure_share
                and len(counted) > 1
                and share >= rules.failure_share
                and peers <= share / 2
                and not by_chance(bad, ok + bad, peers, CHANCE / leniency[target])
            ):
                reason = (
                    f"{share:.0%} of its {ok + bad} requests in {rules.window:g} s failed, {peers:.0%} of its peers'"
                )
                suspects[target] = Suspect(target, reason)
        if len(counted) >= rules.peers:
            for other in self._below_the_mean(counted) + self._too_slow(counted):
                suspects.setdefault(other.target, other)
        return list(suspects.values())

    def _below_the_mean(self, counted: Mapping[str, tuple[int, int, float]]) -> list[Suspect]:
        if not self.rules.deviations:
            return []
        rates = {
            target: ok / (ok + bad) for target, (ok, bad, _) in counted.items() if ok + bad >= self.rules.rate_minimum
        }
        if len(rates) < self.rules.peers:
            return []
        limit = success_rate_limit(list(rates.values()), self.rules.deviations)
        peers = _Peers(counted)
        return [
            Suspect(target, f"success rate {rate:.1%}, below {limit:.1%}, the limit by its {len(rates)} peers")
            for target, rate in rates.items()
            if rate < limit and not by_chance(*_failed_of(counted[target]), peers.share_without(target))
        ]

    def _too_slow(self, counted: Mapping[str, tuple[int, int, float]]) -> list[Suspect]:
        if not self.rules.latency:
            return []
        means = {target: seconds / (ok + bad) for target, (ok, bad, seconds) in counted.items()}
        suspects = []
        ordered = sorted(means.values())
        for target, mean in means.items():
            median = median_without(ordered, mean)
            if mean > median * self.rules.latency and mean - median > 0.001:
                text = f"takes {mean * 1000:.0f} ms on average, {mean / max(median, 1e-9):.1f} times its peers' median"
                suspects.append(Suspect(target, text))
        return suspects

    # --- the books ---------------------------------------------------------------------------------------------------

    def _of(self, target: str, worker: tuple[int, int]) -> _Heard:
        return self._heard.setdefault(target, {}).setdefault(worker, _Heard())

    def _reset_evidence(self, target: str) -> None:
        """Nothing that happened so far is held against it: it starts anew when it returns (Envoy #40697)."""
        for heard in self._heard.get(target, {}).values():
            heard.floor = heard.streak
            heard.connects_floor = heard.connects
        window = self._windows.get(target)
        if window is not None:
            window.clear()


class _Peers:
    """The requests of all targets together, so that the sums of a target's peers are a subtraction."""

    def __init__(self, sums: Mapping[str, tuple[int, int, float]]) -> None:
        self._sums = sums
        self._ok = sum(ok for ok, _, _ in sums.values())
        self._bad = sum(bad for _, bad, _ in sums.values())

    @property
    def any_failed(self) -> bool:
        return self._bad > 0

    def share_without(self, target: str) -> float:
        """The share of failed requests of all other targets; 0 when they had none."""
        ok, bad, _ = self._sums.get(target, (0, 0, 0.0))
        ok, bad = self._ok - ok, self._bad - bad
        return bad / (ok + bad) if ok + bad else 0.0


def median_without(ordered: Sequence[float], value: float) -> float:
    """The median of sorted values of which one, equal to `value`, is left out; there must be two at least."""
    place = bisect_left(ordered, value)
    low, high = (len(ordered) - 2) // 2, (len(ordered) - 1) // 2
    return (ordered[low + (low >= place)] + ordered[high + (high >= place)]) / 2


def _failures(tally: TargetTally) -> int:
    return tally.connect_failures + tally.resets + tally.timeouts + tally.server_errors


def _failed_of(sums: tuple[int, int, float]) -> tuple[int, int]:
    ok, bad, _ = sums
    return bad, ok + bad


def _failed_share(sums: tuple[int, int, float]) -> float:
    bad, requests = _failed_of(sums)
    return bad / requests if requests else 0.0


def success_rate_limit(rates: Sequence[float], deviations: float) -> float:
    """Envoy: mean - deviations × standard deviation (of the population)."""
    mean = sum(rates) / len(rates)
    return mean - deviations * sqrt(sum((rate - mean) ** 2 for rate in rates) / len(rates))


def by_chance(failed: int, requests: int, peers_share: float, sure: float = CHANCE) -> bool:
    """Whether `failed` of `requests` may well happen to a target that fails as often as its peers.

    Chernoff: the probability is at most exp(-n × KL(share ‖ peers')). More than exp(-sure) is called chance. Peers
    without a failure are taken to fail once in a thousand requests.
    """
    share = failed / requests
    usual = max(peers_share, 0.001)
    if share <= usual:
        return True
    divergence = share * log(share / usual)
    if share < 1:
        divergence += (1 - share) * log((1 - share) / (1 - usual))
    return requests * divergence < sure
