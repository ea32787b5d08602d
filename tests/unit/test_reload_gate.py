"""A reload that would leave a service without a target that can serve: which edits of the file are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import pytest
from msgspec.structs import replace as with_fields

from lb.core.desired import Desired, ServiceDesired, TargetDesired, under_configuration
from lb.core.lifecycle import Health
from lb.core.reload_gate import CutOff, Situation, cut_off, described
from lb.core.rotation import Panic, ServiceRules
from lb.core.targets import Pool, Preview, Service, Target

READY = Health(probe="ready", ever_ready=True, text="HTTP 200")
UNREADY = with_fields(READY, probe="unready", text="HTTP 503")
STATES = {"ready": READY, "unready": UNREADY, "starting": Health()}
NOW = 10.0


def service(pools: Mapping[str, Mapping[str, int]], name: str = "app", previews: tuple[Preview, ...] = ()) -> Service:
    """A service of pools of addresses with their weights."""
    made = (
        Pool(
            pool, tuple(Target(f"{name}/{pool}/{at}:1", name, pool, at, 1, weight) for at, weight in addresses.items())
        )
        for pool, addresses in pools.items()
    )
    return Service(name, tuple(made), previews=previews)


def reloaded(
    old: Service,
    new: Service,
    states: Mapping[str, str],
    *,
    active: str = "blue",
    file: str = "blue",
    rules: ServiceRules | None = None,
    new_rules: ServiceRules | None = None,
    **more: object,
) -> tuple[CutOff, ...]:
    """What a reload from `old` to `new`, whose `active:` is `file`, would cut off. `states`: address → its state."""
    rules = rules or ServiceRules()
    healths = {t.id: STATES[states[t.host]] for pool in old.pools for t in pool.targets}
    desired, _ = under_configuration(Desired(), (old,), {old.name: "blue"})
    switched = replace(desired.services[old.name], active=active, **more)
    desired = replace(desired, services={old.name: switched})
    wished, names = under_configuration(desired, (new,), {new.name: file})
    kept = {
        t.id: STATES[states[t.host]]
        for pool in new.pools
        for t in pool.targets
        if t.id in healths or names.targets.get(t.id)
    }
    before = Situation((old,), healths, desired, {old.name: rules})
    after = Situation((new,), kept, wished, {new.name: new_rules or rules})
    return cut_off(before, after, names, NOW)


TWO = service({"blue": {"b1": 1}, "green": {"g1": 1}})


def test_without_the_pool_that_serves_the_other_one_has_to() -> None:
    """Switched to green long ago; then the file loses green."""
    new = service({"blue": {"b1": 1}})
    [found] = reloaded(TWO, new, {"b1": "unready", "g1": "ready"}, active="green")
    assert found.service == "app"
    assert "served by green now" in found.text
    assert "0 of 1 targets of blue are ready" in found.text
    assert found.reasons == (("app/blue/b1:1", "unready: HTTP 503"),)
    assert not reloaded(TWO, new, {"b1": "ready", "g1": "ready"}, active="green")


@pytest.mark.parametrize("state", STATES)
def test_another_active_pool_has_to_serve(state: str) -> None:
    found = reloaded(TWO, TWO, {"b1": "ready", "g1": state}, file="green")
    assert bool(found) == (state != "ready")
    assert not reloaded(TWO, TWO, {"b1": "ready", "g1": state}), "an edit of something else"


def test_another_pool_that_was_never_probed_cannot_serve() -> None:
    """The first pass of a new version is what a switch waits for; an edited `active` is no way around that."""
    new = service({"v2": {"b2": 1}})
    [found] = reloaded(service({"blue": {"b1": 1}}), new, {"b1": "ready"}, file="v2")
    assert found.reasons == (("app/v2/b2:1", "starting: not probed yet"),)


def test_a_new_target_beside_one_that_serves_is_no_loss() -> None:
    old = service({"blue": {"b1": 1, "down": 1}})
    states = {"b1": "ready", "down": "unready"}
    assert not reloaded(old, service({"blue": {"b1": 1, "b2": 1}}), states)
    [found] = reloaded(old, service({"blue": {"down": 1, "b2": 1}}), states)
    assert ("app/blue/b2:1", "starting: not probed yet") in found.reasons


def test_weight_0_for_the_last_that_serves() -> None:
    old = service({"blue": {"b1": 1, "b2": 1}})
    [found] = reloaded(old, service({"blue": {"b1": 0, "b2": 1}}), {"b1": "ready", "b2": "unready"})
    assert ("app/blue/b1:1", "its weight is 0: so says the file") in found.reasons
    [found] = reloaded(old, service({"blue": {"b1": 0, "b2": 0}}), {"b1": "ready", "b2": "ready"})
    assert "all targets of blue have weight 0" in found.text
    assert not reloaded(old, service({"blue": {"b1": 0, "b2": 1}}), {"b1": "ready", "b2": "ready"})


def test_what_serves_not_cannot_be_cut_off() -> None:
    for blue, green in product(("unready", "starting"), repeat=2):
        assert not reloaded(TWO, TWO, {"b1": blue, "g1": green}, file="green")


def test_a_start_refuses_nothing() -> None:
    nothing = Situation((), {}, Desired(), {})
    desired, names = under_configuration(Desired(), (TWO,), {"app": "blue"})
    assert not cut_off(nothing, Situation((TWO,), {}, desired, {"app": ServiceRules()}), names, NOW)


@pytest.mark.parametrize("fallback", ["ready", "unready"])
def test_a_fallback_that_can_serve_is_enough(fallback: str) -> None:
    three = service({"blue": {"b1": 1}, "green": {"g1": 1}, "spare": {"s1": 1}})
    rules = ServiceRules(panic=Panic(choice="fallback"), fallback="spare")
    states = {"b1": "ready", "g1": "unready", "s1": fallback}
    found = reloaded(three, three, states, file="green", rules=rules)
    assert bool(found) == (fallback == "unready")
    if found:
        assert "green or spare serves it" in found[0].text


def test_a_fallback_that_serves_is_not_to_be_lost() -> None:
    rules = ServiceRules(panic=Panic(choice="fallback"), fallback="green")
    states = {"b1": "unready", "g1": "ready"}
    [found] = reloaded(TWO, TWO, states, rules=rules, new_rules=ServiceRules())
    assert "served by green now" in found.text


def test_too_few_by_panic_threshold_are_none() -> None:
    old = service({"blue": {"b1": 1, "b2": 1}})
    states = {"b1": "ready", "b2": "unready"}
    [found] = reloaded(old, old, states, new_rules=ServiceRules(panic=Panic(threshold=0.6)))
    assert "1 of 2 targets of blue are ready, 2 are needed" in found.text
    assert not reloaded(old, old, states, new_rules=ServiceRules(panic=Panic(threshold=0.5)))


def test_panic_spread_makes_no_target_able() -> None:
    """It would send requests to targets that said they cannot serve: a switch there is refused, too."""
    rules = ServiceRules(panic=Panic(choice="spread"))
    assert reloaded(TWO, TWO, {"b1": "ready", "g1": "unready"}, file="green", rules=rules)
    assert not reloaded(TWO, TWO, {"b1": "unready", "g1": "unready"}, file="green", rules=rules)


def test_either_pool_of_a_rollout_is_enough() -> None:
    states = {"b1": "unready", "g1": "ready"}
    shares = (("blue", 50), ("green", 50))
    assert not reloaded(TWO, TWO, states, shares=shares)
    [found] = reloaded(TWO, service({"blue": {"b1": 1}}), states, shares=shares)
    assert "served by green now" in found.text


def test_a_preview_is_no_service() -> None:
    new = service({"blue": {"b1": 1}, "green": {"g1": 1}}, previews=(Preview("green", header="X-Beta"),))
    new_only = replace(new, pools=new.pools)
    assert reloaded(new, service({"blue": {"b1": 0}, "green": {"g1": 1}}), {"b1": "ready", "g1": "ready"})
    assert not reloaded(new, new_only, {"b1": "unready", "g1": "ready"}, file="blue")


def test_a_renamed_pool_serves_on() -> None:
    """The switch and the verdicts follow the addresses."""
    new = service({"blue": {"b1": 1}, "lime": {"g1": 1}})
    assert not reloaded(TWO, new, {"b1": "unready", "g1": "ready"}, active="green")


def test_a_renamed_service_is_the_same() -> None:
    new = service({"blue": {"b1": 1}, "green": {"g1": 1}}, name="shop")
    assert not reloaded(TWO, new, {"b1": "ready", "g1": "unready"})
    [found] = reloaded(TWO, new, {"b1": "ready", "g1": "unready"}, file="green")
    assert found.service == "shop"


def test_operators_wishes_count() -> None:
    """A drained target is ready and takes no request."""
    desired = Desired(
        services={"app": ServiceDesired("blue", "blue")},
        targets={"app/green/g1:1": TargetDesired(draining=True)},
    )
    wished, names = under_configuration(desired, (TWO,), {"app": "green"})
    healths = {"app/blue/b1:1": READY, "app/green/g1:1": READY}
    rules = {"app": ServiceRules()}
    [found] = cut_off(Situation((TWO,), healths, desired, rules), Situation((TWO,), healths, wished, rules), names, NOW)
    assert found.reasons == (("app/green/g1:1", "draining: drained by an operator"),)


def test_all_services_that_are_cut_off_are_told() -> None:
    found = (CutOff("a", "a has none", ()), CutOff("b", "b has none", ()))
    assert described(found) == "a has none; b has none"
    assert described(()) == ""
