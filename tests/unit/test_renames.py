"""What a new configuration calls the things that an old one had, and what is wished under the new names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.desired import Desired, LastRollout, ServiceDesired, TargetDesired, reconcile, renamed
from lb.core.renames import Layout, renames
from lb.core.rollout import Plan, begin, from_dict, to_dict

OLD: Layout = {"app": {"blue": ["a:1", "b:1"], "green": ["c:1"]}}


def test_nothing_is_renamed_when_all_names_stay() -> None:
    for new in (OLD, {"app": {"blue": ["a:1"], "green": ["b:9"]}}, {"app": {"blue": ["a:1", "b:1"]}}):
        assert not renames(OLD, new)
    assert not renames({}, OLD), "at the first start nothing has another name"


def test_a_pool_is_renamed() -> None:
    found = renames(OLD, {"app": {"blue": ["a:1", "b:1"], "lime": ["c:1"]}})
    assert found.pools == {("app", "lime"): ("app", "green")}
    assert found.targets == {"app/lime/c:1": ("app/green/c:1",)}
    assert found.is_renamed("app/lime/c:1", "app/green/c:1")
    assert not found.services


def test_a_service_is_renamed_and_a_pool_of_it_at_once() -> None:
    found = renames(OLD, {"web": {"blue": ["b:1", "a:1"], "lime": ["c:1"]}})
    assert found.services == {"web": "app"}
    assert found.pools == {("web", "blue"): ("app", "blue"), ("web", "lime"): ("app", "green")}
    assert found.targets["web/blue/a:1"] == ("app/blue/a:1",)
    assert found.pool_was("web", "lime") == ("app", "green")


@pytest.mark.parametrize(
    "new",
    [
        {"app": {"blue": ["a:1", "b:1"], "lime": ["c:1", "d:1"]}},  # another target
        {"app": {"blue": ["a:1", "b:1"], "lime": ["c:1"], "mint": ["c:1"]}},  # two of the same
        {"app": {"blue": ["c:1"], "lime": ["c:1"]}},  # or one that has kept its name
    ],
)
def test_what_is_not_unmistakable_is_no_rename(new: Layout) -> None:
    found = renames(OLD, new)
    assert not found.pools and not found.services
    assert found.targets["app/lime/c:1"] == ("app/green/c:1",), "the target is the same all the same"
    assert not found.is_renamed("app/lime/c:1", "app/green/c:1")


def test_versions_on_the_same_addresses_are_no_renames() -> None:
    found = renames({"app": {"v1": ["a:1"], "v2": ["a:1"]}}, {"app": {"v2": ["a:1"], "v3": ["a:1"]}})
    assert not found.pools
    assert found.targets == {"app/v3/a:1": ("app/v1/a:1",)}
    assert found.twins == {"app/v3/a:1": ("app/v2/a:1",)}


def test_targets_move_and_swap() -> None:
    moved = renames(OLD, {"app": {"blue": ["a:1"], "green": ["c:1", "b:1"]}})
    assert moved.targets == {"app/green/b:1": ("app/blue/b:1",)}
    swapped = renames(OLD, {"app": {"blue": ["c:1"], "green": ["a:1", "b:1"]}})
    assert not swapped.pools, "a name that stays means what it meant"
    assert swapped.targets["app/blue/c:1"] == ("app/green/c:1",)
    elsewhere = renames(
        {"one": {"p": ["a:1", "b:1"]}, "two": {"p": ["c:1"]}}, {"one": {"p": ["b:1"]}, "two": {"p": ["c:1", "a:1"]}}
    )
    assert elsewhere.targets == {"two/p/a:1": ("one/p/a:1",)}


def test_of_several_that_are_gone_the_nearest_comes_first() -> None:
    old = {"app": {"blue": ["a:1"], "red": ["a:1", "b:1"]}, "old": {"blue": ["a:1"]}}
    found = renames(old, {"app": {"pink": ["a:1", "b:1"]}})
    assert found.pools == {("app", "pink"): ("app", "red")}
    assert found.targets["app/pink/a:1"] == ("app/red/a:1", "app/blue/a:1", "old/blue/a:1")


def test_an_address_may_hold_slashes() -> None:
    found = renames({"app": {"blue": ["unix:/run/a.sock"]}}, {"app": {"teal": ["unix:/run/a.sock"]}})
    assert found.targets == {"app/teal/unix:/run/a.sock": ("app/blue/unix:/run/a.sock",)}


NAMES = st.sampled_from(["a", "b", "c"])
LAYOUTS = st.dictionaries(
    NAMES, st.dictionaries(NAMES, st.lists(st.sampled_from(["x:1", "y:1", "z:1"]), unique=True), max_size=3), max_size=3
)


@given(LAYOUTS, LAYOUTS)
def test_any_two_layouts(old: Layout, new: Layout) -> None:
    found = renames(old, new)
    before = {f"{s}/{p}/{a}" for s, pools in old.items() for p, there in pools.items() for a in there}
    after = {f"{s}/{p}/{a}" for s, pools in new.items() for p, there in pools.items() for a in there}
    for id, formers in found.targets.items():
        assert id in after - before
        assert set(formers) <= before - after
        assert {former.rpartition("/")[2] for former in formers} == {id.rpartition("/")[2]}
    for id, stay in found.twins.items():
        assert id in after - before and set(stay) <= before & after
    assert all(new_name not in old and old_name not in new for new_name, old_name in found.services.items())
    assert len(set(found.services.values())) == len(found.services)
    assert len(set(found.pools.values())) == len(found.pools)
    assert found == renames(old, new)


# --- what is wished --------------------------------------------------------------------------------------------------


def after(desired: Desired, old: Layout, new: Layout, **actives: str) -> Desired:
    """What is wished after a reload; `actives` are the file's, else a service's first pool."""
    weights = {f"{s}/{p}/{a}": 1 for s, pools in new.items() for p, there in pools.items() for a in there}
    configured = {name: actives.get(name, next(iter(pools))) for name, pools in new.items()}
    pools = {name: frozenset(layout) for name, layout in new.items()}
    return reconcile(renamed(desired, renames(old, new)), configured, pools, weights, at=9.0)


def wishes(service: ServiceDesired, **targets: TargetDesired) -> Desired:
    return Desired(7, {"app": service}, {id.replace("_", "/").replace("X", ":"): each for id, each in targets.items()})


BLUE_GREEN: Layout = {"app": {"blue": ("a:1", "b:1"), "green": ("c:1",)}}


def test_how_the_last_rollout_ended_follows_its_pools() -> None:
    last = LastRollout("blue", "green", "rolled_back", "green fails", 5.0)
    found = after(
        wishes(ServiceDesired("blue", "blue", last=last)),
        BLUE_GREEN,
        {"web": {"teal": ["a:1", "b:1"], "lime": ["c:1"]}},
    )
    assert found.services["web"].last == replace(last, old="teal", new="lime")


def test_a_rollout_that_a_configuration_ends_has_ended_so() -> None:
    plan = {"old": "blue", "new": "green"}
    last = LastRollout("blue", "green", "rolled_back", "green fails", 5.0)
    stepping = ServiceDesired(
        "blue", "blue", shares=(("blue", 50), ("green", 50)), rollout={"plan": plan, "phase": "stepping"}
    )
    for kept in (None, last):
        wanted = replace(stepping, last=kept)
        assert after(wishes(wanted), BLUE_GREEN, BLUE_GREEN).services["app"].last == kept, "it goes on"
        for new, active in ((BLUE_GREEN, "green"), ({"app": {"blue": ["a:1", "b:1"]}}, "blue")):
            found = after(wishes(wanted), BLUE_GREEN, new, app=active).services["app"]
            assert (found.rollout, found.last) == (
                None,
                LastRollout("blue", "green", "dropped", "the new configuration decides who gets the traffic", 9.0),
            )
    over = replace(stepping, shares=(), last=last, rollout={"plan": plan, "phase": "rolled_back"})
    assert after(wishes(over), BLUE_GREEN, {"app": {"blue": ["a:1", "b:1"]}}, app="blue").services["app"].last == last


def test_a_rollout_that_is_over_goes_with_the_pool_that_was_taken_back() -> None:
    """Else a pool that takes that name later would be both pools of one release."""
    last = LastRollout("blue", "green", "rolled_back", "green fails", 5.0)
    over = to_dict(replace(begin(Plan("blue", "green"))[0], phase="rolled_back", failed=True, announced=True))
    alone: Layout = {"app": {"blue": ["a:1", "b:1"]}}
    found = after(wishes(ServiceDesired("blue", "blue", since=5.0, rollout=over, last=last)), BLUE_GREEN, alone)
    assert found.services["app"] == ServiceDesired("blue", "blue", since=5.0, last=last)
    found = after(found, alone, {"app": {"green": ["a:1", "b:1"]}})
    assert found.services["app"].rollout is None


def test_a_switch_follows_the_pool_that_it_led_to() -> None:
    """Also when the pool that the file calls active is the one that was renamed: that is no edit of `active`."""
    switched = wishes(ServiceDesired("green", "blue", previous="blue", since=5.0))
    for new, expected in (
        ({"app": {"blue": ["a:1", "b:1"], "lime": ["c:1"]}}, ("lime", "blue", "blue")),
        ({"app": {"teal": ["a:1", "b:1"], "green": ["c:1"]}}, ("green", "teal", "teal")),
        ({"web": {"teal": ["a:1", "b:1"], "lime": ["c:1"]}}, ("lime", "teal", "teal")),
    ):
        found = after(switched, OLD, new).services[next(iter(new))]
        assert (found.active, found.configured, found.previous, found.since) == (*expected, 5.0)


def test_an_edit_of_active_wins_over_a_rename() -> None:
    switched = wishes(ServiceDesired("green", "blue", previous="blue"))
    found = after(switched, OLD, {"app": {"blue": ["a:1", "b:1"], "lime": ["c:1"], "red": ["r:1"]}}, app="red")
    assert found.services["app"].active == "red"


@pytest.mark.parametrize(
    "new", [{"app": {"blue": ["a:1", "b:1"], "lime": ["c:1"]}}, {"web": {"blue": ["a:1", "b:1"], "lime": ["c:1"]}}]
)
def test_a_rollout_under_way_goes_on(new: dict[str, Any]) -> None:
    rollout, _ = begin(Plan("blue", "green", steps=(5, 100)))
    under_way = wishes(ServiceDesired("blue", "blue", shares=(("blue", 95), ("green", 5)), rollout=to_dict(rollout)))
    found = after(under_way, OLD, new).services[next(iter(new))]
    assert found.shares == (("blue", 95), ("lime", 5))
    assert found.rollout is not None
    assert (from_dict(found.rollout).plan.old, from_dict(found.rollout).plan.new) == ("blue", "lime")


def test_a_drained_target_stays_drained_wherever_it_goes() -> None:
    drained = wishes(ServiceDesired("blue", "blue"), app_blue_aX1=TargetDesired(draining=True))
    for new, id in (
        ({"app": {"teal": ["a:1", "b:1"], "green": ["c:1"]}}, "app/teal/a:1"),
        ({"web": {"blue": ["a:1", "b:1"], "green": ["c:1"]}}, "web/blue/a:1"),
        ({"app": {"blue": ["b:1"], "green": ["c:1", "a:1"]}}, "app/green/a:1"),
        ({"one": {"p": ["a:1"]}, "two": {"q": ["b:1"]}}, "one/p/a:1"),
    ):
        assert after(drained, OLD, new).targets == {id: TargetDesired(draining=True)}


def test_one_that_succeeds_several_is_drained_if_one_of_them_was() -> None:
    old = {"app": {"blue": ["a:1"], "red": ["a:1"]}}
    for which in ("app_blue_aX1", "app_red_aX1"):
        drained = wishes(ServiceDesired("blue", "blue"), **{which: TargetDesired(draining=True)})
        assert after(drained, old, {"app": {"pink": ["a:1"]}}).targets["app/pink/a:1"].draining
    both = wishes(
        ServiceDesired("blue", "blue"),
        app_blue_aX1=TargetDesired(draining=True, returns=True),
        app_red_aX1=TargetDesired(draining=True),
    )
    found = after(both, old, {"app": {"pink": ["a:1"]}}).targets["app/pink/a:1"]
    assert not found.returns, "what an operator has drained does not come back by itself"


def test_a_twin_is_not_drained_for_the_other_one() -> None:
    drained = wishes(ServiceDesired("blue", "blue"), app_blue_aX1=TargetDesired(draining=True))
    found = after(drained, OLD, {"app": {"blue": ["a:1", "b:1"], "green": ["c:1", "a:1"]}})
    assert set(found.targets) == {"app/blue/a:1"}


def test_an_operators_weight_goes_along_unless_the_file_has_another_one() -> None:
    weighed = wishes(ServiceDesired("blue", "blue"), app_blue_aX1=TargetDesired(weight=5, configured_weight=1))
    new = {"app": {"teal": ["a:1", "b:1"], "green": ["c:1"]}}
    assert after(weighed, OLD, new).targets["app/teal/a:1"].weight == 5
    edited = wishes(ServiceDesired("blue", "blue"), app_blue_aX1=TargetDesired(weight=5, configured_weight=2))
    assert after(edited, OLD, new).targets == {}
