"""Rate limits without a wire: the bucket against a naive one, and the table that all workers share."""

from __future__ import annotations

import os
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.networks import limited_as
from lb.core.rate_limit import TokenBucket, retry_after
from lb.proxy import rate_table
from lb.proxy.rate_table import RateTable


class Naive:
    """Tokens that are counted."""

    def __init__(self, number: int, seconds: float, burst: int) -> None:
        self.rate, self.burst = number / seconds, burst
        self.tokens, self.at = float(burst), 0.0

    def take(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1.0 - 1e-5:
            return False
        self.tokens -= 1.0
        return True


@given(
    st.integers(1, 1000),
    st.sampled_from([1.0, 60.0, 3600.0]),
    st.integers(1, 50),
    st.lists(st.integers(0, 5000), max_size=100),
)
def test_against_a_naive_bucket(number: int, seconds: float, burst: int, pauses: list[int]) -> None:
    bucket, naive = TokenBucket(number, seconds, burst), Naive(number, seconds, burst)
    full_at, now = 0.0, 1e6
    naive.at = now
    for pause in pauses:
        now += pause / 1000
        moved = bucket.take(full_at, now)
        if abs(naive.tokens + (now - naive.at) * naive.rate - 1.0) < 1e-3:
            return  # on the edge, rounding decides
        assert (moved > 0.0) == naive.take(now)
        if moved > 0.0:
            full_at = moved
            assert abs(bucket.left(full_at, now) - int(naive.tokens + 1e-3)) <= (
                1 if abs(naive.tokens % 1.0 - 0.5) > 0.49 else 0
            )


def test_a_burst_passes_whole_and_then_the_rate() -> None:
    bucket, full_at, passed = TokenBucket(10, 1.0, 20), 0.0, 0
    for turn in range(600):  # 100 at once, then 100 a second
        now = 1e7 + max(turn - 100, 0) / 100
        moved = bucket.take(full_at, now)
        if moved > 0.0:
            full_at, passed = moved, passed + 1
        if turn == 100:
            assert passed == 20
    assert passed == pytest.approx(20 + 5 * 10, abs=1)


@pytest.mark.parametrize(("number", "seconds"), [(1, 1.0), (10, 1.0), (7, 60.0), (3, 3600.0), (100_000, 1.0)])
def test_a_try_after_retry_after_passes(number: int, seconds: float) -> None:
    bucket, now = TokenBucket(number, seconds, 3), 123456.7
    full_at = now + bucket.window
    refused = bucket.take(full_at, now)
    assert refused < 0.0
    wait = retry_after(-refused)
    assert wait >= 1
    assert bucket.take(full_at, now + wait) > 0.0


def test_what_is_left() -> None:
    bucket, now, full_at = TokenBucket(5, 60.0, 5), 1000.0, 0.0
    told = []
    for _ in range(5):
        full_at = bucket.take(full_at, now)
        told.append((bucket.left(full_at, now), bucket.next_in(full_at, now)))
    assert told == [(4, 12), (3, 12), (2, 12), (1, 12), (0, 12)]
    assert bucket.take(full_at, now) == pytest.approx(-12.0, abs=1e-3)
    assert bucket.next_in(full_at, now + 2.5) == 10


def test_a_clock_that_jumps_back_gives_no_tokens_and_locks_nobody_out() -> None:
    bucket = TokenBucket(1, 1.0, 2)
    full_at = bucket.take(bucket.take(0.0, 1000.0), 1000.0)
    assert bucket.take(full_at, 999.5) < 0.0
    assert bucket.take(full_at, 10.0) > 0.0, "no request of this limit has left that"


def test_refused_requests_take_nothing() -> None:
    table, bucket = RateTable(), TokenBucket(1, 1.0, 1)
    mark = table.mark(b"limit", b"key")
    assert table.take(mark, bucket, 100.0) > 0.0
    assert all(table.take(mark, bucket, 100.0 + part / 10) < 0.0 for part in range(9))
    assert table.take(mark, bucket, 101.0) > 0.0


def test_a_full_table_lets_the_bucket_go_that_is_full_soonest() -> None:
    table, slow, quick = RateTable(sets=1), TokenBucket(1, 3600.0, 1), TokenBucket(1, 1.0, 1)
    keys = [table.mark(b"slow", b"%d" % number) for number in range(rate_table.WAYS - 1)]
    first = table.mark(b"quick", b"")
    assert table.take(first, quick, 100.0) > 0.0
    assert all(table.take(key, slow, 100.0) > 0.0 for key in keys)
    assert table.evicted == 0
    assert table.take(table.mark(b"slow", b"new"), slow, 100.0) > 0.0, "a full table refuses nobody"
    assert table.evicted == 1
    assert all(table.take(key, slow, 100.0) < 0.0 for key in keys), "and forgets no slower one"
    assert table.take(first, quick, 100.0) > 0.0, "the bucket that gave way is full again"


def test_a_slot_whose_bucket_is_full_again_is_free() -> None:
    table, bucket = RateTable(), TokenBucket(1000, 1.0, 1)
    for number in range(10_000):
        assert table.take(table.mark(b"limit", b"%d" % number), bucket, 100.0 + number) > 0.0
    assert table.evicted == 0


def tables_of(fd: int) -> list[RateTable]:
    """The tables of two processes."""
    for region in range(2):
        rate_table.use(fd, region)
    return [RateTable(fd, region) for region in range(2)]


def test_processes_share_one_table_and_its_secret() -> None:
    fd = rate_table.create()
    try:
        one, two = tables_of(fd)
        bucket = TokenBucket(1, 3600.0, 10)
        mark = one.mark(b"limit", b"key")
        assert mark == two.mark(b"limit", b"key")
        assert mark != RateTable().mark(b"limit", b"key")
        taken = [table.take(mark, bucket, 100.0) > 0.0 for table in (one, two) * 10]
        assert sum(taken) == 10
    finally:
        os.close(fd)


def test_two_tables_on_one_memory_take_no_more_than_the_rate() -> None:
    fd = rate_table.create()
    try:
        tables, bucket, dice = tables_of(fd), TokenBucket(5000, 1.0, 50), Random(2)
        mark, passed, now = tables[0].mark(b"limit", b"key"), 0, 1e6
        while now < 1e6 + 2.0:
            now += dice.expovariate(20_000)
            late = dice.choice((0.0, 0.0, 0.002))  # a request may be older than what another worker has taken since
            passed += dice.choice(tables).take(mark, bucket, now - late) > 0.0
        assert passed == pytest.approx(5000 * 2 + 50, abs=2)
    finally:
        os.close(fd)


def test_a_process_that_is_suspended_gives_nothing_back() -> None:
    """Its bucket was judged, and then other processes took tokens before it counted its own."""
    fd = rate_table.create()
    try:
        one, two = tables_of(fd)
        bucket, mark = TokenBucket(1, 3600.0, 10), one.mark(b"limit", b"key")
        others = 0

        class Suspended(TokenBucket):
            """The process is suspended right after it has judged its bucket."""

            def take(self, full_at: float, now: float) -> float:
                nonlocal others
                moved = super().take(full_at, now)
                others = sum(two.take(mark, bucket, 100.0) > 0.0 for _ in range(6))
                return moved

        assert one.take(mark, bucket, 100.0) > 0.0
        assert one.take(mark, Suspended(1, 3600.0, 10), 100.0) > 0.0
        assert others == 6
        assert sum(one.take(mark, bucket, 100.0) > 0.0 for _ in range(10)) == 2
    finally:
        os.close(fd)


def test_random_places_spread_over_the_table() -> None:
    table, bucket, dice = RateTable(), TokenBucket(1, 3600.0, 1), Random(1)
    for _ in range(rate_table.SETS * 2):
        table.take(table.mark(b"limit", dice.randbytes(8)), bucket, 100.0)
    assert table.evicted < 50, "a quarter of the slots is used"


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        (b"192.0.2.7", b"192.0.2.7"),
        (b"unix", b"unix"),
        (b"::ffff:192.0.2.7", b"192.0.2.7"),
        (b"2001:db8:1:2::7", bytes.fromhex("20010db800010002")),
        (b"2001:DB8:1:2:ffff::", bytes.fromhex("20010db800010002")),
        (b"fe80::1%eth0", bytes.fromhex("fe80000000000000")),
        (b"no:address", b"no:address"),
    ],
)
def test_ipv6_clients_count_by_their_network(address: bytes, counted: bytes) -> None:
    assert limited_as(address) == counted
