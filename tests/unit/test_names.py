"""Names of targets while the resolver answers, fails and hangs."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from lb.proxy import names
from lb.proxy.names import Names


class Resolver:
    """Stands where the loop stands: it is asked for addresses, and answers, fails or hangs."""

    def __init__(self) -> None:
        self.answers: list[str] | None = ["192.0.2.1"]
        self.hangs = False
        self.asked = 0

    def create_task(self, coroutine: Any) -> Any:
        return asyncio.get_running_loop().create_task(coroutine)

    async def getaddrinfo(self, host: str, port: int, *, type: int) -> list[Any]:
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(3600)
        if self.answers is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, type, 6, "", (address, port)) for address in self.answers]


@pytest.fixture
def resolver() -> Resolver:
    return Resolver()


async def ask(known: Names) -> str:
    async with asyncio.timeout(5):
        _, (address, port) = await known.address("a.example", 80)
    assert port == 80
    return str(address)


async def test_an_answer_is_kept_and_its_addresses_taken_in_turn(resolver: Resolver) -> None:
    known = Names(resolver)  # type: ignore[arg-type]
    resolver.answers = ["192.0.2.1", "192.0.2.2"]
    assert {await ask(known) for _ in range(4)} == {"192.0.2.1", "192.0.2.2"}
    assert resolver.asked == 1


async def test_many_who_want_the_same_name_ask_once(resolver: Resolver) -> None:
    known = Names(resolver)  # type: ignore[arg-type]
    await asyncio.gather(*(ask(known) for _ in range(20)))
    assert resolver.asked == 1


@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
async def test_while_dns_is_down_the_last_answer_stands_and_nobody_waits(
    resolver: Resolver, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Names(resolver)  # type: ignore[arg-type]
    monkeypatch.setattr(names, "FRESH", -1.0)
    assert await ask(known) == "192.0.2.1"
    resolver.answers, resolver.hangs = None, hangs
    for _ in range(20):
        async with asyncio.timeout(0.5):
            assert await ask(known) == "192.0.2.1"
        await asyncio.sleep(0)
    if hangs:
        assert resolver.asked == 2, "one question at a time"
        return
    resolver.answers = ["192.0.2.9"]
    for _ in range(20):
        last = await ask(known)
        await asyncio.sleep(0)
    assert last == "192.0.2.9", "the resolver is back"


async def test_a_name_that_never_resolved_is_an_error_and_asked_for_again(resolver: Resolver) -> None:
    known = Names(resolver)  # type: ignore[arg-type]
    resolver.answers = None
    for _ in range(2):
        with pytest.raises(OSError, match="Temporary failure"):
            await ask(known)
    resolver.answers = ["192.0.2.1"]
    assert await ask(known) == "192.0.2.1"


async def test_addresses_are_not_asked_for(resolver: Resolver) -> None:
    known = Names(resolver)  # type: ignore[arg-type]
    assert await known.address("192.0.2.7", 81) == (socket.AF_INET, ("192.0.2.7", 81))
    assert await known.address("2001:db8::1", 81) == (socket.AF_INET6, ("2001:db8::1", 81))
    assert not resolver.asked
