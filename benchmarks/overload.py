"""Three times more than the pool can do: what is still done, how late, and when is all well again?

    python -m benchmarks.overload [--times 3] [--seconds 20] [--only adaptive,queue,none]

Two targets with eight slots each; every request holds a slot for 25 ms and waits in line for it, probes too. So the
pool can do 640 requests/s, and the proxy and the load generator, which share the machine, have time to spare: what is
measured is how the proxy sheds, not how fast the machine is. The load is open: a request is sent when it is due, on a
free connection or a new one, whatever has become of the others (no coordinated omission), and its latency counts from
then.

Three settings of the service, all as documented: `adaptive` (`breaker: {adaptive: true}`), `queue` (a bound on
connections and a bounded queue) and, to see what it is good for, `none` (nothing but lb's defaults; it is not judged).

1. Capacity: twice as many clients as slots ask one request after the other, so that no slot is ever free.
2. Overload: `times` the capacity. Goodput (answers with 200) must be at least 90 % of the capacity, the 99th percentile
   of the accepted below ten times that of capacity, and every refusal a 503 with Retry-After.
3. Afterwards half the capacity: within two seconds every request must be answered with 200 again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.processes import await_answer, free_port, stop

TARGETS, SLOTS, SERVICE_TIME = 2, 8, 0.025
CLIENTS = 2 * TARGETS * SLOTS
CAPACITY_SECONDS = 6.0
SETTLE = 3.0  # seconds of the overload before it is judged
AFTERWARDS = 6.0
RECOVERY = 2.0
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
MOST_CONNECTIONS = 4000
SETTINGS = {
    "adaptive": "    breaker: {adaptive: true}\n",
    # Per worker, of which there are two: half of the slots, and less than 150 ms of waiting.
    "queue": f"    breaker: {{connections: {SLOTS // 2}, pending: 80}}\n    timeouts: {{queue: 150ms}}\n",
    "none": "",
}


# --- the slow target --------------------------------------------------------------------------------------------------


class Slow(asyncio.Protocol):
    """A connection to a server with few slots."""

    free = SLOTS
    line: deque[Slow] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if Slow.free:
            Slow.free -= 1
            self.serve()
        else:
            Slow.line.append(self)

    def serve(self) -> None:
        asyncio.get_running_loop().call_later(SERVICE_TIME, self.done)

    def done(self) -> None:
        # A server works for those who have left as well: it does not know.
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        if Slow.line:
            Slow.line.popleft().serve()
        else:
            Slow.free += 1


async def serve(port: int) -> None:
    await asyncio.get_running_loop().create_server(Slow, "127.0.0.1", port, backlog=4096)
    await asyncio.Event().wait()


# --- the load ---------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What became of the requests of one phase."""

    good: list[tuple[float, float]] = field(default_factory=list)  # (when due, latency)
    refused: list[tuple[float, bool]] = field(default_factory=list)  # (when due, with Retry-After)
    others: Counter[str] = field(default_factory=Counter)
    bad_at: float = 0.0  # when the last one was due that was not answered with 200


class Caller(asyncio.Protocol):
    """A connection of the load generator."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.due = 0.0  # of the request under way; 0: none
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, due: float) -> None:
        self.due = due
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self.held += data
        end = self.held.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.held[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.held) < end + 4 + length:
            return
        self.held = b""
        due, self.due = self.due, 0.0
        self.load.answered(self, due, head[9:12].decode(), b"retry-after:" in head)

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.lost(self)


class Load:
    """Requests to one address, by a clock or one after the other."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen = Seen()
        self.idle: list[Caller] = []
        self.count = 0
        self.again = False  # closed loop: each answer is followed by a request

    def answered(self, caller: Caller, due: float, status: str, retry_after: bool) -> None:
        seen = self.seen
        if status == "200":
            seen.good.append((due, time.perf_counter() - due))
        else:
            seen.bad_at = max(seen.bad_at, due)
            if status == "503":
                seen.refused.append((due, retry_after))
            else:
                seen.others[status] += 1
        if self.again:
            caller.ask(time.perf_counter())
        elif not caller.transport.is_closing():
            self.idle.append(caller)

    def lost(self, caller: Caller) -> None:
        self.count -= 1
        with contextlib.suppress(ValueError):
            self.idle.remove(caller)
        if caller.due:
            self.seen.others["broken off"] += 1
            self.seen.bad_at = max(self.seen.bad_at, caller.due)

    async def _open(self, due: float) -> None:
        try:
            async with asyncio.timeout(5):
                _, caller = await asyncio.get_running_loop().create_connection(
                    lambda: Caller(self), "127.0.0.1", self.port
                )
        except (OSError, TimeoutError) as error:
            self.count -= 1
            self.seen.others[type(error).__name__] += 1
            self.seen.bad_at = max(self.seen.bad_at, due)
            return
        caller.ask(due)

    def send(self, due: float) -> None:
        if self.idle:
            self.idle.pop().ask(due)
        elif self.count < MOST_CONNECTIONS:
            self.count += 1
            asyncio.ensure_future(self._open(due))  # noqa: RUF006 - it ends by itself
        else:
            self.seen.others["not sent: too many connections"] += 1

    async def closed(self, clients: int, seconds: float) -> Seen:
        """So many clients, each of which asks again when it was answered."""
        self.seen, self.again = Seen(), True
        for _ in range(clients):
            self.send(time.perf_counter())
        await asyncio.sleep(seconds)
        self.again = False
        return self.seen

    async def open(self, rate: float, seconds: float) -> Seen:
        """Requests at a constant rate."""
        self.seen = Seen()
        began = time.perf_counter()
        sent = 0
        while (now := time.perf_counter()) < began + seconds:
            while began + sent / rate <= now:
                self.send(began + sent / rate)
                sent += 1
            await asyncio.sleep(0.001)
        return self.seen


# --- the run ----------------------------------------------------------------------------------------------------------


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else float("inf")


@dataclass
class Outcome:
    """One setting's figures."""

    capacity: float
    goodput: float
    usual: float  # 99th percentile at capacity, seconds
    p50: float
    p99: float
    refused: int
    without_retry_after: int
    others: dict[str, int]
    recovery: float  # seconds after the end of the overload until the last request that was due and not served

    def faults(self) -> list[str]:
        found = []
        if self.goodput < 0.9 * self.capacity:
            found.append(f"goodput is {self.goodput / self.capacity:.0%} of the capacity")
        if self.p99 > 10 * self.usual:
            found.append(f"p99 {self.p99 * 1000:.0f} ms is more than ten times {self.usual * 1000:.0f} ms")
        if self.without_retry_after:
            found.append(f"{self.without_retry_after} refusals without Retry-After")
        if self.others:
            found.append(f"neither 200 nor 503: {self.others}")
        if self.recovery > RECOVERY:
            found.append(f"recovery took {self.recovery:.1f} s")
        return found


async def measure(port: int, times: float, seconds: float) -> Outcome:
    load = Load(port)
    await load.closed(CLIENTS, 1.0)
    await asyncio.sleep(0.5)
    seen = await load.closed(CLIENTS, CAPACITY_SECONDS)
    capacity = len(seen.good) / CAPACITY_SECONDS
    usual = percentile([latency for _, latency in seen.good], 0.99)
    await asyncio.sleep(0.5)
    began = time.perf_counter()
    seen = await load.open(times * capacity, seconds)
    ended = time.perf_counter()
    judged = [(due, latency) for due, latency in seen.good if began + SETTLE <= due and due + latency <= ended]
    goodput = sum(began + SETTLE <= due + latency <= ended for due, latency in seen.good) / (seconds - SETTLE)
    after = await load.open(0.5 * capacity, AFTERWARDS)
    latencies = [latency for _, latency in judged]
    late = [due for due, latency in after.good if latency > 10 * usual]
    return Outcome(
        capacity,
        goodput,
        usual,
        percentile(latencies, 0.5),
        percentile(latencies, 0.99),
        len(seen.refused),
        sum(not polite for _, polite in seen.refused),
        dict(seen.others + after.others),
        max([after.bad_at, *late, ended]) - ended,
    )


def run(name: str, times: float, seconds: float) -> Outcome:
    """One setting on a stage of its own."""
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="lb-overload-") as temporary:
        folder = Path(temporary)
        try:
            ports = [free_port() for _ in range(TARGETS)]
            for port in ports:
                running.append(subprocess.Popen([sys.executable, "-m", "benchmarks.overload", "--serve", str(port)]))
                await_answer(f"http://127.0.0.1:{port}/", running[-1])
            port, admin = free_port(), free_port()
            file = folder / "lb.yaml"
            file.write_text(
                f"listeners: [127.0.0.1:{port}]\nadmin: {{bind: 127.0.0.1:{admin}}}\nstate_dir: {folder}/state\n"
                f"access_log: {{path: {folder}/access.log}}\n"
                f"services:\n  slow:\n    pools: {{all: [{', '.join(f'http://127.0.0.1:{p}' for p in ports)}]}}\n"
                f"    readiness: {{path: /, interval: 1s, timeout: 1s}}\n{SETTINGS[name]}"
            )
            command = [sys.executable, "-m", "lb", "run", str(file), "--workers", "2"]
            running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            await_answer(f"http://127.0.0.1:{port}/", running[-1])
            outcome = uvloop.run(measure(port, times, seconds))
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/api/v1/status", timeout=10) as response:
                targets = json.load(response)["services"][0]["pools"][0]["targets"]
            if not all(target["state"] == "ready" for target in targets):
                outcome.others["a target is out"] = 1
            return outcome
        finally:
            for process in reversed(running):
                stop(process)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overload", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=float, default=3.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", default=",".join(SETTINGS))
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the slow target instead")
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve(options.serve))
    print(f"{TARGETS} targets, {SLOTS} slots of {SERVICE_TIME * 1000:g} ms each; load: {options.times:g} times that\n")
    print("| setting | capacity/s | goodput/s | | p50 ms | p99 ms | p99 at capacity | 503 | recovery s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    faults = []
    for name in options.only.split(","):
        o = run(name, options.times, options.seconds)
        print(
            f"| {name} | {o.capacity:.0f} | {o.goodput:.0f} | {o.goodput / o.capacity:.0%} | {o.p50 * 1000:.0f} "
            f"| {o.p99 * 1000:.0f} | {o.usual * 1000:.0f} | {o.refused} | {o.recovery:.2f} |",
            flush=True,
        )
        if name != "none":
            faults += [f"{name}: {fault}" for fault in o.faults()]
        elif o.faults():
            print(f"without any: {'; '.join(o.faults())}")
    for fault in faults:
        print(f"FAULT {fault}")
    print("FAILED" if faults else "PASSED")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
