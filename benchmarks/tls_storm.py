"""`python -m benchmarks.tls_storm`: half-open and full TLS handshakes beside ordinary clients of the same worker.

Rounds alternate: ordinary clients alone, then the same beside the storm. What counts is the ratio of their p99.
Ordinary clients have kept connections to a plain listener; the storm is at a TLS listener. Connections of the storm
that lb closes are opened anew, so that there are always as many. nginx stands in no round: its handshakes are not
bounded, and each blocks its worker for as long as lb's does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks import load, origin
from benchmarks.processes import LOAD_CPU, PROXY_CPU, await_answer, free_port, start, stop
from benchmarks.tls import certificate

#: The begin of a ClientHello that never comes whole.
_HALF = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)


async def _storm(port: int, rate: float, half_open: int, seconds: float) -> dict[str, int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    counts = {"full": 0, "failed": 0, "half": 0}
    until = time.monotonic() + seconds

    async def half() -> None:
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                counts["half"] += 1
                writer.write(_HALF)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(until - time.monotonic()):
                        await reader.read(1)
                writer.transport.abort()
            await asyncio.sleep(0.1)

    async def full() -> None:
        try:
            async with asyncio.timeout(10):
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.transport.abort()
            counts["full"] += 1
        except (OSError, TimeoutError):
            counts["failed"] += 1

    tasks = {asyncio.ensure_future(half()) for _ in range(half_open)}
    due = time.monotonic()
    while time.monotonic() < until:
        task = asyncio.ensure_future(full())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    await asyncio.gather(*tasks)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tls_storm", description=__doc__)
    parser.add_argument("--half-open", type=int, default=1000, help="handshakes that never end (1000)")
    parser.add_argument("--rate", type=float, default=200.0, help="full handshakes a second (200)")
    parser.add_argument("--requests", type=float, default=500.0, help="ordinary requests a second (500)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of rounds (5)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a round (10)")
    parser.add_argument("--python", default=sys.executable, help="lb's interpreter (this one)")
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.client:
        print(json.dumps(asyncio.run(_storm(asked.client, asked.rate, asked.half_open, asked.seconds))))
        return 0
    here = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory(prefix="lb-bench-") as temporary:
        folder = Path(temporary)
        behind, targets = origin.origin(folder)
        plain, tls, own = free_port(), free_port(), certificate(folder)
        (folder / "lb.yaml").write_text(
            f"listeners:\n  - 127.0.0.1:{plain}\n"
            f"  - {{bind: '127.0.0.1:{tls}', tls: {{cert_file: {own}, key_file: {own}}}}}\n"
            f"admin: {{bind: 127.0.0.1:0}}\nstate_dir: {folder}/state\naccess_log: off\n"
            f"backends: [{', '.join(targets)}]\n"
        )
        command = [asked.python, "-m", "lb", "run", str(folder / "lb.yaml"), "--workers", "1"]
        lb = start(command, {PROXY_CPU}, folder, "lb", {"PYTHONPATH": str(here)})
        try:
            await_answer(f"http://127.0.0.1:{plain}/", lb)
            return _rounds(asked, plain, tls, here)
        finally:
            stop(lb)
            stop(behind)


def _rounds(asked: argparse.Namespace, plain: int, tls: int, here: Path) -> int:
    print("| p99 alone, ms | p99 beside the storm, ms | ratio | full handshakes | failed | half-open | errors |")
    print("| --- " * 7 + "|", flush=True)
    ratios = []
    command = ["taskset", "-c", str(LOAD_CPU), sys.executable, "-m", "benchmarks.tls_storm", "--client", str(tls)]
    command += ["--rate", str(asked.rate), "--half-open", str(asked.half_open), "--seconds", str(asked.seconds + 3.0)]
    for _ in range(asked.rounds):
        alone = load.paced(plain, asked.requests, asked.seconds)
        environ = {**os.environ, "PYTHONPATH": str(here)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as storm:
            time.sleep(2.0)
            beside = load.paced(plain, asked.requests, asked.seconds)
            counts = json.loads(storm.communicate(timeout=60)[0])
        ratios.append(beside.latency["p99"] / alone.latency["p99"])
        p99s = f"{alone.latency['p99'] * 1e3:.2f} | {beside.latency['p99'] * 1e3:.2f} | {ratios[-1]:.2f}"
        errors = alone.errors + beside.errors
        print(f"| {p99s} | {counts['full']} | {counts['failed']} | {counts['half']} | {errors} |", flush=True)
    print(f"\nmedian ratio {median(ratios):.2f} (goal: 1.5)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
