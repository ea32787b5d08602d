"""Which route a request takes: the most specific of all that match, whatever their order in the file.

A route matches when its host, its path and its conditions do. Of several the order is that of Gateway API:

1. Host: exact, then the longest wildcard, then any. `*.example.org` matches any name below example.org, not example.org
   itself.
2. Path: exact, then the longest prefix. A prefix ends at a segment's border: /a matches /a and /a/b, not /ab; /a/
   matches /a/ and /a/b, not /a. A regular expression ranks by the whole segments that it literally begins with, right
   before the prefix of these: `/users/[0-9]+` comes before `/users` and `/`, and after `/users/admin`.
3. Conditions (`core.matching`): method, headers, query parameters, then the rest.
4. The order of the file.

A route of a more specific host or path whose conditions fail leaves the request to the next one. So `{host:
api.example.org, path: /greeting}` beside `{path: /}` leaves api.example.org/other to the latter, as Traefik and an
HAProxy ACL do, and nginx's separate server blocks do not.

Paths are compared byte for byte as they came, since that is what the target gets. A path that some server reads in
another way (`core.paths`) is matched in all of its readings. If they choose different routes, it is refused.

One dict by host and one by path in each. The cost depends on the segments of the longest configured path, not on the
number of routes. Routes of one host and path are found by an exact value of theirs, so a thousand tenants told apart by
a header cost one look-up. Regular expressions that begin with the same segments are tried one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lb.core.linear_pattern import pattern_of
from lb.core.matching import Asked, Conditions, ValueCondition, conditions_of
from lb.core.paths import ODD, Unreadable, readings
from lb.core.targets import EXACT, PREFIX, REGEX, Match, Route

#: Results of `match` besides the number of a route.
NO_ROUTE: Final = -1
AMBIGUOUS: Final = -2
UNREADABLE: Final = -3


def host_matches(pattern: bytes, host: bytes) -> bool:
    """Whether `host` (lower case, no port) is the host `pattern`, or one below it (`*.example.org`)."""
    if pattern.startswith(b"*."):
        return host.endswith(pattern[1:]) and len(host) >= len(pattern)
    return pattern in (host, b"*")


def takes_all(route: Route) -> bool:
    """Whether a route matches every request."""
    return route.kind == PREFIX and route.path == "/" and route.host in ("", "*") and route.match == Match()


class Candidate:
    """A route among the routes of one host and path."""

    __slots__ = ("conditions", "index", "path", "pattern", "place", "rank", "remaining")

    def __init__(self, route: Route, index: int) -> None:
        self.index = index
        self.path = route.path.encode()
        self.pattern = pattern_of(route.path) if route.kind == REGEX else None
        conditions = conditions_of(route.match)
        self.conditions = conditions if conditions.any else None
        # Within one place: regular expressions, the one with the longest literal beginning first; then /a/ before /a.
        before = 0 if self.pattern is not None else 1
        length = len(self.pattern.literal) if self.pattern is not None else len(self.path)
        self.rank: tuple[int, ...] = (before, -length, *conditions.rank)
        self.place = 0  # in the order of its spot
        self.remaining: Conditions | None = None  # without the one that its group is found by

    def takes_rest(self, path: bytes, asked: Asked) -> bool:
        """The same for a request that has its group's value."""
        if self.pattern is not None and not self.pattern.matches(path):
            return False
        return self.remaining is None or self.remaining.hold(asked)

    def takes(self, path: bytes, asked: Asked | None) -> bool:
        """Whether it matches a request of its spot. Without a request, no condition holds."""
        if self.pattern is not None and not self.pattern.matches(path):
            return False
        return self.conditions is None or (asked is not None and self.conditions.hold(asked))


class _Group:
    """Candidates that ask for one value exactly: of the header X-Tenant, say."""

    __slots__ = ("by_value", "kind", "name")

    def __init__(self, kind: int, name: bytes) -> None:
        self.kind = kind
        self.name = name
        self.by_value: dict[bytes, list[Candidate]] = {}


class Spot:
    """The routes of one host and path. `only`: the number of the first one, where that one takes every request."""

    __slots__ = ("candidates", "groups", "only", "rest")

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self.groups: list[_Group] = []
        self.rest: list[Candidate] = []
        self.only = NO_ROUTE

    def arrange(self) -> None:
        """Put the candidates in order, once all are there."""
        self.candidates.sort(key=_order)
        self.groups, self.rest = [], []
        groups: dict[tuple[int, bytes], _Group] = {}
        for place, each in enumerate(self.candidates):
            each.place = place
            key = _key_of(each)
            if key is None or key.exact is None:
                self.rest.append(each)
                continue
            assert each.conditions is not None
            remaining = each.conditions.without(key)
            each.remaining = remaining if remaining.any else None
            group = groups.get((key.kind, key.name))
            if group is None:
                group = groups[key.kind, key.name] = _Group(key.kind, key.name)
                self.groups.append(group)
            group.by_value.setdefault(key.exact, []).append(each)
        first = self.candidates[0]
        self.only = first.index if first.pattern is None and first.conditions is None else NO_ROUTE

    def choose(self, path: bytes, asked: Asked | None) -> int:
        """The first that matches, or NO_ROUTE."""
        best: Candidate | None = None
        for each in self.rest:
            if each.takes(path, asked):
                best = each
                break
        if asked is not None:
            for group in self.groups:
                value = asked.value(group.kind, group.name)
                if value is None:
                    continue
                for each in group.by_value.get(value, ()):
                    if best is not None and best.place < each.place:
                        break
                    if each.takes_rest(path, asked):
                        best = each
                        break
        return NO_ROUTE if best is None else best.index


def _order(candidate: Candidate) -> tuple[tuple[int, ...], int]:
    return candidate.rank, candidate.index


def _key_of(candidate: Candidate) -> ValueCondition | None:
    if candidate.conditions is not None:
        for condition in candidate.conditions.values:
            if condition.exact is not None:
                return condition
    return None


class Paths:
    """The routes of one host."""

    __slots__ = ("equal", "longest", "under", "whole")

    def __init__(self) -> None:
        self.whole: dict[bytes, Spot] = {}  # exact paths
        self.equal: dict[bytes, Spot] = {}  # prefixes without a closing slash, for the path that is just that
        self.under: dict[bytes, Spot] = {}  # prefixes with their closing slash, and beginnings of regular expressions
        self.longest = 0  # bytes of the longest key of `under`

    def add(self, route: Route, index: int) -> None:
        candidate = Candidate(route, index)
        path = candidate.path
        if route.kind == EXACT:
            _spot(self.whole, path).append(candidate)
            return
        if candidate.pattern is not None:
            path = candidate.pattern.literal
            path = path[: path.rfind(b"/") + 1] or b"/"
        elif not path.endswith(b"/"):
            _spot(self.equal, path).append(Candidate(route, index))
            path += b"/"
        _spot(self.under, path).append(candidate)
        self.longest = max(self.longest, len(path))

    def arrange(self) -> None:
        for spot in self.spots():
            spot.arrange()

    def spots(self) -> list[Spot]:
        return [*self.whole.values(), *self.equal.values(), *self.under.values()]

    def find(self, path: bytes, asked: Asked | None) -> int:
        spot = self.whole.get(path) if self.whole else None
        if spot is None:
            spot = self.equal.get(path)
        elif spot.only < 0:
            index = spot.choose(path, asked)
            if index >= 0:
                return index
            spot = self.equal.get(path)
        if spot is not None:
            if spot.only >= 0:
                return spot.only
            index = spot.choose(path, asked)
            if index >= 0:
                return index
        under = self.under
        border = path.rfind(b"/", 0, self.longest)
        while border >= 0:
            spot = under.get(path[: border + 1])
            if spot is not None:
                if spot.only >= 0:
                    return spot.only
                index = spot.choose(path, asked)
                if index >= 0:
                    return index
            border = path.rfind(b"/", 0, border)
        return NO_ROUTE


def _spot(spots: dict[bytes, Spot], path: bytes) -> list[Candidate]:
    spot = spots.get(path)
    if spot is None:
        spot = spots[path] = Spot()
    return spot.candidates


class RouteTable:
    """All routes, ready to be asked. Built once per snapshot."""

    __slots__ = ("_any", "_exact", "_longest_suffix", "_suffixes", "conditional")

    def __init__(self, exact: dict[bytes, Paths], suffixes: dict[bytes, Paths], anywhere: Paths) -> None:
        self._exact = exact
        self._suffixes = suffixes
        self._any = anywhere
        self._longest_suffix = max([len(suffix) for suffix in suffixes], default=0)
        self.conditional = False  # some route has conditions: `match` has to be given the request
        for paths in self.hosts():
            paths.arrange()
            for spot in paths.spots():
                for each in spot.candidates:
                    self.conditional = self.conditional or each.conditions is not None

    @classmethod
    def build(cls, routes: Sequence[Route]) -> RouteTable:
        """The table of `routes`. Of two that are alike the first one counts."""
        exact: dict[bytes, Paths] = {}
        suffixes: dict[bytes, Paths] = {}
        anywhere = Paths()
        for index, route in enumerate(routes):
            host = route.host.lower().encode()
            if not host or host == b"*":
                paths = anywhere
            elif host.startswith(b"*."):
                paths = suffixes.setdefault(host[1:], Paths())
            else:
                paths = exact.setdefault(host, Paths())
            paths.add(route, index)
        return cls(exact, suffixes, anywhere)

    def hosts(self) -> list[Paths]:
        """The routes of each host."""
        return [*self._exact.values(), *self._suffixes.values(), self._any]

    def match(self, host: bytes, path: bytes, asked: Asked | None = None) -> int:
        """The number of the route for `host` (lower case, no port) and `path` (no query).

        NO_ROUTE: there is none. AMBIGUOUS: a target may read the path as one that takes another route, or none.
        UNREADABLE: the path is broken, leads above the root, or has too many readings.
        """
        index = self.find(host, path, asked)
        if ODD.search(path) is None:
            return index
        try:
            for reading in readings(path):
                if self.find(host, reading, asked) != index:
                    return AMBIGUOUS
        except Unreadable:
            return UNREADABLE
        return index

    def find(self, host: bytes, path: bytes, asked: Asked | None = None) -> int:
        """The number of the route for a path as it stands, or NO_ROUTE."""
        paths = self._exact.get(host)
        if paths is not None:
            index = paths.find(path, asked)
            if index >= 0:
                return index
        if self._suffixes:
            # Only a suffix as long as the longest configured one can match: a name of a thousand dots costs no more.
            dot = host.find(b".", max(0, len(host) - self._longest_suffix))
            while dot >= 0:
                # The star stands for one character at least.
                paths = self._suffixes.get(host[dot:]) if dot else None
                if paths is not None:
                    index = paths.find(path, asked)
                    if index >= 0:
                        return index
                dot = host.find(b".", dot + 1)
        return self._any.find(path, asked)
