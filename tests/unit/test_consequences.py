"""What orders on a target would do, by the rotation now and the one that they would make."""

from __future__ import annotations

import pytest

from lb.core.consequences import counted, without_it
from lb.core.targets import Rotation, Target


def rotation(
    blue: tuple[str, ...], green: tuple[str, ...] = (), fallback: str = "", shares: tuple[tuple[str, int], ...] = ()
) -> Rotation:
    weights = (("blue", tuple((id, 1.0) for id in blue)), ("green", tuple((id, 1.0) for id in green)))
    return Rotation(
        service="s", version=1, shares=shares or (("blue", 100),), weights=weights, fallback=fallback, draining=()
    )


ONE = Target("s/blue/one:1", "s", "blue", "one", 1)
A, B, C = "s/blue/one:1", "s/blue/two:1", "s/blue/three:1"


@pytest.mark.parametrize(
    ("now", "then", "kind", "text"),
    [
        (rotation((B,)), rotation((B,)), "", ""),  # it gets none now
        (rotation((A, B)), rotation((B,)), "instead", f"{B} alone of blue get its share"),
        (rotation((A, B, C)), rotation((B, C)), "instead", "the other 2 ready targets of blue get its share"),
        (rotation((A,)), rotation(()), "unserved", "blue has no other ready target: its clients get 503"),
        (rotation((A, B)), rotation(()), "unserved", "fewer than `panic_threshold` asks for: its clients get 503"),
        (rotation((A,), ("g",), "green"), rotation((), ("g",), "green"), "instead", "green get its share"),
        (rotation((A,), ("g",)), rotation((), ("g",)), "unserved", "its clients get 503"),
        (rotation((A,), ("g",), shares=(("green", 100),)), rotation((), ("g",), shares=(("green", 100),)), "", ""),
    ],
)
def test_a_target_that_is_taken_out(now: Rotation, then: Rotation, kind: str, text: str) -> None:
    found = without_it(ONE, now, then, able={A, B, C})
    assert [each.kind for each in found] == ([kind] if kind else [])
    assert all(text in each.text and (each.service, each.pool) == ("s", "blue") for each in found)


@pytest.mark.parametrize(
    ("then", "text"),
    [
        (rotation((B,)), f"no other target of blue is ready: by `panic: spread`, {B} gets its share all the same"),
        (rotation((B, C)), "is ready: by `panic: spread`, 2 targets get its share all the same"),
    ],
)
def test_targets_that_get_requests_by_panic_alone_are_not_called_ready(then: Rotation, text: str) -> None:
    (found,) = without_it(ONE, rotation((A, B, C)), then, able={A})
    assert (found.kind, text in found.text) == ("short", True)


@pytest.mark.parametrize(
    ("now", "then", "kind"),
    [
        (rotation((B,)), rotation((B,)), ""),
        (rotation(()), rotation(()), ""),  # clients get 503 already
        (rotation((B,)), rotation(()), "unserved"),
        (rotation((B,), ("g",), "green"), rotation((), ("g",), "green"), "instead"),
        (rotation((B,), ("g",), shares=(("green", 100),)), rotation((), ("g",), shares=(("green", 100),)), ""),
    ],
)
def test_a_target_that_counts_and_cannot_serve(now: Rotation, then: Rotation, kind: str) -> None:
    found = counted(ONE, now, then)
    assert [each.kind for each in found] == ([kind] if kind else [])
    assert all(f"as long as {A} cannot serve" in each.text for each in found)
