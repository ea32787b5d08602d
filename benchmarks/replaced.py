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
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.found_targets import BODY, CHECK, Targets, counts, h2load
from benchmarks.origin import TEMPORARY
from benchmarks.processes import await_answer, binary, free_port, stop
from tests.support.dns_server import DnsServer

NAME = "pool.test"


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
    readiness: {{path: {CHECK}, interval: 500ms}}
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
  option httpchk GET {CHECK}
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
    with DnsServer() as dns, Targets(lambda hosts: dns.say(NAME, *hosts, ttl=1), target, count) as targets:
        with (folder / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(PROXIES[name](folder, port, dns.address, target), stdout=out, stderr=out)
        try:
            await_answer(f"http://127.0.0.1:{port}/", process)
            time.sleep(2.0)  # HAProxy takes the addresses one after the other
            seconds = round(count + grace) + 6
            (folder / "body").write_bytes(BODY)
            body = ("-d", str(folder / "body")) if post else ()
            load = h2load(f"http://127.0.0.1:{port}/", seconds, rate, *body)
            time.sleep(2.0)
            for number in range(count):
                next_at = time.monotonic() + 1.0
                targets.replace(number, grace, warm_up)
                time.sleep(max(0.0, next_at - time.monotonic()))
            counted = counts(load, seconds + 60)
        finally:
            stop(process)
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "proxy": name,
        "requests": counted.requests,
        "failed": counted.failed,
        "answered 5xx": counted.answered_5xx,
        "new targets asked": sum(1 for each in targets.serving if each.asked),
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
