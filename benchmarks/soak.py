"""Hours in small: does a worker's memory grow under steady load?

    python -m benchmarks.soak [--minutes 30] [--load 0.7]

lb with two workers; small GETs at a constant rate (h2load), `load` times what the same load generator gets through when
it asks as fast as it can; beside them POSTs, event streams, WebSockets and connections that come and go
(`benchmarks.chaos_clients`). The resident memory of each process is read every five seconds. After a sixth of the
time, in which pools fill and caches settle, a line is laid through it by least squares: its slope must stay below 1 MiB
in ten minutes for each worker. Every minute the metrics are asked for, as Prometheus would.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

from benchmarks.origin import origin
from benchmarks.processes import await_answer, binary, cpu_seconds, free_port, resident, stop

SAMPLE_EVERY = 5.0
SCRAPE_EVERY = 60.0
CONNECTIONS = 32
BOUND = 1.0  # MiB in ten minutes
MIXED = 3  # backends for what is not a small GET


def slope(points: list[tuple[float, float]]) -> float:
    """Least squares: how much y grows with each unit of x."""
    if len(points) < 2:
        return 0.0
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def h2load(url: str, seconds: float, rate: float = 0.0) -> subprocess.Popen[str]:
    """GETs on kept connections: at a constant rate, or as fast as they are answered."""
    command = [binary("h2load"), "--h1", f"-c{CONNECTIONS}", f"-D{seconds:g}"]
    if rate:
        command.append(f"--rps={rate / CONNECTIONS:.1f}")
    return subprocess.Popen([*command, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def throughput(told: str) -> float:
    """Requests per second that an h2load had answered."""
    return float(re.findall(r"([\d.]+) req/s", told)[0])


def write(folder: Path, port: int, admin: int, small: str, mixed: list[int]) -> Path:
    path = folder / "lb.yaml"
    path.write_text(
        f"listeners: [127.0.0.1:{port}]\n"
        f"admin: {{bind: 127.0.0.1:{admin}}}\n"
        f"state_dir: {folder}/state\n"
        "access_log: {path: /dev/null}\n"
        "services:\n"
        f"  small: {{pools: {{all: ['http://{small}']}}, readiness: {{path: /}}}}\n"
        f"  mixed: {{pools: {{all: [{', '.join(f'http://127.0.0.1:{port}' for port in mixed)}]}},"
        " readiness: {path: /health}}\n"
        "routes:\n"
        "  - {path: /get, service: mixed}\n  - {path: /post, service: mixed}\n"
        "  - {path: /events, service: mixed}\n  - {path: /ws, service: mixed}\n"
        "  - {path: /, service: small}\n"
    )
    return path


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--load", type=float, default=0.7, help="part of what it can do (0.7)")
    options = parser.parse_args()
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="lb-soak-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # nginx's workers may be somebody else
        try:
            return soak(folder, options.minutes * 60, options.load, running)
        finally:
            for process in reversed(running):
                stop(process)


def soak(folder: Path, seconds: float, load: float, running: list[subprocess.Popen[bytes]]) -> int:
    first, (small, *_) = origin(folder)
    running.append(first)
    mixed = [free_port() for _ in range(MIXED)]
    for port in mixed:
        command = [sys.executable, "-m", "benchmarks.chaos_backend", str(port), "/dev/null"]
        running.append(subprocess.Popen(command))
        await_answer(f"http://127.0.0.1:{port}/health", running[-1])
    port, admin = free_port(), free_port()
    file = write(folder, port, admin, small, mixed)
    lb = subprocess.Popen([sys.executable, "-m", "lb", "run", str(file), "--workers", "2"], stderr=subprocess.DEVNULL)
    running.append(lb)
    url = f"http://127.0.0.1:{port}"
    await_answer(f"{url}/", lb)
    told, _ = h2load(f"{url}/", 5).communicate(timeout=30)
    capacity = throughput(told)
    print(f"capacity with this load generator: {capacity:.0f} requests/s; load {load * capacity:.0f}", flush=True)
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/api/v1/status", timeout=10) as response:
        workers = json.load(response)["workers"]
    names = {lb.pid: "supervisor", **{pid: f"worker {pid}" for pid in workers}}
    book = folder / "clients.log"
    running.append(subprocess.Popen([sys.executable, "-m", "benchmarks.chaos_clients", url, str(book), "--gets", "2"]))
    bulk = h2load(f"{url}/", seconds, load * capacity)
    began = time.monotonic()
    busy = sum(map(cpu_seconds, workers))
    points: dict[int, list[tuple[float, float]]] = {pid: [] for pid in names}
    scraped = began
    while (now := time.monotonic()) - began < seconds and bulk.poll() is None:
        for pid in names:
            points[pid].append(((now - began) / 600, resident(pid) / 2**20))
        if now - scraped > SCRAPE_EVERY:
            scraped = now
            urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10).read()
            print(
                f"{now - began:5.0f} s: " + ", ".join(f"{names[p]} {points[p][-1][1]:.2f} MiB" for p in names),
                flush=True,
            )
        time.sleep(SAMPLE_EVERY)
    busy = sum(map(cpu_seconds, workers)) - busy
    told, _ = bulk.communicate(timeout=60)
    took = time.monotonic() - began
    stop(running.pop())  # the clients, whose book is complete then
    outcomes = Counter(line.split()[2] for line in book.read_text().splitlines())
    found = re.findall(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", told)
    succeeded, *troubles = map(int, found[0])
    print(
        f"\n{succeeded} small GETs answered ({throughput(told):.0f}/s), {sum(troubles)} not; others: {dict(outcomes)}"
    )
    print(f"the workers were busy for {busy / took:.2f} of a processor\n")
    print("| process | MiB after warm-up | MiB at the end | slope, MiB in ten minutes |\n| --- | --- | --- | --- |")
    passed = not sum(troubles)
    for pid, samples in points.items():
        settled = [point for point in samples if point[0] * 600 >= seconds / 6]
        grows = slope(settled)
        print(f"| {names[pid]} | {settled[0][1]:.2f} | {settled[-1][1]:.2f} | {grows:+.3f} |")
        passed = passed and (grows < BOUND or pid == lb.pid) and samples[-1][1] > 0
    print("PASSED" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
