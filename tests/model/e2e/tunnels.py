"""Clients that stay: WebSocket tunnels, through which a target sends back what it got."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

from tests.model.clock import CLOCK
from tests.model.e2e.world import RealWorld
from tests.model.peers import HANDSHAKE, Answer

#: A text frame of a client, masked with zeros; the target sends it back as it is.
FRAME = b"\x81\x84\0\0\0\0ping"
_BACKEND = re.compile(rb"(?im)^x-backend: *([^\r\n]*)")
#: Seconds within which an echo comes back.
ECHO = 3.0


async def hold(world: RealWorld, service: str, seconds: float) -> None:
    """Open a tunnel, and use it for so long. Unless something has happened, it lasts."""
    wish = world.wish(service, fields=dict(HANDSHAKE), do={"tunnel": "1"})
    try:
        reader, writer = await asyncio.open_connection(*world.address)
    except OSError:
        return
    track = world.track(service, wish)
    try:
        writer.write(wish.encode())
        answer = await _answer(reader)
        world.over(track, answer)
        if answer.status != 101:
            return
        opened = until = CLOCK.now
        until += seconds
        while CLOCK.now < until:
            writer.write(FRAME)
            try:
                async with asyncio.timeout(ECHO):
                    came = await reader.readexactly(len(FRAME))
            except (OSError, EOFError, TimeoutError) as error:
                if world.moved < opened - ECHO:
                    world.violate("3 served (tunnel)", f"{wish} at {answer.backend} ended for no reason: {error!r}")
                return
            if came != FRAME and world.moved < opened - ECHO:
                world.violate("3 served (tunnel)", f"{wish} at {answer.backend}: {came!r} came back")
                return
            await asyncio.sleep(0.2)
    finally:
        with suppress(OSError):
            writer.transport.abort()


async def _answer(reader: asyncio.StreamReader) -> Answer:
    answer = Answer()
    began = CLOCK.now
    with suppress(OSError, EOFError, asyncio.IncompleteReadError, TimeoutError):
        async with asyncio.timeout(30.0):
            head = await reader.readuntil(b"\r\n\r\n")
        answer.status = int(head.split(b" ", 2)[1])
        backend = _BACKEND.search(head)
        answer.backend = backend[1].decode() if backend else ""
        answer.ours = backend is None
        if answer.ours:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    answer.text = (await reader.read(300)).decode("latin-1")
    answer.seconds = CLOCK.now - began
    return answer
