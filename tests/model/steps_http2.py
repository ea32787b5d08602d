"""Steps: HTTP/2 on both sides: streams that share connections, and targets that refuse them or go away."""

from __future__ import annotations

import asyncio
import random

from tests.model.clock import CLOCK
from tests.model.h2_client import Http2Client
from tests.model.h2_target import Http2Conversation
from tests.model.peers import Backend
from tests.model.rules import rule
from tests.model.steps_health import in_file
from tests.model.steps_traffic import draw_wish, told
from tests.model.world import Track, World

#: Seconds within which an answer of a target has reached a client that takes it.
ON_ITS_WAY = 0.1


async def streams(world: World, dice: random.Random, number: int, client: Http2Client) -> list[Track]:
    """So many requests at once on one connection."""
    return [await world.ask(*draw_wish(world, dice), client) for _ in range(number) if client.has_room]


async def http2_client(world: World, fresh: bool = False) -> Http2Client:
    client = await world.client(fresh, http2=True)
    assert isinstance(client, Http2Client)
    return client


def conversations(backend: Backend) -> list[Http2Conversation]:
    """The connections of HTTP/2 that a target has."""
    return [each for each in backend.connections if isinstance(each, Http2Conversation)]


@rule(8, "http2")
async def step_streams(world: World, dice: random.Random) -> str:
    """Many requests at once on a connection, which may be new."""
    client = await http2_client(world, fresh=dice.random() < 0.3)
    tracks = await streams(world, dice, dice.choice((2, 4, 9, 20)), client)
    await asyncio.sleep(dice.choice((1e-6, 1e-6, 0.1, 0.6)))
    return told(tracks)


@rule(3, "http2")
async def step_reset_streams(world: World, dice: random.Random) -> str:
    """A client gives some of its requests up, and goes on with the other ones."""
    client = await http2_client(world)
    tracks = await streams(world, dice, dice.choice((1, 3, 6)), client)
    await asyncio.sleep(dice.choice((0.0, 1e-6, 0.2)))
    given_up = [id for id, stream in client.streams.items() if dice.random() < 0.5]
    for id in given_up:
        number = client.streams[id].wish.number
        for track in tracks:
            if track.wish.number == number:
                track.excuses.add("client")
        if number in world.tracks:
            world.tracks[number].excuses.add("client")
        client.reset(id)
    await world.settle()
    return f"{len(given_up)} of {len(tracks)}"


@rule(2, "http2")
async def step_close_with_streams(world: World, dice: random.Random) -> str:
    """A client goes away with all its requests."""
    client = await http2_client(world, fresh=True)
    tracks = await streams(world, dice, dice.choice((1, 3, 6)), client)
    for track in tracks:
        track.excuses.add("client")
    await asyncio.sleep(dice.choice((0.0, 1e-6, 0.2)))
    client.close()
    await world.settle()
    return f"{len(tracks)}"


@rule(3, "http2")
async def step_shut_window(world: World, dice: random.Random) -> str:
    """A client leaves the windows of some streams shut for a while; the other ones go on."""
    client = await http2_client(world, fresh=True)
    service = next(iter(world.plan.services))
    slow = []
    for _ in range(dice.choice((1, 1, 3))):
        track = await world.ask(service, world.wish(service, do={"size": dice.choice(("300000", "2000000"))}), client)
        track.excuses.add("slow")
        slow.append(track)
        client.hold(max(client.streams))
    await asyncio.sleep(dice.choice((1e-6, 0.2)))
    world.check()
    others = await streams(world, dice, dice.choice((1, 4)), client)
    await asyncio.sleep(dice.choice((0.2, 1.0, 3.0)))
    for track in others:
        last = track.arrivals[-1] if track.arrivals else None
        if track.answer is None and last and last.answered and last.over < CLOCK.now - ON_ITS_WAY:
            world.violate("3 in time", f"{track.wish} waits behind the windows of other streams")
    world.check()
    if dice.random() < 0.3:
        for track in slow + others:
            track.excuses.add("client")
        client.close()
    else:
        client.release()
    await world.settle()
    return told(slow)


@rule(4, "http2")
async def step_target_leaves(world: World, dice: random.Random) -> str:
    """A target says GOAWAY on its connections, perhaps behind requests that it does not take any more."""
    backend = dice.choice(in_file(world))
    at_once = dice.random() < 0.4
    links = conversations(backend)
    for link in links:
        link.leave(at_once)
    tracks = []
    for _ in range(dice.choice((0, 2, 5))):
        tracks.append(await world.ask(*draw_wish(world, dice)))
    await asyncio.sleep(dice.choice((0.0, 1e-6, 0.1)))
    return f"{backend}: {len(links)} connections; {told(tracks)}"


@rule(4, "http2")
async def step_target_refuses(world: World, dice: random.Random) -> str:
    """A target is not willing to begin the next request or two."""
    backend = dice.choice(in_file(world))
    backend.refuses = dice.choice((1, 1, 2))
    world.unwilling(backend)
    tracks = []
    for _ in range(dice.choice((1, 3))):
        tracks.append(await world.ask(*draw_wish(world, dice)))
    await world.settle()
    backend.refuses = 0
    return f"{backend}: {told(tracks)}"


@rule(3, "http2")
async def step_limit_of_streams(world: World, dice: random.Random) -> str:
    """A target takes more or fewer streams at one time, on new connections and on those that are open."""
    backend = dice.choice(in_file(world))
    backend.streams = dice.choice((1, 2, 3, 100))
    if dice.random() < 0.6:
        for link in conversations(backend):
            link.limit(backend.streams)
    tracks = []
    for _ in range(dice.choice((0, 3, 8))):
        tracks.append(await world.ask(*draw_wish(world, dice)))
    await world.settle()
    return f"{backend}: {backend.streams}; {told(tracks)}"
