"""What is learnt of a target's idle limit."""

from __future__ import annotations

from math import inf

from lb.core.keepalive import TRUST, IdleLimit


def test_nothing_is_known_at_first_and_little_is_trusted() -> None:
    limit = IdleLimit(60.0, now=0.0)
    assert limit.learnt == 0.0
    assert limit.retire_after == 60.0
    assert limit.safe_for == TRUST
    assert not limit.explains(5.0, 0.0, 0.0)


def test_what_survives_is_trusted_by_half_until_a_close_is_seen() -> None:
    limit = IdleLimit(60.0, now=0.0)
    limit.survives(10.0)
    assert limit.safe_for == 5.0
    limit.closed(2.0, 20.0, 60.0)
    assert limit.safe_for == 1.0
    limit.survives(1.5)
    assert limit.safe_for == 1.0, "a close says more than a survival"


def test_the_keep_alive_field_is_believed() -> None:
    limit = IdleLimit(60.0, now=0.0)
    limit.heard(5.0, 60.0)
    assert limit.learnt == 5.0
    assert limit.retire_after == 4.0
    assert limit.safe_for == 2.5


def test_observed_closes_shorten_the_limit_and_are_forgotten_again() -> None:
    limit = IdleLimit(60.0, now=0.0)
    limit.closed(5.0, 10.0, 60.0)
    limit.closed(0.02, 11.0, 60.0)  # a restart closes young connections too
    assert limit.learnt == 0.02
    limit.rotate(75.0, 60.0)
    assert limit.learnt == 0.02  # the window before still counts
    limit.closed(5.0, 80.0, 60.0)
    limit.rotate(140.0, 60.0)
    assert limit.learnt == 5.0


def test_only_an_idle_close_at_about_that_age_explains_anything() -> None:
    limit = IdleLimit(60.0, now=0.0)
    limit.closed(5.0, 10.0, 60.0)
    assert limit.explains(4.0, 0.01, 20.0)
    assert limit.explains(9.0, 0.0, 20.0)
    assert not limit.explains(0.5, 0.01, 20.0), "far too young"
    assert not limit.explains(20.0, 0.01, 20.0), "far too old"
    assert not limit.explains(4.9, 0.2, 20.0), "it had the request for long enough to work on it: no coincidence"


def test_a_target_that_is_killed_shows_no_habit() -> None:
    limit = IdleLimit(60.0, now=0.0)
    limit.closed(5.0, 10.0, 60.0)
    # One that closes by age closes one now and then; what has been used later stays open.
    limit.closed(5.0, 20.0, 60.0, last=True)
    assert limit.learnt == 5.0
    for age, at in ((3.0, 30.000), (0.2, 30.001), (0.004, 30.002)):
        limit.closed(age, at, 60.0, last=age == 0.004)
    assert limit.learnt == 5.0, "what was known before counts"
    assert not limit.explains(4.0, 0.01, 30.003), "it was killed with the request in hand"
    assert limit.explains(4.0, 0.01, 30.003, alive=True), "it takes connections: it was not"
    assert limit.explains(4.0, 0.01, 40.0)


def test_a_restart_within_a_moment_is_known_by_the_requests_that_it_broke_off() -> None:
    limit = IdleLimit(60.0, now=0.0)
    limit.closed(0.03, 10.0, 60.0)
    limit.broke_off(30.0)
    assert not limit.explains(0.03, 0.05, 30.001, alive=True), "it takes connections, and it is another process"
    assert limit.explains(0.03, 0.05, 40.0)


def test_one_that_refuses_connections_has_died() -> None:
    limit = IdleLimit(60.0, now=0.0)
    limit.closed(0.3, 30.0, 60.0, last=True)
    assert limit.learnt == 0.3, "it may be a habit"
    limit.refused(30.4, 60.0)
    assert limit.learnt == 0.0, "it was not"
    assert limit.safe_for == 1.0
    limit.closed(5.0, 40.0, 60.0)
    assert limit.explains(5.0, 0.01, 50.0)
    limit.refused(50.1, 60.0)
    assert limit.learnt == 5.0, "what was known long before still counts"
    assert not limit.explains(5.0, 0.01, 50.0, alive=True), "but not for what broke off when it died"
    assert limit.explains(5.0, 0.01, 60.0)


def test_a_request_in_hand_is_part_of_the_death() -> None:
    limit = IdleLimit(60.0, now=0.0)
    assert not limit.ends(0.01, 30.0, last=False)  # the request's own connection breaks first
    limit.closed(0.7, 30.001, 60.0, last=True)
    assert limit.learnt == 0.0
    assert not limit.explains(0.7, 0.01, 30.0)


def test_many_that_close_at_once_while_others_stay_are_closed_by_age() -> None:
    limit = IdleLimit(60.0, now=0.0)
    for number in range(20):
        limit.closed(5.0 - number / 50, 30.0 + number / 1000, 60.0, last=False)
    assert limit.explains(4.7, 0.001, 30.02)


def test_no_configured_limit_means_the_targets_own() -> None:
    limit = IdleLimit(0.0, now=0.0)
    assert limit.retire_after == inf
    limit.heard(10.0, 0.0)
    assert limit.retire_after == 8.0
