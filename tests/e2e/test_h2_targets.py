"""Targets that speak HTTP/2 at a real lb: probes, status, log, switches, reloads and drains under load."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Self

import pytest
import uvloop

from tests.support.eventually import eventually
from tests.support.front import Origin
from tests.support.h2_origin import MAX_STREAMS, Asked, Handler, Peer, speaks, speaks_both
from tests.support.stage import Lb, Stage, ask

CONFIG = """\
listeners: ['127.0.0.1:0']
admin: {{bind: '127.0.0.1:0'}}
state_dir: ./state
access_log: {{path: access.log}}
services:
  a:
    active: blue
    pools:
      blue: {{targets: [{blue}]}}
      green: {{targets: [{green}]}}
    readiness: {{path: /ready, interval: 100ms, grace: 0s}}
"""


class Backends:
    """Targets on an event loop in a thread. Each answers with its number, a moment later; the last one speaks HTTP/1.1,
    too, and answers with `ok` then."""

    def __init__(self) -> None:
        self.origins: list[Origin] = []
        self.statuses: dict[int, int] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        for number in range(4):
            origin = Origin()
            handler = self._handler(number)
            origin.script = speaks(handler, settings={MAX_STREAMS: 3}) if number < 3 else speaks_both(handler)
            await origin.start()
            self.origins.append(origin)
        self._ready.set()
        await self._over.wait()
        for origin in self.origins:
            await origin.stop()

    def _handler(self, number: int) -> Handler:
        async def answer(peer: Peer, asked: Asked) -> None:
            if asked[":path"] == "/ready":
                peer.answer(asked.stream, status=self.statuses.get(number, 200))
            else:
                await asyncio.sleep(0.005)
                peer.answer(asked.stream, b"%d" % number)

        return answer

    def url(self, number: int) -> str:
        return f"{'http' if number == 3 else 'h2c'}://127.0.0.1:{self.origins[number].port}"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)


@pytest.fixture
def backends() -> Iterator[Backends]:
    made = Backends()
    yield made
    made.stop()


def config(blue: list[str], green: list[str]) -> str:
    return CONFIG.format(blue=", ".join(blue), green=", ".join(green))


class Load:
    """Clients that POST until they are told to stop: no request may be lost, as none may be sent twice."""

    def __init__(self, lb: Lb, clients: int = 8) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(lb.url,)) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, url: str) -> None:
        while not self._over.is_set():
            answer = ask(f"{url}/x", "POST", b"hello")
            self.answers.append((answer.status, answer.body))

    def until_it_is(self, *bodies: bytes) -> None:
        """Until these targets alone answer, and each has."""
        count = len(self.answers)

        def seen() -> bool:
            newest = self.answers[count:][-40:]
            return len(newest) == 40 and {body for _, body in newest} == set(bodies)

        eventually(seen, what=f"{bodies} answer")


def test_probes_and_pages_tell_of_the_protocol(stage: Stage, backends: Backends) -> None:
    backends.statuses[1] = 503
    lb = stage.start(stage.file(config([backends.url(0), backends.url(1)], [backends.url(2)])))
    targets = [backends.url(number).removeprefix("h2c://") for number in range(3)]
    eventually(lambda: [lb.state(target) for target in targets] == ["ready", "unready", "ready"])
    assert "over HTTP/2, with prior knowledge" in lb.cli("explain", targets[0]).stdout
    assert "HTTP/2 to" in lb.cli("probe", targets[0]).stdout
    views = [target for pool in lb.status()["services"][0]["pools"] for target in pool["targets"]]
    assert {view["protocol"] for view in views} == {"HTTP/2.0"}
    assert ask(f"{lb.url}/x").body == b"0"
    assert lb.metrics()['lb_upstream_streams{protocol="h2",service="a"}'] == 0
    log = stage.folder / "access.log"
    eventually(lambda: log.exists() and b'"target_protocol":"HTTP/2.0"' in log.read_bytes())


def test_switches_reloads_and_drains_lose_no_request(stage: Stage, backends: Backends) -> None:
    urls = [backends.url(number) for number in range(4)]
    file = stage.file(config([urls[0]], [urls[1]]))
    lb = stage.start(file)
    with Load(lb) as load:
        load.until_it_is(b"0")
        assert lb.cli("switch", "a", "green").returncode == 0
        load.until_it_is(b"1")
        file.write_text(config([urls[0]], [urls[1], urls[2]]))
        assert lb.cli("reload").returncode == 0
        load.until_it_is(b"1", b"2")
        assert lb.cli("drain", urls[1].removeprefix("h2c://"), "--wait").returncode == 0
        load.until_it_is(b"2")
        file.write_text(config([urls[0]], [urls[3]]))  # the pool's only target speaks HTTP/1.1
        assert lb.cli("reload").returncode == 0
        load.until_it_is(b"ok")
    assert {status for status, _ in load.answers} == {200}


def test_a_target_that_comes_to_speak_another_protocol(stage: Stage, backends: Backends) -> None:
    """The address stays, and what was counted for it."""
    target = f"127.0.0.1:{backends.origins[3].port}"
    file = stage.file(config([f"http://{target}"], [backends.url(1)]).replace("{path: /ready, ", "{protocol: tcp, "))
    lb = stage.start(file)
    with Load(lb, 2) as load:
        load.until_it_is(b"ok")
        file.write_text(file.read_text().replace(f"http://{target}", f"h2c://{target}"))
        plan = lb.cli("plan", str(file)).stdout
        assert "speaks HTTP/2.0 instead of HTTP/1.1" in plan
        assert lb.cli("reload").returncode == 0
        load.until_it_is(b"3")
    count = len(load.answers)

    def counted() -> float:
        return sum(value for name, value in lb.metrics().items() if name.startswith("lb_requests_total{"))

    eventually(lambda: counted() == count)
