"""The cookie that brings clients back to their target: its values, and where it leads within the chosen pool."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lb.core.affinity import TargetCookie, read_secrets
from lb.core.retry import HEAD, RESET, Failure
from lb.core.targets import Affinity, Balance, Breaker, Mirror, Preview, Rotation, Route, Sticky
from lb.proxy.exchange import Exchange
from lb.proxy.route_fragment import fragment_of, read_fragment, read_remarks, with_late_remark, with_remark
from tests.support.data_plane import GET, OK, POST, Client, Stage

SECRET = b"0123456789abcdef"
OTHER = b"fedcba9876543210"
RULE = Affinity("lb_target", "secret", "d")
NOT_FOUND = b"HTTP/1.1 404 No\r\nDate: now\r\nContent-Length: 0\r\n\r\n"


def cookie_of(name: str, secret: bytes = SECRET) -> bytes:
    """The value for the target at an address."""
    return TargetCookie("lb_target", [secret]).value(f"s/p/{name}")


def stage_of(targets: int = 4, secret: bytes = SECRET, **options: object) -> Stage:
    return Stage(targets, affinity=RULE, files=(("d", secret),), **options)


def with_cookie(*values: bytes, head: bytes = GET) -> bytes:
    return head + b"".join(b"Cookie: a=b; lb_target=" + value + b"\r\n" for value in values)


def serve(stage: Stage, head: bytes, answer: bytes = OK) -> tuple[Client, Exchange]:
    """Ask, and let the chosen target answer."""
    client, exchange = stage.ask(head)
    if stage.connector.opening:
        stage.accept()
    assert exchange.upstream is not None
    exchange.upstream.data_received(answer)  # type: ignore[attr-defined]
    assert stage.at_rest()
    return client, exchange


def given(client: Client) -> list[bytes]:
    """The values of new cookies."""
    lines = [line for line in client.got.split(b"\r\n") if line.startswith(b"Set-Cookie: lb_target=")]
    assert all(line.endswith(b"; Path=/; HttpOnly; SameSite=Lax") for line in lines)
    return [line.partition(b"=")[2].partition(b";")[0] for line in lines]


def led_to(stage: Stage, head: bytes) -> tuple[str, list[bytes], str]:
    """The target that has answered, the values of new cookies, and what the log says of it."""
    client, exchange = serve(stage, head)
    [remark] = read_remarks(exchange.route_fragment)
    return exchange.target_id, given(client), remark


def rotate(stage: Stage, **weights: float) -> None:
    """These targets of blue alone are in rotation."""
    stage.version += 1
    members = tuple((f"s/blue/h:{name[1:]}", weight) for name, weight in weights.items())
    stage.plane.rotate(Rotation("s", stage.version, (("blue", 100),), (("blue", members),)))


def test_a_client_stays_at_the_target_that_it_has_met() -> None:
    stage = stage_of()
    first, [value], remark = led_to(stage, GET)
    assert value == cookie_of(first.rpartition("/")[2])
    assert remark == f"affinity: no cookie yet, new one for {first}"
    for _ in range(6):
        assert led_to(stage, with_cookie(value)) == (first, [], f"affinity: kept to {first}")


@pytest.mark.parametrize("policy", ["round_robin", "least_request", "random_two", "peak_ewma", "ring", "maglev"])
def test_each_policy_decides_for_clients_without_a_cookie(policy: str) -> None:
    stage = stage_of(balance=Balance(policy, "header:X-User"))
    for name in ("h:3", "h:1", "h:2"):
        assert led_to(stage, with_cookie(cookie_of(name)))[0] == f"s/blue/{name}"
    seen = {led_to(stage, GET + b"X-User: %d\r\n" % number)[0] for number in range(40)}
    assert len(seen) > 1
    gone = {led_to(stage, with_cookie(b"gone") + b"X-User: %d\r\n" % number)[0] for number in range(40)}
    assert len(gone) > 1, "clients of a target that is gone do not all go to the same one"


@pytest.mark.parametrize(
    "value",
    [b"", b"h:1", b"0", b"1", b"x" * 22, b'"quoted"', cookie_of("h:1", OTHER), cookie_of("h:1")[:-1], b"\xff" * 22],
)
def test_a_forged_or_foreign_cookie_counts_for_nothing(value: bytes) -> None:
    stage = stage_of()
    seen = []
    for _ in range(4):
        target, [new], remark = led_to(stage, with_cookie(value))
        assert new == cookie_of(target.rpartition("/")[2])
        assert remark == f"affinity: the cookie stands for no target, new one for {target}"
        seen.append(target)
    assert len(set(seen)) == 4


def test_a_foreign_cookie_of_the_same_name_hides_none() -> None:
    stage = stage_of()
    head = with_cookie(b"foreign", cookie_of("h:3"))
    for _ in range(3):
        assert led_to(stage, head)[:2] == ("s/blue/h:3", [])


def test_each_worker_and_each_start_has_the_same_values() -> None:
    assert cookie_of("10.0.0.1:80") == b"LTL1yk8FSueqOVQCiPdBeg"
    one, two = stage_of(), stage_of()
    [value] = led_to(one, GET)[1]
    assert led_to(two, with_cookie(value))[0] == led_to(one, with_cookie(value))[0]


def test_a_name_of_service_and_pool_does_not_count() -> None:
    cookie = TargetCookie("c", [SECRET])
    assert cookie.value("shop/blue/h:1") == cookie.value("store/green/h:1") != cookie.value("shop/blue/h:2")
    assert cookie.value("s/p/unix:/run/a/b") != cookie.value("s/p/unix:/run/b")


def test_a_reload_keeps_clients_and_takes_another_secret_in() -> None:
    stage = stage_of()
    stage.reload()
    assert led_to(stage, with_cookie(cookie_of("h:2")))[:2] == ("s/blue/h:2", [])
    stage.snapshot = replace(stage.snapshot, files=(("d2", OTHER + b"\n# the old one\n" + SECRET),))
    services = tuple(replace(each, affinity=replace(RULE, digest="d2")) for each in stage.snapshot.services)
    stage.snapshot = replace(stage.snapshot, services=services)
    stage.reload()
    target, new, remark = led_to(stage, with_cookie(cookie_of("h:2")))
    assert (target, new, remark) == ("s/blue/h:2", [cookie_of("h:2", OTHER)], "affinity: kept to s/blue/h:2")
    assert led_to(stage, with_cookie(cookie_of("h:2", OTHER)))[:2] == ("s/blue/h:2", [])


def test_a_request_under_way_over_a_reload_keeps_its_target() -> None:
    stage = stage_of(targets=2)
    head = with_cookie(cookie_of("h:2"))
    _, exchange = stage.ask(head)
    stage.accept()
    services = tuple(replace(each, affinity=replace(RULE, digest="d2")) for each in stage.snapshot.services)
    stage.snapshot = replace(stage.snapshot, services=services, files=(("d2", OTHER + b"\n" + SECRET),))
    stage.reload()
    exchange.on_failure(Failure(HEAD, RESET, "reset"))
    upstream, _ = stage.accept()
    assert upstream.lane.id == "s/blue/h:1", "a retry goes elsewhere"
    upstream.data_received(OK)
    [remark] = read_remarks(exchange.route_fragment)
    assert remark == "affinity: s/blue/h:2 has failed this request, fell over to s/blue/h:1"


@pytest.mark.parametrize(
    ("weights", "reason"),
    [({"h1": 1.0, "h3": 1.0}, "is not in rotation"), ({"h1": 1.0, "h2": 0.0, "h3": 1.0}, "has weight 0")],
)
def test_a_target_out_of_rotation_is_not_asked(weights: dict[str, float], reason: str) -> None:
    stage = stage_of(targets=3)
    rotate(stage, **weights)
    target, [value], remark = led_to(stage, with_cookie(cookie_of("h:2")))
    assert target in ("s/blue/h:1", "s/blue/h:3")
    assert value == cookie_of(target.rpartition("/")[2])
    assert remark == f"affinity: s/blue/h:2 {reason}, fell over to {target}"
    rotate(stage, h1=1.0, h2=1.0, h3=1.0)
    assert led_to(stage, with_cookie(value))[:2] == (target, []), "it stays where it is now"


def test_a_draining_target_is_not_asked() -> None:
    stage = stage_of(targets=2)
    stage.version += 1
    members = (("s/blue/h:1", 1.0),)
    draining = ("s/blue/h:2",)
    stage.plane.rotate(Rotation("s", stage.version, (("blue", 100),), (("blue", members),), draining=draining))
    remark = led_to(stage, with_cookie(cookie_of("h:2")))[2]
    assert remark == "affinity: s/blue/h:2 is draining, fell over to s/blue/h:1"


def test_a_target_with_a_tiny_weight_keeps_its_clients() -> None:
    stage = stage_of(targets=2)
    rotate(stage, h1=1.0, h2=0.001)
    for _ in range(5):
        assert led_to(stage, with_cookie(cookie_of("h:2")))[0] == "s/blue/h:2"


def test_a_target_that_refuses_is_left_for_another() -> None:
    stage = stage_of(targets=2)
    client, exchange = stage.ask(with_cookie(cookie_of("h:2"), head=POST), b"hello")
    assert stage.refuse() == "s/blue/h:2"
    stage.accept()[0].data_received(OK)
    assert (client.status, given(client)) == (200, [cookie_of("h:1")])
    [remark] = read_remarks(exchange.route_fragment)
    assert remark == "affinity: s/blue/h:2 has failed this request, fell over to s/blue/h:1"
    remark = led_to(stage, with_cookie(cookie_of("h:2")))[2]
    assert remark == "affinity: s/blue/h:2 has just refused a connection, fell over to s/blue/h:1"


def test_a_target_without_room_is_left_for_another() -> None:
    stage = stage_of(targets=2, breaker=Breaker(connections=1))
    head = with_cookie(cookie_of("h:2"))
    stage.ask(head)
    busy, _ = stage.accept()
    client, exchange = stage.ask(head)
    upstream, _ = stage.accept()
    upstream.data_received(OK)
    busy.data_received(OK)
    assert given(client) == [cookie_of("h:1")]
    [remark] = read_remarks(exchange.route_fragment)
    assert remark == "affinity: s/blue/h:2 has no room, fell over to s/blue/h:1"
    assert stage.at_rest()


def test_the_pool_is_chosen_first() -> None:
    preview = Preview("green", header="x-version", value="next")
    stage = stage_of(sticky=Sticky(by="header:X-User"), previews=(preview,))
    stage.rotate((("blue", 50), ("green", 50)))
    head = with_cookie(cookie_of("h:3"))
    pools = {}
    for number in range(30):
        user = b"X-User: user-%d\r\n" % number
        target = led_to(stage, head + user)[0]
        pools[user] = target
        assert target.endswith("/h:3"), "both pools have a target at that address"
        assert led_to(stage, GET + user)[0].split("/")[1] == target.split("/")[1], "the cookie moves nobody"
    assert set(pools.values()) == {"s/blue/h:3", "s/green/h:3"}
    assert led_to(stage, head + b"X-Version: next\r\n")[0] == "s/green/h:3"


def test_a_cookie_of_another_pool_says_so() -> None:
    stage = stage_of(targets=2)
    blue, green = stage.snapshot.services[0].pools
    moved = tuple(replace(each, id=f"s/green/g:{each.port}", host="g") for each in green.targets)
    service = replace(stage.snapshot.services[0], pools=(blue, replace(green, targets=moved)))
    stage.snapshot = replace(stage.snapshot, services=(service,))
    stage.reload()
    target, [_], remark = led_to(stage, with_cookie(cookie_of("g:1")))
    assert remark == f"affinity: its target is not in pool blue, fell over to {target}"


def test_a_copy_goes_by_the_policy() -> None:
    stage = stage_of(targets=3)
    stage.rotate((("blue", 100),), mirror=Mirror("green", 100.0))
    seen = set()
    for _ in range(6):
        stage.ask(with_cookie(cookie_of("h:2")))
        for lane, _ in stage.connector.opening:
            if lane.target.pool == "green":
                seen.add(lane.id)
        while stage.connector.opening:
            stage.accept()
        for lane in stage.plane.lanes.values():
            for upstream in list(lane.connections):
                if upstream.exchange is not None:
                    upstream.data_received(OK)
        for lane in stage.plane.lanes.values():
            lane.close_idle()
    assert len(seen) == 3


def test_an_asset_of_another_version_moves_nobody() -> None:
    stage = stage_of(targets=1, sticky=Sticky("client", asset_fallback=True))
    stage.rotate((("blue", 50), ("green", 50)))
    client, exchange = stage.ask(GET)
    stage.accept()[0].data_received(NOT_FOUND)
    stage.accept()[0].data_received(OK)
    assert client.status == 200
    assert exchange.asset_tried
    assert given(client) in ([], [cookie_of("h:1")])  # both versions have it at one address here


def test_answers_of_lbs_own_have_no_cookie() -> None:
    stage = stage_of(targets=1)
    rotate(stage)
    client, exchange = stage.ask(with_cookie(cookie_of("h:1")))
    assert client.status == 503
    assert not given(client)
    assert not read_remarks(exchange.route_fragment)


def test_a_target_that_is_found_and_one_that_is_gone() -> None:
    cookie = TargetCookie("c", [SECRET, OTHER])
    cookie.know(["s/p/h:1", "s/p/h:2"])
    numbers = [cookie.number("s/p/h:1"), cookie.number("s/p/h:2")]
    value = cookie.value("s/p/h:1")
    cookie.know(["s/p/h:2", "s/p/h:3"])
    assert cookie.meant_by([value]) == 0
    assert cookie.meant_by([b"x", cookie_of("h:2", OTHER)]) == numbers[1]
    assert cookie.number("s/p/h:3") not in (0, *numbers)
    cookie.know(["s/p/h:1"])
    assert cookie.meant_by([value]) == cookie.number("s/p/h:1") not in (0, *numbers)


def test_a_service_without_affinity_has_no_step() -> None:
    stage = Stage()
    assert stage.plane.live.routes[0].steps == ()
    assert not stage.plane.services["s"].pools["blue"].balancer.needs_key
    stage = Stage(affinity=RULE)  # its secret has not come
    assert stage.plane.live.routes[0].steps == ()


def test_a_split_between_services_has_each_ones_cookie() -> None:
    stage = stage_of(targets=2)
    other = replace(stage.snapshot.services[0], name="t", affinity=None, pools=())
    route = Route("", split=(("t", 0), ("s", 1)))
    stage.snapshot = replace(stage.snapshot, services=(stage.snapshot.services[0], other), routes=(route,))
    stage.reload()
    _, exchange = serve(stage, with_cookie(cookie_of("h:2")))
    assert exchange.target_id == "s/blue/h:2"
    assert read_remarks(exchange.route_fragment) == ["affinity: kept to s/blue/h:2"]
    assert read_fragment(exchange.route_fragment) == ("/", ["split", "affinity"])


@pytest.mark.parametrize(
    ("data", "secrets", "bad"),
    [
        (b"", [], []),
        (b"# none\n\n", [], []),
        (SECRET, [SECRET], []),
        (b"  " + SECRET + b" \r\n" + OTHER + b"\n", [SECRET, OTHER], []),
        (b"short\n" + SECRET, [SECRET], [(1, "at least 16")]),
        (b"0123456789 abcdef", [], [(1, "without spaces")]),
        (b"\xff" * 20, [], [(1, "printable")]),
        (b"\n".join([SECRET] * 9), [SECRET] * 8, [(9, "more than 8")]),
    ],
)
def test_a_file_of_secrets(data: bytes, secrets: list[bytes], bad: list[tuple[int, str]]) -> None:
    found, faults = read_secrets(data)
    assert found == secrets
    assert [each.number for each in faults] == [number for number, _ in bad]
    assert all(text in each.reason for each, (_, text) in zip(faults, bad, strict=True))


def test_remarks_before_and_after_the_route_is_named() -> None:
    fragment = with_remark(with_remark(b"", "a"), "b")
    for route in (b"", fragment_of('/"x"]', ["one"])):
        for before, said in ((b"", []), (fragment, ["a", "b"])):
            made = with_late_remark(before + route, 'late "],')
            assert read_remarks(made) == ['late "],', *said]
            assert read_fragment(made) == (('/"x"]', ["one"]) if route else ("", []))
