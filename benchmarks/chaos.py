"""Everything goes wrong, on a beat, under steady load: what do clients lose, and does the proxy know?

    python -m benchmarks.chaos [--minutes 10]

One lb with two workers, four backends and one that comes and goes. Every second a reload (half of them with changed
targets, every tenth invalid), every three seconds a backend is killed and started again, every five a worker is killed,
every sixty the supervisor, and a new `lb run` is started. All kills are SIGKILL. Besides, a target gets another weight
(0 among them) every two seconds, the pool another name every eleven, the TLS listener a new certificate every seven;
every twenty seconds all targets say that they are not ready, and the fallback pool serves. A fifth of the requests is
mirrored to a pool of its own; requests with a preview's header go to an unreleased pool. Clients
(`benchmarks.chaos_clients`) send GETs, previews, GETs over TLS, POSTs, streams of server-sent events and WebSocket
messages all the while, each under an id of its own.

Afterwards three books are laid side by side: the clients', the proxy's (access log and events) and the backends'.

- A GET is asked again when its connection breaks off without an answer (RFC 9110 section 9.2.2). None may fail.
- Whatever else failed was in the hands of a killed process. A backend's: the access log has the same id with the same
  end. A worker's: the request was sent on a connection which that worker held when it died, and there are as many as
  the proxy says were under way in it, and those that lay unread in the kernel. One more may be there, which the worker
  had read and not begun: it reads from one connection at a time. That is rare, and counted.
- An answer that is not in the access log is a line that a killed worker took with it, by the proxy's account. One more
  may be there, whose last byte the worker had written and which it had not booked: it was under way by that account.
  Both accounts together are exact.
- No POST came to a backend twice; the mirror's copies are in a book of their own, and are no more than one each.
- No request was answered by a pool that must not see it, and no certificate was an old or broken one.
- Between the third minute and the last, descriptors, connections and memory grew by less than a tenth.

A worker is stopped for a few milliseconds before it is killed, so that it can be seen which connections it holds.
Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from benchmarks.chaos_books import Kill, Sample, judge, show
from benchmarks.processes import await_answer, free_port, resident
from lb.proxy.crash_counters import TAKEN, WRITTEN

RELOAD_EVERY, KILL_WORKER_EVERY, KILL_SUPERVISOR_EVERY, RESTART_BACKEND_EVERY = 1.0, 5.0, 60.0, 3.0
REWEIGH_EVERY, RENAME_EVERY, RENEW_EVERY, UNREADY_EVERY = 2.0, 11.0, 7.0, 20.0
SAMPLE_EVERY = 5.0
STEADY = 4
#: The beats begin at different moments, so that most of what goes wrong goes wrong alone; not all of it does.
OFFSETS = {
    "reload": 0.0, "kill_worker": 3.9, "restart_backend": 0.7, "kill_supervisor": 0.5, "reweigh": 0.3, "rename": 0.6,
    "renew": 0.2, "be_unready": 7.4,
}  # fmt: skip
#: The pools that are neither active nor wanted to be, by what they are for.
OTHERS = ("next", "copy", "spare")


@dataclass
class Storm:
    """The running stage, and what was done to it."""

    folder: Path
    port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)
    admin: int = field(default_factory=free_port)
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    done: Counter[str] = field(default_factory=Counter)
    kills: list[Kill] = field(default_factory=list)
    backend_kills: list[tuple[float, int]] = field(default_factory=list)  # when, port
    trouble: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ports = [free_port() for _ in range(STEADY + 1)]
        self.others = {role: free_port() for role in OTHERS}
        self.pool = "steady"
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(self.folder / "authority.pem")
        self.issue()
        self.backends = {port: self._backend(port) for port in self.ports}
        self.backends |= {port: self._backend(port, role) for role, port in self.others.items()}
        for port, process in self.backends.items():
            await_answer(f"http://127.0.0.1:{port}/health", process)
        self.file = self.folder / "lb.yaml"
        self.write(guest=False)
        self.lb = self._lb()
        await_answer(f"http://127.0.0.1:{self.admin}/readyz", self.lb)
        self.victim = 0
        self.began = time.monotonic()

    # --- the stage --------------------------------------------------------------------------------------------------

    def _backend(self, port: int, role: str = "steady") -> subprocess.Popen[bytes]:
        book = self.folder / ("copies.log" if role == "copy" else "posts.log")
        return subprocess.Popen([sys.executable, "-m", "benchmarks.chaos_backend", str(port), str(book), role])

    def _lb(self) -> subprocess.Popen[bytes]:
        with (self.folder / "lb.out").open("ab") as out:
            command = [sys.executable, "-m", "lb", "run", str(self.file), "--workers", "2"]
            return subprocess.Popen(command, stdout=out, stderr=out)

    def write(self, guest: bool, more: str = "") -> None:
        targets = ", ".join(f"http://127.0.0.1:{port}" for port in (self.ports if guest else self.ports[:-1]))
        self.file.write_text(
            "listeners:\n"
            f"  - 127.0.0.1:{self.port}\n"
            f"  - {{bind: 127.0.0.1:{self.tls_port}, tls: {{cert_file: cert.pem, key_file: cert.pem}}}}\n"
            f"admin: {{bind: 127.0.0.1:{self.admin}}}\n"
            f"state_dir: {self.folder}/state\n"
            f"access_log: {{path: {self.folder}/access.log}}\n"
            "trusted_proxies: [127.0.0.0/8]\n"
            "services:\n"
            "  chaos:\n"
            "    pools:\n"
            f"      {self.pool}: [{targets}]\n"
            + "".join(f"      {role}: [http://127.0.0.1:{port}]\n" for role, port in self.others.items())
            + f"    active: {self.pool}\n"
            "    fallback: spare\n"
            "    mirror: {pool: copy, percent: 20%}\n"
            "    previews: [{header: X-Preview, value: 'on', pool: next}]\n"
            "    patience: 0s\n"
            "    readiness: {path: /health, interval: 500ms, timeout: 2s}\n"
            "    retries: {attempts: 3, budget: 100%}\n"
            f"# {self.done['reload']}\n{more}"
        )

    def issue(self) -> None:
        """A new certificate of the same authority, in place of the old one at once."""
        issued = self.authority.issue_cert("chaos")
        pem = issued.private_key_pem.bytes() + b"".join(one.bytes() for one in issued.cert_chain_pems)
        (self.folder / "cert.new").write_bytes(pem)
        (self.folder / "cert.new").replace(self.folder / "cert.pem")

    def ask(self, path: str, method: str = "GET", body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read().decode()
            return json.loads(text) if path.startswith("/api") else text

    # --- what goes wrong --------------------------------------------------------------------------------------------

    def reload(self) -> None:
        number = self.done["reload"]
        invalid = number % 10 == 9
        try:
            self.ask("/livez")  # one that is just being started must not find an invalid file: it would end with 1
        except OSError:
            self.done["reload without a supervisor"] += 1
            return
        self.write(guest=number % 4 in (2, 3), more="nonsense: 1\n" if invalid else "")
        try:
            self.ask("/api/v1/reload", "POST")
        except urllib.error.HTTPError as error:
            if not invalid:
                self.trouble.append(f"reload {number}: {error.code} {error.read()[:200]!r}")
            self.done["refused reload"] += 1
        except OSError:
            self.done["reload without a supervisor"] += 1
        else:
            if invalid:
                self.trouble.append(f"reload {number} was invalid, and taken")
            self.done["changed" if number % 2 == 0 else "unchanged"] += 1

    def kill_worker(self) -> None:
        self.ask("/livez")  # between two supervisors nobody could replace it: then it is spared (and that is counted)
        doorways = [int(path.stem) for path in (self.folder / "state" / "workers").glob("*.sock")]
        pid = self.rng.choice([pid for pid in doorways if is_alive(pid)])
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, -15)  # on a machine that is busy with other things as well
        began = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        while state_of(pid) not in "TtZX":
            pass
        ports, unread = held_by(pid, {self.port, self.tls_port})
        in_hand = being_written(pid)
        seen = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        while is_alive(pid):
            time.sleep(0.0005)
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        self.kills.append(Kill(pid, began, seen, time.monotonic(), ports, unread, in_hand=in_hand))

    def kill_supervisor(self) -> None:
        # A worker's sockets are the supervisor's as well. When both die at one moment, the queue is lost with them.
        until = time.monotonic() + 5
        while time.monotonic() < until and len(self.ask("/api/v1/status")["workers"]) < 2:
            time.sleep(0.05)
        self.write(guest=False)
        self.lb.kill()
        self.lb.wait(10)
        self.lb = self._lb()

    def restart_backend(self) -> None:
        self.victim = (self.victim + 1) % STEADY
        port = self.ports[self.victim]
        self.backend_kills.append((time.monotonic(), port))
        self.backends[port].kill()
        self.backends[port].wait(10)
        self.backends[port] = self._backend(port)

    def reweigh(self) -> None:
        """Weights of 0 to 2 for a target; two of the four keep a weight above 0, as kills take one out at a time."""
        index = self.rng.randrange(STEADY)
        weight = self.rng.choice((0, 1, 2)) if index < 2 else self.rng.choice((1, 2))
        target = f"chaos/{self.pool}/127.0.0.1:{self.ports[index]}"
        try:
            self.ask(f"/api/v1/targets/{target}/weight", "PUT", {"weight": weight})
        except urllib.error.HTTPError as error:
            if error.code not in (404, 409, 504):  # just renamed, the last one that can serve, a worker just killed
                self.trouble.append(f"weight {weight} of {target}: {error.code} {error.read()[:200]!r}")
            self.done["refused weight"] += 1

    def rename(self) -> None:
        """The next reload has the same targets in a pool of another name."""
        self.pool = "stable" if self.pool == "steady" else "steady"

    def renew(self) -> None:
        self.issue()

    def be_unready(self) -> None:
        """All serving targets fail their checks for a while, and serve on: the fallback pool takes over."""
        for port in self.ports:
            self.backends[port].send_signal(signal.SIGUSR1)

    def sample(self) -> None:
        status = self.ask("/api/v1/status")
        text = self.ask("/metrics")
        found = re.findall(r"^lb_(?:up|down)stream_connections(?:\{.*\})? (\S+)$", text, re.MULTILINE)
        pids = [status["pid"], *status["workers"]]
        if len(pids) < 3 or status["workers_leaving"]:
            return  # a worker is just being replaced: not the same to compare
        self.samples.append(
            Sample(
                time.monotonic() - self.began,
                resident(status["pid"]),
                sum(map(resident, status["workers"])),
                sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),  # noqa: PTH208 - names alone
                sum(map(float, found)),
            )
        )

    def run(self, minutes: float) -> None:
        beats = {
            self.reload: RELOAD_EVERY,
            self.kill_worker: KILL_WORKER_EVERY,
            self.restart_backend: RESTART_BACKEND_EVERY,
            self.kill_supervisor: KILL_SUPERVISOR_EVERY if minutes >= 2 else KILL_SUPERVISOR_EVERY / 4,
            self.reweigh: REWEIGH_EVERY,
            self.rename: RENAME_EVERY,
            self.renew: RENEW_EVERY,
            self.be_unready: UNREADY_EVERY,
            self.sample: SAMPLE_EVERY,
        }
        self.began = time.monotonic()
        due = {act: self.began + every + OFFSETS.get(act.__name__, 0.0) for act, every in beats.items()}
        told = self.began
        while time.monotonic() < self.began + minutes * 60:
            act = min(due, key=lambda one: due[one])
            time.sleep(max(0.0, due[act] - time.monotonic()))
            try:
                act()
            except (OSError, IndexError, KeyError):
                self.done[f"{act.__name__} not possible"] += 1
            else:
                self.done[act.__name__] += 1
            # Late ones are not made up for at once: what two killed workers took with them is told apart by the time.
            due[act] = max(due[act] + beats[act], time.monotonic() + beats[act] / 2)
            if self.lb.poll() is not None:
                raise SystemExit(f"lb ended with {self.lb.returncode}; see {self.folder}/lb.out")
            if time.monotonic() - told > 30:
                told = time.monotonic()
                print(f"{told - self.began:4.0f} s: {dict(self.done)}", file=sys.stderr, flush=True)

    def calm_down(self) -> None:
        """Let everything be replaced, drained and written."""
        self.write(guest=False)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                self.ask("/api/v1/reload", "POST")
                status = self.ask("/api/v1/status")
                if len(status["workers"]) == 2 and not status["workers_leaving"]:
                    return
            time.sleep(0.5)
        self.trouble.append("the workers were not whole again within a minute")

    def end(self) -> None:
        self.lb.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.lb.wait(40)
        self.lb.kill()
        for path in (self.folder / "state" / "workers").glob("*.sock"):
            with contextlib.suppress(OSError):
                os.kill(int(path.stem), signal.SIGKILL)
        for process in self.backends.values():
            process.kill()
            process.wait(10)


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def is_alive(pid: int) -> bool:
    return state_of(pid) not in "ZX"


def held_by(pid: int, listening: set[int]) -> tuple[set[int], set[int]]:
    """The clients' ports of a process's connections on these ports, and those of them with unread bytes."""
    mine = set()
    for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - names alone
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115
            if target.startswith("socket:["):
                mine.add(target[8:-1])
    ports, unread = set(), set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *rest = line.split()
        if int(local.rpartition(":")[2], 16) in listening and rest[4] in mine:
            client = int(remote.rpartition(":")[2], 16)
            if client:
                ports.add(client)
                if int(queues.partition(":")[2], 16):
                    unread.add(client)
    return ports, unread


def being_written(pid: int) -> int:
    """Lines of the access log that a stopped worker's thread has begun to write, and has not noted as written."""
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if "lb-crash-counters" in os.readlink(path):  # noqa: PTH115
                told = memoryview(path.read_bytes()).cast("q")
                return max(0, told[TAKEN] - told[WRITTEN])
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--keep", action="store_true", help="keep the folder with all the books")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lb-chaos-"))
    storm = Storm(folder)
    clients = None
    try:
        command = [sys.executable, "-m", "benchmarks.chaos_clients", f"http://127.0.0.1:{storm.port}"]
        command += [str(folder / "clients.log"), "--previews", "2", "--tls", "3"]
        command += ["--tls-port", str(storm.tls_port), "--authority", str(folder / "authority.pem")]
        clients = subprocess.Popen(command)
        storm.run(options.minutes)
        clients.terminate()
        clients.wait(15)
        storm.calm_down()
    finally:
        if clients is not None:
            clients.kill()
        storm.end()
    verdict = judge(storm, folder / "clients.log")
    show(storm, verdict)
    if options.keep or verdict.faults:
        print(f"the books are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
