"""Which pools may see a request: the rules themselves, and what a worker makes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lb.core.desired import ServiceDesired
from lb.core.lifecycle import Health
from lb.core.retry import HEAD as NO_HEAD
from lb.core.retry import RESET, Failure
from lb.core.rotation import ServiceRules, resolve
from lb.core.routing import host_matches
from lb.core.targets import (
    Breaker,
    Mirror,
    Pool,
    Preview,
    Retries,
    Rotation,
    Service,
    Sticky,
    Target,
    Timeouts,
)
from lb.core.visibility import asset_pools, visible
from lb.proxy.exchange import OVER, QUEUED, Exchange
from lb.proxy.services import LivePool
from tests.support.data_plane import GET, OK, POST, Client, Stage

ALL = {"blue", "green", "red"}
BLUE = (("blue", 100),)
BOTH = (("blue", 90), ("green", 10))
NOT_FOUND = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
HEAD = GET.replace(b"GET", b"HEAD")
PREVIEWED = b"X-Version: 2\r\n"


@pytest.mark.parametrize(
    ("shares", "ready", "fallback", "preview", "expected"),
    [
        (BLUE, ALL, "", "", ("blue",)),
        (BOTH, ALL, "", "", ("blue", "green")),
        (BOTH, {"green"}, "", "", ("green",)),
        (BOTH, ALL, "red", "", ("blue", "green")),
        (BOTH, {"red"}, "red", "", ("red",)),
        (BLUE, {"green"}, "red", "", ()),
        (BLUE, {"green"}, "", "", ()),
        (BLUE, ALL, "", "green", ("green",)),
        (BOTH, ALL, "red", "green", ("green",)),
        (BLUE, {"blue"}, "", "green", ()),
        (BLUE, {"blue", "red"}, "red", "green", ("red",)),
        ((("blue", 100), ("green", 0)), ALL, "", "", ("blue",)),
    ],
)
def test_the_pools_that_may_see_a_request(
    shares: tuple[tuple[str, int], ...], ready: set[str], fallback: str, preview: str, expected: tuple[str, ...]
) -> None:
    assert visible(shares, ready, fallback, preview) == expected


@pytest.mark.parametrize(
    ("shares", "ready", "answered", "preview", "expected"),
    [
        (BLUE, ALL, "blue", "", ()),
        (BOTH, ALL, "blue", "", ("green",)),
        (BOTH, ALL, "green", "", ("blue",)),
        (BOTH, {"blue", "red"}, "blue", "", ()),
        (BOTH, ALL, "green", "green", ()),
    ],
)
def test_the_pools_that_may_have_an_asset(
    shares: tuple[tuple[str, int], ...], ready: set[str], answered: str, preview: str, expected: tuple[str, ...]
) -> None:
    assert asset_pools(shares, ready, answered, preview) == expected


def test_a_rotation_says_which_pools_are_to_share_even_without_a_target() -> None:
    pools = tuple(Pool(name, (Target(f"s/{name}/h:1", "s", name, "h", 1),)) for name in ("blue", "green"))
    healths = {"s/blue/h:1": Health(probe="ready", ever_ready=True)}
    desired = ServiceDesired(active="blue", configured="blue", shares=BOTH)
    found = resolve(Service("s", pools), healths, desired, {}, ServiceRules(), 0.0, 1)
    assert (found.shares, found.sharing) == (BLUE, ("blue", "green"))


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        (b"green.example.org", b"green.example.org", True),
        (b"green.example.org", b"blue.example.org", False),
        (b"*.example.org", b"green.example.org", True),
        (b"*.example.org", b".example.org", False),
        (b"*.example.org", b"example.org", False),
        (b"*", b"example.org", True),
    ],
)
def test_hosts_match_as_those_of_routes_do(pattern: bytes, host: bytes, expected: bool) -> None:
    assert host_matches(pattern, host) is expected


# --- previews --------------------------------------------------------------------------------------------------------


def asked_pool(stage: Stage, head: bytes) -> str:
    """The pool that gets a request with this head."""
    _, exchange = stage.ask(head)
    lane, _ = stage.connector.opening.pop(0)
    assert lane.target.pool == exchange.pool.name
    exchange.client_lost()
    return exchange.pool.name


@pytest.mark.parametrize(
    ("preview", "extra", "pool"),
    [
        (Preview("green", header="X-Version"), b"", "blue"),
        (Preview("green", header="X-Version"), b"X-Version: 2\r\n", "green"),
        (Preview("green", header="X-Version"), b"x-version: anything\r\n", "green"),
        (Preview("green", header="X-Version"), b"X-Version:\r\n", "green"),
        (Preview("green", header="X-Version"), b"X-Versions: 2\r\n", "blue"),
        (Preview("green", header="X-Version", value="2"), b"X-Version: 3\r\n", "blue"),
        (Preview("green", cookie="v"), b"", "blue"),
        (Preview("green", cookie="v"), b"Cookie: a=1\r\n", "blue"),
        (Preview("green", cookie="v"), b"Cookie: a=v\r\n", "blue"),
        (Preview("green", cookie="v"), b"Cookie: v\r\n", "blue"),
        (Preview("green", cookie="v"), b"Cookie: a=1; v=\r\n", "green"),
        (Preview("green", cookie="v"), b"Cookie: a=1; v=x\r\n", "green"),
        (Preview("green", cookie="v"), b"Cookie: a=1\r\nCookie: v=x\r\n", "green"),
    ],
)
def test_a_preview_without_a_value_takes_any_value_that_is_there(preview: Preview, extra: bytes, pool: str) -> None:
    assert asked_pool(Stage(previews=(preview,)), GET + extra) == pool


@pytest.mark.parametrize("host", [b"green.example.org", b"Green.Example.Org:8080", b"green.example.org."])
def test_a_previews_host_is_matched_as_a_routes_is(host: bytes) -> None:
    for pattern in ("green.example.org", "*.example.org"):
        stage = Stage(previews=(Preview("green", host=pattern),))
        assert asked_pool(stage, GET.replace(b"Host: a", b"Host: " + host)) == "green"
        assert asked_pool(stage, GET) == "blue"


def test_a_previewed_request_is_retried_in_its_own_pool_also_during_a_rollout() -> None:
    stage = Stage(previews=(Preview("green", header="X-Version"),))
    stage.rotate(BOTH)
    client, _ = stage.ask(GET + PREVIEWED)
    for _ in range(2):
        assert stage.refuse().startswith("s/green/")
    stage.loop.fire()
    assert stage.refuse().startswith("s/green/")
    assert client.status == 502
    assert stage.at_rest()


def test_a_previewed_request_stays_in_its_pool_through_a_switch() -> None:
    stage = Stage(targets=1, previews=(Preview("green", header="X-Version"),))
    stage.rotate((("green", 100),))
    client, _ = stage.ask(GET + PREVIEWED)
    stage.rotate(BLUE)
    upstream, _ = stage.accept()
    assert upstream.lane.target.pool == "green"
    upstream.data_received(OK)
    assert client.status == 200


@pytest.mark.parametrize("fallback", ["", "blue"])
def test_without_a_target_a_preview_gets_503_or_the_fallback(fallback: str) -> None:
    stage = Stage(targets=1, previews=(Preview("green", header="X-Version"),))
    weights = (("blue", (("s/blue/h:1", 1.0),)), ("green", ()))
    stage.plane.rotate(Rotation("s", 9, BLUE, weights, fallback=fallback))
    client, _ = stage.ask(GET + PREVIEWED)
    if fallback:
        stage.accept()[0].data_received(OK)
    assert client.status == (200 if fallback else 503)


# --- a fallback serves while the chosen pool has nobody --------------------------------------------------------------


def fall_back(stage: Stage, *ready: str, shares: tuple[tuple[str, int], ...] = BLUE) -> None:
    """Only these pools have a target; green is the fallback."""
    stage.version += 1
    weights = tuple((pool, ((f"s/{pool}/h:1", 1.0),)) for pool in ready)
    stage.plane.rotate(Rotation("s", stage.version, shares, weights, fallback="green"))


def test_a_request_that_all_targets_have_failed_is_retried_at_the_fallback() -> None:
    """A process is killed with the request in hand, before anybody knows of it."""
    stage = Stage(targets=1, breaker=Breaker(connections=1))
    fall_back(stage, "blue", "green")
    client, exchange = stage.ask(GET)
    stage.accept()
    exchange.on_failure(Failure(NO_HEAD, RESET, "closed the connection before it answered"))
    upstream, _ = stage.accept()
    fall_back(stage, "blue", "green")
    assert upstream.lane.id == "s/green/h:1"
    assert exchange.pool.name == "green"
    upstream.data_received(OK)
    assert client.status == 200
    assert stage.at_rest()


def test_a_request_that_no_target_has_received_is_retried_at_the_fallback_whatever_its_method() -> None:
    stage = Stage(targets=2)
    weights = tuple((pool, tuple((f"s/{pool}/{name}", 1.0) for name in stage.names)) for pool in ("blue", "green"))
    stage.plane.rotate(Rotation("s", 9, BLUE, weights, fallback="green"))
    client, _ = stage.ask(POST, b"hello")
    assert sorted(stage.refuse() for _ in range(2)) == ["s/blue/h:1", "s/blue/h:2"]
    upstream, wire = stage.accept()
    assert upstream.lane.target.pool == "green"
    assert wire.take().endswith(b"hello")
    upstream.data_received(OK)
    assert client.status == 200


@pytest.mark.parametrize("emptied", [False, True])
def test_a_request_in_doubt_goes_to_the_fallback_when_the_doubt_is_over(emptied: bool) -> None:
    stage = Stage(targets=1)
    fall_back(stage, "blue", "green")
    client, exchange = stage.ask(GET)
    stage.accept()
    exchange.on_failure(Failure(NO_HEAD, RESET, "closed the connection", idle=5.0, elapsed=0.01))
    assert stage.connector.opening.pop()[0].id == "s/blue/h:1", "is it there at all?"
    if emptied:
        fall_back(stage, "green")
    stage.loop.fire()
    stage.accept()[0].data_received(OK)
    assert client.status == 200
    assert exchange.pool.name == "green"
    assert stage.at_rest()


@pytest.mark.parametrize("known", [False, True])
def test_a_stale_connection_is_no_reason_to_go_to_the_fallback(known: bool) -> None:
    """Its target is asked again; also where it took doubt to find out, and at the fallback itself."""
    stage = Stage(targets=1, retries=Retries(attempts=4))
    fall_back(stage, "blue", "green")
    client, exchange = stage.ask(GET)
    upstream, _ = stage.accept()
    doubt = {"idle": 5.0, "elapsed": 0.01} if known else {"reused": True}
    exchange.on_failure(Failure(NO_HEAD, RESET, "reset the connection", **doubt))  # type: ignore[arg-type]
    if known:
        stage.accept()
        upstream.lane.idle_limit.closed(5.0, stage.plane.context.now, 60.0)
        for _ in range(2):
            stage.loop.fire()
    assert stage.refuse() == "s/blue/h:1"
    stage.accept()
    assert exchange.pool.name == "green"
    exchange.on_failure(Failure(NO_HEAD, RESET, "reset the connection", reused=True))
    upstream, _ = stage.accept()
    assert upstream.lane.id == "s/green/h:1"
    upstream.data_received(OK)
    assert client.status == 200
    assert stage.at_rest()


def test_a_request_that_must_not_be_sent_twice_goes_to_no_fallback() -> None:
    stage = Stage(targets=1)
    fall_back(stage, "blue", "green")
    client, exchange = stage.ask(POST, b"hello")
    stage.accept()
    exchange.on_failure(Failure(NO_HEAD, RESET, "reset"))
    assert client.status == 502
    assert not stage.connector.opening


@pytest.mark.parametrize("emptied", [False, True])
def test_a_preview_is_retried_at_the_fallback_only_when_its_pool_is_known_to_have_nobody(emptied: bool) -> None:
    stage = Stage(targets=1, previews=(Preview("blue", header="X-Version"),))
    fall_back(stage, "blue", "green")
    client, exchange = stage.ask(GET + PREVIEWED)
    stage.accept()
    if emptied:
        fall_back(stage, "green")
    exchange.on_failure(Failure(NO_HEAD, RESET, "reset"))
    if emptied:
        stage.accept()[0].data_received(OK)
    assert client.status == (200 if emptied else 502)
    assert not stage.connector.opening


def test_a_fallback_without_an_untried_target_is_no_place_to_go() -> None:
    stage = Stage(targets=1)
    fall_back(stage, "blue")
    client, exchange = stage.ask(GET)
    stage.accept()
    exchange.on_failure(Failure(NO_HEAD, RESET, "reset"))
    assert client.status == 502
    fall_back(stage, "blue", "green")
    client, exchange = stage.ask(GET)
    for _ in range(2):
        if stage.connector.opening:
            stage.accept()
        exchange.on_failure(Failure(NO_HEAD, RESET, "reset"))
    assert client.status == 502


def test_during_a_rollout_the_fallback_comes_after_the_other_version() -> None:
    pools = tuple(Pool(name, (Target(f"s/{name}/h:1", "s", name, "h", 1),)) for name in ("blue", "green", "red"))
    stage = Stage(targets=1)
    service = replace(stage.snapshot.services[0], pools=pools)
    weights = tuple((pool.name, ((f"s/{pool.name}/h:1", 1.0),)) for pool in pools)
    rotation = Rotation("s", 9, BOTH, weights, fallback="red")
    stage.plane.apply(replace(stage.snapshot, version=9, services=(service,), rotations=(rotation,)))
    client, exchange = stage.ask(GET)
    seen = []
    for _ in range(3):
        stage.accept()
        seen.append(exchange.pool.name)
        if len(seen) < 3:
            exchange.on_failure(Failure(NO_HEAD, RESET, "reset"))
    assert sorted(seen[:2]) == ["blue", "green"]
    assert seen[2] == "red"
    assert exchange.upstream is not None
    exchange.upstream.data_received(OK)
    assert client.status == 200


def test_a_request_that_came_to_the_fallback_waits_there_for_room() -> None:
    stage = Stage(targets=1, breaker=Breaker(connections=1), previews=(Preview("green", header="X-Version"),))
    fall_back(stage, "blue", "green")
    stage.ask(GET + PREVIEWED)
    busy_one, wire = stage.accept()
    client, exchange = stage.ask(GET)
    stage.accept()
    exchange.on_failure(Failure(NO_HEAD, RESET, "reset"))
    assert exchange.phase == QUEUED
    for _ in range(2):
        fall_back(stage, "blue", "green")
        assert exchange in stage.plane.services["s"].pools["green"].waiting
    wire.take()
    busy_one.data_received(OK)
    assert wire.take().startswith(b"GET /x")
    busy_one.data_received(OK)
    assert client.status == 200
    assert stage.at_rest()


def test_a_request_whose_pool_has_left_the_traffic_is_tried_in_the_pool_that_has_it() -> None:
    stage = Stage(targets=1)
    client, exchange = stage.ask(GET)
    stage.accept()
    stage.rotate((("green", 100),))
    exchange.on_failure(Failure(NO_HEAD, RESET, "reset"))
    stage.accept()[0].data_received(OK)
    assert client.status == 200
    assert exchange.pool.name == "green"


def test_a_page_that_the_fallback_lacks_is_not_asked_of_targets_that_failed_the_request() -> None:
    stage = Stage(targets=1, sticky=Sticky("client", asset_fallback=True))
    fall_back(stage, "blue", "green")
    client, exchange = stage.ask(GET)
    stage.accept()
    exchange.on_failure(Failure(NO_HEAD, RESET, "reset"))
    stage.accept()[0].data_received(NOT_FOUND)
    assert client.status == 404


def test_a_copy_is_never_retried_at_the_fallback() -> None:
    pools = tuple(Pool(name, (Target(f"s/{name}/h:1", "s", name, "h", 1),)) for name in ("blue", "green", "red"))
    stage = Stage(targets=1)
    service = replace(stage.snapshot.services[0], pools=pools)
    weights = tuple((pool.name, ((f"s/{pool.name}/h:1", 1.0),)) for pool in pools)
    rotation = Rotation("s", 9, BLUE, weights, fallback="green", mirror=Mirror("red", percent=100.0))
    stage.plane.apply(replace(stage.snapshot, version=9, services=(service,), rotations=(rotation,)))
    client, _ = stage.ask(GET)
    copied, original = stage.connector.opening
    stage.connector.opening = [original]
    stage.accept()[0].data_received(OK)
    (copy,) = stage.plane.live.copies
    stage.connector.opening = [copied]
    for _ in range(4):
        while stage.connector.opening:
            assert stage.refuse() == "s/red/h:1"
        stage.loop.fire()
    assert client.status == 200
    assert copy.phase == OVER


def test_a_queue_goes_to_the_fallback_when_the_pool_is_emptied_and_back() -> None:
    stage = Stage(targets=1, breaker=Breaker(connections=1))
    fall_back(stage, "blue", "green")
    stage.ask(GET)
    waits = [stage.ask(GET)[1] for _ in range(3)]
    fall_back(stage, "green")
    assert [exchange.pool.name for exchange in waits] == ["green"] * 3
    fall_back(stage, "blue", "green")
    assert [exchange.pool.name for exchange in waits[1:]] == ["blue"] * 2, "the first has its connection begun"


def test_a_request_whose_connection_comes_when_the_pool_is_back_goes_there() -> None:
    stage = Stage(targets=1)
    fall_back(stage, "green")
    stage.ask(GET)
    fall_back(stage, "blue", "green")
    _, wire = stage.accept()
    assert not wire.take()
    assert stage.accept()[0].lane.target.pool == "blue"


# --- requests that are cut when a pool has left ----------------------------------------------------------------------


def busy(stage: Stage, *heads: bytes) -> list[tuple[Client, Exchange]]:
    """Requests that the workers' clients have under way, each sent to its target."""
    asked = []
    for head in heads:
        asked.append(stage.ask(head))
        client, exchange = asked[-1]
        stage.accept()
        client.exchange = exchange  # type: ignore[attr-defined]
        stage.plane.clients.add(client)  # type: ignore[arg-type]
    return asked


def end_drains(stage: Stage, seconds: float) -> None:
    """So much later."""
    pools: list[LivePool] = list(stage.plane.services["s"].pools.values())
    stage.plane.end_drains(stage.plane.context.now + seconds, (), pools)
    for client in list(stage.plane.clients):
        if client.exchange is not None and client.exchange.phase == OVER:
            stage.plane.clients.discard(client)


def test_only_what_was_there_when_the_pool_left_is_cut_and_once() -> None:
    stage = Stage(targets=1, timeouts=Timeouts(drain=2.0), previews=(Preview("blue", header="X-Version"),))
    (plain, _), (previewed, _) = busy(stage, GET, GET + PREVIEWED)
    stage.rotate((("green", 100),))
    (later, _) = busy(stage, GET + PREVIEWED)[0]
    end_drains(stage, 1.0)
    assert not plain.got
    end_drains(stage, 3.0)
    assert plain.status == 503
    assert stage.plane.stats.rejected == {"drain_cut": 1}
    for seconds in (3.1, 10.0):
        (still, _) = busy(stage, GET + PREVIEWED)[0]
        stage.rotate((("green", 100),))
        end_drains(stage, seconds)
        assert not (previewed.got or later.got or still.got), "a preview needs no share"


def test_a_pool_that_only_previews_reach_never_left() -> None:
    stage = Stage(targets=1, timeouts=Timeouts(drain=2.0), previews=(Preview("green", header="X-Version"),))
    (client, _) = busy(stage, GET + PREVIEWED)[0]
    for seconds in (1.0, 3.0, 5.0):
        stage.rotate(BLUE)
        end_drains(stage, seconds)
    assert not client.got
    assert stage.plane.services["s"].pools["green"].leaves_at == 0.0


def test_a_pool_without_a_target_for_a_moment_has_not_left_its_rollout() -> None:
    """Its requests go on: a target that is unready is not asked for more, but not cut off either."""
    stage = Stage(targets=1, timeouts=Timeouts(drain=2.0))
    stage.rotate((("green", 100),))
    (client, _) = busy(stage, GET)[0]
    stage.version += 1
    weights = (("blue", (("s/blue/h:1", 1.0),)),)
    stage.plane.rotate(Rotation("s", stage.version, BLUE, weights, sharing=("blue", "green")))
    end_drains(stage, 10.0)
    assert not client.got
    stage.rotate(BLUE)
    end_drains(stage, 10.0)
    assert client.status == 503


def test_a_reload_forgets_no_pool_that_is_leaving() -> None:
    stage = Stage(targets=1, timeouts=Timeouts(drain=2.0))
    stage.rotate((("green", 100),))
    (client, _) = busy(stage, GET)[0]
    stage.reload()
    assert stage.plane.services["s"].pools["green"].leaves_at
    end_drains(stage, 10.0)
    assert client.status == 503


# --- assets that one version lacks -----------------------------------------------------------------------------------


def answers(stage: Stage, head: bytes) -> list[str]:
    """The pools that a request is sent to when each answers 404."""
    client, _ = stage.ask(head, b"hello" if head.startswith(b"POST") else b"")
    pools = []
    while not client.got:
        if stage.connector.opening:
            stage.accept()
        upstream = next(
            upstream for lane in stage.plane.lanes.values() for upstream in lane.connections if upstream.exchange
        )
        pools.append(upstream.lane.target.pool)
        upstream.data_received(NOT_FOUND)
    assert client.status == 404
    assert stage.at_rest()
    return pools


def test_outside_a_rollout_no_other_pool_is_asked() -> None:
    stage = Stage(targets=1, sticky=Sticky("client", asset_fallback=True))
    assert answers(stage, GET) == ["blue"]
    stage.rotate((("green", 100),))
    assert answers(stage, GET) == ["green"], "what was withdrawn stays so"


def test_during_a_rollout_each_sharing_pool_is_asked_once() -> None:
    stage = Stage(targets=1, sticky=Sticky("client", asset_fallback=True))
    stage.rotate((("blue", 50), ("green", 50)))
    for head in (GET, HEAD):
        assert sorted(answers(stage, head)) == ["blue", "green"]
    assert len(answers(stage, POST)) == 1


def test_a_third_pool_is_never_asked() -> None:
    stage = Stage(targets=1, sticky=Sticky("client", asset_fallback=True))
    rules = stage.snapshot.services[0]
    red = Pool("red", (Target("s/red/h:1", "s", "red", "h", 1),))
    stage.plane.apply(replace(stage.snapshot, version=9, services=(replace(rules, pools=(red, *rules.pools)),)))
    weights = tuple((pool, ((f"s/{pool}/h:1", 1.0),)) for pool in ("red", "blue", "green"))
    stage.plane.rotate(Rotation("s", 10, (("blue", 50), ("green", 50)), weights, fallback="red"))
    assert sorted(answers(stage, GET)) == ["blue", "green"]


def test_a_preview_shows_one_version_as_it_is() -> None:
    stage = Stage(
        targets=1,
        sticky=Sticky("client", asset_fallback=True),
        previews=(Preview("green", header="X-Version"),),
    )
    for shares in (BLUE, BOTH):
        stage.rotate(shares)
        assert answers(stage, GET + PREVIEWED) == ["green"]


def test_a_rollout_that_ends_meanwhile_takes_the_asset_back() -> None:
    stage = Stage(targets=1, sticky=Sticky("client", asset_fallback=True))
    stage.rotate((("blue", 50), ("green", 50)))
    client, exchange = stage.ask(GET)
    first = exchange.pool.name
    stage.accept()[0].data_received(NOT_FOUND)
    stage.rotate(((first, 100),))
    _, wire = stage.accept()  # the other pool's connection comes too late
    assert not wire.take()
    upstream = next(each for each in stage.plane.lanes[f"s/{first}/h:1"].connections if each.exchange)
    upstream.data_received(NOT_FOUND)
    assert client.status == 404
    assert stage.at_rest()


def test_a_retry_during_a_rollout_goes_to_a_pool_that_shares_and_not_to_the_fallback() -> None:
    stage = Stage(targets=1)
    rules = stage.snapshot.services[0]
    red = Pool("red", (Target("s/red/h:1", "s", "red", "h", 1),))
    stage.plane.apply(replace(stage.snapshot, version=9, services=(replace(rules, pools=(red, *rules.pools)),)))
    weights = tuple((pool, ((f"s/{pool}/h:1", 1.0),)) for pool in ("red", "blue", "green"))
    stage.plane.rotate(Rotation("s", 10, (("blue", 50), ("green", 50)), weights, fallback="red"))
    _, exchange = stage.ask(GET)
    first = exchange.pool.name
    stage.accept()
    exchange.on_failure(Failure(NO_HEAD, RESET, "reset"))
    assert exchange.pool.name == ({"blue", "green"} - {first}).pop()
