"""Common ends of two sequences: never more than is alike, never counted twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lb.core.common_ends import between, common_ends

ITEMS = st.lists(st.integers(0, 2), max_size=8)


@given(ITEMS, ITEMS)
def test_ends_are_alike_and_as_long_as_can_be(one: list[int], two: list[int]) -> None:
    start, end = common_ends(one, two)
    assert one[:start] == two[:start]
    assert one[len(one) - end :] == two[len(two) - end :]
    assert start + end <= min(len(one), len(two))
    left, came = between(one, two)
    assert [*one[:start], *left, *one[len(one) - end :]] == one
    assert [*two[:start], *came, *two[len(two) - end :]] == two
    if left and came:
        assert left[0] != came[0] and left[-1] != came[-1]


def test_one_of_many_is_all_that_lies_between() -> None:
    many = [object() for _ in range(1000)]
    other = object()
    assert between(many, [*many[:500], other, *many[501:]]) == ([many[500]], [other])
    assert between(many, many) == ([], [])
    assert between(many, [*many, other]) == ([], [other])
