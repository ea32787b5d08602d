"""on_failure: the command or the webhook of a target that is not alive, and what holds it back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from lb.core.checks import Checks, CheckSpec, OnFailure
from tests.health.conftest import Watcher, ok
from tests.support.eventually_async import eventually

READY = CheckSpec(protocol="none")
LIVE = CheckSpec(protocol="http", path="/alive", interval=0.05, timeout=0.5, rise=1, fall=2, grace=0.0)
DEAD = ok(b"stuck", b"500 Internal Server Error")


def causes(watcher: Watcher) -> list[str]:
    return [notice.cause.removeprefix("liveness_") for notice in watcher.notices]


def run(text: str, **more) -> OnFailure:
    return OnFailure(command=("/bin/sh", "-c", text), **more)


async def test_the_command_runs_with_the_target_in_its_environment(watcher: Watcher, backend, tmp_path: Path):
    server = await backend(DEAD)
    target = server.target()
    out = tmp_path / "out"
    action = run(
        f'echo "$LB_TARGET $LB_TARGET_HOST $LB_TARGET_PORT $LB_SERVICE/$LB_POOL $LB_FAILURES" > {out}; echo hi'
    )
    watcher.watch((target, Checks(READY, replace(LIVE, grace=0.2), action)))
    await eventually(lambda: "restarted" in causes(watcher))
    assert out.read_text() == f"{target.id} 127.0.0.1 {server.port} app/blue 2\n"
    assert causes(watcher)[:3] == ["dead", "restart", "restarted"]
    assert watcher.notices[2].text == "/bin/sh: exit status 0, hi"
    assert watcher.notices[0].text == "2 liveness probes failed in a row; HTTP 500, expected 200-299"


async def test_a_revived_target_is_alive_again(watcher: Watcher, backend):
    server = await backend(DEAD)
    target = server.target()
    watcher.watch((target, Checks(READY, replace(LIVE, grace=1.0), run("exit 0"))))
    await eventually(lambda: "restarted" in causes(watcher))
    server.script = ok()
    await eventually(lambda: watcher.monitor.liveness[target.id].state == "alive")
    assert causes(watcher)[-1] == "alive"


async def test_the_webhook_gets_json(watcher: Watcher, backend):
    bodies: list[bytes] = []

    async def hook(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        bodies.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

    receiver, server = await backend(hook), await backend(DEAD)
    target = server.target()
    action = OnFailure(webhook=f"http://127.0.0.1:{receiver.port}/hook?token=secret")
    watcher.watch((target, Checks(READY, LIVE, action)))
    await eventually(lambda: "restarted" in causes(watcher))
    assert json.loads(bodies[0]) == {
        "event": "liveness_failed",
        "target": target.id,
        "service": "app",
        "pool": "blue",
        "host": "127.0.0.1",
        "port": server.port,
        "reason": "HTTP 500, expected 200-299",
        "failures": 2,
        "attempt": 1,
    }
    assert watcher.notices[2].text == f"http://127.0.0.1:{receiver.port}/…: HTTP 202"  # and not the token


async def test_an_action_that_fails_says_why(watcher: Watcher, backend):
    server = await backend(DEAD)
    for action, text in (
        (run("echo no such container >&2; exit 7"), "failed: /bin/sh: exit status 7, no such container"),
        (run("sleep 60", timeout=0.2), "failed: /bin/sh was still running after 0.2 s and was killed"),
        (OnFailure(command=("/no/such",)), "failed: cannot run /no/such: No such file or directory"),
        (OnFailure(webhook="http://127.0.0.1:1/"), "failed: http://127.0.0.1:1/: Cannot connect"),
    ):
        watcher.notices.clear()
        watcher.watch()
        watcher.watch((server.target(), Checks(READY, LIVE, action)))
        await eventually(lambda: "restarted" in causes(watcher))
        assert watcher.notices[2].text.startswith(text)


async def test_the_second_try_waits_and_says_so(watcher: Watcher, backend, tmp_path: Path):
    server = await backend(DEAD)
    out = tmp_path / "out"
    watcher.watch((server.target(), Checks(READY, LIVE, run(f"echo x >> {out}", backoff=0.6))))
    await eventually(lambda: causes(watcher).count("restart") == 2, within=5.0)
    await eventually(lambda: causes(watcher).count("restarted") == 2)
    assert out.read_text() == "x\nx\n"
    tries = watcher.monitor.liveness[server.target().id].tries
    assert 0.6 <= tries[1] - tries[0] < 1.2
    held = [notice for notice in watcher.notices if notice.cause == "liveness_held"]
    assert len(held) == 1
    assert held[0].text.startswith("not restarted yet: 1 tries within the hour, the next in ")


async def test_a_restart_of_lb_does_not_begin_the_hour_anew(watcher: Watcher, backend, tmp_path: Path):
    """A checker that is restarted again and again would otherwise restart what it watches without a bound."""
    server = await backend(DEAD)
    pair = (server.target(), Checks(READY, LIVE, run(f"echo x >> {tmp_path}/out", backoff=0.0, per_hour=1)))
    watcher.watch(pair)
    await eventually(lambda: "held" in causes(watcher))
    heir = Watcher()
    heir.watch(pair)
    heir.monitor.restore(watcher.monitor.keep())
    await heir.monitor.start()
    await eventually(lambda: "held" in causes(heir))
    await heir.monitor.close()
    assert (tmp_path / "out").read_text() == "x\n"
    assert "restart" not in causes(heir)


async def test_one_of_a_pool_at_a_time(watcher: Watcher, backend, tmp_path: Path):
    """Five targets behind one broken dependency: they are not all restarted at once."""
    servers = [await backend(DEAD) for _ in range(5)]
    out = tmp_path / "out"
    action = run(f"echo $LB_TARGET >> {out}", backoff=60.0, at_once=1)
    live = replace(LIVE, grace=0.3)
    watcher.watch(*[(server.target(), Checks(READY, live, action)) for server in servers])
    await eventually(lambda: causes(watcher).count("held") == 4)
    await eventually(lambda: out.exists() and out.read_text())  # four are held as soon as the first has begun
    assert len(out.read_text().split()) == 1
    first = out.read_text().strip()
    server = next(server for server in servers if server.target().id == first)
    server.script = ok()
    await eventually(lambda: len(out.read_text().split()) == 2)  # the first is back: the next one's turn
    assert len(set(out.read_text().split())) == 2


async def test_fall_nought_never_restarts(watcher: Watcher, backend, tmp_path: Path):
    server = await backend(DEAD)
    watcher.watch((server.target(), Checks(READY, replace(LIVE, fall=0), run(f"touch {tmp_path}/ran"))))
    await eventually(lambda: len(watcher.probes) > 6)
    assert not (tmp_path / "ran").exists()
    assert watcher.monitor.liveness[server.target().id].state == "unknown"


async def test_a_restart_under_way_ends_with_the_monitor(backend, tmp_path: Path):
    watcher = Watcher()
    await watcher.monitor.start()
    server = await backend(DEAD)
    pid = tmp_path / "pid"
    watcher.watch((server.target(), Checks(READY, LIVE, run(f"echo $$ > {pid}; sleep 60"))))
    await eventually(lambda: pid.exists() and pid.read_text().strip())
    await watcher.monitor.close()
    await eventually(lambda: not Path(f"/proc/{pid.read_text().strip()}").exists())
