"""Steps: what clients do."""

from __future__ import annotations

import asyncio
import random

from tests.model.clock import CLOCK
from tests.model.features import CLIENT
from tests.model.peers import Client, Wish
from tests.model.rules import MAX_BODY, rule
from tests.model.world import Track, World

METHODS = ("GET", "GET", "GET", "POST", "POST", "HEAD", "PUT")


def draw_wish(world: World, dice: random.Random, service: str = "") -> tuple[str, Wish]:
    """A request with some of the things that decide where it goes."""
    service = service or dice.choice(list(world.plan.services))
    fields: dict[str, str] = {}
    if dice.random() < 0.5:
        fields[CLIENT] = dice.choice("abcdef")
    if dice.random() < 0.25:
        fields["X-Version"] = dice.choice(("next", "next", "other"))
    if dice.random() < 0.2:
        fields["X-Any"] = dice.choice(("1", "yes"))
    if dice.random() < 0.2:
        fields["Cookie"] = dice.choice(("version=next", "any=thing", "version=old; any=1"))
    if "affinity" in world.themes and world.cookies and dice.random() < 0.5:
        value = dice.choice(["forged", *sorted(world.cookies.values())])
        fields["Cookie"] = "; ".join([*([fields["Cookie"]] if "Cookie" in fields else []), f"lb_target={value}"])
    method = dice.choice(METHODS)
    do: dict[str, str] = {}
    kind = dice.random()
    if kind < 0.25:
        do["delay"] = dice.choice(("0.05", "0.4", "1.5"))
    elif kind < 0.33:
        do["size"] = dice.choice(("5000", "100000"))
    elif kind < 0.4:
        do.update(chunked="1", size="3000")
    elif kind < 0.47:
        do["status"] = "404"
    elif kind < 0.52:
        do["close"] = "1"
    elif kind < 0.58:
        do["first"] = dice.choice(("404", "503"))
    host = "next.model.test" if dice.random() < 0.15 else "model.test"
    minor = 0 if dice.random() < 0.07 else 1
    body = dice.choice((0, 5, 2000)) if method in ("POST", "PUT") else 0
    return service, world.wish(service, method=method, fields=fields, do=do, host=host, minor=minor, body=body)


def told(tracks: list[Track]) -> str:
    return "; ".join(
        f"{t.wish}: {t.answer.status if t.answer else '…'} {t.answer.backend if t.answer else ''}" for t in tracks
    )


@rule(24, "traffic")
async def step_ask(world: World, dice: random.Random) -> str:
    tracks = []
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        tracks.append(await world.ask(*draw_wish(world, dice)))
    await world.settle()
    return told(tracks)


@rule(5, "traffic")
async def step_burst(world: World, dice: random.Random) -> str:
    """Many at once, that take a while: queues, bounds, retries."""
    service = dice.choice(list(world.plan.services))
    tracks = []
    for _ in range(dice.choice((5, 9, 14))):
        method = dice.choice(("GET", "POST"))
        fields = {"X-Version": "next"} if dice.random() < 0.3 else {}
        wish = world.wish(service, method=method, do={"delay": dice.choice(("0.1", "0.5", "2.5"))}, fields=fields)
        tracks.append(await world.ask(service, wish))
        if dice.random() < 0.3:
            await world.settle()
    await asyncio.sleep(dice.choice((0.0, 0.3, 1.3)))
    return told(tracks)


@rule(3, "traffic")
async def step_odd(world: World, dice: random.Random) -> str:
    """What is rare in requests and answers: interim answers, small chunks, a connection that is logged in."""
    service = dice.choice(list(world.plan.services))
    kind = dice.choice(("interim", "chunks", "login"))
    client = await world.client(fresh=True)
    tracks = []
    if kind == "interim":  # longer than `timeouts.response` in all
        wish = world.wish(service, method=dice.choice(METHODS), do={"interim": "2.4"})
        tracks.append(await world.ask(service, wish, client))
    elif kind == "chunks":
        wish = world.wish(service, method=dice.choice(("POST", "PUT")), body=MAX_BODY, chunk=10)
        tracks.append(await world.ask(service, wish, client))
    else:
        for fields in ({"Authorization": "NTLM TlRMTVNTUAAB"}, {}):
            tracks.append(await world.ask(service, world.wish(service, fields=fields), client))
            await asyncio.sleep(dice.choice((1e-6, 0.3)))
        tracks.append(await world.ask(service, world.wish(service)))
    await world.settle()
    return told(tracks)


@rule(3, "traffic")
async def step_abort(world: World, dice: random.Random) -> str:
    """A client that goes away, before or after its request has reached anybody."""
    client = await world.client(fresh=True)
    service, wish = draw_wish(world, dice)
    track = await world.ask(service, wish, client)
    track.excuses.add("client")
    await asyncio.sleep(dice.choice((0.0, 1e-6, 0.2)))
    client.close()
    return str(wish)


@rule(14, "traffic")
async def step_wait(world: World, dice: random.Random) -> str:
    seconds = dice.choice((0.01, 0.2, 0.5, 1.0, 2.5))
    await asyncio.sleep(seconds)
    return f"{seconds:g} s"


@rule(1, "traffic")
async def step_wait_long(world: World, dice: random.Random) -> str:
    seconds = dice.choice((8.0, 25.0))
    await asyncio.sleep(seconds)
    return f"{seconds:g} s"


@rule(3, "slow")
async def step_slow_reader(world: World, dice: random.Random) -> str:
    """A client that takes its time over a large answer, and then the next one on the same way."""
    client = await world.client(fresh=True)
    service = "app"
    do = {"size": dice.choice(("1500000", "1500000", "9000000"))}
    if dice.random() < 0.5:  # interim answers fill the way already
        do["hints"] = str(dice.randrange(100, 700, 8))
        do["first"] = dice.choice(("200", "404", "503"))
    wish = world.wish(service, do=do) if service in world.plan.services else draw_wish(world, dice)[1]
    client.transport.pause_reading()
    track = await world.ask(next(iter(world.plan.services)), wish, client)
    track.excuses.add("slow")
    await asyncio.sleep(dice.choice((0.2, 1.0, 3.0)))
    world.check()
    if dice.random() < 0.3:
        track.excuses.add("client")
        client.close()
    elif not client.transport.is_closing():
        client.transport.resume_reading()
    await world.settle()
    return told([track])


@rule(3, "slow")
async def step_pipeline(world: World, dice: random.Random) -> str:
    """A client that sends ahead and reads nothing; it may read later, close, or stay so."""
    client = await world.client(fresh=True)
    client.transport.pause_reading()
    service = next(iter(world.plan.services))
    number = dice.choice((3, 20, 40))
    tracks = [await world.ask(service, world.wish(service, do={"size": "200000"}), client) for _ in range(number)]
    await asyncio.sleep(dice.choice((0.1, 2.0)))
    what = dice.choice(("reads", "closes", "stays"))
    if what != "reads":
        for track in tracks:
            track.excuses.add("client")
    else:
        for track in tracks:
            track.excuses.add("slow")
    if what == "closes":
        client.close()
    elif what == "stays":
        world.sleepers.append((CLOCK.now, client))
        world.clients.remove(client)
    elif not client.transport.is_closing():
        client.transport.resume_reading()
    await world.settle()
    return f"{number} ahead, {what}"


@rule(2, "slow")
async def step_open_only(world: World, dice: random.Random) -> str:
    """A connection that says nothing, or half a head."""
    client = await Client.connect(world.address)
    if dice.random() < 0.5:
        client.transport.write(b"GET /app HTTP/1.1\r\nHost: mo")
    world.sleepers.append((CLOCK.now, client))
    return ""
