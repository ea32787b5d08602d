"""Members of a discovered pool: what an answer adds, what it may take away, and what probes say about that."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from lb.core.membership import (
    WINDOW,
    Answer,
    Debounce,
    Found,
    Members,
    NotPassing,
    confirmed,
    difference,
    enough,
    proposed,
    restored,
    reviewed,
    serving,
    weighed,
)

HALF = 0.5


def found(*numbers: int, **more: object) -> tuple[Found, ...]:
    return tuple(Found(f"10.0.0.{n}:80", f"http://10.0.0.{n}:80", **more) for n in numbers)  # type: ignore[arg-type]


def passing(*numbers: int, unknown: tuple[int, ...] = ()) -> NotPassing:
    """All others fail, or are not checked yet."""
    ailing = found(*(number for number in range(1, 30) if number not in numbers))
    new = {each.address for each in found(*unknown)}
    return {each.address: None if each.address in new else False for each in ailing}


def named(members: Members) -> list[int]:
    return [int(each.address.split(":")[0].split(".")[3]) for each in members.named]


def held(members: Members) -> list[int]:
    return sorted(int(each.found.address.split(":")[0].split(".")[3]) for each in members.held)


def after(
    members: Members, numbers: tuple[int, ...], passes: NotPassing, now: float = 1000.0, **more: object
) -> Members:
    return proposed(members, Answer(found(*numbers), **more), HALF, passes, now)  # type: ignore[arg-type]


FOUR = Members(found(1, 2, 3, 4))


def test_a_growing_set_is_taken_as_it_is() -> None:
    members = after(Members(), (1, 2), passing())
    assert named(after(members, (1, 2, 3), passing(1, 2))) == [1, 2, 3]


def test_few_that_vanish_go_at_once() -> None:
    members = after(FOUR, (1, 2), passing(1, 2, 3, 4))
    assert (named(members), held(members)) == ([1, 2], [])


def test_more_than_half_that_vanish_are_held_while_they_pass() -> None:
    members = after(FOUR, (1,), passing(1, 2, 3))
    assert (named(members), held(members)) == ([1], [2, 3])  # 4 fails its checks
    assert held(reviewed(members, HALF, passing(1, 3))) == [3]
    assert held(reviewed(members, HALF, passing(1))) == []


def test_an_empty_answer_takes_nothing_out_that_passes() -> None:
    members = after(FOUR, (), passing(1, 2, 3, 4))
    assert held(members) == [1, 2, 3, 4]
    again = after(members, (), passing(1, 2, 3, 4), now=1000.0 + 10 * WINDOW)
    assert held(again) == [1, 2, 3, 4]


def test_the_last_member_of_all_is_held() -> None:
    assert held(after(Members(found(1)), (), passing(1))) == [1]


def test_replaced_members_go_once_enough_new_ones_pass() -> None:
    members = after(FOUR, (5, 6, 7, 8), passing(1, 2, 3, 4))
    assert held(members) == [1, 2, 3, 4]
    assert held(reviewed(members, HALF, passing(1, 2, 3, 4, 5))) == [1, 2, 3, 4]
    assert held(reviewed(members, HALF, passing(1, 2, 3, 4, 5, 6))) == []


def test_an_answer_that_leaves_only_failing_members_is_held() -> None:
    members = after(FOUR, (1, 2), passing(3, 4))  # two passed, and none of them is left
    assert (named(members), held(members)) == ([1, 2], [3, 4])


def test_a_set_that_shrinks_in_steps_is_held_as_well() -> None:
    ten = tuple(range(1, 11))
    members = after(Members(found(*ten)), ten, passing(*ten))
    members = after(members, ten[:6], passing(*ten), now=1010.0)
    assert held(members) == []
    members = after(members, ten[:4], passing(*ten), now=1020.0)
    assert held(members) == [5, 6]


def test_a_set_that_shrinks_slowly_goes() -> None:
    members, now = Members(found(*range(1, 11))), 1000.0
    for left in range(9, 1, -1):
        now += WINDOW + 1
        members = after(members, tuple(range(1, left + 1)), passing(*range(1, 11)), now=now)
        assert held(members) == []


def test_a_member_that_is_named_again_is_held_no_more() -> None:
    members = after(FOUR, (), passing(1, 2, 3, 4))
    members = after(members, (1, 2, 3, 4), passing(1, 2, 3, 4))
    assert (named(members), held(members)) == ([1, 2, 3, 4], [])


def test_members_that_were_never_checked_survive_an_empty_answer_after_a_restart() -> None:
    members = after(restored(found(1, 2)), (), passing(unknown=(1, 2)))
    assert held(members) == [1, 2]
    assert held(reviewed(members, HALF, passing(2))) == [2]


def test_a_part_without_an_answer_keeps_its_members() -> None:
    members = Members((*found(1, part="A"), *found(2, part="AAAA")))
    members = after(members, (), passing(1, 2), unanswered=frozenset({"AAAA"}))
    assert 2 in named(members)


def test_order_and_repetitions_change_nothing() -> None:
    numbers = [1, 2, 3, 4]
    for _ in range(10):
        random.shuffle(numbers)
        assert after(FOUR, (*numbers, *numbers), passing(1, 2, 3, 4)).named == FOUR.named


def test_an_operator_confirms_a_removal() -> None:
    members = confirmed(after(FOUR, (), passing(1, 2, 3, 4)))
    assert members.all == ()


def test_without_a_guard_everything_goes_at_once() -> None:
    assert proposed(FOUR, Answer(()), 1.0, {}, 1000.0).all == ()


def test_with_a_strict_guard_nothing_goes_that_passes() -> None:
    members = proposed(FOUR, Answer(found(1, 2, 3)), 0.0, {}, 1000.0)
    assert held(members) == [4]


def test_how_many_must_be_left() -> None:
    assert [enough(count, HALF) for count in (0, 1, 2, 3, 10)] == [0, 1, 1, 2, 5]
    assert enough(10, 1.0) == 0


def test_members_of_another_priority_stand_by() -> None:
    members = Members((*found(1, 2, weight=3), *found(3, priority=2)))
    assert weight_of(members, passing(1, 3)) == [3, 3, 0]
    assert weight_of(members, passing(3)) == [0, 0, 1]
    assert weight_of(members, passing()) == [3, 3, 0]


def weight_of(members: Members, passes: NotPassing) -> list[int]:
    return [weight for _, weight in weighed(members, serving(members, passes))]


def test_no_answer_takes_out_what_passes_but_by_replacing_it() -> None:
    """Random answers and probes: what passes is never less than half of what passed, by an answer alone."""
    rng = random.Random(20)
    for _ in range(2000):
        members = Members(found(*rng.sample(range(1, 21), rng.randint(1, 20))))
        good = {each.address for each in members.named if rng.random() < 0.7}
        failing = {each.address: False for each in found(*range(1, 21)) if each.address not in good}
        answer = Answer(found(*rng.sample(range(1, 21), rng.randint(0, 20))))
        left = proposed(members, answer, HALF, failing, 0.0)
        assert sum(1 for each in left.all if each.address in good) * 2 >= len(good)


NUMBERS = st.lists(st.integers(1, 12), max_size=12)


@given(st.lists(st.tuples(NUMBERS, st.integers(1, 3), st.booleans()), min_size=1, max_size=6))
def test_what_differs_between_two_answers_leads_to_the_same_members(said: list[tuple[list[int], int, bool]]) -> None:
    """Answers in any order, with addresses twice, other weights, and parts that do not answer at times."""
    members, plain, last = Members(), Members(), None
    for at, (numbers, weight, silent) in enumerate(said):
        answer = Answer(
            (*found(*numbers[:2], weight=weight), *found(*numbers[2:])), frozenset(["b"]) if silent else frozenset()
        )
        failing = {each.address: False for each in found(1, 2, 3)}
        members = proposed(members, answer, HALF, failing, float(at), difference(members, last, answer))
        plain = proposed(plain, answer, HALF, failing, float(at))
        assert members == plain
        last = answer


def test_a_burst_is_put_in_force_after_a_quiet_moment_and_within_a_bound() -> None:
    debounce = Debounce(quiet=0.1, longest=1.0)
    assert debounce.due() is None
    debounce.changed(10.0)
    assert debounce.due() == 10.1
    for step in range(1, 30):
        debounce.changed(10.0 + step * 0.05)
    assert debounce.due() == 11.0
    debounce.taken()
    assert debounce.due() is None
    debounce.changed(20.0)
    debounce.at_once()
    assert debounce.due() == -math.inf
