"""Blue/green under load, beside nginx and HAProxy: what do clients lose, and what still reaches the old version?

    python -m benchmarks.switch_zero_loss [--switches 200] [--pause 0.2] [--only lb,nginx,haproxy]

Two backends with logs of their own, blue and green; wrk with GETs on 32 connections, and clients with POSTs, streams
and WebSockets. Each proxy switches in its own way: `lb` by the admin API, nginx by a changed file and `nginx -s
reload`, HAProxy by `set map` on its runtime API. Witness of everything are the backends' logs: a request has gone
astray when its client sent it after the switching command had returned, and it went to the old backend all the same.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.origin import TEMPORARY
from benchmarks.processes import await_answer, binary, free_port, stop

ANY_CPU = {0, 1}
WRK = """
local ffi = require("ffi")
ffi.cdef[[ typedef struct { long s; long n; } lb_time; int clock_gettime(int, lb_time*); ]]
local now = ffi.new("lb_time[1]")
request = function()
  ffi.C.clock_gettime(1, now)
  local sent = string.format("%d.%06d", tonumber(now[0].s), tonumber(now[0].n) / 1000)
  return "GET /get HTTP/1.1\\r\\nHost: bench\\r\\nX-Sent: " .. sent .. "\\r\\n\\r\\n"
end
done = function(summary)
  local e = summary.errors
  print(string.format('RESULT {"requests": %d, "seconds": %f,', summary.requests, summary.duration / 1e6)
    .. string.format('"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}',
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""


@dataclass
class Proxy:
    """A running proxy, and how it is switched."""

    name: str
    url: str
    switch: Callable[[str], None]
    processes: list[subprocess.Popen[bytes]]


def spawn(command: list[str], folder: Path, name: str) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.out").open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, cwd=folder)


def start_lb(folder: Path, ports: dict[str, int]) -> Proxy:
    port, admin = free_port(), free_port()
    file = folder / "lb.yaml"
    file.write_text(
        f"""
listeners: [127.0.0.1:{port}]
admin: {{bind: 127.0.0.1:{admin}}}
state_dir: {folder}/lb.state
access_log: {{path: {folder}/lb.log}}
services:
  bench:
    pools: {{{", ".join(f"{pool}: [http://127.0.0.1:{p}]" for pool, p in ports.items())}}}
    active: blue
    readiness: {{path: /health, interval: 500ms, timeout: 2s}}
    rollout: {{bake: 0s}}
"""
    )
    command = [sys.executable, "-m", "lb", "run", str(file), "--workers", "2"]
    with (folder / "lb.out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)

    def switch(pool: str) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{admin}/api/v1/services/bench/switch",
            json.dumps({"to": pool}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            assert json.load(response)["active"] == pool

    return Proxy("lb", f"http://127.0.0.1:{port}", switch, [process])


def start_nginx(folder: Path, ports: dict[str, int]) -> Proxy:
    port = free_port()
    file = folder / "nginx.conf"
    fields = {"Connection": "$upgrade_or_not", "Upgrade": "$http_upgrade", "Host": "$host"}
    headers = "".join(f"proxy_set_header {name} {value};" for name, value in fields.items())

    def write(pool: str) -> None:
        file.write_text(
            f"worker_processes 2; error_log {folder}/nginx.err; pid {folder}/nginx.pid; worker_shutdown_timeout 30s;"
            f" events {{ worker_connections 4096; }}"
            f"http {{ access_log {folder}/nginx.log combined buffer=64k; client_max_body_size 0;"
            f"keepalive_requests 1000000; client_body_buffer_size 128k;"
            f"map $http_upgrade $upgrade_or_not {{ default upgrade; '' ''; }} {TEMPORARY.format(folder)}"
            f"upstream active {{ server 127.0.0.1:{ports[pool]}; keepalive 256; keepalive_requests 1000000; }}"
            f"server {{ listen 127.0.0.1:{port} reuseport backlog=4096; location / {{ proxy_pass http://active;"
            f" proxy_http_version 1.1; proxy_buffering off; {headers} }} }} }}"
        )

    write("blue")
    process = spawn([binary("nginx"), "-c", str(file), "-g", "daemon off;"], folder, "nginx")

    def switch(pool: str) -> None:
        write(pool)
        subprocess.run([binary("nginx"), "-c", str(file), "-s", "reload"], check=True, capture_output=True)

    return Proxy("nginx", f"http://127.0.0.1:{port}", switch, [process])


def start_haproxy(folder: Path, ports: dict[str, int]) -> Proxy:
    port = free_port()
    (folder / "active.map").write_text("active blue\n")
    (folder / "haproxy.cfg").write_text(
        f"""
global
  nbthread 2
  maxconn 9000
  stats socket {folder}/haproxy.sock mode 600 level admin
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
frontend front
  bind 127.0.0.1:{port} backlog 4096
  use_backend %[str(active),map({folder}/active.map)]
"""
        + "".join(f"backend {pool}\n  http-reuse always\n  server one 127.0.0.1:{p}\n" for pool, p in ports.items())
    )
    found = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if not found:
        raise RuntimeError("haproxy is needed (Debian: apt-get install haproxy)")
    process = spawn([found, "-f", str(folder / "haproxy.cfg"), "-db"], folder, "haproxy")

    def switch(pool: str) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(f"{folder}/haproxy.sock")
            sock.sendall(f"set map {folder}/active.map active {pool}\n".encode())
            said = sock.recv(4096)
            assert not said.strip(), said

    return Proxy("haproxy", f"http://127.0.0.1:{port}", switch, [process])


STARTS = {"lb": start_lb, "nginx": start_nginx, "haproxy": start_haproxy}


def run(name: str, switches: int, pause: float, connections: int) -> dict[str, object]:
    """One proxy under load through all its switches; the figures."""
    folder = Path(tempfile.mkdtemp(prefix=f"switch-{name}-"))
    folder.chmod(0o755)  # nginx's workers are somebody else
    ports = {"blue": free_port(), "green": free_port()}
    processes = []
    try:
        for pool, port in ports.items():
            command = [sys.executable, "-m", "benchmarks.witness", str(port), pool, str(folder / f"{pool}.log")]
            processes.append(subprocess.Popen(command))
            await_answer(f"http://127.0.0.1:{port}/health", processes[-1])
        proxy = STARTS[name](folder, ports)
        await_answer(f"{proxy.url}/get", proxy.processes[0])
        (folder / "wrk.lua").write_text(WRK)
        seconds = int(switches * (pause + 0.1) + 30)
        with (folder / "wrk.out").open("wb") as out:
            wrk = subprocess.Popen(
                [
                    "wrk",
                    "-t1",
                    f"-c{connections}",
                    f"-d{seconds}s",
                    "--timeout",
                    "10s",
                    "-s",
                    str(folder / "wrk.lua"),
                    proxy.url,
                ],
                stdout=out,
                stderr=out,
            )
        clients = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.switch_clients", proxy.url, str(folder / "seen.json")]
        )
        time.sleep(2.0)
        spans = []  # (from, to, pool): requests sent within belong to the pool
        took = []
        active, since = "blue", time.monotonic()
        for _ in range(switches):
            time.sleep(pause)
            to = "green" if active == "blue" else "blue"
            ordered = time.monotonic()
            proxy.switch(to)
            done = time.monotonic()
            spans.append((since, ordered, active))
            took.append(done - ordered)
            active, since = to, done
        time.sleep(1.0)
        spans.append((since, time.monotonic(), active))
        clients.send_signal(signal.SIGTERM)
        clients.wait(15)
        wrk.send_signal(signal.SIGINT)
        wrk.wait(15)
        for process in processes:
            process.send_signal(signal.SIGTERM)
            process.wait(10)
        for process in proxy.processes:
            stop(process)
        return judge(name, folder, spans, took)
    finally:
        for process in processes:
            process.kill()


def judge(name: str, folder: Path, spans: list[tuple[float, float, str]], took: list[float]) -> dict[str, object]:
    seen = json.loads((folder / "seen.json").read_text())
    text = (folder / "wrk.out").read_text()
    match = re.search(r"RESULT (.*)", text)
    assert match, text
    wrk = json.loads(match[1])
    astray = 0
    bodies: dict[str, list[tuple[int, int]]] = {}
    starts = [start for start, _, _ in spans]
    for pool in ("blue", "green"):
        with (folder / f"{pool}.log").open() as log:
            for line in log:
                arrived, sent, method, _, identity, length, crc = line.split()
                if method == "POST":
                    bodies.setdefault(identity, []).append((int(length), int(crc)))
                if sent != "-":
                    at = bisect_right(starts, float(sent)) - 1
                    # Arrived before the next switch was ordered: later, the wrong pool may be the right one again.
                    if at >= 0 and float(arrived) < spans[at][1] and spans[at][2] != pool:
                        astray += 1
    lost = sum(1 for identity, body in seen["bodies"].items() if tuple(body) not in bodies.get(identity, ()))
    twice = sum(1 for copies in bodies.values() if len(copies) > 1)
    failed = {key: wrk[key] for key in ("connect", "read", "write", "status", "timeout") if wrk[key]}
    kinds = Counter(failure.split()[1].rstrip(":") for failure in seen["failures"])
    (folder / "failures.txt").write_text("\n".join(seen["failures"]))
    return {
        "proxy": name,
        "switches": len(took),
        "GETs": wrk["requests"],
        "requests per second": round(wrk["requests"] / wrk["seconds"]),
        **seen["counts"],
        "failed GETs": failed or 0,
        "other failures": dict(kinds) or 0,
        "failed in all": sum(failed.values()) + sum(kinds.values()),
        "sent after the command, to the old pool": astray,
        "POST bodies lost or changed": lost,
        "POSTs that reached a backend twice": twice,
        "switch, ms, median": round(statistics.median(took) * 1000, 1),
        "switch, ms, longest": round(max(took) * 1000, 1),
        "folder": str(folder),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between two switches")
    parser.add_argument("--connections", type=int, default=32, help="of wrk")
    parser.add_argument("--only", default="lb,nginx,haproxy")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    results = []
    for name in options.only.split(","):
        results.append(run(name, options.switches, options.pause, options.connections))
        print(json.dumps(results[-1], indent=2), flush=True)
    print("\n| | " + " | ".join(str(result["proxy"]) for result in results) + " |")
    print("| --- |" + " --- |" * len(results))
    for key in list(results[0])[1:-1]:
        print(f"| {key} | " + " | ".join(str(result[key]) for result in results) + " |")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
