"""Hard to break: figures for slow clients, idle clients, endless bodies, and targets that close idle connections.

python -m benchmarks.robustness [slow | idle | large | stale] …
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks import load, servers
from benchmarks.origin import ANSWER
from benchmarks.origin import origin as start_origin
from benchmarks.processes import stop
from benchmarks.servers import PEERS, Setup

#: What a proxy is asked for until it serves; nothing that a figure stands for.
_UP = f"HTTP/1.1 200 OK\r\nContent-Length: {len(ANSWER)}\r\n\r\n{ANSWER}".encode()


def slow(folder: Path) -> None:
    """2,000 slowloris connections and 2,000 idle ones: what do ordinary clients notice?"""
    origin, targets = start_origin(folder)
    lb = servers.lb(Setup(folder, targets))
    try:
        before = [load.wrk(f"{lb.url}/", 16, 1, folder).latency["p99"] for _ in range(5)]
        socks = [socket.create_connection(("127.0.0.1", lb.port)) for _ in range(4000)]
        going = True

        def drip() -> None:
            while going:
                for sock in socks[:2000]:
                    with contextlib.suppress(OSError):
                        sock.send(b"X")
                time.sleep(1.0)

        for sock in socks[:2000]:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        dripping = threading.Thread(target=drip)
        dripping.start()
        during = [load.wrk(f"{lb.url}/", 16, 1, folder).latency["p99"] for _ in range(5)]
        going = False
        dripping.join()
        for sock in socks:
            sock.close()
        a, b = sorted(before)[2] * 1e3, sorted(during)[2] * 1e3
        print(f"slow: p99 {a:.2f} ms without, {b:.2f} ms with 2,000 slow and 2,000 idle connections: {b / a:.2f} times")
    finally:
        stop(lb.process)
        stop(origin)


def idle(folder: Path) -> None:
    """Memory of 10,000 idle connections, each after one request."""
    origin, targets = start_origin(folder)
    lb = servers.lb(Setup(folder, targets))
    try:
        at_rest = lb.resident()
        socks = []
        for _ in range(10_000):
            sock = socket.create_connection(("127.0.0.1", lb.port))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n\r\n")
            sock.recv(4096)
            socks.append(sock)
        full = lb.resident()
        per = (full - at_rest) / len(socks) / 1024
        print(f"idle: {at_rest >> 20} MiB at rest, {full >> 20} MiB with {len(socks)}: {per:.1f} KiB a connection")
        for sock in socks:
            sock.close()
    finally:
        stop(lb.process)
        stop(origin)


def large(folder: Path, size: int = 10 << 30) -> None:
    """10 GiB each way through lb; download to a slow reader for a while."""

    async def origin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await serve(reader, writer)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            left = size
            while left:
                left -= len(await reader.read(min(left, 1 << 20)))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        elif not head.startswith(b"GET /large "):
            writer.write(_UP)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            piece = bytes(1 << 20)
            for _ in range(size >> 20):
                writer.write(piece)
                await writer.drain()
        await writer.drain()
        writer.close()

    port = _in_thread(origin)
    lb = servers.lb(Setup(folder, (f"127.0.0.1:{port}",), readiness="tcp"))
    try:
        at_rest, highest = lb.resident(), 0
        for head in (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size,
            b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n",
        ):
            began, moved = time.monotonic(), 0
            with socket.create_connection(("127.0.0.1", lb.port)) as sock:
                sock.sendall(head)
                piece = bytes(1 << 20)
                if head.startswith(b"POST"):
                    for number in range(size >> 20):
                        sock.sendall(piece)
                        if number % 256 == 0:
                            highest = max(highest, lb.resident())
                    moved = size
                    assert sock.recv(100).startswith(b"HTTP/1.1 200")
                else:
                    for _ in range(100):  # slow at first: 100 reads of 64 KiB in two seconds
                        moved += len(sock.recv(65536))
                        time.sleep(0.02)
                        highest = max(highest, lb.resident())
                    while moved < size:
                        moved += len(sock.recv(1 << 20))
            seconds = time.monotonic() - began
            print(f"large: {head[:4].decode()} {moved / (1 << 30):.1f} GiB in {seconds:.0f} s")
        more = (highest - at_rest) / (1 << 20)
        print(f"large: {at_rest >> 20} MiB at rest, {highest >> 20} MiB at most: {more:.1f} more")
    finally:
        stop(lb.process)


def stale(folder: Path, total: int = 200_000, clients: int = 32) -> None:
    """Targets that close idle connections after a random 1 to 50 ms, under POST load; nginx and HAProxy beside lb."""
    for name in ("lb", "nginx", "haproxy"):
        seen: Counter[bytes] = Counter()

        async def origin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    async with asyncio.timeout(random.uniform(0.001, 0.05)) as idle:
                        head = await reader.readuntil(b"\r\n\r\n")
                        idle.reschedule(None)
                        if head.startswith(b"POST"):
                            seen[await reader.readexactly(10)] += 1  # noqa: B023
                            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                        else:
                            writer.write(_UP)
            except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        port = _in_thread(origin)
        server = PEERS[name](Setup(folder, (f"127.0.0.1:{port}",), log=False, readiness="tcp"))
        share = (total if name == "lb" else total // 10) // clients
        errors: Counter[str] = Counter()

        def client(number: int) -> None:
            sock: socket.socket | None = None
            for turn in range(share):  # noqa: B023
                body = b"%04d%06d" % (number, turn)
                try:
                    if sock is None:
                        sock = socket.create_connection(("127.0.0.1", server.port), 10)  # noqa: B023
                    sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n" + body)
                    answer = sock.recv(65536)
                    if not answer.startswith(b"HTTP/1.1 200"):
                        errors[answer[9:12].decode() or "closed"] += 1  # noqa: B023
                        sock.close()
                        sock = None
                except OSError as error:
                    errors[type(error).__name__] += 1  # noqa: B023
                    sock = None

        threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stop(server.process)
        twice = sum(1 for count in seen.values() if count > 1)
        print(f"stale: {name}: {share * clients} POSTs, errors {dict(errors)}, arrived twice: {twice}", flush=True)


def _in_thread(handler: Callable[..., object]) -> int:
    """Serve on a loop in a thread of its own; returns the port."""
    ready = threading.Event()
    ports: list[int] = []

    async def serve() -> None:
        server = await asyncio.start_server(handler, "127.0.0.1", 0, limit=1 << 20, backlog=1024)  # type: ignore[arg-type]
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await asyncio.Event().wait()

    def run() -> None:
        import uvloop

        uvloop.run(serve())

    threading.Thread(target=run, daemon=True).start()
    ready.wait()
    return ports[0]


PARTS = {"slow": slow, "idle": idle, "large": large, "stale": stale}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robustness", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("part", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)} (all)")
    parts = parser.parse_args().part
    for name in parts:
        if name not in PARTS:
            parser.error(f"{name} is no part; there are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="lb-bench-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        for name in parts or PARTS:
            PARTS[name](folder)


if __name__ == "__main__":
    main()
