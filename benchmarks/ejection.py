"""`python -m benchmarks.ejection`: a pool of ten, one target fails half of its requests while its readiness says OK.

lb, nginx and HAProxy stand in front of the same ten targets at the same time and get the same paced load, for a minute.
Two runs: failures that may be tried elsewhere (503, retries on everywhere), and failures that may not (500, passed on
by all three), where only taking the target out helps. Each peer is set up as its manual recommends for this: nginx
with `max_fails` at its default and `proxy_next_upstream`, HAProxy with `observe layer7` and `retry-on`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from pathlib import Path
from time import perf_counter

from benchmarks.processes import await_answer, binary, free_port, start, stop

TARGETS = 10
BROKEN = 3
EVERY_CPU = os.sched_getaffinity(0)


class Pool:
    """Ten targets in this process. Probes are always answered OK."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.status = 0  # what the broken one answers with; 0: it is well
        self.hits: Counter[str] = Counter()  # requests that reached the broken one, by the proxy that sent them
        self._dice = random.Random(4)
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        for number in range(TARGETS):
            server = await asyncio.start_server(lambda r, w, n=number: self._serve(n, r, w), "127.0.0.1", 0)
            self._servers.append(server)
            self.ports.append(server.sockets[0].getsockname()[1])

    async def _serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                status = 200
                if number == BROKEN and b" /ready " not in head:
                    proxy = head.lower().partition(b"x-proxy: ")[2].partition(b"\r\n")[0].decode()
                    self.hits[proxy] += 1
                    if self.status and self._dice.random() < 0.5:
                        status = self.status
                writer.write(b"HTTP/1.1 %d x\r\nContent-Length: 2\r\n\r\nok" % status)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.close()


def lb(folder: Path, ports: list[int]) -> tuple[int, int]:
    port, admin = free_port(), free_port()
    targets = ", ".join(f"http://127.0.0.1:{p}" for p in ports)
    config = folder / "lb.yaml"
    config.write_text(
        f"""
listeners: [127.0.0.1:{port}]
admin: {{bind: 127.0.0.1:{admin}}}
state_dir: {folder}/state
access_log: {{format: "off"}}
services:
  app:
    pools: {{all: [{targets}]}}
    readiness: {{path: /ready, interval: 2s}}
    retries: {{statuses: [502, 503, 504]}}
"""
    )
    process = start([sys.executable, "-m", "lb", "run", str(config), "--workers", "2"], EVERY_CPU, folder, "lb")
    RUNNING.append(process)
    await_answer(f"http://127.0.0.1:{port}/", process)
    return port, admin


def nginx(folder: Path, ports: list[int]) -> int:
    port = free_port()
    servers = "".join(f"server 127.0.0.1:{p};" for p in ports)
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; error_log {folder}/nginx.err; pid {folder}/nginx.pid;"
        "events { worker_connections 1024; }"
        f"http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;"
        f"upstream pool {{ {servers} keepalive 64; }} server {{ listen 127.0.0.1:{port}; location / {{"
        "proxy_pass http://pool; proxy_http_version 1.1; proxy_set_header Connection '';"
        "proxy_next_upstream error timeout http_502 http_503 http_504; } } }"
    )
    process = start([binary("nginx"), "-c", str(config)], EVERY_CPU, folder, "nginx")
    RUNNING.append(process)
    await_answer(f"http://127.0.0.1:{port}/", process)
    return port


def haproxy(folder: Path, ports: list[int]) -> int:
    port = free_port()
    servers = "\n".join(f"  server s{i} 127.0.0.1:{p}" for i, p in enumerate(ports))
    config = folder / "haproxy.cfg"
    config.write_text(
        f"""
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend front
  bind 127.0.0.1:{port}
  default_backend pool
backend pool
  balance roundrobin
  option httpchk GET /ready
  http-reuse always
  retries 2
  option redispatch 1
  retry-on conn-failure empty-response response-timeout 502 503 504
  default-server check inter 2s rise 2 fall 3 observe layer7 error-limit 5 on-error mark-down
{servers}
"""
    )
    binary = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin") or "haproxy"
    process = start([binary, "-f", str(config), "-db"], EVERY_CPU, folder, "haproxy")
    RUNNING.append(process)
    await_answer(f"http://127.0.0.1:{port}/", process)
    return port


RUNNING: list[subprocess.Popen[bytes]] = []


class Client:
    """Paced requests on a few kept connections."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.statuses: Counter[int] = Counter()
        self.last_bad = 0.0  # seconds after the breakage

    async def run(self, rate: float, seconds: float) -> None:
        began = perf_counter()
        await asyncio.gather(*(self._lane(began, lane, rate, seconds) for lane in range(8)))

    async def _lane(self, began: float, lane: int, rate: float, seconds: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for number in range(int(rate * seconds / 8)):
            await asyncio.sleep(max(0.0, began + (number * 8 + lane) / rate - perf_counter()))
            try:
                writer.write(b"GET /work HTTP/1.1\r\nHost: app\r\nX-Proxy: %b\r\n\r\n" % self.name.lower().encode())
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                await reader.readexactly(length)
                status = int(head[9:12])
                close = b"connection: close" in head.lower()
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
                status, close = 0, True
            self.statuses[status] += 1
            if status != 200:
                self.last_bad = perf_counter() - began
            if close:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()


async def ejected(admin: int, target: int, within: float) -> float:
    """Seconds until lb shows the target as ejected."""
    began = perf_counter()
    while perf_counter() - began < within:
        status = await asyncio.to_thread(
            lambda: json.load(urllib.request.urlopen(f"http://127.0.0.1:{admin}/api/v1/status"))
        )
        states = {t["id"].rpartition(":")[2]: t["state"] for t in status["services"][0]["pools"][0]["targets"]}
        if states[str(target)] == "ejected":
            return perf_counter() - began
        await asyncio.sleep(0.05)
    return float("inf")


async def one(status: int, rate: float, seconds: float) -> None:
    pool = Pool()
    await pool.start()
    with tempfile.TemporaryDirectory(prefix="lb-ejection-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        try:
            port, admin = await asyncio.to_thread(lb, folder, pool.ports)
            clients = [
                Client("lb", port),
                Client("nginx", await asyncio.to_thread(nginx, folder, pool.ports)),
                Client("HAProxy", await asyncio.to_thread(haproxy, folder, pool.ports)),
            ]
            await asyncio.sleep(3)  # all of them have checked all targets
            pool.status = status
            watching = asyncio.ensure_future(ejected(admin, pool.ports[BROKEN], seconds))
            await asyncio.gather(*(client.run(rate, seconds) for client in clients))
            took = await watching
        finally:
            for process in RUNNING:
                stop(process)
            RUNNING.clear()
    print(f"\nOne of {TARGETS} answers half of its requests with {status}; {rate:g} requests/s for {seconds:g} s each")
    print("| proxy | requests | errors seen by clients | error rate | requests sent to the broken target |")
    print("| --- | --- | --- | --- | --- |")
    for client in clients:
        total = sum(client.statuses.values())
        bad = total - client.statuses[200]
        print(f"| {client.name} | {total} | {bad} | {bad / total:.2%} | {pool.hits[client.name.lower()]} |")
    print(f"lb ejected it after {took:.1f} s.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ejection", description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second through each proxy (200)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a run (60)")
    options = parser.parse_args()
    for status in (503, 500):
        asyncio.run(one(status, options.rate, options.seconds))


if __name__ == "__main__":
    main()
