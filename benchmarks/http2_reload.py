"""`python -m benchmarks.http2_reload`: a reload and a switch a second, under HTTP/2 and gRPC on kept connections.

h2load asks on ten connections; beside it `benchmarks.http2_clients` has connections and gRPC channels of its own. Each
second a pool gets or loses a target by a reload, and traffic goes to the other pool. No request may fail and no stream
may be reset, but those that the limit of a drain has cut. These are counted by the clients and by lb's log alike.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from benchmarks import origin, report
from benchmarks.processes import Server, await_answer, binary, free_port, stop

CONNECTIONS, STREAMS = 10, 5
CONFIG = """\
listeners: [{{bind: '127.0.0.1:{port}', protocols: [h2c, http/1.1]}}]
admin: {{bind: '127.0.0.1:{admin}'}}
state_dir: {folder}/state
access_log: {{path: {folder}/access.log}}
services:
  plain: {{active: blue, rollout: {{bake: 0s}}, pools: {{blue: [{web0}], green: [{web1}]}}}}
  calls:
    active: blue
    rollout: {{bake: 0s}}
    readiness: {{protocol: grpc, interval: 500ms, grace: 0s}}
    timeouts: {{drain: {drain}s, total: {total}s}}
    pools: {{blue: [{blue}], green: [{green}]}}
routes:
  - {{match: {{path: /bench}}, service: calls}}
  - {{service: plain}}
"""


class Lb:
    """lb with two services, each blue and green."""

    def __init__(self, folder: Path, web: tuple[str, ...], calls: list[str], drain: float) -> None:
        self.file = folder / "lb.yaml"
        self.port, self.admin = free_port(), free_port()
        self.active = "blue"
        self._folder, self._web, self._calls, self._drain = folder, web, calls, drain
        self._reloads = 0
        self.write()
        with (folder / "lb.out").open("wb") as out:
            command = [sys.executable, "-m", "lb", "run", str(self.file), "--workers", "2"]
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        self.server = Server("lb", self.port, self.process, list)
        await_answer(f"{self.server.url}/", self.process)

    def write(self) -> None:
        """The file, in which each pool of calls has a second target every other time, and another setting."""
        number = self._reloads
        calls = [f"'h2c://{address}'" for address in self._calls]
        text = CONFIG.format(
            port=self.port,
            admin=self.admin,
            folder=self._folder,
            web0=f"'http://{self._web[0]}'",
            web1=f"'http://{self._web[1]}'",
            blue=", ".join(calls[: 1 + (number // 2 + 1) % 2]),
            green=", ".join(calls[2 : 3 + (number + 1) // 2 % 2]),
            drain=self._drain,
            total=3600 + number,
        )
        self.file.write_text(text)

    def order(self, path: str, body: object) -> None:
        url = f"http://127.0.0.1:{self.admin}/api/v1/{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            response.read()

    def reload(self) -> None:
        self._reloads += 1
        self.write()
        self.order("reload", {})

    def switch(self) -> None:
        self.active = "green" if self.active == "blue" else "blue"
        for service in ("plain", "calls"):
            self.order(f"services/{service}/switch", {"to": self.active})


def trouble(lb: Lb, seconds: float) -> tuple[int, int, list[str]]:
    """A reload and a switch each second; their numbers, and what was refused."""
    reloads = switches = 0
    refused = []
    until = time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        for what in (lb.reload, lb.switch):
            try:
                what()
            except OSError as error:
                said = error.read().decode() if isinstance(error, urllib.error.HTTPError) else error
                refused.append(f"{what.__name__}: {said}")
            else:
                reloads += what == lb.reload
                switches += what == lb.switch
        time.sleep(max(0.0, began + 1.0 - time.monotonic()))
    return reloads, switches, refused


def h2load_said(text: str) -> tuple[int, int]:
    """Requests that succeeded, and those that did not, but for what was under way at the end."""
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    if found is None or codes is None:
        raise RuntimeError(f"h2load said: {text}")
    good, failed, errored, late = map(int, found.groups())
    return good, max(0, failed + errored + late - CONNECTIONS * STREAMS) + sum(map(int, codes.groups()[1:]))


def logged(path: Path) -> Counter[str]:
    """The reasons of lb's log, of answers that were cut or failed."""
    reasons: Counter[str] = Counter()
    with path.open("rb") as file:
        for line in file:
            if b'"reason"' in line:
                reasons[json.loads(line)["reason"]] += 1
    return reasons


def main() -> int:
    options = _options()
    print(" · ".join(f"{key} {value}" for key, value in report.machine().items()), end="\n\n", flush=True)
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="lb-bench-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        try:
            behind, web = origin.origin(folder, 2)
            processes.append(behind)
            ports = [free_port() for _ in range(4)]
            command = [sys.executable, "-m", "benchmarks.grpc_origin", *map(str, ports)]
            processes.append(subprocess.Popen(command))
            lb = Lb(folder, web, [f"127.0.0.1:{port}" for port in ports], options.drain)
            processes.append(lb.process)
            command = [sys.executable, "-m", "benchmarks.http2_clients", str(lb.port), str(folder / "seen.json")]
            clients = subprocess.Popen(command)
            processes.append(clients)
            time.sleep(2.0)
            h2load = [binary("h2load"), "-D", str(options.seconds), "-c", str(CONNECTIONS), "-m", str(STREAMS)]
            load = subprocess.Popen([*h2load, lb.server.url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            processes.append(load)
            reloads, switches, refused = trouble(lb, options.seconds)
            said, _ = load.communicate(timeout=30)
            clients.send_signal(signal.SIGTERM)
            clients.wait(20)
            stop(lb.process)
            seen = json.loads((folder / "seen.json").read_text())
            return show(reloads, switches, refused, h2load_said(said.decode()), seen, logged(folder / "access.log"))
        finally:
            for process in reversed(processes):
                if process.poll() is None:
                    stop(process)


def show(
    reloads: int,
    switches: int,
    refused: list[str],
    load: tuple[int, int],
    seen: dict[str, dict[str, int]],
    reasons: Counter[str],
) -> int:
    """One table. The exit status: 1 for a failure."""
    counts, failures, resets = seen["counts"], list(seen["failures"]), list(seen["resets"])
    cut = counts.pop("endless calls that were cut", 0)
    others = [each for each in resets if "gRPC endless" not in each]
    rows: list[tuple[str, object]] = [
        ("reloads, switches", f"{reloads}, {switches}"),
        ("orders refused", len(refused)),
        ("requests of h2load", f"{load[0]:,}"),
        *((name, f"{count:,}") for name, count in sorted(counts.items())),
        ("failed requests", load[1] + len(failures)),
        ("streams reset", len(resets)),
        ("of these, not by a drain's limit", len(others)),
        ("endless calls that a drain's limit cut: clients, log", f"{cut}, {reasons['drain_cut']}"),
    ]
    print("| | |\n| --- | --- |")
    for name, value in rows:
        print(f"| {name} | {value} |")
    for line in [*refused, *failures, *others][:20]:
        print(line)
    print(f"reasons in the log: {dict(reasons)}")
    return 1 if refused or failures or load[1] or others or cut != reasons["drain_cut"] else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http2_reload", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long (60)")
    parser.add_argument("--drain", type=float, default=3.0, help="seconds that a removed target's calls have (3)")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
