"""A rolling replacement of all targets behind a name, beside nginx, HAProxy and Caddy: how many requests fail?

    python -m benchmarks.replaced [--targets 20] [--rate 2000] [--grace 2] [--warm-up 0] [--post]
        [--only lb,nginx,haproxy,caddy]

A DNS server of our own names 20 addresses with a time to live of one second. Each second one of them is replaced: the
new target listens, the name stands for it instead of the old one, and `--grace` seconds later the old one ends as a
careful server does. It takes no more connections, answers what is under way, and closes. `--grace 0` is a server that
ends as its address goes. With `--warm-up 3` a new target answers 503 for its first three seconds, checks too.

h2load asks at a constant rate over HTTP/1.1, with `--post` in POSTs, which no proxy may send twice. Each proxy is set
up as its manual says: lb with `discover: {dns: …}`, nginx with `resolver` and a variable, HAProxy with
`server-template`, Caddy with `dynamic a`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.origin import TEMPORARY
from benchmarks.processes import await_answer, binary, free_port, stop
from tests.support.dns_server import DnsServer

NAME = "pool.test"
BODY = b"x"  # of a POST
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
NOT_YET = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
GOODBYE = ANSWER.replace(b"200 OK\r\n", b"200 OK\r\nConnection: close\r\n")


class Connection(asyncio.Protocol):
    """A connection to one target: an answer for each request, and a close when the target ends."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.target.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.target.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        *whole, self.held = (self.held + data).split(b"\r\n\r\n")
        for _ in whole:  # the body of a POST stands before the next head, and is one byte
            self.target.asked += 1
            cold = time.monotonic() < self.target.warm_at
            self.transport.write(GOODBYE if self.target.ending else NOT_YET if cold else ANSWER)
        if self.target.ending:
            self.transport.close()


class Target:
    """One address that answers."""

    def __init__(self, host: str, port: int, warm_at: float) -> None:
        self.host, self.port = host, port
        self.warm_at = warm_at  # monotonic
        self.connections: set[Connection] = set()
        self.asked = 0
        self.ending = False

    async def begin(self) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Connection(self), self.host, self.port)

    async def end(self, grace: float) -> None:
        """After `grace` seconds take no more connections, and close each when what is on its way has been answered."""
        await asyncio.sleep(grace)
        self.ending = True
        self.server.close()
        await asyncio.sleep(0.1)
        for connection in list(self.connections):
            if len(connection.held) <= len(BODY):
                connection.transport.close()


class Targets:
    """The addresses behind the name, in a loop of their own."""

    def __init__(self, dns: DnsServer, port: int, count: int) -> None:
        self.dns, self.port = dns, port
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.serving = [self._begin(1, number) for number in range(count)]
        self.named = list(self.serving)
        self.all = list(self.serving)
        self._say()

    def replace(self, number: int, grace: float, warm_up: float) -> None:
        """Let another target take the place of one."""
        old, new = self.serving[number], self._begin(2, number, time.monotonic() + warm_up)
        self.serving[number] = new
        self.all.append(new)
        self._say()
        asyncio.run_coroutine_threadsafe(old.end(grace), self.loop)

    def close(self) -> None:
        for each in self.all:
            each.server.close()
        self.loop.call_soon_threadsafe(self.loop.stop)

    def _begin(self, generation: int, number: int, warm_at: float = 0.0) -> Target:
        target = Target(f"127.0.{generation}.{number + 1}", self.port, warm_at)
        asyncio.run_coroutine_threadsafe(target.begin(), self.loop).result(10)
        return target

    def _say(self) -> None:
        self.dns.say(NAME, *(each.host for each in self.serving), ttl=1)


def lb(folder: Path, port: int, dns: str, target: int) -> list[str]:
    file = folder / "lb.yaml"
    file.write_text(
        f"""
listeners: [127.0.0.1:{port}]
state_dir: {folder}/lb.state
access_log: {{path: {folder}/lb.log}}
services:
  bench:
    pools: {{all: {{discover: {{dns: {{name: {NAME}, port: {target}, resolvers: ["{dns}"]}}}}}}}}
    readiness: {{path: /health, interval: 500ms}}
"""
    )
    return [sys.executable, "-m", "lb", "run", str(file), "--workers", "1"]


def nginx(folder: Path, port: int, dns: str, target: int) -> list[str]:
    file = folder / "nginx.conf"
    file.write_text(
        f"worker_processes 1; error_log {folder}/nginx.err; pid {folder}/nginx.pid;"
        f" events {{ worker_connections 4096; }}"
        f"http {{ access_log {folder}/nginx.log combined buffer=64k; keepalive_requests 1000000;"
        f"{TEMPORARY.format(folder)} resolver {dns} valid=1s ipv6=off; server {{ listen 127.0.0.1:{port};"
        f" location / {{ set $upstream {NAME}; proxy_pass http://$upstream:{target}; proxy_http_version 1.1;"
        f' proxy_set_header Connection ""; proxy_next_upstream error timeout http_502 http_503; }} }} }}'
    )
    return [binary("nginx"), "-c", str(file), "-g", "daemon off;"]


def haproxy(folder: Path, port: int, dns: str, target: int) -> list[str]:
    file = folder / "haproxy.cfg"
    file.write_text(
        f"""
global
  nbthread 1
  maxconn 9000
  log stdout format raw local0
resolvers names
  nameserver own {dns}
  accepted_payload_size 8192
  timeout resolve 1s
  timeout retry 1s
  hold valid 1s
  hold obsolete 0s
defaults
  mode http
  log global
  option httplog
  option redispatch 1
  retries 3
  retry-on all-retryable-errors
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend front
  bind 127.0.0.1:{port}
  default_backend all
backend all
  option httpchk GET /health
  http-reuse safe
  server-template t 40 {NAME}:{target} check inter 500ms resolvers names resolve-prefer ipv4 init-addr none
"""
    )
    return [binary("haproxy"), "-f", str(file), "-db"]


def caddy(folder: Path, port: int, dns: str, target: int) -> list[str]:
    file = folder / "Caddyfile"
    file.write_text(
        f"""
{{
	admin off
	auto_https off
}}
http://127.0.0.1:{port} {{
	log {{
		output file {folder}/caddy.log
	}}
	reverse_proxy {{
		dynamic a {{
			name {NAME}
			port {target}
			refresh 1s
			resolvers {dns}
		}}
		lb_policy round_robin
		lb_try_duration 2s
		fail_duration 2s
	}}
}}
"""
    )
    return [binary("caddy"), "run", "--config", str(file), "--adapter", "caddyfile"]


PROXIES: dict[str, Callable[[Path, int, str, int], list[str]]] = {
    "lb": lb,
    "nginx": nginx,
    "haproxy": haproxy,
    "caddy": caddy,
}


def run(name: str, count: int, rate: int, grace: float, warm_up: float, post: bool) -> dict[str, object]:
    """One proxy through the replacement of all targets; the figures."""
    folder = Path(tempfile.mkdtemp(prefix=f"replaced-{name}-"))
    folder.chmod(0o755)  # nginx's workers are another user's
    port, target = free_port(), free_port()
    clients = 50
    with DnsServer() as dns:
        targets = Targets(dns, target, count)
        with (folder / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(PROXIES[name](folder, port, dns.address, target), stdout=out, stderr=out)
        try:
            await_answer(f"http://127.0.0.1:{port}/", process)
            time.sleep(2.0)  # HAProxy takes the addresses one after the other
            seconds = round(count + grace) + 6
            (folder / "body").write_bytes(BODY)
            body = ("-d", str(folder / "body")) if post else ()
            each = f"{rate / clients:g}"
            pace = ("--h1", "-t1", "-c", str(clients), "-D", str(seconds), "--rps", each)
            load = subprocess.Popen(
                [binary("h2load"), *body, *pace, f"http://127.0.0.1:{port}/"],
                stdout=subprocess.PIPE,
                text=True,
            )
            time.sleep(2.0)
            for number in range(count):
                next_at = time.monotonic() + 1.0
                targets.replace(number, grace, warm_up)
                time.sleep(max(0.0, next_at - time.monotonic()))
            said = load.communicate(timeout=seconds + 60)[0]
        finally:
            stop(process)
            targets.close()
    done = re.search(r"requests: (\d+) total.* (\d+) succeeded, (\d+) failed, (\d+) errored", said)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said)
    assert done and codes, said
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "proxy": name,
        "requests": int(done[1]),
        "failed": int(done[3]),
        "answered 5xx": int(codes[4]),
        "new targets asked": sum(1 for each in targets.serving if each.asked > 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--rate", type=int, default=2000, help="requests per second")
    parser.add_argument("--grace", type=float, default=2.0, help="seconds that a target serves after its name has gone")
    parser.add_argument("--warm-up", type=float, default=0.0, help="seconds that a new target answers 503")
    parser.add_argument("--post", action="store_true", help="POSTs instead of GETs")
    parser.add_argument("--only", default="lb,nginx,haproxy,caddy")
    options = parser.parse_args()
    results = []
    for name in options.only.split(","):
        results.append(run(name, options.targets, options.rate, options.grace, options.warm_up, options.post))
        print(json.dumps(results[-1]), flush=True)
    print("\n| | " + " | ".join(str(result["proxy"]) for result in results) + " |")
    print("| --- |" + " ---: |" * len(results))
    for key in list(results[0])[1:]:
        print(f"| {key} | " + " | ".join(f"{result[key]:,}" for result in results) + " |")


if __name__ == "__main__":
    main()
