"""Shares of traffic between pools: exact in any 100 requests in a row, and sticky clients only ever move one way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.balance import hash_key
from lb.core.shares import Split, deal

POOLS = {"blue": "blue", "green": "green", "red": "red"}


def split(green: int, offset: int = 0) -> Split[str]:
    return Split((("blue", 100 - green), ("green", green)), POOLS, offset)


@given(st.integers(0, 100), st.integers(0, 999), st.integers(0, 350))
def test_exact_in_any_window_of_a_hundred(green, offset, skip):
    shares = split(green, offset)
    picked = [shares.pick() for _ in range(skip + 100)]
    assert picked[-100:].count("green") == green


@given(st.integers(0, 100), st.integers(1, 100), st.integers(0, 99))
def test_nearly_exact_in_shorter_windows(green, window, offset):
    shares = split(green, offset)
    picked = [shares.pick() for _ in range(window)]
    assert abs(picked.count("green") - window * green / 100) <= 2.5


@pytest.mark.parametrize("period", [2, 3, 4, 5, 10, 20])
@pytest.mark.parametrize("green", [10, 25, 50])
def test_a_client_with_a_rhythm_is_not_locked_to_one_pool(green, period):
    """By taking turns at 50 %, a client that asks page, asset, page, asset would get all pages from one pool."""
    shares = split(green)
    picked = [shares.pick() for _ in range(6000)]
    for phase in range(period):
        mine = picked[phase::period]
        assert mine.count("green") / len(mine) == pytest.approx(green / 100, abs=period / 100)


@given(st.lists(st.integers(0, 100), min_size=2, max_size=8).map(sorted), st.booleans(), st.integers())
def test_sticky_clients_move_one_way(steps, swapped, seed):
    names = ("green", "blue") if swapped else ("blue", "green")
    new = names[1]
    for n in range(50):
        key = hash_key(b"%d/%d" % (seed, n))
        seen = [Split(((names[0], 100 - step), (new, step)), POOLS).of(key) for step in steps]
        assert seen == sorted(seen, key=lambda pool: pool == new)


@given(st.integers(0, 100))
def test_the_order_of_the_shares_does_not_matter(green):
    assert deal((("blue", 100 - green), ("green", green))) == deal((("green", green), ("blue", 100 - green)))


@pytest.mark.parametrize("green", [1, 5, 25, 50, 99])
def test_sticky_share_over_many_clients(green):
    shares = split(green)
    clients = 40_000
    got = sum(shares.of(hash_key(b"10.%d.%d" % divmod(n, 256))) == "green" for n in range(clients))
    assert got / clients == pytest.approx(green / 100, abs=0.01)


def test_replacing_a_split_goes_on_where_it_was():
    one = split(37)
    picked = []
    for n in range(1000):
        if n % 7 == 0:
            one = split(37, one.position)
        picked.append(one.pick())
    assert picked[:100].count("green") == picked[900:].count("green") == 37


def test_only():
    assert split(0).only == "blue"
    assert split(100).only == "green"
    assert split(1).only is None
    three = Split((("blue", 50), ("green", 30), ("red", 20)), POOLS)
    assert [[three.pick() for _ in range(100)].count(p) for p in POOLS] == [50, 30, 20]


@pytest.mark.parametrize("shares", [(("blue", 99),), (("blue", 120), ("green", -20)), ()])
def test_shares_must_be_a_whole(shares):
    with pytest.raises(ValueError, match="sum to 100"):
        Split(shares, POOLS)
