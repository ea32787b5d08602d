"""Host names in use while the resolver answers, changes its mind, fails and hangs."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator

import pytest

from lb.net import resolver
from lb.net.resolver import Resolver, is_name
from tests.support.eventually_async import eventually


class Dns:
    """What the look-ups say; `hangs`: until it is cleared they say nothing."""

    def __init__(self) -> None:
        self.answers: tuple[str, ...] = ("192.0.2.1",)
        self.hangs = False
        self.asked = 0
        self.over = threading.Event()

    def __call__(self, host: str) -> tuple[str, ...]:
        self.asked += 1
        if self.hangs:
            self.over.wait(30)
        if not self.answers:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self.answers


@pytest.fixture
async def dns() -> AsyncIterator[Dns]:
    made = Dns()
    yield made
    made.over.set()


@pytest.fixture
async def changes() -> list[str]:
    return []


@pytest.fixture
async def names(dns: Dns, changes: list[str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Resolver]:
    monkeypatch.setattr(resolver, "FRESH", 0.02)
    monkeypatch.setattr(resolver, "TICK", 0.01)
    made = Resolver(time.monotonic, changes.append, dns)
    yield made
    made.close()


async def test_callers_that_want_the_same_name_share_one_look_up(names: Resolver, dns: Dns) -> None:
    found = await asyncio.gather(*(names.resolve("a.example") for _ in range(20)))
    assert set(found) == {("192.0.2.1",)}
    assert dns.asked == 1


async def test_a_name_in_use_is_looked_up_again_and_a_change_is_reported_once(
    names: Resolver, dns: Dns, changes: list[str]
) -> None:
    names.use(["a.example"])
    names.start()
    await eventually(lambda: names.addresses("a.example") == ("192.0.2.1",))
    dns.answers = ("192.0.2.1", "192.0.2.2")
    await eventually(lambda: names.addresses("a.example") == dns.answers)
    dns.answers = ("192.0.2.2", "192.0.2.1")
    await eventually(lambda: names.addresses("a.example") == dns.answers)
    assert changes == ["a.example", "a.example"], "another order is no change"


@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
async def test_while_dns_is_down_the_last_answer_stands_and_nobody_waits(
    names: Resolver, dns: Dns, hangs: bool
) -> None:
    names.use(["a.example"])
    names.start()
    await eventually(lambda: names.addresses("a.example"))
    dns.answers, dns.hangs = (), hangs
    asked = dns.asked
    await eventually(lambda: dns.asked > asked)
    async with asyncio.timeout(5):
        assert await names.resolve("a.example") == ("192.0.2.1",)
    if hangs:
        await asyncio.sleep(0.1)
        assert dns.asked == asked + 1, "one look-up at a time"
        return
    dns.answers = ("192.0.2.9",)
    await eventually(lambda: names.addresses("a.example") == ("192.0.2.9",))


async def test_a_name_that_never_resolved_is_an_error_and_asked_for_again(names: Resolver, dns: Dns) -> None:
    dns.answers = ()
    for _ in range(2):
        with pytest.raises(OSError, match="Temporary failure"):
            await names.resolve("a.example")
    dns.answers = ("192.0.2.1",)
    assert await names.resolve("a.example") == ("192.0.2.1",)


async def test_a_caller_that_gives_up_does_not_end_the_look_up(names: Resolver, dns: Dns) -> None:
    dns.hangs = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await names.resolve("a.example")
    dns.hangs = False
    dns.over.set()
    assert await names.resolve("a.example") == ("192.0.2.1",)
    assert dns.asked == 1


async def test_a_name_out_of_use_is_forgotten(names: Resolver) -> None:
    await names.resolve("a.example")
    names.use(["b.example"])
    assert names.addresses("a.example") == ()


def test_only_names_are_looked_up() -> None:
    assert is_name("a.example") and is_name("localhost")
    assert not any(map(is_name, ("192.0.2.7", "2001:db8::1", "unix:/run/a.sock")))


def test_the_systems_resolver_knows_localhost() -> None:
    assert set(resolver.look_up_in_system("localhost")) <= {"127.0.0.1", "::1"}
