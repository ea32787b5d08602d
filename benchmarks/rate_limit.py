"""`python -m benchmarks.rate_limit`: how many requests a rate limit lets pass, over two workers, beside its setting.

lb, nginx (`limit_req`) and HAProxy (stick tables) each have the same limit for one client, which asks as often as it
can over many connections. A limit of R a second with a burst of B admits B + R × T requests in T seconds. HAProxy has
no bucket: its usual lines count the requests of the last second, refused ones as well. In a second form they count
admitted ones alone. Either is to admit R × T, and may let R pass at once. Each round is `wrk` for some seconds on all
proxies in turn. Between two rounds of one proxy its bucket fills again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from benchmarks import report
from benchmarks.load import wrk
from benchmarks.origin import TEMPORARY, origin
from benchmarks.processes import Server, await_answer, binary, children, free_port, start, stop

WORKERS = 2
#: (requests a second, burst).
SETTINGS = ((100, 20), (1000, 200))
#: Of the one client.
CONNECTIONS = 32
#: Further seconds that a bucket, and a window of one second, have to fill again.
SPARE = 1.5


@dataclass(frozen=True)
class Limit:
    """A limit for each client address."""

    rate: int  # a second
    burst: int
    target: str  # host:port
    folder: Path


def lb(limit: Limit) -> Server:
    port, folder = free_port(), limit.folder
    config = folder / f"lb-{port}.yaml"
    config.write_text(
        f"""
listeners: ['127.0.0.1:{port}']
admin: {{bind: 127.0.0.1:0}}
state_dir: {folder}/lb-{port}.state
access_log: off
services: {{all: {{pools: {{all: ['http://{limit.target}']}}, readiness: none}}}}
routes:
  - path: /
    service: all
    steps: [{{rate_limit: {{rate: {limit.rate}/s, burst: {limit.burst}, key: client}}}}]
"""
    )
    return _started("lb", port, ["-m", "lb", "run", str(config), "--workers", str(WORKERS)], limit, python=True)


def nginx(limit: Limit) -> Server:
    port, folder = free_port(), limit.folder
    config = folder / f"nginx-{port}.conf"
    # Its burst is what may come above the rate: one request less than a bucket holds.
    config.write_text(
        f"""
daemon off; worker_processes {WORKERS}; error_log {folder}/nginx-{port}.err crit; pid {folder}/nginx-{port}.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off; {TEMPORARY.format(folder)}
  limit_req_zone $binary_remote_addr zone=all:1m rate={limit.rate}r/s;
  limit_req_status 429;
  keepalive_requests 100000000;
  upstream all {{ server {limit.target}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port} reuseport;
    location / {{
      limit_req zone=all burst={limit.burst - 1} nodelay;
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://all;
    }}
  }}
}}
"""
    )
    return _started("nginx", port, [binary("nginx"), "-c", str(config)], limit)


def haproxy(limit: Limit) -> Server:
    """As its manual has it: the requests of the last second, refused ones as well."""
    rules = f"""
  stick-table type ipv6 size 100k expire 10s store http_req_rate(1s)
  http-request track-sc0 src
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {limit.rate} }}"""
    return _haproxy("haproxy", rules, limit)


def haproxy_admitted(limit: Limit) -> Server:
    """Only admitted requests count."""
    rules = f"""
  stick-table type ipv6 size 100k expire 10s store gpc0,gpc0_rate(1s)
  http-request track-sc0 src
  http-request deny deny_status 429 if {{ sc0_gpc0_rate ge {limit.rate} }}
  http-request sc-inc-gpc0(0)"""
    return _haproxy("haproxy, admitted ones counted", rules, limit)


def _haproxy(name: str, rules: str, limit: Limit) -> Server:
    port = free_port()
    config = limit.folder / f"haproxy-{port}.cfg"
    config.write_text(
        f"""
global
  nbthread {WORKERS}
  maxconn 1024
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend front
  bind 127.0.0.1:{port}
  no log{rules}
  default_backend all
backend all
  http-reuse always
  server t0 {limit.target}
"""
    )
    return _started(name, port, [binary("haproxy"), "-f", str(config), "-db"], limit)


def _started(name: str, port: int, command: list[str], limit: Limit, python: bool = False) -> Server:
    environ = {"PYTHONPATH": str(Path(__file__).parent.parent)} if python else {}
    command = [sys.executable, *command] if python else command
    process = start(command, set(os.sched_getaffinity(0)), limit.folder, f"proxy-{port}", environ)
    server = Server(name, port, process, lambda: children(process.pid))
    try:
        await_answer(f"{server.url}/", process)
    except RuntimeError as error:
        stop(process)
        raise RuntimeError(f"{error}\n{(limit.folder / f'proxy-{port}.out').read_text()[-2000:]}") from None
    return server


PROXIES: tuple[Callable[[Limit], Server], ...] = (lb, nginx, haproxy, haproxy_admitted)


def main() -> int:
    options = _options()
    print(" · ".join(f"{key} {value}" for key, value in report.machine().items()), end="\n\n", flush=True)
    print("| setting | proxy | asked a second | admitted, of the setting | each round |")
    print("| --- " * 5 + "|", flush=True)
    with tempfile.TemporaryDirectory(prefix="lb-bench-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # nginx's workers may be somebody else
        behind, (target,) = origin(folder)
        try:
            for rate, burst in SETTINGS:
                _compare(Limit(rate, burst, target, folder), options)
        finally:
            stop(behind)
    return 0


def _compare(limit: Limit, options: argparse.Namespace) -> None:
    """All proxies with one setting, in turn; prints a line for each."""
    servers: list[Server] = []
    shares: dict[str, list[float]] = {}
    asked: dict[str, list[float]] = {}
    rested: dict[str, float] = {}
    try:
        servers = [make(limit) for make in PROXIES]
        for server in servers:
            rested[server.name] = time.monotonic() + limit.burst / limit.rate + SPARE
        for _ in range(options.rounds):
            for server in servers:
                time.sleep(max(0.0, rested[server.name] - time.monotonic()))
                found = wrk(server.url, CONNECTIONS, options.seconds, limit.folder)
                rested[server.name] = time.monotonic() + limit.burst / limit.rate + SPARE
                meant = limit.rate * found.seconds + (0 if server.name.startswith("haproxy") else limit.burst)
                shares.setdefault(server.name, []).append((found.requests - found.errors) / meant)
                asked.setdefault(server.name, []).append(found.rate)
    finally:
        for server in servers:
            stop(server.process)
    for name, found_shares in shares.items():
        each = " ".join(f"{100 * share:.1f}" for share in found_shares)
        setting = f"{limit.rate}/s, burst {limit.burst}"
        print(
            f"| {setting} | {name} | {mean(asked[name]):.0f} | {100 * mean(found_shares):.1f} % | {each} |", flush=True
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rate_limit", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each proxy, in turn (5)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a round (10)")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
