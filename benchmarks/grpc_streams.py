"""`python -m benchmarks.grpc_streams`: 10,000 gRPC streams through lb at one time, all of them alive.

Channels of grpcio open bidirectional streams, up to the hundred that lb allows on a connection. Each stream has an echo
as it opens, and another one once all are open. lb's own gauge says how many there are. Then all are ended, and none may
have failed.

`breaker.connections` bounds streams to a target, in each worker: 1,024 by default. With two targets and two workers no
more than 4,096 are served by that, and 2,048 (`breaker.pending`) wait for `timeouts.queue`. So it is raised here.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from benchmarks import report
from benchmarks.processes import children, free_port, resident, stop

#: Streams that lb allows on a connection (`lb.http.h2.connection.STREAMS`).
ON_CONNECTION = 100
#: Streams that have no echo yet, at one time: where more than 1,000 wait for the application, a server of gRPC's core
#: cancels some (`grpc.server.max_pending_requests`).
OPENING = 500
#: Seconds until what has not come counts as failed.
PATIENCE = 60.0
CONFIG = """\
listeners: [{{bind: '127.0.0.1:{port}', protocols: [h2c, http/1.1]}}]
admin: {{bind: '127.0.0.1:{admin}'}}
state_dir: {folder}/state
access_log: {{path: {folder}/access.log}}
workers: 2
services:
  calls:
    readiness: {{protocol: grpc, interval: 1s, grace: 0s}}
    breaker: {{connections: {streams}}}
    pools: {{all: ['h2c://127.0.0.1:{first}', 'h2c://127.0.0.1:{second}']}}
routes: [{{path: /, service: calls}}]
"""


@dataclass
class Seen:
    """What the streams' clients have seen."""

    opened: float = 0.0  # seconds until each had an echo
    again: float = 0.0  # seconds in which each got another one, all of them open
    gauge: int = 0  # streams at that time, as lb counts them
    after: int = 0  # streams when all have ended
    memory: int = 0  # bytes that lb's workers grew by
    good: int = 0  # streams that ended as they should
    failures: Counter[str] = field(default_factory=Counter)


def streams(admin: int) -> int:
    """Requests under way over HTTP/2, as lb counts them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as response:
        found = re.search(r'^lb_downstream_streams\{protocol="h2"\} (\S+)$', response.read().decode(), re.MULTILINE)
    return int(float(found[1])) if found else 0


def settled(admin: int, wanted: int) -> int:
    """lb's count, once it is what it should be; after some seconds whatever it is. Workers report once a second."""
    until = time.monotonic() + 5.0
    while (count := streams(admin)) != wanted and time.monotonic() < until:
        time.sleep(0.2)
    return count


async def echo(call: Any, message: bytes, failures: Counter[str]) -> bool:
    """Whether a stream answers a message with itself."""
    try:
        async with asyncio.timeout(PATIENCE):
            await call.write(message)
            answer = await call.read()
    except grpc.RpcError:  # of a write it says nothing; the call knows how it has ended
        failures[f"{(await call.code()).name} {await call.details()}"] += 1
    except (TimeoutError, asyncio.InvalidStateError) as error:
        failures[repr(error)] += 1
    else:
        if answer == message:
            return True
        failures[f"{(await call.code()).name} {await call.details()}" if call.done() else "another message"] += 1
    return False


async def end(call: Any, failures: Counter[str]) -> bool:
    """Whether a stream ends well, once its client has said that it is done."""
    try:
        async with asyncio.timeout(PATIENCE):
            await call.done_writing()
            code = await call.code()
    except (TimeoutError, asyncio.InvalidStateError) as error:
        failures[f"at its end: {error!r}"] += 1
        return False
    failures[f"at its end: {code.name}"] += code is not grpc.StatusCode.OK
    return code is grpc.StatusCode.OK


async def clients(lb: subprocess.Popen[bytes], port: int, admin: int, count: int) -> Seen:
    """Open the streams, use them, and end them."""
    seen = Seen()
    before = sum(map(resident, children(lb.pid)))
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) for _ in range(-(-count // ON_CONNECTION))]
    try:
        began = time.monotonic()
        room = asyncio.Semaphore(OPENING)

        async def opened(number: int) -> Any:
            async with room:
                call = channels[number // ON_CONNECTION].stream_stream("/bench/both")()
                return call if await echo(call, b"one", seen.failures) else None

        calls = [call for call in await asyncio.gather(*map(opened, range(count))) if call is not None]
        seen.opened = time.monotonic() - began
        seen.gauge = await asyncio.to_thread(settled, admin, len(calls))
        seen.memory = sum(map(resident, children(lb.pid))) - before
        began = time.monotonic()
        await asyncio.gather(*(echo(call, b"two", seen.failures) for call in calls))
        seen.again = time.monotonic() - began
        seen.good = sum(await asyncio.gather(*(end(call, seen.failures) for call in calls)))
        seen.after = await asyncio.to_thread(settled, admin, 0)
    finally:
        for channel in channels:
            await channel.close()
    seen.failures = +seen.failures
    return seen


def ready(admin: int) -> None:
    """Return when lb serves; raises RuntimeError."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("lb did not get ready")


def main() -> int:
    count: int = _options().streams
    print(" · ".join(f"{key} {value}" for key, value in report.machine().items()), end="\n\n", flush=True)
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="lb-bench-") as folder:
        try:
            first, second, port, admin = (free_port() for _ in range(4))
            for target in (first, second):
                processes.append(subprocess.Popen([sys.executable, "-m", "benchmarks.grpc_origin", str(target)]))
            file = Path(folder) / "lb.yaml"
            file.write_text(
                CONFIG.format(folder=folder, port=port, admin=admin, streams=count, first=first, second=second)
            )
            with (Path(folder) / "lb.out").open("wb") as out:
                lb = subprocess.Popen([sys.executable, "-m", "lb", "run", str(file)], stdout=out, stderr=out)
            processes.append(lb)
            ready(admin)
            return show(count, asyncio.run(clients(lb, port, admin, count)))
        finally:
            for process in reversed(processes):
                stop(process)


def show(count: int, seen: Seen) -> int:
    """One table. The exit status: 1 for a failure."""
    rows = [
        ("streams open at one time, as lb counts them", f"{seen.gauge:,} of {count:,}"),
        ("streams that had two echoes and ended well", f"{seen.good:,}"),
        ("failed", f"{count - seen.good:,}"),
        ("streams when all have ended", f"{seen.after:,}"),
        ("seconds until all were open; for another echo on each", f"{seen.opened:.1f}; {seen.again:.1f}"),
        ("KiB of lb's workers for each", f"{seen.memory / 1024 / count:.1f}"),
    ]
    print("| | |\n| --- | --- |")
    for name, value in rows:
        print(f"| {name} | {value} |")
    for why, times in seen.failures.most_common(20):
        print(f"{times} × {why}")
    return 0 if seen.gauge == seen.good == count and not seen.after else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpc_streams", description=__doc__)
    parser.add_argument("--streams", type=int, default=10_000, help="how many at one time (10,000)")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
