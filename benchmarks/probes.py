"""Two thousand targets, each probed every second: do probes start on time, and what do they cost?

    python -m benchmarks.probes [--targets 2000] [--seconds 30] [--flapping]

`lb run` is pinned to one processor; a small server on the other answers for all targets. What is measured: how late
probes began by their schedule (lb's own `lb_probe_late_seconds`, read every few seconds, over the last 4,096 probes),
and the CPU time of lb's supervisor for each probe, its history on the disk included. With `--flapping` each second
answer is a failure, the worst case of the history. On a machine with other work, run it as `chrt -r 1 python -m …`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median

from benchmarks.processes import LOAD_CPU, PROXY_CPU, await_answer, cpu_seconds, free_port, resident, start, stop

#: Seconds between two looks at the metrics.
EVERY = 3
SERVER = """
import asyncio, itertools, sys, uvloop
ANSWER = "HTTP/1.1 {}\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n"
answers = itertools.cycle([ANSWER.format(status).encode() for status in sys.argv[2].split(",")])
class Answer(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        self.transport.write(next(answers))
        self.transport.close()
async def main():
    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()
uvloop.run(main())
"""


def scrape(admin: str, name: str) -> float:
    """A metric's value, all its series together."""
    with urllib.request.urlopen(f"{admin}/metrics", timeout=10) as response:
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", response.read().decode(), re.MULTILINE)
    return sum(map(float, found))


def measure(count: int, seconds: int, flaps: bool, folder: Path) -> None:
    admin, port = f"127.0.0.1:{free_port()}", free_port()
    targets = [f"127.1.{number // 250}.{1 + number % 250}:{port}" for number in range(count)]  # names: all ask `port`
    pools = ", ".join(f"p{first // 100}: [{', '.join(targets[first : first + 100])}]" for first in range(0, count, 100))
    file = folder / "lb.yaml"
    file.write_text(
        f"listeners: [127.0.0.1:{free_port()}]\nadmin: {{bind: '{admin}'}}\nstate_dir: {folder}/state\n"
        f"access_log: {{format: 'off'}}\nservices:\n  app:\n    pools: {{{pools}}}\n    active: p0\n"
        "    readiness: {path: /, host: 127.0.0.1, interval: 1s, timeout: 1s}\nroutes: [{path: /, service: app}]\n"
    )
    command = [sys.executable, "-c", SERVER, str(port), "200 OK,503 No" if flaps else "200 OK"]
    servers = [start(command, {LOAD_CPU}, folder, "targets")]
    try:
        run = [sys.executable, "-m", "lb", "run", str(file), "--workers", "1"]
        servers.append(start(run, {PROXY_CPU}, folder, "lb"))
        await_answer(f"http://{admin}/livez", servers[1], 60.0)
        with urllib.request.urlopen(f"http://{admin}/api/v1/status", timeout=10) as response:
            pid = json.load(response)["pid"]
        time.sleep(5.0)  # the first probes have parted
        before, probes, began = cpu_seconds(pid), scrape(f"http://{admin}", "lb_probes_total"), time.monotonic()
        late = []
        for _ in range(seconds // EVERY):
            time.sleep(EVERY)
            late.append(scrape(f"http://{admin}", "lb_probe_late_seconds"))
        # Reading the metrics of so many targets costs as much as many probes; it is measured, and taken off.
        scraped = cpu_seconds(pid)
        for _ in range(5):
            scrape(f"http://{admin}", "lb_probe_late_seconds")
        reading = (cpu_seconds(pid) - scraped) / 5
        made = scrape(f"http://{admin}", "lb_probes_total") - probes
        took = scraped - before - reading * (len(late) + 1)
        elapsed = time.monotonic() - began
        rate = made / elapsed
        print(
            f"{count} targets every second, {rate:.0f} probes a second: started late by {median(late) * 1e3:.1f} ms at "
            f"the 99th percentile (the worst of {len(late)} looks: {max(late) * 1e3:.1f} ms)"
        )
        size = {path.name: path.stat().st_size // 1024 for path in (folder / "state").glob("probes*")}
        print(
            f"supervisor: {took / made * 1e6:.0f} µs of CPU a probe, {took / elapsed:.0%} of one core, "
            f"{resident(pid) / 2**20:.0f} MiB; history on disk, KiB: {size}"
        )
    finally:
        for process in reversed(servers):
            stop(process)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--targets", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--flapping", action="store_true", help="every target passes and fails in turn")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(arguments.targets, arguments.seconds, arguments.flapping, Path(folder))


if __name__ == "__main__":
    main()
