"""The stream of events: it goes on where it was cut, says what is missing, shows that it lives, waits for nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from lb.control import events
from lb.control.api import streams
from lb.control.api.streams import Choice
from lb.control.events import EventLog
from tests.control.conftest import Api


@asynccontextmanager
async def served(log: EventLog, choice: Choice | None = None) -> AsyncIterator[tuple[str, set[object]]]:
    """An application that streams `log`; its URL and the open streams."""

    async def stream(request: web.Request) -> web.StreamResponse:
        last = request.headers.get("Last-Event-ID")
        return await streams.stream(request, log, choice or Choice(after=int(last) if last else None))

    app = web.Application()
    app[streams.OPEN] = set()
    app.router.add_get("/", stream)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/", app[streams.OPEN]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def reading(url: str, last: str = "") -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The events of a stream, as a browser takes them; comments as {"comment": …}."""
    headers = {"Last-Event-ID": last} if last else {}
    async with ClientSession() as session, session.get(url, headers=headers) as answer:

        async def frames() -> AsyncIterator[dict[str, Any]]:
            id = ""
            async for raw in answer.content:
                line = raw.decode().rstrip("\n")
                name, _, value = line.partition(":")
                if name == "id":
                    id = value.strip()
                elif name == "data":
                    found = json.loads(value)
                    assert str(found["id"]) == id
                    yield found
                elif line.startswith(":"):
                    yield {"comment": value.strip()}

        yield frames()


async def take(frames: AsyncIterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(20):
        return [await anext(frames) for _ in range(count)]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)


def filled(count: int) -> EventLog:
    log = EventLog()
    for number in range(1, count + 1):
        log.add("switch" if number % 2 else "drain", f"service/pool/{number}", f"event {number}")
    return log


async def test_without_a_wish_it_begins_with_what_happens_next() -> None:
    log = filled(3)
    async with served(log) as (url, _), reading(url) as frames:
        log.add("note", "lb", "now")
        assert [found["text"] for found in await take(frames, 1)] == ["now"]


async def test_it_goes_on_after_the_last_event_that_was_seen() -> None:
    log = filled(5)
    async with served(log) as (url, _), reading(url, "3") as frames:
        assert [found["id"] for found in await take(frames, 2)] == [4, 5]
        log.add("note", "lb", "now")
        assert [found["id"] for found in await take(frames, 1)] == [6]


async def test_a_client_that_was_cut_misses_none_and_gets_none_twice() -> None:
    log = filled(0)
    got: list[int] = []
    async with served(log) as (url, _):
        for turn in range(5):
            async with reading(url, str(got[-1]) if got else "0") as frames:
                for number in range(20):
                    log.add("note", "lb", f"{turn} {number}")
                got += [found["id"] for found in await take(frames, 7 + turn)]
        async with reading(url, str(got[-1])) as frames:
            got += [found["id"] for found in await take(frames, 100 - len(got))]
    assert got == list(range(1, 101))


async def test_events_that_are_gone_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "RING", 10)
    log = filled(50)
    async with served(log) as (url, _), reading(url, "20") as frames:
        first, *rest = await take(frames, 11)
        assert first["text"] == "the events from 21 to 40 are not known any more"
        assert first["id"] == 40, "whoever is cut here is told no second time"
        assert [found["id"] for found in rest] == list(range(41, 51))
    async with served(log) as (url, _), reading(url, "40") as frames:
        assert [found["id"] for found in await take(frames, 10)] == list(range(41, 51))


async def test_an_id_of_the_future_means_that_the_numbers_began_anew() -> None:
    log = filled(3)
    async with served(log) as (url, _), reading(url, "900") as frames:
        first, *rest = await take(frames, 4)
        assert first["text"] == "the events are counted anew: the last one was number 3, not 900"
        assert [found["id"] for found in rest] == [1, 2, 3]
        log.add("note", "lb", "now")
        assert [found["id"] for found in await take(frames, 1)] == [4]


async def test_only_what_was_chosen_comes() -> None:
    log = filled(4)
    choice = Choice(after=0, kinds=frozenset({"switch"}), subject="service/pool")
    async with served(log, choice) as (url, _), reading(url) as frames:
        log.add("drain", "service/pool/x", "not this")
        log.add("switch", "service/pools", "nor this")
        log.add("switch", "service/pool", "but this")
        assert [found["text"] for found in await take(frames, 3)] == ["event 1", "event 3", "but this"]


async def test_silence_is_filled_with_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT", 0.05)
    log = filled(0)
    async with served(log) as (url, _), reading(url) as frames:
        assert await take(frames, 2) == [{"comment": "still here"}] * 2
        log.add("note", "lb", "now")
        assert "now" in [found.get("text") for found in await take(frames, 20)]


async def test_who_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PATIENCE", 0.2)
    log = filled(0)
    async with served(log) as (url, opened):
        host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: opened)

        def let_go() -> bool:
            for _ in range(20):
                log.add("note", "lb", "x" * 20_000)
            return not opened

        await until(let_go)
        writer.close()
        async with reading(url) as frames:
            log.add("note", "lb", "now")
            assert [found["text"] for found in await take(frames, 1)] == ["now"]


async def test_who_reads_too_slowly_is_let_go_with_his_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LISTENER_LIMIT", 10)
    log = filled(0)
    async with served(log) as (url, opened), reading(url) as frames:
        for number in range(30):  # in one go: the stream has no turn in between
            log.add("note", "lb", str(number))
        got = [found["text"] async for found in frames]
        assert got == [str(number) for number in range(1, 10)], "then it ended"
        await until(lambda: not opened)


async def test_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST", 2)
    log = filled(0)
    async with served(log) as (url, opened), ClientSession() as session:
        async with reading(url), reading(url):
            assert len(opened) == 2
            async with session.get(url) as answer:  # here without the API's middleware: its refusal is an error
                assert answer.status == 500
        await until(lambda: not opened)  # who has gone makes room
        async with reading(url):
            assert len(opened) == 1


def test_events_outlive_a_restart_with_their_numbers(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    for number in range(5):
        log.add("note", "lb", str(number))
    again = EventLog(tmp_path)
    assert (again.oldest, again.newest) == (1, 5)
    assert again.add("note", "lb", "next").id == 6
    empty = EventLog()
    assert (empty.oldest, empty.newest) == (1, 0)


def test_the_api_streams(shared: Api) -> None:
    got = shared.raw(
        b"GET /api/v1/events?after=0&kind=start HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n",
        until=b'"kind":"start"',
    )
    assert b"Content-Type: text/event-stream" in got
    assert b"retry: 2000" in got
