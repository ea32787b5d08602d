"""How long a loop that failed waits, and how often the same error is told."""

from __future__ import annotations

from lb.core.background import FIRST_WAIT, LONGEST_WAIT, PLACES, STEADY_AFTER, TELL_EVERY, Repeats, next_wait


def waits(*runs: float) -> list[float]:
    found = [0.0]
    for ran in runs:
        found.append(next_wait(found[-1], ran))
    return found[1:]


def test_the_wait_doubles_with_each_failure_up_to_its_bound() -> None:
    assert waits(0, 0, 0, 0, 0, 0, 0, 0) == [1, 2, 4, 8, 16, 32, 60, 60]


def test_the_first_failure_waits_least_however_long_it_ran() -> None:
    assert waits(1e9) == [FIRST_WAIT]


def test_the_wait_shrinks_after_the_loop_ran_well() -> None:
    assert next_wait(LONGEST_WAIT, STEADY_AFTER - 1) == LONGEST_WAIT
    assert next_wait(LONGEST_WAIT, STEADY_AFTER) == LONGEST_WAIT / 2
    assert next_wait(LONGEST_WAIT, 3 * STEADY_AFTER) == LONGEST_WAIT / 8
    assert next_wait(LONGEST_WAIT, 1e9) == FIRST_WAIT


def test_errors_of_one_place_are_told_once_a_minute_with_their_number() -> None:
    repeats = Repeats()
    assert [repeats.due("a", now) for now in (0.0, 1.0, 2.0)] == [1, 0, 0]
    assert repeats.due("b", 3.0) == 1
    assert repeats.due("a", TELL_EVERY) == 3
    assert repeats.due("a", TELL_EVERY + 1.0) == 0


def test_the_number_of_places_is_bounded() -> None:
    repeats = Repeats()
    for number in range(10 * PLACES):
        assert repeats.due(f"place {number}", 0.0) == 1
    assert repeats.due("place 0", 0.0) == 1, "the oldest ones are forgotten"
    assert repeats.due(f"place {10 * PLACES - 1}", 0.0) == 0
