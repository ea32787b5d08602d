"""Round robin over many lanes at a high rate: stretch by stretch, and what that must not change."""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.core.balance import build
from lb.core.balance.blocked_cycle import LAPS, PATIENCE, ROOM, STAY, BlockedCycle
from lb.core.balance.round_robin import STRICT
from lb.core.targets import Balance


class Lane:
    def __init__(self, number: int) -> None:
        self.id = f"s/p/10.0.0.{number}:80"
        self.number = number
        self.in_flight = 0
        self.free_at = 0.0  # when a server that takes one request at a time has nothing more to do


def lanes(count: int) -> list[Lane]:
    return [Lane(number) for number in range(count)]


def balancer(members: list[Lane], weights: list[float] | None = None):
    weights = weights or [1.0] * len(members)
    return build(Balance("round_robin"), list(zip(members, weights, strict=True)), random.Random(1), offset=0)


def drive(balancer, picks: int, rate: float, in_flight: int = 0, start: float = 1.0) -> list[Lane]:
    """So many picks at a steady rate; each request is over after `in_flight` more have been made."""
    open_requests: deque[Lane] = deque()
    picked = []
    for n in range(picks):
        lane = balancer.pick(0, (), start + n / rate)
        picked.append(lane)
        lane.in_flight += 1
        open_requests.append(lane)
        if len(open_requests) > in_flight:
            open_requests.popleft().in_flight -= 1
    for lane in open_requests:
        lane.in_flight -= 1
    return picked


# ---------------------------------------------------------------------------------------------- when it happens


def test_at_a_high_rate_a_stretch_is_gone_through_again():
    picked = drive(balancer(lanes(1000)), 1000, rate=40_000)
    stretch = len(set(picked[:160]))
    assert stretch < 40
    assert picked[:stretch] * 4 == picked[: 4 * stretch]


@pytest.mark.parametrize(
    ("count", "rate", "in_flight"),
    [
        (1000, 1_200, 0),  # so slow that two laps over the shortest stretch last longer than a stretch may
        (1000, 40_000, 400),  # so much in flight that each target is busy most of the time
        (STRICT, 40_000, 0),  # so few targets that they stay in the cache anyway
    ],
    ids=["slow", "busy", "few"],
)
def test_else_strictly_in_turn(count, rate, in_flight):
    turn = balancer(lanes(count))
    drive(turn, 40 * count, rate, in_flight)  # until it has seen how much is in flight
    began = 1.0 + 40 * count / rate
    picked = drive(turn, 5 * count, rate, in_flight, start=began)
    gaps = Counter(b - a for lane in set(picked) for a, b in _neighbours(picked, lane))
    assert set(gaps) == {count} if not in_flight else max(gaps) <= 2 * count
    assert sum(gaps[gap] for gap in gaps if gap >= count / 2) >= 0.95 * gaps.total()


def _neighbours(picked: list[Lane], lane: Lane) -> list[tuple[int, int]]:
    places = [place for place, each in enumerate(picked) if each is lane]
    return list(pairwise(places))


def test_without_a_clock_strictly_in_turn():
    members = lanes(1000)
    turn = balancer(members)
    assert [turn.pick() for _ in range(3000)] == members * 3


def test_a_stretch_has_the_traffic_for_a_bounded_time_and_number_of_laps():
    for rate in (5_000, 40_000, 1_000_000):
        picked = drive(balancer(lanes(1000)), 20_000, rate)
        longest = max(b - a for a, b in _stays(picked))
        assert longest <= max(STAY * rate, 40)
        assert max(Counter(picked[:5000]).values()) <= LAPS


def _stays(picked: list[Lane]) -> list[tuple[int, int]]:
    """From the first turn of each stretch to the first of the next: a lane that was not among the last hundred."""
    begins = [0]
    for place in range(1, len(picked)):
        if (
            picked[place] not in picked[max(0, place - 100) : place]
            and picked[place - 1] in picked[begins[-1] : place - 1]
        ):
            begins.append(place)
    return list(pairwise(begins))


def test_requests_in_flight_have_room():
    """`ROOM` turns for each: a target has answered when its next request comes."""
    members = lanes(1000)
    turn = balancer(members)
    for in_flight in (5, 20, 60):
        drive(turn, 20_000, 40_000, in_flight)
        picked = drive(turn, 20_000, 40_000, in_flight, start=2.0)[1000:]  # it has seen how many there are
        gaps = sorted(b - a for lane in set(picked) for a, b in _neighbours(picked, lane))
        assert gaps[len(gaps) // 2] >= 0.9 * ROOM * in_flight
        assert gaps[0] > in_flight


@pytest.mark.parametrize("in_flight", [15, 21, 22, 27, 31])
def test_a_stretch_that_just_fits_goes_on(in_flight):
    """Else it would be left after one lap, for the next, which fits as little: nothing would be in the cache."""
    turn = balancer(lanes(1000))
    drive(turn, 20_000, 40_000, in_flight)
    picked = drive(turn, 20_000, 40_000, in_flight, start=1.5)
    first = sum(1 for place, lane in enumerate(picked) if lane not in picked[max(0, place - 100) : place])
    assert first <= 1.2 * len(picked) / LAPS


# ---------------------------------------------------------------------------------------------- what it must not change


@settings(max_examples=80, deadline=None)
@given(
    count=st.integers(STRICT + 1, 700),
    steps=st.lists(
        st.tuples(st.integers(1, 1200), st.sampled_from([1e-6, 2e-5, 1e-4, 2e-4]), st.integers(0, 300)), max_size=4
    ),
)
def test_shares_are_exact_give_or_take_the_laps(count, steps):
    """Whatever the rate and the load do, as long as nothing has to be forgiven."""
    members = lanes(count)
    turn = balancer(members)
    tally = Counter(dict.fromkeys(members, 0))
    start = 1.0
    for picks, gap, in_flight in steps:
        tally.update(drive(turn, picks, 1 / gap, in_flight, start))
        start += picks * gap
        assert max(tally.values()) - min(tally.values()) <= LAPS


def test_weights_hold():
    members = lanes(600)
    weights = [1.0, 2.0, 5.0] * 200
    tally = Counter(drive(balancer(members, weights), 400_000, 40_000, 8))
    for lane, weight in zip(members, weights, strict=True):
        assert tally[lane] == pytest.approx(400_000 * weight / 1600, abs=LAPS * weight)


def test_when_traffic_ebbs_away_a_lead_is_forgiven():
    """After a rush half of the targets are ahead: they are not left out for the many rounds that this would take."""
    members = lanes(1000)
    turn = balancer(members)
    drive(turn, 8_000, 40_000)
    rate = 500
    picked = drive(turn, 4000, rate, start=2.0)
    seen = dict.fromkeys(members, 0)
    for place, lane in enumerate(picked):
        assert place - seen[lane] <= rate * PATIENCE + 2000
        seen[lane] = place
    assert all(place > 1000 for place in seen.values())
    assert Counter(picked[-1000:]) == Counter(members)


def test_a_retry_finds_another_lane_of_a_stretch():
    members = lanes(400)
    turn = balancer(members)
    for n in range(2000):
        first = turn.pick(0, (), 1 + n / 40_000)
        assert turn.pick(0, (first,), 1 + n / 40_000) is not first
    left = members[7]
    assert turn.pick(0, [lane for lane in members if lane is not left], 2.0) is left


@pytest.mark.parametrize("seconds", [0.0005, 0.002, 0.005, 0.02], ids="{} s".format)
def test_nobody_waits_longer_for_it(seconds, monkeypatch):
    """A thousand targets that take one request at a time, for an exponential time: waits as in strict turn, nearly."""
    stretched, repeated = _time_in_system(seconds)
    monkeypatch.setattr("lb.core.balance.round_robin.STRICT", 10_000)
    strict, _ = _time_in_system(seconds)
    assert stretched <= 1.03 * strict, (stretched, strict)
    assert repeated or seconds > 0.002  # there was something to see


def _time_in_system(seconds: float) -> tuple[float, bool]:
    """The mean, in units of the service time, and whether turns came in stretches."""
    rng = random.Random(2)
    members = lanes(1000)
    turn = balancer(members)
    ending: list[tuple[float, int]] = []
    now, total, rounds = 1.0, 0.0, 60_000
    picked = []
    for _ in range(rounds):
        now += rng.expovariate(20_000)
        while ending and ending[0][0] <= now:
            members[heapq.heappop(ending)[1]].in_flight -= 1
        lane = turn.pick(0, (), now)
        picked.append(lane)
        lane.free_at = max(now, lane.free_at) + rng.expovariate(1 / seconds)
        lane.in_flight += 1
        total += lane.free_at - now
        heapq.heappush(ending, (lane.free_at, lane.number))
    return total / rounds / seconds, len(set(picked[-1000:])) < 900


def test_parts_cover_the_cycle():
    for slots in (1, 15, 16, 17, 257, 1000, 8192):
        stretches = BlockedCycle(lanes(slots))
        turns: list[Lane] = []
        while len(turns) < slots:
            turns += stretches.next_lap(0.0)
        assert [lane.number for lane in turns[:slots]] == list(range(slots))
