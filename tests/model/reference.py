"""What `lb` promises, as simply as it can be said: which targets may see this request, given the file, the operators'
orders, the probes' answers and the clock.

It is read in one sitting, and shares no line with `lb`. The sentences are the documentation's.

- A target *can serve* if it is ready, has a weight above 0, is not drained (by an operator or by itself) and not
  ejected. Nothing else gets a request.
- A target is ready after its first passed check; one that failed `fall` checks in a row is not, and is again after
  `rise` passes in a row. What `lb` cannot know for sure after a restart or a changed check is None here: both answers
  are allowed until the checks have decided.
- Of a pool, those serve that can. When fewer than `panic_threshold` of its targets can, `panic` applies: nobody
  (`fail`), everybody who was ever ready and is not drained (`spread`), or the `fallback` pool. A drained target does
  not count here, nor one of weight 0; one that asks for nothing by itself does.
- When all targets of a pool with traffic are replaced, the old ones that can serve go on until a new one can and its
  slow start is over. With a threshold, those count that are there to serve: the old ones, and the new ones that can.
- A service's requests go to its active pool; during a rollout to the two pools that share the traffic, those without
  anybody left out. A preview goes to its own pool. The fallback serves whenever the chosen pool offers nobody.
- A request that all targets of these pools have failed, and that may be tried again, goes to the fallback as well; not
  one of a preview, whose pool is to be seen to fail.
- A WebSocket is tried at one target after the other until one takes it: those of HTTP/2 without extended CONNECT take
  none, and have failed it in this sense. lb answers 502 itself when all that may see it have failed it.
- A worker that cannot follow a change goes by the targets that it knows, until another one has replaced it.
- A copy of a request may go to the mirror's pool, once, unless that pool may see the request itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import TypeAlias

#: What may be of a target that is not ready, and of which nobody knows whether it ever was: (ready, ever).
EVER = [(False, True), (False, False)]


@dataclass(frozen=True)
class Target:
    """One address in one pool."""

    address: str
    weight: float = 1.0  # the file's or an operator's, times the share that it asked for itself
    ready: bool | None = False  # by its checks; None: not known for sure
    ever: bool | None = False  # it was ready at least once
    out: bool = False  # drained, asks to be, or ejected
    drained: bool | None = False  # drained, or asks to be; None: what it asks for is not known for sure
    replaced: bool = False  # the file no longer has it, and no target that it has instead can serve yet
    meant: bool = True  # it has a weight above 0, whatever it asks for itself

    @property
    def can_serve(self) -> bool:
        return bool(self.ready) and self.weight > 0 and not self.out


@dataclass(frozen=True)
class Request:
    """What decides where a request goes."""

    method: str = "GET"
    host: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def idempotent(self) -> bool:
        return self.method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE")

    def cookie(self, name: str) -> str | None:
        for part in self.fields.get("Cookie", "").split("; "):
            key, found, value = part.partition("=")
            if found and key == name:
                return value
        return None


@dataclass(frozen=True)
class Preview:
    """Requests with this header, cookie or host go to `pool`. Without a value any will do."""

    pool: str
    header: str = ""
    cookie: str = ""
    value: str = ""
    host: str = ""

    def matches(self, request: Request) -> bool:
        asked = []
        if self.host:
            asked.append(request.host == self.host)
        if self.header:
            asked.append(self._is_right(request.fields.get(self.header)))
        if self.cookie:
            asked.append(self._is_right(request.cookie(self.cookie)))
        return bool(asked) and all(asked)

    def _is_right(self, value: str | None) -> bool:
        return value is not None and (not self.value or value == self.value)


#: The addresses of which one gets a request, and those of which one gets it once the first have failed it.
Sight: TypeAlias = tuple[frozenset[str], frozenset[str]]


@dataclass(frozen=True)
class Service:
    """One service, its pools and rules."""

    pools: Mapping[str, tuple[Target, ...]]
    shares: Mapping[str, int]  # pool → parts of 100
    previews: tuple[Preview, ...] = ()
    fallback: str = ""
    panic: str = "fail"  # fail | spread | fallback
    threshold: float = 0.0
    mirror: str = ""
    asset_fallback: bool = False
    connections: float = inf  # so many requests may be under way to each of its targets…
    requests: float = inf  # …and so many to all of them, at least
    #: What was asked before: each request under way asks again at each change.
    _offered: dict[str, frozenset[str]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _sights: dict[str | None, frozenset[Sight]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _known_to: dict[Set[str], Service] = field(default_factory=dict, init=False, repr=False, compare=False)

    def offered(self, pool: str) -> frozenset[str]:
        """The addresses that a pool offers."""
        if pool not in self._offered:
            self._offered[pool] = self._offers(pool)
        return self._offered[pool]

    def _offers(self, pool: str) -> frozenset[str]:
        targets = self.pools.get(pool, ())
        in_file = [target for target in targets if not target.replaced]
        old_ones = [target for target in targets if target.replaced or target.can_serve]
        if self.enough(in_file) or (len(in_file) < len(targets) and self.enough(old_ones)):
            return frozenset(target.address for target in targets if target.can_serve)
        if self.panic == "spread":
            return frozenset(t.address for t in targets if t.weight > 0 and not t.drained and t.ever)
        return frozenset()

    def enough(self, targets: Sequence[Target]) -> bool:
        """Whether a pool of these targets offers those that can serve."""
        able = [target for target in targets if target.can_serve]
        counted = [target for target in targets if target.meant and not target.drained]
        return bool(able) and len(able) / len(counted) >= self.threshold

    def may_see(self, request: Request) -> frozenset[str]:
        """The addresses of which one gets the request; others only when that one fails it."""
        return frozenset().union(*(self.offered(pool) for pool in self._asked(request)))

    def resort(self, request: Request) -> frozenset[str]:
        """The addresses of which one gets the request once all that `may_see` names have failed it."""
        return self.offered(self.fallback) if self._preview(request) is None else frozenset()

    def sights(self, request: Request) -> frozenset[Sight]:
        """What `may_see` and `resort` say, in all ways that are possible by what is known."""
        preview = self._preview(request)
        if preview not in self._sights:
            found = frozenset((each.may_see(request), each.resort(request)) for each in self.readings)
            self._sights[preview] = found
        return self._sights[preview]

    def is_served(self, request: Request) -> bool:
        """Whether a target that can serve gets the request. `panic: spread` sends it to others as well."""
        return any(
            target.can_serve and target.address in self.offered(pool)
            for pool in self._asked(request)
            for target in self.pools.get(pool, ())
        )

    def _asked(self, request: Request) -> list[str]:
        """The pools of which one gets the request; some of them may have nobody to offer."""
        chosen = self._preview(request)
        if chosen is not None:
            pools = [chosen]
        else:
            pools = [pool for pool, parts in self.shares.items() if parts]
        return pools if any(self.offered(pool) for pool in pools) else [self.fallback]

    def _preview(self, request: Request) -> str | None:
        """The pool of the first preview that the request asks for."""
        return next((preview.pool for preview in self.previews if preview.matches(request)), None)

    def copied_to(self) -> frozenset[str]:
        """The addresses that may see a copy."""
        return frozenset(target.address for target in self.pools.get(self.mirror, ()))

    def known_to(self, addresses: frozenset[str]) -> Service:
        """The service as a worker has it that knows these addresses alone."""
        if addresses not in self._known_to:
            pools = {name: tuple(t for t in targets if t.address in addresses) for name, targets in self.pools.items()}
            self._known_to[addresses] = replace(self, pools=pools)
        return self._known_to[addresses]

    @cached_property
    def readings(self) -> tuple[Service, ...]:
        """The service with everything known for sure, in enough ways to tell what is possible."""
        return tuple(_readings(self))


def _readings(service: Service) -> Iterator[Service]:
    """All targets of a pool of which something is not known are taken to be the same.

    Each that could serve is among those that serve when all of them can; nobody is left when none of them can.
    """
    spread = service.panic == "spread"
    ways: dict[str, list[tuple[bool, bool, bool]]] = {}
    for pool, targets in service.pools.items():
        found = [(False, False)]
        if any(target.ready is None for target in targets):
            found = [(True, True), *EVER] if spread else [(True, True), (False, False)]
        elif spread and any(target.ever is None for target in targets):
            found = EVER
        asks = [False, True] if any(target.drained is None for target in targets) else [False]
        if len(found) + len(asks) > 2:
            ways[pool] = [(*each, asked) for each in found for asked in asks]
    for way in itertools.product(*ways.values()):
        pools = dict(service.pools)
        for pool, known in zip(ways, way, strict=True):
            pools[pool] = tuple(_surely(target, *known) for target in pools[pool])
        yield replace(service, pools=pools) if ways else service


def _surely(target: Target, ready: bool, ever: bool, asks_drain: bool) -> Target:
    if target.ready is None:
        target = replace(target, ready=ready, ever=ever)
    elif target.ever is None:
        target = replace(target, ever=ever)
    if target.drained is None:
        drained = asks_drain and not target.ready  # of one that is ready the other readings say that it cannot serve
        target = replace(target, drained=drained, out=target.out or drained)
    return target


def may_see(service: Service, request: Request) -> tuple[frozenset[str], bool]:
    """The addresses that may see a request, and whether it is certain that somebody can serve it."""
    found = [first for first, _ in service.sights(request)]
    return frozenset().union(*found), all(found)


def resort(service: Service, request: Request, failed: Set[str]) -> tuple[frozenset[str], bool]:
    """The addresses that may see a request that `failed` have failed, and whether it is certain that one of them can
    serve it once its pools have failed it."""
    found = service.sights(request)
    return frozenset().union(*(then for first, then in found if first <= failed)), all(
        then - first for first, then in found
    )


def taken(service: Service, request: Request, failed: Set[str]) -> bool:
    """Whether it is certain that a target takes a WebSocket that these take none of, or fail."""
    unsure = {
        target.address
        for targets in service.pools.values()
        for target in targets
        if target.ready is None or target.drained is None
    }
    return all((first | then) - failed - unsure for first, then in service.sights(request))


def served(service: Service, request: Request) -> tuple[bool, bool]:
    """Whether a target that can serve gets a request: for sure, and perhaps."""
    found = [reading.is_served(request) for reading in service.readings]
    return all(found), any(found)


@dataclass
class Knowledge:
    """What the probes' answers say of one target: nothing but counting."""

    rise: int
    fall: int
    ready: bool | None = False
    ever: bool | None = False
    streak: int = 0  # +n passes, -n failures in a row
    share: float = 1.0  # of its weight, that it asked for
    asks_drain: bool | None = False  # None: it asked before lb was replaced, and lb need not know
    since: float = 0.0  # when `ready` became what it is

    def passed(self, now: float, share: float, asks_drain: bool) -> None:
        self.streak = self.streak + 1 if self.streak > 0 else 1
        self.share, self.asks_drain = share, asks_drain
        needed = 1 if self.ever is False else self.rise
        if self.ready is not True and self.streak >= needed:
            self.ready, self.since, self.ever = True, now, True
        elif self.ready is False and self.ever is None:
            self.ready = None

    def failed(self, now: float) -> None:
        self.streak = self.streak - 1 if self.streak < 0 else -1
        if self.ready is not False and self.fall and -self.streak >= self.fall:
            self.ready, self.since = False, now

    def doubtful(self) -> None:
        """Nothing is known until the checks have decided anew; but what never was ready has no kept verdict."""
        if self.ready is not False or self.ever is not False:
            self.ready, self.ever = None, None
        self.asks_drain = None if self.asks_drain else self.asks_drain
        self.streak = 0

    def unseen(self) -> None:
        """Checks have gone on whose answers nobody has counted here: whether it can serve is not known for sure."""
        self.ready, self.ever, self.streak = None, None, 0
        self.share, self.asks_drain = 1.0, None
