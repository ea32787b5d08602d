"""Balancing policies: shares, order, avoidance. Oracles: nginx's scan, counting, and the peers' formulas."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.core.balance import POLICIES, PeakEwma, build, hash_key
from lb.core.balance.alias_table import AliasTable
from lb.core.balance.round_robin import LONGEST_CYCLE, laps, scan, spread, whole
from lb.core.targets import Balance


class Lane:
    def __init__(self, name: str) -> None:
        self.id = name
        self.in_flight = 0
        self.ewma = PeakEwma(0.0)

    def __repr__(self) -> str:
        return self.id


def lanes(*weights: float) -> list[tuple[Lane, float]]:
    return [(Lane(f"s/p/127.0.0.1:{5000 + i}"), weight) for i, weight in enumerate(weights)]


def counts(balancer, members, picks: int, keys=None) -> list[int]:
    tally: Counter[int] = Counter()
    for n in range(picks):
        lane = balancer.pick(next(keys) if keys else n)
        tally[id(lane)] += 1
    return [tally[id(lane)] for lane, _ in members]


def nginx(weights: list[int], picks: int) -> list[int]:
    """ngx_http_upstream_get_peer with all peers up, written down naively."""
    peers = [{"weight": w, "effective": w, "current": 0} for w in weights]
    chosen = []
    for _ in range(picks):
        total, best = 0, None
        for peer in peers:
            peer["current"] += peer["effective"]
            total += peer["effective"]
            if best is None or peer["current"] > best["current"]:
                best = peer
        best["current"] -= total
        chosen.append(
            peers.index(best) if peers.count(best) == 1 else next(i for i, p in enumerate(peers) if p is best)
        )
    return chosen


# ---------------------------------------------------------------------------------------------- round robin


def test_nginx_documented_sequence():
    assert "".join("abc"[i] for i in scan([5, 1, 1])) == "aabacaa"


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_scan_is_nginx(weights):
    assert scan(weights) == nginx(weights, sum(weights))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_sorted_deadlines_are_as_smooth_as_the_scan(weights):
    """Every lane's k-th turn comes at most one turn of the others away from where it ideally stands."""
    turns = spread(weights)
    assert Counter(turns) == Counter(dict(enumerate(weights)))
    total = sum(weights)
    for lane, weight in enumerate(weights):
        places = [slot for slot, turn in enumerate(turns) if turn == lane]
        for k, slot in enumerate(places):
            ideal = (k + 0.5) * total / weight
            assert abs(slot + 0.5 - ideal) <= len(weights) / 2 + 0.5


@given(st.lists(st.floats(0.05, 20.0), min_size=1, max_size=10), st.floats(0.0, 5.0))
def test_laps_lose_nothing_between_them(weights, begin):
    turns: list[int] = []
    for lap in islice(laps(weights, begin), 4):
        turns += lap
    total = sum(weights)
    for lane, weight in enumerate(weights):
        assert abs(turns.count(lane) - len(turns) * weight / total) <= 1.5 + len(weights) * weight / total


def test_whole_weights():
    assert whole([2.0, 4.0, 6.0]) == [1, 2, 3]
    assert whole([0.3, 0.3]) == [1, 1]  # a whole pool in slow start
    assert whole([0.5, 1.0]) is None
    assert whole([1.0, float(LONGEST_CYCLE)]) is None


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_a_large_pool_of_equal_weights_is_one_cycle(weight):
    """It is longer than `LONGEST_CYCLE`, and no longer than the list of its lanes."""
    members = lanes(*[weight] * (LONGEST_CYCLE + 1000))
    balancer = build(Balance("round_robin"), members, random.Random(1), offset=0)
    assert [balancer.pick() for _ in range(2 * len(members))] == [lane for lane, _ in members] * 2


def test_strictly_in_turn():
    """haproxy balance-rr: four backends, five connections: s1, s2, s3, s4, s1."""
    members = lanes(1, 1, 1, 1)
    balancer = build(Balance("round_robin"), members, random.Random(1), offset=0)
    assert [balancer.pick() for _ in range(5)] == [members[i][0] for i in (0, 1, 2, 3, 0)]


def test_each_worker_begins_elsewhere():
    members = lanes(1, 1, 1)
    first = [build(Balance(), members, random.Random(1), offset=worker).pick() for worker in range(4)]
    assert first == [members[i][0] for i in (0, 1, 2, 0)]


def test_a_balancer_that_is_rebuilt_often_favours_nobody():
    members = lanes(3, 1)
    rng = random.Random(7)
    tally = Counter(build(Balance(), members, rng).pick().id for _ in range(4000))
    assert tally[members[0][0].id] == pytest.approx(3000, abs=120)


@pytest.mark.parametrize(
    "weights", [(1,) * 4, (5, 1, 1), (1, 2, 3, 4), (0.37, 1, 1), (1000, 999), tuple(range(1, 301))]
)
def test_round_robin_within_one_percent_of_the_weights(weights):
    members = lanes(*weights)
    picks = 1_000_000 if len(weights) == 4 else 200_000
    got = counts(build(Balance(), members, random.Random(3)), members, picks)
    total = sum(weights)
    for count, weight in zip(got, weights, strict=True):
        assert abs(count - picks * weight / total) <= max(2.0, 0.01 * picks * weight / total)


def test_pick_after_one_leaves_keeps_shares():
    """Caddy's policy indexes the filtered list: a lane behind the one that left gets twice its share. Not here."""
    members = lanes(4, 3, 2, 1)
    left = [members[0], *members[2:]]
    got = counts(build(Balance(), left, random.Random(5)), left, 70_000)
    assert got == pytest.approx([40_000, 20_000, 10_000], rel=0.01)


def test_who_returns_shares_evenly_again():
    """Caddy's TestRoundRobinPolicy: strictly in turn, without the one that is out, and with it again."""
    members = lanes(1, 1, 1)
    rng = random.Random(5)
    for there in (members, members[:2], members):
        balancer = build(Balance(), there, rng)
        picked = [balancer.pick() for _ in range(12)]
        assert Counter(picked) == {lane: 12 // len(there) for lane, _ in there}
        assert picked[: len(there)] == picked[len(there) : 2 * len(there)]


def test_avoiding_one_keeps_the_shares_of_the_others():
    members = lanes(5, 3, 2)
    balancer = build(Balance(), members, random.Random(5))
    avoid = (members[0][0],)
    tally = Counter(balancer.pick(0, avoid).id for _ in range(50_000))
    assert tally[members[1][0].id] == pytest.approx(30_000, rel=0.01)


def test_weights_that_are_hardly_above_zero_have_a_sequence() -> None:
    members = lanes(2.2250738585072014e-308, 2.2250738585e-313)
    balancer = build(Balance("round_robin"), members, random.Random(1))
    assert counts(balancer, members, 1000) == [1000, 0]


def test_avoiding_all_but_a_tiny_share_still_finds_it():
    members = lanes(1_000_000, 1)
    balancer = build(Balance(), members, random.Random(5))
    assert balancer.pick(0, [members[0][0]]) is members[1][0]


# ---------------------------------------------------------------------------------------------- every policy


@pytest.mark.parametrize("policy", POLICIES)
def test_nobody_in_rotation(policy):
    assert build(Balance(policy), [], random.Random(1)).pick() is None
    assert build(Balance(policy), lanes(0, 0), random.Random(1)).pick() is None


def test_an_unknown_policy_says_what_there_is():
    with pytest.raises(ValueError, match=r"'fastest' is unknown; known are round_robin, least_request"):
        build(Balance("fastest"), lanes(1), random.Random(1))


@settings(max_examples=300, deadline=None)
@given(data=st.data(), policy=st.sampled_from(POLICIES), seed=st.integers(0, 2**32))
def test_never_one_to_avoid_while_another_is_there(data, policy, seed):
    weights = data.draw(st.lists(st.floats(0.0, 9.0), min_size=1, max_size=40))
    members = lanes(*weights)
    offered = {lane for lane, weight in members if weight > 0}
    for lane, _ in members:
        lane.in_flight = data.draw(st.integers(0, 5))
    avoid = data.draw(st.lists(st.sampled_from([lane for lane, _ in members]), max_size=len(members)))
    offset = data.draw(st.none() | st.integers(0, 100))
    balancer = build(Balance(policy), members, random.Random(seed), offset)
    for n in range(5):
        lane = balancer.pick(hash_key(bytes([n])), avoid, 1.0)
        if not offered:
            assert lane is None
        else:
            assert lane in offered
            assert lane not in avoid or offered <= set(avoid)


@pytest.mark.parametrize("policy", ["random_two", "least_request", "peak_ewma"])
@pytest.mark.parametrize("weights", [(1, 1, 1), (4, 2, 1), (10, 1, 1, 1)])
def test_idle_lanes_are_used_by_weight(policy, weights):
    """While nothing is in flight a light lane must neither starve nor be preferred."""
    members = lanes(*weights)
    got = counts(build(Balance(policy), members, random.Random(2)), members, 60_000)
    total = sum(weights)
    assert got == pytest.approx([60_000 * weight / total for weight in weights], rel=0.04)


class Loaded(random.Random):
    """Its next number is the test's to choose."""

    next = 0.0

    def random(self):
        return self.next


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=30), st.integers(0, 2**32))
def test_the_alias_table_holds_exactly_the_weights(weights, seed):
    """Of the numbers that a draw may be made from, each index has a part as large as its weight."""
    loaded = Loaded(seed)
    dice, sides = AliasTable(weights, loaded), len(weights)

    def drawn(column, part):
        loaded.next = (column + part) / sides
        return dice.draw()

    shares = [0.0] * sides
    for column in range(sides):  # the lower part of each column is one index's, the upper one another's
        first, last = drawn(column, 1e-9), drawn(column, 1 - 1e-9)
        low, high = 0.0, 1.0
        for _ in range(40 if first != last else 0):
            middle = (low + high) / 2
            low, high = (middle, high) if drawn(column, middle) == first else (low, middle)
        shares[first] += high
        shares[last] += 1.0 - high
    total = sum(weights)
    assert shares == pytest.approx([weight * len(weights) / total for weight in weights], rel=1e-6, abs=1e-9)


@given(st.lists(st.floats(0.001, 1000.0), min_size=2, max_size=10), st.integers(0, 2**32))
def test_two_draws_differ(weights, seed):
    dice = AliasTable(weights, random.Random(seed))
    for _ in range(50):
        first, second = dice.draw_two()
        assert first != second
        assert 0 <= min(first, second) <= max(first, second) < len(weights)


def test_least_request_is_least():
    members = lanes(1, 2, 1)
    members[0][0].in_flight, members[1][0].in_flight, members[2][0].in_flight = 2, 3, 2
    balancer = build(Balance("least_request"), members, random.Random(1))
    assert {balancer.pick() for _ in range(10)} == {members[1][0]}  # 3 / 2 < 2 / 1


def test_least_request_shares_ties_out():
    members = lanes(1, 1, 1, 1)
    for lane, _ in members:
        lane.in_flight = 1
    members[0][0].in_flight = 5
    balancer = build(Balance("least_request"), members, random.Random(1))
    tally = Counter(balancer.pick().id for _ in range(3000))
    assert members[0][0].id not in tally
    assert min(tally.values()) > 800


# ---------------------------------------------------------------------------------------------- peak EWMA


def test_peak_ewma_formula():
    """finagle/linkerd: a peak replaces; lower ones pull by 1 - e^(-dt/decay); idle time fades by e^(-dt/decay)."""
    ewma = PeakEwma(0.0, first=1.0, decay=10.0)
    assert ewma.cost(0.0) == 1.0
    assert ewma.cost(10.0) == pytest.approx(math.exp(-1))
    ewma.observe(0.1, 10.0)
    assert ewma.cost(10.0) == pytest.approx(math.exp(-1) + 0.1 * (1 - math.exp(-1)))
    ewma.observe(3.0, 11.0)
    assert ewma.cost(11.0) == 3.0


def test_peak_ewma_reading_changes_nothing():
    ewma = PeakEwma(0.0)
    before = (ewma.value, ewma.stamp)
    ewma.cost(99.0)
    assert (ewma.value, ewma.stamp) == before


@given(st.lists(st.tuples(st.floats(0.0, 60.0), st.floats(-5.0, 100.0)), max_size=40))
def test_peak_ewma_stays_within_what_it_saw(samples):
    ewma = PeakEwma(0.0)
    now, highest = 0.0, 1.0
    for seconds, step in samples:
        now += step  # the clock may go back
        ewma.observe(seconds, now)
        highest = max(highest, seconds)
        assert 0.0 <= ewma.cost(now) <= highest + 1e-9


def test_penalty_is_bounded():
    ewma = PeakEwma(0.0)
    ewma.penalise(1.0)
    assert ewma.cost(1.0) == 5.0
    ewma.penalise(2.0, seconds=86_400.0)
    assert ewma.cost(2.0) == 300.0


# ---------------------------------------------------------------------------------------------- hashing


def test_hash_key_is_fixed():
    """Clients keep their target over restarts and upgrades: the function must not change."""
    assert hash_key(b"") == 0xE220A8397B1DCDAF
    assert hash_key(b"192.0.2.1") == hash_key(b"192.0.2.1") != hash_key(b"192.0.2.2")


def test_hash_key_is_well_mixed():
    keys = [hash_key(b"10.0.%d.%d" % divmod(n, 256)) for n in range(20_000)]
    assert len(set(keys)) == len(keys)
    for divisor in (2, 3, 100, 4099):
        tally = Counter(key % divisor for key in keys)
        chi_square = sum((tally[i] - 20_000 / divisor) ** 2 for i in range(divisor)) / (20_000 / divisor)
        assert chi_square < divisor + 6 * math.sqrt(2 * divisor)


@pytest.mark.parametrize(("policy", "tolerance"), [("ring", 0.30), ("maglev", 0.03)])
@pytest.mark.parametrize("weights", [(1,) * 10, (1, 2, 3, 4)])
def test_hashed_shares(policy, tolerance, weights):
    members = lanes(*weights)
    keys = (hash_key(b"client-%d" % n) for n in range(100_000))
    got = counts(build(Balance(policy), members, random.Random(1)), members, 100_000, keys)
    total = sum(weights)
    for count, weight in zip(got, weights, strict=True):
        assert count == pytest.approx(100_000 * weight / total, rel=tolerance)


@pytest.mark.parametrize("policy", ["ring", "maglev"])
def test_every_worker_agrees_whatever_the_order(policy):
    members = lanes(1, 2, 1, 3)
    shuffled = [members[i] for i in (2, 0, 3, 1)]
    one = build(Balance(policy), members, random.Random(1), offset=0)
    other = build(Balance(policy), shuffled, random.Random(2), offset=3)
    for n in range(2000):
        assert one.pick(hash_key(b"%d" % n)) is other.pick(hash_key(b"%d" % n))


@pytest.mark.parametrize(("policy", "moved_at_most"), [("ring", 0.0), ("maglev", 0.02)])
def test_few_keys_move_when_a_lane_leaves(policy, moved_at_most):
    members = lanes(*[1] * 10)
    before = build(Balance(policy), members, random.Random(1))
    after = build(Balance(policy), members[1:], random.Random(1))
    keys = [hash_key(b"client-%d" % n) for n in range(20_000)]
    stayed = [key for key in keys if before.pick(key) is not members[0][0]]
    moved = sum(before.pick(key) is not after.pick(key) for key in stayed)
    assert moved <= moved_at_most * len(stayed)


@pytest.mark.parametrize("policy", ["ring", "maglev"])
def test_a_retry_of_one_key_always_goes_to_the_same_other_lane(policy):
    members = lanes(1, 1, 1, 1)
    balancer = build(Balance(policy), members, random.Random(1))
    for n in range(200):
        key = hash_key(b"%d" % n)
        first = balancer.pick(key)
        second = balancer.pick(key, (first,))
        assert second is not first
        assert second is balancer.pick(key, (first,))
        if policy == "ring":  # where the key goes once the first one has left
            left = [member for member in members if member[0] is not first]
            assert second is build(Balance("ring"), left, random.Random(1)).pick(key)
