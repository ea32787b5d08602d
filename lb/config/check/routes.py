"""Routes beside each other: two that are the same, two that the order of the file decides, one that no request reaches.

Only routes of the same host are compared, and of these the ones that `core.routing` compares: with the same path, or
with a regular expression that begins with the same segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lb.config.check.lint_checks import Warned
from lb.config.model.config import Config
from lb.config.yaml.tree import Path
from lb.core.matching import Conditions
from lb.core.paths import ODD
from lb.core.routing import AMBIGUOUS, UNREADABLE, Candidate, RouteTable, Spot
from lb.core.targets import EXACT, REGEX, Match, Snapshot

#: Routes of one host and path that are compared with one another.
MOST = 200


def errors(config: Config, line: Callable[[Path], int]) -> Iterator[tuple[Path, str, str]]:
    """Faults of single routes, and routes that no request can tell apart."""
    seen: dict[object, int] = {}
    for index, route in enumerate(config.routes):
        at: Path = ("routes", index)
        if route.match is not None:
            paths = route.match.paths()
            if len(paths) > 1:
                yield (*at, "match", paths[1]), f"{' and '.join(paths)} are given; a route has one path", "Remove one."
            if route.match.host and route.host:
                yield (*at, "match", "host"), "host is given twice: here and beside `match`", "Remove one of them."
            if paths and "path" in route.model_fields_set:
                yield (*at, "match", paths[0]), "a path is given here and beside `match`", "Remove one of them."
        first = seen.setdefault(route.identity(), index)
        if first != index:
            place = line(("routes", first))
            where = f" (line {place})" if place else ""
            _, path = route.for_path()
            what = f"{route.for_host() or 'any host'}, path {path}"
            same = "host and path" if route.conditions() == Match() else "host, path and conditions"
            yield (
                at,
                f"routes[{first}]{where} has the same {same} ({what}), so this one is never reached",
                "Remove one of them.",
            )


def warnings(config: Config, snapshot: Snapshot, line: Callable[[Path], int]) -> Iterator[Warned]:
    table = RouteTable.build(snapshot.routes)
    if not config.routes:
        return

    def named(index: int) -> str:
        where = line(("routes", index))
        return f"routes[{index}] ({snapshot.routes[index].title()}{f', line {where}' if where else ''})"

    for paths in table.hosts():
        for spot in paths.spots():
            yield from _beside_each_other(spot, named)
    yield from _never_asked(config, snapshot, named, table)


def _beside_each_other(spot: Spot, named: Callable[[int], str]) -> Iterator[Warned]:
    candidates = spot.candidates[:MOST]
    for place, later in enumerate(candidates):
        for first in candidates[:place]:
            if first.index == later.index:
                continue
            if _covers(first, later):
                yield (
                    "route-unreachable",
                    ("routes", later.index),
                    f"every request of this route takes {named(first.index)}, which comes first",
                    "Remove one of them, or give this one a condition more.",
                )
                break
            if first.rank == later.rank and not _apart(first, later):
                yield (
                    "route-order",
                    ("routes", later.index),
                    f"a request that fits this route and {named(first.index)} takes the one that is earlier in the "
                    f"file: neither is more specific",
                    "Give one of them a condition more, or leave it so if the order is meant.",
                )
                break


def _covers(first: Candidate, later: Candidate) -> bool:
    """Whether the first one matches whatever the later one does."""
    if first.pattern is not None:
        if later.pattern is not None:
            if first.path != later.path:
                return False
        elif not (
            first.pattern.matches(later.path.removesuffix(b"/") or b"/")
            and first.pattern.matches_all_below(later.path if later.path.endswith(b"/") else later.path + b"/")
        ):
            return False
    elif later.pattern is not None or first.path != later.path:
        return False
    if first.conditions is None:
        return True
    return later.conditions is not None and first.conditions.implied_by(later.conditions)


def _apart(first: Candidate, later: Candidate) -> bool:
    """Whether no request fits both. Of two different patterns that is not known, and they count as apart."""
    if first.path != later.path:
        return True
    one: Conditions | None = first.conditions
    return one is not None and later.conditions is not None and one.exclude(later.conditions)


def _never_asked(
    config: Config, snapshot: Snapshot, named: Callable[[int], str], table: RouteTable
) -> Iterator[Warned]:
    """Routes whose conditions no request can fulfil, by the rest of the file or by their own path."""
    spoken = {protocol for listener in config.listeners for protocol in listener.spoken()}
    secure = any(listener.tls is not None for listener in config.listeners)
    plain = any(listener.tls is None and not listener.redirect for listener in config.listeners)
    for index, route in enumerate(snapshot.routes):
        match, at = route.match, ("routes", index)
        why = ""
        if match.scheme == "https" and not secure and not config.trusted_proxies:
            why = "no listener has `tls`, and there are no `trusted_proxies`: no request has the scheme https"
        elif match.scheme == "http" and not plain and not config.trusted_proxies:
            why = "every listener has `tls` or redirects: no request has the scheme http"
        elif match.protocols and set(match.protocols) <= {"h2", "grpc"} and not spoken & {"h2", "h2c"}:
            why = "no listener speaks HTTP/2 to clients"
        elif route.kind != REGEX and ODD.search(route.path.encode()):
            path = route.path.encode() if route.kind == EXACT else route.path.encode().removesuffix(b"/") + b"/x"
            if table.match(route.host.lower().replace("*.", "x.").encode(), path) in (AMBIGUOUS, UNREADABLE):
                why = f"a target may read {route.path} as a path of another route, so its requests get 400"
        if why:
            yield "route-unreachable", at, why, "Remove the route, or change the condition."
