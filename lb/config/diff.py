"""The changes of a new configuration against the one that runs: kept, added, drained, or only after a restart.

Pure: it compares two worlds, which were resolved before. `lb plan`, a reload, its dry run and the configuration page
all ask here. Values are compared as they work out, with defaults filled in: writing a default down changes nothing.
TLS files that were renewed in place are told apart from other settings, where both worlds know the files' contents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lb.config.changes import Change, Kind, Plan, counted, of_pool, of_some, of_target
from lb.config.model.config import Admin, Config
from lb.config.model.services import Pool, Service
from lb.config.model.units import format_duration, format_percent
from lb.config.renewed import renewed
from lb.config.resolve import World
from lb.config.tls_values import without_contents
from lb.core.checks import definition
from lb.core.renames import Place, Renames, layout_of, renames, split_id
from lb.core.targets import Listener, Target, spoken

#: The parts that outlive another name.
KEPT = "health, drains and connections are kept"
#: Settings that are read at the start alone.
AT_START = ("admin.bind", "workers", "state_dir")


def diff(old: World, new: World) -> Plan:
    """From `old`, which runs, to `new`."""
    before, after = without_contents(old), without_contents(new)
    names = renames(layout_of(before.snapshot.services), layout_of(after.snapshot.services))
    changes = (
        *_listeners(before, after),
        *_services(before, after, names),
        *_targets(before, after, names),
        *_settings(old.config, new.config),
        *_timing(before, after, names),
        *renewed(old, new),
    )
    kept = [
        id for id, target in new.targets.items() if (was := _former(id, old, names)) is not None and _same(was, target)
    ]
    return Plan(changes, tuple(kept))


def needs_restart(started: Config, new: Config) -> list[Change]:
    """The settings of `new` that take effect after a restart only, where lb was started with `started`."""
    return [change for change in _settings(started, new) if change.kind == "restart"]


def _listeners(before: World, after: World) -> Iterator[Change]:
    old = {listener.bind: listener for listener in before.snapshot.listeners}
    new = {listener.bind: listener for listener in after.snapshot.listeners}
    for bind, listener in new.items():
        if bind not in old:
            yield Change("add", f"listener {bind}", "opens", "listener")
        elif listener != old[bind]:
            named = [name for name in Listener.__dataclass_fields__ if _differ(old[bind], listener, name)]
            yield Change("change", f"listener {bind}", f"{', '.join(named)}, for new connections", "listener")
    for bind in old:
        if bind not in new:
            yield Change("drain", f"listener {bind}", "closes; its connections end after their request", "listener")


def _services(before: World, after: World, names: Renames) -> Iterator[Change]:
    old, new = before.config.services, after.config.services
    for name in new:
        known = names.services.get(name, name)
        if known not in old:
            yield Change("add", f"service {name}", f"pools {', '.join(new[name].pools)}", "service", name)
            continue
        was = old[known]
        if known != name:
            yield Change("change", f"service {name}", f"{known} has this name now; {KEPT}", "service", name)
        pools = {pool: names.pool_was(name, pool)[1] for pool in new[name].pools}
        yield from _sources(name, was, new[name], pools)
        for pool, former in pools.items():
            if former not in was.pools:
                yield of_pool("add", name, pool, _sized(new[name].pools[pool]))
            elif former != pool:
                yield of_pool("change", name, pool, f"{former} has this name now; {KEPT}")
        first = pools.get(new[name].first_active(), new[name].first_active())
        if was.first_active() != first:
            actives = was.first_active(), new[name].first_active()
            said = f"{' → '.join(actives)}; an edit wins over an earlier switch"
            path = f"services.{name}.active"
            yield Change("change", path, said, service=name, field="active", old=actives[0], new=actives[1])
        for pool in was.pools:
            if pool not in pools.values():
                yield of_pool("drain", known, pool, "is gone; its targets drain")
        if was != new[name] or was.readiness.kind() != new[name].readiness.kind():
            yield from _values(f"services.{name}", _written_out(was), _written_out(new[name]), name)
    for name in old:
        if name not in new and name not in names.services.values():
            yield Change("drain", f"service {name}", "is gone; its targets drain", "service", name)


def _sized(pool: Pool) -> str:
    """How many targets a new pool has."""
    named = counted(len(pool.targets), "target")
    if pool.discover is None:
        return named
    found = f"targets that {pool.discover.title()} names"
    return f"{named}, and {found}" if pool.targets else found


def _sources(name: str, was: Service, now: Service, pools: dict[str, str]) -> Iterator[Change]:
    """Where the targets of pools are found. `pools`: new name → old one."""
    for pool, former in pools.items():
        if former not in was.pools:
            continue
        old, new = was.pools[former], now.pools[pool]
        if old.discover != new.discover:
            titles = [each.discover.title() if each.discover is not None else "none" for each in (old, new)]
            said = f"targets are found by {' → '.join(titles)}"
            if new.discover is None:
                said += "; found targets that are not in the file drain"
            yield of_pool("change", name, pool, said)
        elif old.removal_guard != new.removal_guard:
            guards = " → ".join(format_percent(each.removal_guard) for each in (old, new))
            yield of_pool("change", name, pool, f"removal_guard {guards}")


def _written_out(service: Service) -> dict[str, Any]:
    """Its settings with all defaults. Pools are left to a comparison target by target, checks as they work out."""
    settings = service.model_dump(mode="json", exclude={"pools", "active"})
    settings["readiness"]["protocol"] = service.readiness.kind()
    if service.liveness is not None:
        settings["liveness"]["protocol"] = service.liveness.kind()
    settings["panic"] = service.panic_choice()
    return settings


def _former(id: str, before: World, names: Renames) -> Target | None:
    """The former name or place of a target; None: it is new."""
    former = names.targets.get(id, (id,))[0]
    return before.targets.get(former)


def _targets(before: World, after: World, names: Renames) -> Iterator[Change]:
    for id, target in after.targets.items():
        was = _former(id, before, names)
        if was is None:
            twins = [twin for twin in names.twins.get(id, ()) if not _asked_otherwise(twin, id, before, after)]
            twins = [twin for twin in twins if before.targets[twin].tls == target.tls]
            said = f"begins as what {twins[0]} is found to be" if twins else "gets traffic after its first passed check"
            many = "" if twins else "get traffic after their first passed check"
            yield of_target("add", id, said, of_many=many)
            continue
        if was.id != id and not names.is_renamed(id, was.id):
            said = f"was {was.id}; {_comes_with(was.id, id, before, after)}"
            yield of_target("change", id, said, field="id", old=was.id, new=id)
        if was.weight != target.weight:
            old, new = str(was.weight), str(target.weight)
            yield of_target("change", id, f"weight {old} → {new}", field="weight", old=old, new=new)
        if was.tls != target.tls:
            yield of_target("change", id, "TLS settings, for new connections", field="tls")
        if was.http2 != target.http2:
            old, new = (spoken(each.http2) for each in (was, target))
            yield of_target("change", id, f"speaks {new} instead of {old}", field="protocol", old=old, new=new)
    moved = {former for formers in names.targets.values() for former in formers}
    gone = [id for id in before.targets if id not in after.targets and id not in moved]
    replaced = _replaced(before, after, names, set(gone))
    yield from replaced.values()
    for id in gone:
        afterwards = split_id(id)[:2] in replaced
        said = "then takes no new requests, and is gone" if afterwards else "takes no new requests, then is gone"
        many = "then take no new requests, and are gone" if afterwards else "take no new requests, then are gone"
        yield of_target("drain", id, said, of_many=many)
    stay = {id: id for id in after.targets if id in before.targets}
    stay |= {id: olds[0] for id, olds in names.targets.items() if names.is_renamed(id, olds[0])}
    kept = [id for id in after.targets if id in stay]
    asked = [id for id in kept if _asked_otherwise(stay[id], id, before, after)]
    if asked:
        said = "asked another question; until it is answered well, the old check decides"
        yield of_some(asked, said, "readiness")
    alive = [id for id in kept if before.checks[stay[id]].liveness != after.checks[id].liveness]
    if alive:
        none = all(after.checks[id].liveness is None for id in alive)
        said = "no liveness check any more" if none else "another liveness check"
        yield of_some(alive, said, "liveness")


def _replaced(before: World, after: World, names: Renames, gone: set[str]) -> dict[Place, Change]:
    """The text on pools whose targets are replaced all at once, by former places; see `core.handover`."""
    olds = {(service.name, pool.name): pool for service in before.snapshot.services for pool in service.pools}
    found: dict[Place, Change] = {}
    for service in after.snapshot.services:
        for pool in service.pools:
            place = names.pool_was(service.name, pool.name)
            members = {target.id for target in olds[place].targets} if place in olds else set()
            sources = {old for target in pool.targets for old in names.targets.get(target.id, (target.id,))}
            if members & gone and not members & sources:
                warm = " and its slow start is over" if after.rules[service.name].slow_start.window else ""
                number = len(members)
                all_of_it = f"all {number} targets are replaced" if number > 1 else "its only target is replaced"
                olds_serve = "the old ones serve" if number > 1 else "the old one serves"
                text = f"{all_of_it}; while it has traffic, {olds_serve} until a new one has passed its check{warm}"
                found[place] = of_pool("change", service.name, pool.name, text)
    return found


def _comes_with(old: str, new: str, before: World, after: World) -> str:
    """The values that a target keeps when it comes from another place."""
    if _asked_otherwise(old, new, before, after):
        return "a drain holds; its check is another one, so it gets traffic after its first passed check"
    return KEPT


def _asked_otherwise(old: str, new: str, before: World, after: World) -> bool:
    return definition(before.checks[old].readiness) != definition(after.checks[new].readiness)


def _same(old: Target, new: Target) -> bool:
    """Whether it keeps what is known of it and its connections, perhaps under another name."""
    return replace(old, id=new.id, service=new.service, pool=new.pool, weight=new.weight) == new


def _settings(old: Config, new: Config) -> Iterator[Change]:
    leave_out = {"services", "listeners", "routes"}
    before = old.model_dump(mode="json", exclude=leave_out)
    after = new.model_dump(mode="json", exclude=leave_out)
    for change in _values("", before, after):
        kept = change.kind != "restart" and _is_kept(change.subject, old.admin, new.admin)
        yield replace(change, kind="restart", text=f"{change.text}; needs a restart") if kept else change
    before_routes = {route.identity(): route for route in old.route_list()}
    after_routes = {route.identity(): route for route in new.route_list()}
    for identity, route in after_routes.items():
        if identity not in before_routes:
            to = "to its service" if route.service else f"to {route.goal()}"
            yield Change("add", f"route {route.title()}", f"{to}, for new requests", "route")
    for identity, route in before_routes.items():
        if identity not in after_routes:
            yield Change("drain", f"route {route.title()}", "is gone", "route")
    for identity, route in after_routes.items():
        was = before_routes.get(identity)
        if was is not None and was != route:
            text = f"{was.goal()} → {route.goal()}" if was.goal() != route.goal() else "other settings"
            yield Change("change", f"route {route.title()}", text, "route")


def _is_kept(path: str, old: Admin, new: Admin) -> bool:
    """Whether the admin port stays as it is until a restart: no reload opens it to everybody, or takes its TLS away."""
    if path in ("admin.token_file", "admin.tokens"):
        return old.secured and not new.secured
    return path == "admin.tls" and (old.tls is None) != (new.tls is None)


def _values(path: str, old: Any, new: Any, service: str = "") -> Iterator[Change]:
    """Leaves that differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from _values(f"{path}.{key}" if path else key, old.get(key), new.get(key), service)
    elif old != new:
        field = path.removeprefix(f"services.{service}.") if service else path
        if isinstance(old, dict) or isinstance(new, dict):
            text = "is new" if old is None else "is gone" if new is None else "has changed"
            yield Change("change", path, text, service=service, field=field)
            return
        kind: Kind = "restart" if path in AT_START else "change"
        secret = ".headers." in path or path.endswith((".webhook", ".command"))  # this goes to the log
        values = ("", "") if secret else (_written(old), _written(new))
        said = "has changed" if secret else " → ".join(values)
        text = f"{said}; needs a restart" if kind == "restart" else said
        yield Change(kind, path, text, service=service, field=field, old=values[0], new=values[1])


def _timing(before: World, after: World, names: Renames) -> Iterator[Change]:
    """The detection time, where it changes: the aim of all check settings."""
    for name in after.config.services:
        known = names.services.get(name, name)
        if known in before.config.services:
            found = [before.detections.get(known), after.detections.get(name)]
            worst = ["never" if one is None else format_duration(round(one.worst, 3)) for one in found]
            if worst[0] != worst[1]:
                text = f"a dead target is out after at worst {' → '.join(worst)}"
                path = f"services.{name}"
                yield Change("change", path, text, "service", name, field="detection", old=worst[0], new=worst[1])


def _differ(old: object, new: object, name: str) -> bool:
    return bool(getattr(old, name) != getattr(new, name))


def _written(value: Any) -> str:
    if value is None or value == "" or value == [] or value == {}:
        return "none"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
