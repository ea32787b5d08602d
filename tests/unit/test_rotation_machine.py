"""Slow start and panic over any history of a pool, with the peers' documented formulas as oracles.

Targets live through any order of events; beside them goes a model that knows three things of each: whether it is
available, since when, and whether it ever was. From these follow Envoy's panic (available < threshold) and ramp, and
what the rotation has to be.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lb.core.desired import ServiceDesired
from lb.core.lifecycle import (
    Drain,
    Eject,
    Emptied,
    Probed,
    Readmit,
    Rules,
    SlowStart,
    Tick,
    Undrain,
    Verdict,
    in_rotation,
    initial,
    shown,
    step,
)
from lb.core.rotation import Panic, ServiceRules, in_panic, next_change, resolve
from lb.core.targets import Pool, Service, Target

PASS = Verdict(True, 0.0, "HTTP 200", "passed")
FAIL = Verdict(False, 0.0, "connection refused", "refused")
EVENTS = st.sampled_from(
    [Probed(PASS), Probed(PASS), Probed(FAIL), Eject("…"), Readmit(), Drain(), Undrain(), Emptied(), Tick()]
)
BLUE = Pool("blue", tuple(Target(f"app/blue/t{n}:1", "app", "blue", f"t{n}", 1, weight=n + 1) for n in range(4)))
IDS = [target.id for target in BLUE.targets]
SERVICE = Service("app", (BLUE,))


def envoy_ramp(elapsed: float, slow: SlowStart) -> float:
    """Weight × max(min_weight_percent, (elapsed / window) ^ (1 / aggression)), while the window lasts."""
    if elapsed >= slow.window:
        return 1.0
    return min(1.0, max(slow.floor, (elapsed / slow.window) ** (1 / slow.aggression)))


class Rotating(RuleBasedStateMachine):
    @initialize(
        threshold=st.sampled_from([0.0, 0.25, 0.5, 0.51, 1.0]),
        choice=st.sampled_from(["fail", "spread"]),
        window=st.sampled_from([0.0, 5.0, 60.0]),
        aggression=st.sampled_from([0.5, 1.0, 3.0]),
    )
    def begin(self, threshold, choice, window, aggression):
        self.slow = SlowStart(window, aggression)
        self.service = ServiceRules(slow_start=self.slow, panic=Panic(threshold, choice))
        self.rules = Rules(rise=2, fall=2, grace=0.0, slow_start=self.slow)
        self.now = 100.0
        self.healths = {id: initial(self.now, self.rules) for id in IDS}
        self.since: dict[str, float] = {}  # of those available
        self.passed: set[str] = set()
        self.drained: set[str] = set()

    @rule(id=st.sampled_from(IDS), event=EVENTS)
    def happens(self, id, event):
        self.healths[id], _ = step(self.healths[id], event, self.now, self.rules)
        if event == Probed(PASS):
            self.passed.add(id)
        if isinstance(event, Drain):
            self.drained.add(id)
        elif isinstance(event, Undrain):
            self.drained.discard(id)
        if not in_rotation(self.healths[id]):
            self.since.pop(id, None)
        else:
            self.since.setdefault(id, self.now)

    @rule(seconds=st.floats(0.01, 100.0))
    def time_passes(self, seconds):
        self.now += seconds

    @rule()
    def all_are_well(self):
        for id in IDS:
            for event in (Undrain(), Readmit(), Probed(PASS), Probed(PASS)):
                self.happens(id, event)

    @invariant()
    def the_rotation_is_what_the_formulas_say(self):
        counted = [id for id in IDS if id not in self.drained]
        panic = not self.since or len(self.since) / len(counted) < self.service.panic.threshold
        assert in_panic(BLUE, self.healths, {}, self.service.panic) == panic
        members = {
            id: (IDS.index(id) + 1) * envoy_ramp(self.now - since, self.slow) for id, since in self.since.items()
        }
        if panic and self.service.panic.choice == "fail":
            members = {}
        elif panic:  # everybody who ever passed a check, at its whole weight; those that are well on their ramps
            members |= {id: float(IDS.index(id) + 1) for id in counted if id in self.passed and id not in self.since}
        desired = ServiceDesired(active="blue", configured="blue")
        found = dict(resolve(SERVICE, self.healths, desired, {}, self.service, self.now, 1).weights)["blue"]
        assert dict(found) == pytest.approx(members)
        assert set(dict(found)) <= self.passed, "nobody who never passed a check"
        assert not set(dict(found)) & self.drained

    @invariant()
    def slow_start_is_shown_and_looked_at_again_while_it_lasts(self):
        ramping = {id for id, since in self.since.items() if self.now - since < self.slow.window}
        assert {id for id in IDS if shown(self.healths[id], self.now) == "slow_start"} == ramping
        again = next_change(self.healths, SERVICE, self.service, self.now)
        assert (again is not None) == bool(ramping)
        if again is not None:
            assert 0 < again <= max(self.slow.window / 20, 1.0)


TestRotating = Rotating.TestCase
TestRotating.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
