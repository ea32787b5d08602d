"""How each proxy is configured and started: alike, so that a ratio means something.

All keep connections alive on both sides, add the same header fields, write a JSON access log to a file (or all none),
balance round robin, and run the same number of workers on the same processors. What a peer's manual recommends for a
case (a map for many routes, a larger pool of idle connections for many targets) is used.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.origin import ANSWER, TEMPORARY, UP
from benchmarks.processes import (
    ANY_CERTIFICATE,
    PROXY_CPU,
    Server,
    await_answer,
    binary,
    children,
    free_port,
    start,
    stop,
)
from lb import build_form

#: Connections that each proxy accepts: what the limit of open files leaves, each taking one to a target as well.
CONNECTIONS = min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 - 600)


@dataclass(frozen=True)
class Setup:
    """What all proxies are set up for."""

    folder: Path
    targets: tuple[str, ...]  # host:port of each
    log: bool = True
    workers: int = 1
    services: int = 1  # more than one: each with a route /s-N/ and a pool of its own, of one target
    routes: int = 1  # more than one (lb and nginx): so many routes /s-N/ to the one pool
    checks: str = ""  # interval of each target's health check, as "1s"; "": none
    websocket: bool = False
    certificate: str = ""  # a file with a key and its certificate: clients speak TLS 1.3
    http2: bool = False  # clients may speak HTTP/2: by ALPN, or on a plain port by prior knowledge
    features: str = ""  # lb: further lines of each service
    readiness: str = "none"  # lb: the check's protocol when there are no `checks`
    python: str = sys.executable  # lb's interpreter
    checkout: Path = Path(__file__).parent.parent  # lb's source

    @property
    def cpus(self) -> set[int]:
        """One worker has a processor to itself; more share all of them with the load."""
        return {PROXY_CPU} if self.workers == 1 else set(os.sched_getaffinity(0))

    @property
    def pools(self) -> dict[str, tuple[str, ...]]:
        """Each pool's targets; with many services the route /s-N/ leads to the pool s-N."""
        if self.services == 1:
            return {"all": self.targets}
        return {f"s-{i}": (self.targets[i % len(self.targets)],) for i in range(self.services)}


# --- nginx -----------------------------------------------------------------------------------------------------------

_NGINX_LOG = (
    '{"time":"$time_iso8601","id":"$request_id","method":"$request_method","path":"$request_uri","status":$status,'
    '"seconds":$request_time,"bytes_in":$request_length,"bytes_out":$bytes_sent,"target":"$upstream_addr",'
    '"client":"$remote_addr","host":"$host","protocol":"$server_protocol","user_agent":"$http_user_agent"}'
)
_NGINX_FIELDS = {
    "Connection": '""',
    "Host": "$host",
    "X-Forwarded-For": "$remote_addr",
    "X-Forwarded-Proto": "$scheme",
    "X-Forwarded-Host": "$host",
    "Forwarded": '"for=$remote_addr;host=$host;proto=$scheme"',
    "Via": '"1.1 nginx"',
    "X-Request-Id": "$request_id",
}


def nginx(setup: Setup) -> Server:
    port, folder = free_port(), setup.folder
    log = f"log_format json escape=json '{_NGINX_LOG}'; access_log {folder}/nginx-{port}.log json buffer=64k;"
    fields = dict(_NGINX_FIELDS)
    if setup.websocket:
        fields |= {"Connection": "$upgrade_or_not", "Upgrade": "$http_upgrade"}
    idle = max(512, 2 * len(setup.targets)) if setup.services == 1 else 32
    pools = "".join(
        f"upstream {name} {{ {''.join(f'server {target};' for target in targets)}"
        f" keepalive {idle}; keepalive_requests 100000000; }}"
        for name, targets in setup.pools.items()
    )
    settings = (
        "proxy_http_version 1.1;"
        + "".join(f"proxy_set_header {name} {value};" for name, value in fields.items())
        + "add_header X-Request-Id $request_id;"
    )
    routes = "".join(
        f"location {'/' if setup.services == 1 else f'/{name}/'} {{ proxy_pass http://{name}; }}"
        for name in setup.pools
    )
    if setup.services > 1:
        routes += "location / { proxy_pass http://s-0; }"
    routes += "".join(f"location /s-{i}/ {{ proxy_pass http://all; }}" for i in range(setup.routes) if setup.routes > 1)
    # Without TLS a port of nginx speaks one protocol: it gets another one for HTTP/2.
    http2 = 0 if setup.certificate or not setup.http2 else free_port()
    second = f"listen 127.0.0.1:{http2} http2 backlog=8192;" if http2 else ""
    config = folder / f"nginx-{port}.conf"
    config.write_text(
        f"daemon off; worker_processes {setup.workers}; "
        f" error_log {folder}/nginx-{port}.err; pid {folder}/nginx-{port}.pid;"
        f" events {{ worker_connections {2 * CONNECTIONS}; }}"
        f"http {{ {log if setup.log else 'access_log off;'} keepalive_requests 100000000; client_max_body_size 0;"
        f"proxy_max_temp_file_size 0; {TEMPORARY.format(folder)}"
        f"map $http_upgrade $upgrade_or_not {{ default upgrade; '' ''; }} {pools}"
        f"server {{ listen 127.0.0.1:{port} {_nginx_protocols(setup)}reuseport backlog=8192; {second}"
        f" {_nginx_tls(setup.certificate)} {settings} {routes} }} }}"
    )
    process = start([binary("nginx"), "-c", str(config)], setup.cpus, folder, f"nginx-{port}")
    server = _up(Server("nginx", port, process, lambda: children(process.pid), bool(setup.certificate)), folder)
    return replace(server, port=http2) if http2 else server


def _nginx_protocols(setup: Setup) -> str:
    return ("ssl http2 " if setup.http2 else "ssl ") if setup.certificate else ""


def _nginx_tls(certificate: str) -> str:
    if not certificate:
        return ""
    return f"ssl_certificate {certificate}; ssl_certificate_key {certificate}; ssl_protocols TLSv1.3;"


# --- HAProxy ---------------------------------------------------------------------------------------------------------

_HAPROXY_LOG = (
    '{"time":"%T","id":"%ID","method":"%HM","path":"%HU","status":%ST,"ms":%Ta,"bytes_out":%B,"target":"%s",'
    '"client":"%ci"}'
)


def haproxy(setup: Setup) -> Server:
    port, folder = free_port(), setup.folder
    check = f" check inter {setup.checks}" if setup.checks else ""
    asked = "\n  option httpchk\n  http-check send meth GET uri /" if setup.checks else ""
    pools = "".join(
        f"backend {name}\n  balance roundrobin\n  http-reuse always{asked}\n"
        + "".join(f"  server t{i} {target}{check}\n" for i, target in enumerate(targets))
        for name, targets in setup.pools.items()
    )
    choose = "  default_backend all"
    if setup.services > 1:
        routes = folder / f"haproxy-{port}.map"
        routes.write_text("".join(f"/{name}/ {name}\n" for name in setup.pools))
        choose = f"  use_backend %[path,map_beg({routes},s-0)]"
    # On a plain port it looks for HTTP/2's preface by itself.
    protocols = "h2,http/1.1" if setup.http2 else "http/1.1"
    tls = f" ssl crt {setup.certificate} ssl-min-ver TLSv1.3 alpn {protocols}" if setup.certificate else ""
    scheme = "https" if tls else "http"
    config = folder / f"haproxy-{port}.cfg"
    config.write_text(
        f"""
global
  nbthread {setup.workers}
  maxconn {CONNECTIONS}
  {"log stdout format raw local0" if setup.log else ""}
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
frontend front
  bind 127.0.0.1:{port} backlog 8192{tls}
  {"log stdout format raw local0" if setup.log else "no log"}
  {f"log-format '{_HAPROXY_LOG}'" if setup.log else ""}
  unique-id-format %{{+X}}o%ci%cp%Ts%rt
  unique-id-header X-Request-Id
  option forwardfor
  http-request set-header X-Forwarded-Proto {scheme}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header Forwarded for=%[src];host=%[req.hdr(host)];proto={scheme}
  http-request add-header Via "1.1 haproxy"
  http-response set-header X-Request-Id %[unique-id]
{choose}
{pools}
"""
    )
    process = start([binary("haproxy"), "-f", str(config), "-db"], setup.cpus, folder, f"haproxy-{port}")
    return _up(Server("haproxy", port, process, lambda: [process.pid, *children(process.pid)], bool(tls)), folder)


# --- a TCP relay -----------------------------------------------------------------------------------------------------


def relay(setup: Setup) -> Server:
    """HAProxy in TCP mode: it reads no request, so it shows what the kernel's part of a proxy costs."""
    port, folder = free_port(), setup.folder
    config = folder / f"relay-{port}.cfg"
    servers = "".join(f"  server t{i} {target}\n" for i, target in enumerate(setup.targets))
    config.write_text(
        f"""
global
  nbthread {setup.workers}
  maxconn {CONNECTIONS}
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen relay
  bind 127.0.0.1:{port} backlog 8192
  balance roundrobin
{servers}"""
    )
    process = start([binary("haproxy"), "-f", str(config), "-db"], setup.cpus, folder, f"relay-{port}")
    return _up(Server("relay", port, process, lambda: [process.pid, *children(process.pid)]), folder)


# --- Caddy -----------------------------------------------------------------------------------------------------------


def caddy(setup: Setup) -> Server:
    port, folder = free_port(), setup.folder
    checks = f"health_uri /\n    health_interval {setup.checks}" if setup.checks else ""
    routes = "".join(
        f"""
  handle {"/*" if setup.services == 1 else f"/{name}/*"} {{
    reverse_proxy {" ".join(targets)} {{
      lb_policy round_robin
      {checks}
      header_up X-Request-Id {{http.request.uuid}}
      header_up Via "1.1 caddy"
      transport http {{
        keepalive_idle_conns 20000
        keepalive_idle_conns_per_host 512
      }}
    }}
  }}"""
        for name, targets in setup.pools.items()
    )
    if setup.services > 1:
        routes += f"\n  handle {{\n    reverse_proxy {setup.targets[0]}\n  }}"
    pem = setup.certificate
    tls = f"tls {pem} {pem} {{\n    protocols tls1.3\n  }}" if pem else ""
    protocols = f"h1 {'h2' if pem else 'h2c'}" if setup.http2 else "h1"
    config = folder / f"caddy-{port}.conf"
    config.write_text(
        f"""
{{
  admin off
  auto_https off
  servers {{
    protocols {protocols}
  }}
}}
{"https" if pem else "http"}://:{port} {{
  bind 127.0.0.1
  {tls}
  {f"log {{{chr(10)} output file {folder}/caddy-{port}.log{chr(10)} format json{chr(10)} }}" if setup.log else ""}
  header X-Request-Id {{http.request.uuid}}
{routes}
}}
"""
    )
    command = [binary("caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]
    environ = {"GOMAXPROCS": str(setup.workers), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    process = start(command, setup.cpus, folder, f"caddy-{port}", environ)
    return _up(Server("caddy", port, process, lambda: [process.pid], bool(pem)), folder)


# --- Envoy -----------------------------------------------------------------------------------------------------------

_ENVOY_LOG = {
    "time": "%START_TIME%",
    "id": "%REQ(X-REQUEST-ID)%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "status": "%RESPONSE_CODE%",
    "ms": "%DURATION%",
    "bytes_out": "%BYTES_SENT%",
    "target": "%UPSTREAM_HOST%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
}
_ENVOY_TYPES = "type.googleapis.com/envoy.extensions."


def envoy(setup: Setup) -> Server:
    """Envoy's configuration is JSON, which is YAML."""
    port, folder = free_port(), setup.folder

    def route(name: str) -> dict[str, object]:
        return {
            "match": {"prefix": "/" if setup.services == 1 else f"/{name}/"},
            "route": {"cluster": name, "timeout": "0s"},
        }

    routes = [route(name) for name in setup.pools]
    if setup.services > 1:
        routes.append({"match": {"prefix": "/"}, "route": {"cluster": "s-0", "timeout": "0s"}})
    front: dict[str, object] = {
        "@type": f"{_ENVOY_TYPES}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        "use_remote_address": True,
        "via": "1.1 envoy",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
            "request_headers_to_add": [{"header": {"key": "X-Forwarded-Host", "value": "%REQ(:AUTHORITY)%"}}],
            "response_headers_to_add": [{"header": {"key": "X-Request-Id", "value": "%REQ(X-REQUEST-ID)%"}}],
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_ENVOY_TYPES}filters.http.router.v3.Router"},
            }
        ],
    }
    if setup.websocket:
        front["upgrade_configs"] = [{"upgrade_type": "websocket"}]
    if setup.log:
        front["access_log"] = [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": f"{_ENVOY_TYPES}access_loggers.file.v3.FileAccessLog",
                    "path": f"{folder}/envoy-{port}.log",
                    "log_format": {"json_format": _ENVOY_LOG},
                },
            }
        ]
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": front}]
    chain: dict[str, object] = {"filters": filters}
    if setup.certificate:
        chain["transport_socket"] = _envoy_tls(setup)
    listener = {"address": _envoy_address(f"127.0.0.1:{port}"), "filter_chains": [chain]}
    clusters = [_envoy_cluster(setup, name, targets) for name, targets in setup.pools.items()]
    config = folder / f"envoy-{port}.json"
    config.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}}))
    command = [binary("envoy"), "-c", str(config), "--concurrency", str(setup.workers)]
    command += ["--log-level", "error", "--disable-hot-restart"]
    process = start(command, setup.cpus, folder, f"envoy-{port}")
    tls = bool(setup.certificate)
    return _up(Server("envoy", port, process, lambda: [process.pid, *children(process.pid)], tls), folder)


def _envoy_tls(setup: Setup) -> dict[str, object]:
    """Without it the connection manager looks for HTTP/2's preface by itself (codec AUTO)."""
    file = {"filename": setup.certificate}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_ENVOY_TYPES}transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"] if setup.http2 else ["http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [{"certificate_chain": file, "private_key": file}],
            },
        },
    }


def _envoy_cluster(setup: Setup, name: str, targets: tuple[str, ...]) -> dict[str, object]:
    endpoints = [{"endpoint": {"address": _envoy_address(target)}} for target in targets]
    cluster: dict[str, object] = {
        "name": name,
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {
            "thresholds": [{"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000}]
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }
    if setup.checks:
        check = {"timeout": "1s", "interval": setup.checks, "no_traffic_interval": setup.checks}
        cluster["health_checks"] = [
            {**check, "unhealthy_threshold": 3, "healthy_threshold": 2, "http_health_check": {"path": "/"}}
        ]
    return cluster


def _envoy_address(target: str) -> dict[str, object]:
    host, _, port = target.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


# --- lb --------------------------------------------------------------------------------------------------------------


def lb(setup: Setup) -> Server:
    port, folder = free_port(), setup.folder
    readiness = f"{{path: /, interval: {setup.checks}}}" if setup.checks else setup.readiness
    services = "".join(
        f"""
  {name}:
    pools: {{all: [{", ".join(f"http://{target}" for target in targets)}]}}
    readiness: {readiness}
    {setup.features}"""
        for name, targets in setup.pools.items()
    )
    routes = "".join(f"\n  - {{path: /{name}/, service: {name}}}" for name in setup.pools if setup.services > 1)
    routes += "".join(f"\n  - {{path: /s-{i}/, service: all}}" for i in range(setup.routes) if setup.routes > 1)
    config = folder / f"lb-{port}.yaml"
    config.write_text(
        f"""
listeners: [{_lb_listener(port, setup)}]
admin: {{bind: 127.0.0.1:0}}
state_dir: {folder}/lb-{port}.state
access_log: {f"{{path: {folder}/lb-{port}.log}}" if setup.log else "off"}
services:{services}
routes:{routes}
  - {{path: /, service: {next(iter(setup.pools))}}}
"""
    )
    command = [setup.python, "-m", "lb", "run", str(config), "--workers", str(setup.workers)]
    environ = {"PYTHONPATH": str(setup.checkout)}
    process = start(command, setup.cpus, folder, f"lb-{port}", environ)
    return _up(Server("lb", port, process, lambda: children(process.pid), bool(setup.certificate)), folder)


def _lb_listener(port: int, setup: Setup) -> str:
    bind, pem = f"bind: '127.0.0.1:{port}'", setup.certificate
    if pem:
        protocols = "" if setup.http2 else ", protocols: [http/1.1]"
        return f"{{{bind}, tls: {{cert_file: {pem}, key_file: {pem}}}{protocols}}}"
    return f"{{{bind}{', protocols: [h2c, http/1.1]' if setup.http2 else ''}}}"


def interpreted(setup: Setup) -> Server:
    """The interpreted form of the same checkout, beside a compiled `lb`."""
    here = setup.checkout
    source = here.parents[1] if here.parts[-2:] == ("build", "compiled") else here
    return replace(lb(replace(setup, checkout=source)), name="interpreted")


def _up(server: Server, folder: Path) -> Server:
    """The server, once it passes the origin's answer on, whatever host is asked for; what it said, if it does not."""
    try:
        await_answer(f"{server.url}/", server.process)
        request = urllib.request.Request(server.url, headers={"Host": "bench"})
        with urllib.request.urlopen(request, timeout=5, context=ANY_CERTIFICATE) as answer:
            if answer.read().decode() not in (ANSWER, UP):
                raise RuntimeError(f"{server.name} answers by itself")
    except (RuntimeError, OSError) as error:
        stop(server.process)
        said = (folder / f"{server.name}-{server.port}.out").read_text()
        raise RuntimeError(f"{error}\n{said[-2000:]}") from None
    return server


PEERS: dict[str, Callable[[Setup], Server]] = {
    "lb": lb,
    "nginx": nginx,
    "haproxy": haproxy,
    "envoy": envoy,
    "caddy": caddy,
    "relay": relay,
    "interpreted": interpreted,
}
#: All but the interpreted form, which is a peer of a compiled lb alone.
ALL = tuple(peer for peer in PEERS if peer != "interpreted" or build_form.form() == "compiled")
#: The program that a peer is, where it has another name than the peer; "": lb itself.
_PROGRAMS = {"lb": "", "interpreted": "", "relay": "haproxy"}


def needed(peers: Iterable[str]) -> list[str]:
    """The programs that have to be installed for some peers."""
    return [program for program in (_PROGRAMS.get(peer, peer) for peer in peers) if program]


def chosen(text: str) -> tuple[str, ...]:
    """The peers that an option names; raises ArgumentTypeError."""
    peers = tuple(text.split(","))
    for peer in peers:
        if peer not in PEERS:
            raise argparse.ArgumentTypeError(f"{peer} is none of {','.join(PEERS)}")
    return peers
