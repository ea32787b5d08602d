"""What the peers' own suites pin down about checks, one test a scenario; numbers as in their names."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from lb.core.checks import CheckSpec, Expect
from lb.core.lifecycle import Drain, Undrain, in_rotation, shown
from tests.health.conftest import Backend, Watcher, ok
from tests.support.eventually_async import eventually

HTTP = CheckSpec(protocol="http", path="/health", interval=0.05, timeout=1.0, rise=2, fall=3, grace=0.0)
ONCE = replace(HTTP, interval=60.0, rise=1, fall=1)


class Sequence(Backend):
    """Traefik's HealthSequence: answers a list of statuses, one a request; 0 is no answer at all."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(self.answer)
        self.left = list(statuses)

    async def answer(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        status = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if status:
            writer.write(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status)


@pytest.mark.parametrize(
    ("statuses", "wide", "entered", "left", "ready"),
    [
        ((200,), False, 1, 0, True),
        ((204,), False, 1, 0, True),
        ((308,), True, 1, 0, True),
        ((503,), False, 0, 0, False),
        ((0, 200), False, 1, 0, True),
        ((0, 503), False, 0, 0, False),
        ((503, 200), False, 1, 0, True),
        ((200, 503, 200, 503), False, 2, 2, False),
    ],
)
async def test_traefik_sequences(watcher: Watcher, statuses, wide, entered, left, ready):
    """[200], [204], [308], [503], down then up, down then 503, 503 then 200: exact numbers of entries and exits."""
    server = await Sequence(*statuses).start()
    spec = replace(ONCE, expect=Expect(((200, 399),))) if wide else ONCE
    watcher.watch((server.target(), spec))
    for _ in range(len(statuses)):
        await watcher.monitor.probe_now(server.target().id)
    kinds = Counter(effect.kind for _, _, _, effects in watcher.changes for effect in effects)
    assert (kinds["enter"], kinds["leave"]) == (entered, left)
    assert in_rotation(watcher.monitor.health(server.target().id)) == ready
    await server.stop()


async def test_haproxy_4be_1srv_disable_and_enable(watcher: Watcher, backend):
    """Disabled: no server available; enabled: up only with what its checks say now."""
    server = await backend()
    target = server.target()
    watcher.watch((target, HTTP))
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    watcher.monitor.feed(target.id, Drain())
    assert not in_rotation(watcher.monitor.health(target.id))
    server.script = ok(b"", b"500 Oops")
    await eventually(lambda: watcher.monitor.health(target.id).probe == "unready")
    watcher.monitor.feed(target.id, Undrain())
    assert shown(watcher.monitor.health(target.id), 0.0) == "unready"
    server.script = ok()
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))


async def test_haproxy_1be_40srv_odd_health_checks(watcher: Watcher, backend):
    """Checks on the odd ones only: exactly those are probed, the others are up unprobed."""
    servers = [await backend() for _ in range(40)]
    none = CheckSpec(protocol="none")
    watcher.watch(*[(server.target(), HTTP if number % 2 else none) for number, server in enumerate(servers)])
    await eventually(lambda: all(in_rotation(watcher.monitor.health(server.target().id)) for server in servers))
    assert [bool(server.connections) for server in servers] == [bool(number % 2) for number in range(40)]


async def test_haproxy_40be_2srv(watcher: Watcher, backend):
    """40 pools of 2: every checked server comes up, and one that fails touches no other."""
    servers = [(f"pool{number // 2}", await backend()) for number in range(80)]
    targets = [server.target(pool=pool) for pool, server in servers]
    watcher.watch(*[(target, HTTP) for target in targets])
    await eventually(lambda: all(in_rotation(watcher.monitor.health(target.id)) for target in targets))
    servers[17][1].script = ok(b"", b"500 Oops")
    await eventually(lambda: not in_rotation(watcher.monitor.health(targets[17].id)))
    assert sum(in_rotation(watcher.monitor.health(target.id)) for target in targets) == 79


async def test_haproxy_healthcheck_section(watcher: Watcher, backend):
    """Several recipes in one pool: each server gets its own."""
    one, two = await backend(), await backend()
    first = replace(HTTP, path="/one", headers=(("X-Recipe", "1"),))
    second = replace(HTTP, path="/two", method="OPTIONS")
    watcher.watch((one.target(), first), (two.target(), second))
    await eventually(lambda: one.asked and two.asked)
    assert one.asked[0].startswith(b"GET /one ") and b"X-Recipe: 1" in one.asked[0]
    assert two.asked[0].startswith(b"OPTIONS /two ") and b"X-Recipe" not in two.asked[0]


async def test_haproxy_tcp_check_multiple_ports(watcher: Watcher, backend):
    """The check's port is refused: the check fails, and says which port."""
    serves, checked = await backend(), await backend()
    target = serves.target()
    watcher.watch((target, replace(HTTP, protocol="tcp", port=checked.port)))
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    await checked.stop()
    await eventually(lambda: watcher.monitor.health(target.id).probe == "unready")
    assert watcher.monitor.health(target.id).text == f"connection refused by 127.0.0.1:{checked.port}"


async def test_envoy_success_and_failure_counters(watcher: Watcher):
    """200: success 1; 503: failure 1; no answer in time: failure 1; reset in the middle: failure 1."""

    async def hang(reader, writer):
        await reader.read()

    async def reset(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    for script, passes in ((ok(), 1), (ok(b"", b"503 No"), 0), (hang, 0), (reset, 0)):
        server = await Backend(script).start()
        watcher.watch((server.target(), replace(ONCE, timeout=0.1)))
        await eventually(lambda server=server: watcher.monitor.history(server.target().id))
        health = watcher.monitor.health(server.target().id)
        assert (max(health.streak, 0), max(-health.streak, 0)) == (passes, 1 - passes)
        await server.stop()


async def test_envoy_unhealthy_needs_the_threshold_and_says_pending_until_then(watcher: Watcher, backend):
    server = await backend()
    target = server.target()
    watcher.watch((target, replace(HTTP, interval=60.0)))
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    server.script = ok(b"", b"503 No")
    for pending in (1, 2):
        await watcher.monitor.probe_now(target.id)
        assert (watcher.monitor.health(target.id).streak, in_rotation(watcher.monitor.health(target.id))) == (
            -pending,
            True,
        )
    await watcher.monitor.probe_now(target.id)
    server.script = ok()
    await watcher.monitor.probe_now(target.id)
    assert not in_rotation(watcher.monitor.health(target.id))
    await watcher.monitor.probe_now(target.id)
    assert in_rotation(watcher.monitor.health(target.id))


async def test_envoy_host_removed_while_its_check_is_in_flight(watcher: Watcher, backend):
    async def slow(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()

    server = await backend(slow)
    watcher.watch((server.target(), HTTP))
    await eventually(lambda: server.connections == 1)
    asking = watcher.monitor.probe_now(server.target().id)
    watcher.watch()
    with pytest.raises(KeyError):
        await asking
    await eventually(lambda: server.open_now == 0)
    assert (watcher.changes, watcher.probes, dict(watcher.monitor.healths)) == ([], [], {})
    watcher.watch((server.target(), HTTP))  # it may come back
    assert shown(watcher.monitor.health(server.target().id), 0.0) == "starting"


async def test_whoever_waits_for_a_probe_hears_that_it_was_broken_off(watcher: Watcher, backend):
    import asyncio

    async def hang(reader, writer):
        await reader.read()

    server = await backend(hang)
    watcher.watch((server.target(), replace(HTTP, timeout=30.0)))
    asking = asyncio.ensure_future(watcher.monitor.probe_now(server.target().id))
    await eventually(lambda: server.connections == 1)
    watcher.watch()
    verdict = await asking
    assert verdict.ignored
    assert verdict.text == "broken off: the target or its check has changed"


async def test_haproxy_http_check_expect(watcher: Watcher, backend):
    """Statuses 200-399 and header matches: 202 with them is up; any one rule missed, and the check has failed."""
    good = await backend(ok(status=b"202 Accepted", headers=b"X-Role: primary\r\nX-Load: 17\r\n"))
    load = await backend(ok(status=b"202 Accepted", headers=b"X-Role: primary\r\nX-Load: many\r\n"))
    role = await backend(ok(status=b"202 Accepted", headers=b"X-Load: 17\r\n"))
    status = await backend(ok(status=b"404 Not Found", headers=b"X-Role: primary\r\nX-Load: 17\r\n"))
    expect = Expect(((200, 399),), headers=(("X-Role", "primary"), ("X-Load", "/^[0-9]+$/")))
    servers = (good, load, role, status)
    watcher.watch(*[(server.target(), replace(ONCE, expect=expect)) for server in servers])
    await eventually(lambda: len(watcher.probes) >= 4)
    assert [in_rotation(watcher.monitor.health(server.target().id)) for server in servers] == [
        True,
        False,
        False,
        False,
    ]
    assert [watcher.texts(server.target())[0] for server in servers] == [
        "HTTP 202",
        "HTTP 202, but X-Load: many; expected /^[0-9]+$/",
        "HTTP 202, but no X-Role; expected primary",
        "HTTP 404, expected 200-399",
    ]


async def test_haproxy_4be_1srv_layer47_errors(watcher: Watcher, backend):
    """Accepts and never answers, refuses, cannot be reached: each is out, and each says what it was."""

    async def hang(reader, writer):
        await reader.read()

    hung, gone = await backend(hang), await backend()
    await gone.stop()
    far = replace(gone.target(), id="app/blue/far", host="255.255.255.255")
    spec = replace(HTTP, interval=0.05, timeout=0.1, fall=2)
    watcher.watch((hung.target(pool="a"), spec), (gone.target(pool="b"), spec), (far, spec))
    ids = ["app/a/" + hung.target().id.rpartition("/")[2], "app/b/" + gone.target().id.rpartition("/")[2], far.id]
    await eventually(lambda: all(watcher.monitor.health(id).probe == "unready" for id in ids))
    kinds = [watcher.monitor.history(id)[-1].verdict.kind for id in ids]
    assert kinds[:2] == ["timeout", "refused"]
    assert kinds[2] in ("unreachable", "local")
    assert len({watcher.monitor.health(id).text for id in ids}) == 3


async def test_haproxy_track(watcher: Watcher, backend):
    """Servers that track another one go down and come up with it: here they name its address in their checks."""
    leader, follower, other = await backend(), await backend(), await backend()
    spec = replace(HTTP, rise=1, fall=1)
    tracks = replace(spec, host="127.0.0.1", port=leader.port)
    watcher.watch((leader.target(), spec), (follower.target(), tracks), (other.target(), spec))

    def ready(server: Backend) -> bool:
        return in_rotation(watcher.monitor.health(server.target().id))

    await eventually(lambda: ready(leader) and ready(follower) and ready(other))
    leader.script = ok(b"", b"503 No")
    await eventually(lambda: not ready(leader) and not ready(follower))
    leader.script = ok()
    await eventually(lambda: ready(leader) and ready(follower))
    assert ready(other)
    assert follower.connections == 0


async def test_envoy_remote_close_between_checks(watcher: Watcher, backend):
    """Whatever the target does with a connection once it has answered: the next check is not its victim."""

    async def closes(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n")

    server = await backend(closes)
    watcher.watch((server.target(), replace(HTTP, interval=0.02)))
    await eventually(lambda: len(watcher.probes) >= 10)
    assert all(verdict.ok for _, _, verdict in watcher.probes)
    assert server.connections >= 10


async def test_traefik_port_and_host_of_the_check(watcher: Watcher, backend):
    """Another host and port are asked, the query is kept, and the `Host` field is as configured."""
    serves, asked = await backend(), await backend()
    spec = replace(
        HTTP, path="/ready?deep=1&a=%20b", host="localhost", port=asked.port, headers=(("Host", "app.example"),)
    )
    watcher.watch((serves.target(), spec))
    await eventually(lambda: asked.asked)
    assert asked.asked[0].startswith(b"GET /ready?deep=1&a=%20b HTTP/1.1\r\n")
    assert b"\r\nHost: app.example\r\n" in asked.asked[0]
    assert serves.connections == 0
