"""What workers are told of a snapshot that differs from the last one by single targets alone, and when it is that."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lb.core.target_changes import target_changes, with_addresses, with_targets
from lb.core.targets import Pool, Rotation, Route, Service, Snapshot, Target, Targets, Timeouts, TlsClient


def target(id: str, **settings: object) -> Target:
    service, pool, address = id.split("/")
    return replace(Target(id, service, pool, address, 1), **settings)  # type: ignore[arg-type]


def snapshot(version: int, *targets: Target, ready: tuple[str, ...] = (), pools: str = "s/a s/b t/a") -> Snapshot:
    """Two services; a rotation each, with the targets of `ready` that are theirs."""
    layout: dict[str, dict[str, list[Target]]] = {}
    for place in pools.split():
        layout.setdefault(place.split("/")[0], {})[place.split("/")[1]] = []
    for each in targets:
        layout[each.service][each.pool].append(each)
    services = tuple(
        Service(name, tuple(Pool(p, tuple(ts)) for p, ts in each.items())) for name, each in layout.items()
    )
    rotations = tuple(
        Rotation(
            name,
            version,
            (("a", 100),),
            tuple((pool, tuple((t.id, 1.0) for t in targets if t.id in ready)) for pool, targets in each.items()),
        )
        for name, each in layout.items()
    )
    return Snapshot(version, services=services, routes=(Route("s"),), rotations=rotations)


ONE, TWO, OTHER = target("s/a/1"), target("s/a/2"), target("t/a/9")


def test_one_new_target_is_told_alone() -> None:
    found = target_changes(snapshot(1, ONE, OTHER), snapshot(2, ONE, TWO, OTHER))
    assert found == Targets(2, changed=(TWO,))


def test_one_that_is_gone_is_told_with_the_rotation_of_its_service() -> None:
    after = snapshot(2, ONE, OTHER, ready=("s/a/1",))
    found = target_changes(snapshot(1, ONE, TWO, OTHER, ready=("s/a/1", "s/a/2")), after)
    assert found == Targets(2, removed=("s/a/2",), rotations=after.rotations[:1])
    unready = target_changes(snapshot(1, ONE, TWO, OTHER), snapshot(2, ONE, OTHER))
    assert unready is not None and [each.service for each in unready.rotations] == ["s"]


def test_new_settings_come_with_the_files_that_they_need() -> None:
    tls = TlsClient(digests=("new", "", ""))
    before = replace(snapshot(1, ONE, OTHER), files=(("old", b"1"),))
    after = replace(snapshot(2, replace(ONE, tls=tls), OTHER), files=(("old", b"1"), ("new", b"2")))
    assert target_changes(before, after) == Targets(2, (replace(ONE, tls=tls),), files=(("new", b"2"),))


def test_a_file_that_only_a_listener_has_needed_is_told() -> None:
    files = (("ca", b"1"),)
    before = replace(snapshot(1, ONE, OTHER), files=files)  # workers keep what their targets need
    using = replace(ONE, tls=TlsClient(ca_file="ca.pem", digests=("ca", "", "")))
    after = replace(snapshot(2, using, OTHER), files=files)
    assert target_changes(before, after) == Targets(2, (using,), files=files)
    again = replace(snapshot(3, using, replace(OTHER, tls=using.tls)), files=files)
    assert target_changes(after, again) == Targets(3, (replace(OTHER, tls=using.tls),)), "workers have it by now"


def test_a_rotation_that_has_changed_as_well_is_told() -> None:
    after = snapshot(2, ONE, TWO, OTHER, ready=("t/a/9",))
    found = target_changes(snapshot(1, ONE, OTHER), after)
    assert found is not None and found.rotations == after.rotations[1:]


def test_everything_else_takes_a_snapshot() -> None:
    before, after = snapshot(1, ONE, OTHER), snapshot(2, ONE, TWO, OTHER)
    assert target_changes(before, replace(after, routes=(Route("t"),))) is None
    assert target_changes(before, replace(after, trusted_proxies=("::/0",))) is None
    service = replace(after.services[0], timeouts=Timeouts(queue=9.0))
    assert target_changes(before, replace(after, services=(service, after.services[1]))) is None
    assert target_changes(before, snapshot(2, ONE, TWO, OTHER, pools="s/a s/b s/c t/a")) is None
    assert (
        target_changes(before, snapshot(2, ONE, target("s/b/1"), target("s/c/7"), OTHER, pools="s/a s/b s/c t/a"))
        is None
    )
    assert target_changes(before, snapshot(2, ONE, OTHER)) is None, "nothing has changed: an operator reloads it whole"


def test_a_target_that_moves_takes_a_snapshot() -> None:
    assert target_changes(snapshot(1, ONE, OTHER), snapshot(2, target("s/b/1"), OTHER)) is None
    assert target_changes(snapshot(1, ONE, OTHER), snapshot(2, ONE, target("s/b/1"), OTHER)) is not None, "a twin"


def test_names_get_their_addresses() -> None:
    found = with_addresses(snapshot(1, ONE, TWO, OTHER), {"s/a/2": ("192.0.2.1",), "s/a/gone": ("192.0.2.2",)})
    assert found == snapshot(1, ONE, replace(TWO, addresses=("192.0.2.1",)), OTHER)


some_targets = st.lists(
    st.builds(
        lambda place, host, weight: target(f"{place}/{host}", weight=weight),
        st.sampled_from(["s/a", "s/b", "t/a"]),
        st.sampled_from("123456"),
        st.integers(1, 2),
    ),
    unique_by=lambda each: each.id,
)


@given(some_targets, some_targets, st.data())
def test_a_snapshot_with_the_changes_is_the_new_one(old: list[Target], new: list[Target], data: st.DataObject) -> None:
    def some(targets: list[Target]) -> tuple[str, ...]:
        ids = [each.id for each in targets]
        return tuple(data.draw(st.lists(st.sampled_from(ids), unique=True))) if ids else ()

    before, after = snapshot(1, *old, ready=some(old)), snapshot(9, *new, ready=some(new))
    changes = target_changes(before, after)
    if changes is None:
        return
    made = with_targets(before, changes)
    assert pools_of(made) == pools_of(after)
    weights = {each.service: each.weights for each in after.rotations}
    assert {each.service: each.weights for each in made.rotations} == weights
    assert with_targets(made, changes) == made, "a repeated message changes nothing"


def pools_of(snapshot: Snapshot) -> dict[tuple[str, str], set[Target]]:
    return {(service.name, pool.name): set(pool.targets) for service in snapshot.services for pool in service.pools}
