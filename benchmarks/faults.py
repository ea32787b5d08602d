"""The fault matrix, counted: everything a target can do wrong, a hundred thousand times, and nothing may be left over.

    python -m benchmarks.faults [--count 100000] [--clients 96] [--only FAULT]

Three processes with real sockets between them: clients, a worker's data plane with its listener, and targets that do
what the path asks for. Each fault is struck with GET and POST, on client connections that are kept and that are not,
and on pooled and new connections to the target as they come. Checked for each: the outcome that docs/http.md promises;
that the next request on a connection that lives on gets its own answer; that no POST reaches a target twice. One client
in twenty leaves without reading its answer. Before and after, the data plane counts what it holds: file descriptors,
connections, requests in flight, tasks, objects, memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import socket
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from lb.core.targets import AccessLog, Listener, Pool, Retries, Rotation, Route, Service, Snapshot, Target, Timeouts
from lb.proxy.exchange import Exchange
from lb.proxy.h1.client import Downstream
from lb.proxy.h1.target import Upstream
from lb.proxy.plane import DataPlane

RESET = struct.pack("ii", 1, 0)
#: Seconds after which the data plane gives a silent target up.
PATIENCE = 1.0
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Fault:
    """What the target says, how it goes on, and what the client has to get."""

    says: bytes = b""
    then: str = "close"  # close | reset | silence | serve | fickle | unread
    get: tuple[int, ...] = (502,)
    post: tuple[int, ...] = (502,)
    cut: bool = False  # the answer must not look complete
    service: str = "bad"


FAULTS: dict[str, Fault] = {
    "accepts-and-hangs": Fault(then="silence", get=(504,), post=(504,)),
    "closes-before-the-answer": Fault(),
    "resets-before-the-answer": Fault(then="reset"),
    "closes-within-the-head": Fault(b"HTTP/1.1 200 OK\r\nCon"),
    "resets-within-the-head": Fault(b"HTTP/1.1 200 OK\r\nCon", "reset"),
    "hangs-within-the-head": Fault(b"HTTP/1.1 200 OK\r\nCon", "silence", (504,), (504,)),
    "closes-within-the-body": Fault(HALF, "close", (200,), (200,), cut=True),
    "resets-within-the-body": Fault(HALF, "reset", (200,), (200,), cut=True),
    "hangs-within-the-body": Fault(HALF, "silence", (200,), (200,), cut=True),
    "sends-half-a-chunk": Fault(CHUNKS + b"5\r\nhal", "close", (200,), (200,), cut=True),
    "sends-no-last-chunk": Fault(CHUNKS + b"5\r\nhallo\r\n", "close", (200,), (200,), cut=True),
    "sends-a-bad-chunk": Fault(CHUNKS + b"+5\r\nhallo\r\n0\r\n\r\n", "serve"),
    "sends-too-much": Fault(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokEXTRA", "serve", (200,), (200,)),
    "sends-two-answers": Fault(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * 2, "serve", (200,), (200,)),
    "sends-garbage": Fault(b"\x00\x01\x02garbage\r\n\r\n", "serve"),
    "sends-two-lengths": Fault(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "serve"),
    "answers-before-reading": Fault(
        b"HTTP/1.1 403 Early\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", "unread", (403,), (403,)
    ),
    "closes-idle-at-random": Fault(then="fickle", get=(200,), post=(200,), service="fickle"),
    "refuses": Fault(service="closed"),
    "accepts-nobody": Fault(get=(504,), post=(504,), service="full"),
    "resets-at-once": Fault(service="brusque"),
    "one-of-two-breaks-off": Fault(get=(200,), post=(200, 502), service="two"),
}
METHODS = ("GET", "POST")
MATRIX = [(name, method, kept) for name in FAULTS for method in METHODS for kept in (True, False)]


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


# --- the targets -----------------------------------------------------------------------------------------------------


class Targets:
    """Plays the fault that the path names: /FAULT/MARK. A good answer's body is the mark."""

    def __init__(self) -> None:
        self.posts: Counter[tuple[str, str]] = Counter()
        self.rng = random.Random(7)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, good: bool = False) -> None:
        """One connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            while await self._answer(reader, writer, good):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, good: bool) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.split(b" ", 2)
        _, name, mark = path.decode().split("/")
        fault = FAULTS.get(name)
        if method == b"POST":
            self.posts[name, mark] += 1
            if fault is None or fault.then != "unread":
                await reader.readexactly(len(mark))
        if good or fault is None or fault.then == "fickle":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(mark), mark.encode()))
            if fault is not None and fault.then == "fickle":
                async with asyncio.timeout(self.rng.uniform(0.0, 0.02)):
                    await reader.read(1)  # whoever was faster: nothing more is answered
            return fault is None or good
        if fault.says:
            writer.write(fault.says)
            await writer.drain()
        if fault.then == "reset":
            if fault.says:
                await asyncio.sleep(0.005)  # or the kernel throws away what was said
            reset(writer)
        elif fault.then == "silence":
            await asyncio.wait_for(reader.read(), 30)
        elif fault.then == "unread":
            await asyncio.sleep(0.02)
        return fault.then == "serve"

    async def run(self) -> None:
        """Listen, say where, and answer `counts` on standard input."""
        bad = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=1024)
        fickle = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=1024)
        well = await asyncio.start_server(lambda r, w: self.serve(r, w, good=True), "127.0.0.1", 0, backlog=1024)
        brusque = await asyncio.start_server(lambda r, w: reset(w), "127.0.0.1", 0, backlog=1024)
        closed, full = socket.socket(), socket.socket()
        closed.bind(("127.0.0.1", 0))
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        ports = {
            "bad": bad.sockets[0].getsockname()[1],
            "fickle": fickle.sockets[0].getsockname()[1],
            "good": well.sockets[0].getsockname()[1],
            "brusque": brusque.sockets[0].getsockname()[1],
            "closed": closed.getsockname()[1],
            "full": full.getsockname()[1],
        }
        await _obey(ports, lambda: Counter(name for (name, _), count in self.posts.items() if count > 1))


# --- the data plane --------------------------------------------------------------------------------------------------


async def front(ports: dict[str, int]) -> None:
    """A worker's data plane and listener; answers `counts` on standard input."""
    loop = asyncio.get_running_loop()
    plane = DataPlane(worker=0, loop=loop, alarm=lambda alarm: None)
    pools = {name: [name] for name in ("bad", "fickle", "closed", "full", "brusque")} | {"two": ["bad", "good"]}
    timeouts = Timeouts(connect=PATIENCE, response=PATIENCE, read=PATIENCE)
    services, rotations = [], []
    for name, members in pools.items():
        targets = tuple(Target(f"{name}/p/127.0.0.1:{ports[m]}", name, "p", "127.0.0.1", ports[m]) for m in members)
        retries = Retries(budget=1.0, budget_floor=1000)
        services.append(Service(name, (Pool("p", targets),), timeouts=timeouts, retries=retries))
        weights = (("p", tuple((target.id, 1.0) for target in targets)),)
        rotations.append(Rotation(name, 1, (("p", 100),), weights))
    routes = [Route(fault.service, path=f"/{name}") for name, fault in FAULTS.items() if fault.service != "bad"]
    plane.apply(
        Snapshot(
            1,
            services=tuple(services),
            routes=(*routes, Route("bad")),
            rotations=tuple(rotations),
            access_log=AccessLog("off"),
        )
    )
    server = await loop.create_server(plane.downstream(Listener("front")), "127.0.0.1", 0, backlog=1024)

    def counts() -> dict[str, int]:
        for lane in plane.lanes.values():
            lane.close_idle()
        plane.report()
        gc.collect()
        kinds = Counter(type(thing) for thing in gc.get_objects())
        lanes = plane.lanes.values()
        return {
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "clients": len(plane.clients),
            "tunnels": len(plane.context.tunnels),
            "in flight": sum(lane.in_flight for lane in lanes) + sum(s.in_flight for s in plane.services.values()),
            "connections": sum(lane.active + len(lane.idle) + len(lane.connections) for lane in lanes),
            "waiting": sum(len(service.waiting) for service in plane.services.values()),
            "tasks": len(asyncio.all_tasks()) + len(plane.connector.tasks),
            "objects": kinds[Exchange] + kinds[Downstream] + kinds[Upstream],
            "KiB": int(Path("/proc/self/statm").read_text().split()[1]) * 4,
        }

    await _obey({"port": server.sockets[0].getsockname()[1]}, counts)


async def _obey(first: dict[str, int], counts: Any) -> None:
    """Say `first`, then `counts()` for each line on standard input, until it ends."""
    print(json.dumps(first), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(json.dumps(counts()), flush=True)


class Child:
    """One of the other two processes."""

    async def start(self, *arguments: str) -> dict[str, int]:
        """Start it; returns what it says first."""
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "benchmarks.faults", *arguments)
        self.process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        return await self._line()

    async def counts(self) -> dict[str, int]:
        """What it counts."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"counts\n")
        return await self._line()

    async def stop(self) -> None:
        """Its standard input ends, and it with that."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()

    async def _line(self) -> dict[str, int]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the fault matrix has ended")
        found: dict[str, int] = json.loads(line)
        return found


# --- the clients -----------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    status: int = 0
    closes: bool = False
    whole: bool = False
    body: bytes = b""


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """One answer; `whole` tells whether it was complete by its framing."""
    answer = Answer()
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        answer.status = int(head[9:12])
        answer.closes = b"connection: close" in head
        if b"transfer-encoding: chunked" in head:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                answer.body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        else:
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            answer.body = await reader.readexactly(length)
        answer.whole = True
    except asyncio.IncompleteReadError as error:
        answer.body += error.partial
    except ConnectionError:
        pass
    return answer


class Clients:
    """Strikes faults at the data plane and checks what comes of them."""

    def __init__(self, port: int, only: list[str]) -> None:
        self.port = port
        self.matrix = [case for case in MATRIX if case[0] in only] if only else MATRIX
        self.wrong: Counter[str] = Counter()
        self.struck = 0
        self.left = 0
        self.followed = 0
        self._number = 0

    async def strike(self, count: int, clients: int) -> None:
        """`count` faults, evenly from the matrix in an order of chance, by so many clients at a time."""
        rng = random.Random(count)
        order = [self.matrix[number % len(self.matrix)] for number in range(count)]
        rng.shuffle(order)
        turns = iter(order)
        await asyncio.gather(*(self._client(turns, rng) for _ in range(clients)))

    async def _client(self, turns: Any, rng: random.Random) -> None:
        reader = writer = None
        for name, method, kept in turns:
            self.struck += 1
            if writer is None or reader is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            leaves = rng.random() < 0.05
            try:
                async with asyncio.timeout(30):
                    alive = await self._one(reader, writer, name, method, kept, leaves)
            except TimeoutError:
                self.wrong[f"{name} {method}: no answer in 30 s"] += 1
                alive = False
            except (ConnectionError, ValueError) as error:
                self.wrong[f"{name} {method}: {error!r}"] += 1
                alive = False
            if not alive:
                writer.close()
                reader = writer = None
        if writer is not None:
            writer.close()

    async def _one(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        name: str,
        method: str,
        kept: bool,
        leaves: bool,
    ) -> bool:
        """One fault; returns whether the connection lives on."""
        fault = FAULTS[name]
        self._number += 1
        mark = f"{self._number:010d}"
        long = fault.then == "unread" and method == "POST"  # the answer comes while most of the body is still to come
        lines = [f"{method} /{name}/{mark} HTTP/1.1", "Host: a.example"]
        if method == "POST":
            lines.append(f"Content-Length: {100_000 if long else len(mark)}")
        if not kept:
            lines.append("Connection: close")
        writer.write("\r\n".join([*lines, "", mark if method == "POST" else ""]).encode())
        if leaves:
            self.left += 1
            if self._number % 2:
                await asyncio.sleep(0)
            reset(writer)
            return False
        answer = await read_answer(reader)
        expected = fault.get if method == "GET" else fault.post
        said = f"{name} {method} {'kept' if kept else 'not kept'}"
        if answer.status not in expected:
            self.wrong[f"{said}: {answer.status}"] += 1
        if answer.whole == fault.cut:
            self.wrong[f"{said}: {'whole' if answer.whole else 'cut'}"] += 1
        if fault.then == "fickle" and answer.body != mark.encode():
            self.wrong[f"{said}: another's answer"] += 1
        if fault.cut or answer.closes or not answer.whole:
            if await reader.read(1):
                self.wrong[f"{said}: bytes behind the end"] += 1
            if kept and not fault.cut and not long and fault.then != "unread":
                self.wrong[f"{said}: closed without need"] += 1
            return False
        if not kept or long:
            self.wrong[f"{said}: does not say that it closes"] += 1
            return False
        self._number += 1
        self.followed += 1
        mark = f"{self._number:010d}"
        writer.write(f"GET /good/{mark} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
        answer = await read_answer(reader)
        if answer.status != 200 or answer.body != mark.encode():
            self.wrong[f"{said}: the next request: {answer.status} {answer.body[:40]!r}"] += 1
        return answer.whole and not answer.closes


async def run(count: int, clients: int, only: list[str]) -> int:
    """The whole thing; returns 0 if nothing was wrong and nothing is left over."""
    targets, plane = Child(), Child()
    ports = await targets.start("--targets")
    port = (await plane.start("--front", json.dumps(ports)))["port"]
    strikers = Clients(port, only)
    await strikers.strike(20 * len(strikers.matrix), clients)  # until everything has been needed once
    before = await at_rest(plane)
    began = time.monotonic()
    await strikers.strike(count, clients)
    seconds = time.monotonic() - began
    after = await at_rest(plane)
    twice = await targets.counts()
    await plane.stop()
    await targets.stop()
    print(f"{count} faults of {len(strikers.matrix)} kinds in {seconds:.0f} s, {strikers.left} clients left early, "
          f"{strikers.followed} next requests on the same connection")  # fmt: skip
    for name, value in before.items():
        print(f"  {name:12} {value:8} before {after[name]:8} after")
    for what, times in strikers.wrong.most_common():
        print(f"! {what} ({times} times)")
    print(
        f"{sum(strikers.wrong.values())} wrong outcomes, "
        f"{sum(twice.values())} POSTs that reached a target twice {twice or ''}"
    )
    leaked = [name for name in before if name != "KiB" and after[name] > before[name]]
    grown = after["KiB"] - before["KiB"]
    print(f"left over: {', '.join(leaked) or 'nothing'}; memory grew by {grown} KiB")
    return int(bool(strikers.wrong or twice or leaked or grown > 8192))


async def at_rest(plane: Child, within: float = 30.0) -> dict[str, int]:
    """The data plane's counts, once nothing is under way any more (or `within` seconds are over)."""
    until = time.monotonic() + within
    while True:
        counts = await plane.counts()
        busy = sum(counts[name] for name in ("clients", "in flight", "connections", "waiting"))
        if not busy or time.monotonic() > until:
            return counts
        await asyncio.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description="Strike faults at a data plane and count what is left over.")
    parser.add_argument("--count", type=int, default=100_000, help="faults (default: 100000)")
    parser.add_argument("--clients", type=int, default=96, help="clients at a time (default: 96)")
    parser.add_argument("--only", action="append", default=[], choices=FAULTS, help="this fault alone; may be repeated")
    parser.add_argument("--targets", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--front", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.targets:
        uvloop.run(Targets().run())
    elif options.front:
        uvloop.run(front(json.loads(options.front)))
    else:
        return uvloop.run(run(options.count, options.clients, options.only))
    return 0


if __name__ == "__main__":
    os.nice(5)
    raise SystemExit(main())
