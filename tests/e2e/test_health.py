"""Health end to end: every protocol with processes that stop, hang and lie; ejection, liveness, stalls, reloads."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from lb.core.checks import CheckSpec
from lb.core.detection import detection
from tests.support.eventually import eventually
from tests.support.stage import Lb, Load, Stage, ask

QUICK = CheckSpec(interval=0.2, timeout=0.3, rise=2, fall=2)
RULES = "interval: 200ms, timeout: 300ms, rise: 2, fall: 2"
#: Beyond what the arithmetic says: a look at the status, and two noisy cores.
SLACK = 1.0
#: More of it where lb says that its own loop stood still: what timed out meanwhile is not held against a target.
STANDSTILL = 2.0


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The admin port of an lb with one ready target."""
    with Stage(tmp_path_factory.mktemp("admin")) as stage:
        backend = stage.backend()
        lb = stage.start(stage.config({"blue": [backend]}), 1)
        eventually(lambda: lb.state(backend.address) == "ready")
        yield lb.admin


class Process:
    """A backend that can be told to be unready by a file, stopped and killed."""

    def __init__(self, kind: str, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.kind = kind
        self.mend()

    def start(self, authority: trustme.CA) -> None:
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(self.folder / "server.pem")
        script = Path(__file__).with_name("health_backend.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), self.kind, str(self.folder)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.address = f"127.0.0.1:{self.port}"

    def fail(self) -> None:
        (self.folder / "ready").unlink()

    def mend(self) -> None:
        (self.folder / "ready").touch()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Callable[[str], Process]]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    started: list[Process] = []

    def start(kind: str) -> Process:
        made = Process(kind, tmp_path / f"{kind}{len(started)}")
        made.start(authority)
        started.append(made)
        return made

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def detected(lb: Lb, state: str, targets: dict[str, str], began: float) -> None:
    """Every target reaches `state` within the worst detection time that `lb check` prints."""
    times = detection(QUICK)
    assert times is not None
    left = dict(targets)
    while left:
        now = time.monotonic()
        left = {kind: target for kind, target in left.items() if lb.state(target) != state}
        if left and now - began >= times.worst + SLACK:
            stood = any("stood still" in event["text"] for event in events_of(lb))
            within = times.worst + SLACK + stood * STANDSTILL
            assert now - began < within, f"{left} not {state} after {now - began:.2f} s"
        time.sleep(0.02)


def events_of(lb: Lb) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(f"{lb.admin}/api/v1/events").json
    return found


def test_every_protocol_down_hung_unready_and_back(stage: Stage, processes, tmp_path: Path) -> None:
    """Each service has a witness that stays well: all targets silent at once would be the checker's own fault."""
    http, http_ok = stage.backend(), stage.backend()
    tcp, tcp_ok = stage.backend(), stage.backend()
    https, https_ok = processes("https"), processes("https")
    grpc, grpc_ok = processes("grpc"), processes("grpc")
    flag, flag_ok = tmp_path / "flag", tmp_path / "flag-ok"
    flag.touch()
    flag_ok.touch()
    command, command_ok = stage.backend(), stage.backend()
    script = f"if test $LB_TARGET_PORT = {command.port}; then cat {flag}; else cat {flag_ok}; fi"
    path = stage.file(
        f"""
listeners: [127.0.0.1:0]
admin: {{bind: 127.0.0.1:0}}
state_dir: ./state
access_log: {{path: {tmp_path}/access.log}}
services:
  http:
    pools: {{default: [{http.url}, {http_ok.url}]}}
    readiness: {{path: /health/readiness, {RULES}}}
  tcp:
    pools: {{default: [{tcp.url}, {tcp_ok.url}]}}
    readiness: {{protocol: tcp, {RULES}}}
  https:
    pools: {{default: [https://{https.address}, https://{https_ok.address}]}}
    readiness: {{protocol: https, {RULES}, tls: {{ca_file: {tmp_path}/ca.pem}}}}
  grpc:
    pools: {{default: [http://{grpc.address}, http://{grpc_ok.address}]}}
    readiness: {{protocol: grpc, {RULES}}}
  command:
    pools: {{default: [{command.url}, {command_ok.url}]}}
    readiness: {{protocol: command, {RULES}, command: [/bin/sh, -c, '{script}']}}
routes: [{{path: /, service: http}}]
"""
    )
    lb = stage.start(path, 1)
    bad = {
        "http": f"http/default/{http.address}",
        "https": f"https/default/{https.address}",
        "grpc": f"grpc/default/{grpc.address}",
        "command": f"command/default/{command.address}",
    }
    everything = {**bad, "tcp": f"tcp/default/{tcp.address}"}
    witnesses = {each.address: each.address for each in (http_ok, tcp_ok, https_ok, grpc_ok, command_ok)}
    detected(lb, "ready", {**everything, **witnesses}, time.monotonic())

    began = time.monotonic()  # they say that they are not ready
    http.toggle()
    https.fail()
    grpc.fail()
    flag.unlink()
    detected(lb, "unready", bad, began)
    why = {kind: lb.cli("explain", target).stdout for kind, target in bad.items()}
    assert "HTTP 503, expected 200-299" in why["http"]
    assert "HTTP 503, expected 200-299" in why["https"]
    assert "NOT_SERVING" in why["grpc"]
    assert "exit status 1: cat: " in why["command"]
    http.toggle()
    https.mend()
    grpc.mend()
    flag.touch()
    detected(lb, "ready", bad, time.monotonic())

    began = time.monotonic()  # they hang; a TCP check cannot see that, the kernel accepts for them
    for each in (http, https, grpc):
        each.process.send_signal(signal.SIGSTOP)
    hung = {kind: target for kind, target in bad.items() if kind != "command"}
    detected(lb, "unready", hung, began)
    assert "within 0.3 s" in lb.cli("explain", bad["http"]).stdout
    for each in (http, https, grpc):
        each.process.send_signal(signal.SIGCONT)
    detected(lb, "ready", hung, time.monotonic())

    began = time.monotonic()  # they are gone
    for each in (http, tcp, https, grpc):
        each.process.kill()
        each.process.wait()
    detected(lb, "unready", {**hung, "tcp": everything["tcp"]}, began)
    assert "connection refused by" in lb.cli("explain", everything["tcp"]).stdout
    assert all(lb.state(address) == "ready" for address in witnesses)


@pytest.mark.timing
def test_every_protocol_flapping_and_slow(stage: Stage, processes, tmp_path: Path) -> None:
    """Every other probe fails: nobody is out, as failures in a row are what counts. Too slow: out, and back."""
    kinds = ("http", "https", "grpc", "tcp")
    each = {kind: processes(kind) for kind in kinds}
    each["command"] = processes("http")  # what its command finds in the folder is what counts
    witness = processes("http")  # stays well: not everything is silent at once
    folder = each["command"].folder
    script = tmp_path / "check.sh"
    script.write_text(
        f"""[ $LB_TARGET_PORT = {each["command"].port} ] || exit 0
[ -e {folder}/slow ] && sleep 1
[ -e {folder}/flap ] || exit 0
if mkdir {folder}/turn 2>/dev/null; then exit 1; else rmdir {folder}/turn; fi
"""
    )
    rules = "interval: 200ms, timeout: 300ms, rise: 2, fall: 3, jitter: 0%"
    checks = {
        "http": "path: /",
        "https": f"protocol: https, tls: {{ca_file: {tmp_path}/ca.pem}}",
        "grpc": "protocol: grpc",
        "tcp": "protocol: tcp",
        "command": f"protocol: command, command: [/bin/sh, {script}]",
    }
    services = "".join(
        f"""
  {kind}:
    pools: {{bad: [{"https" if kind == "https" else "http"}://{each[kind].address}]}}
    readiness: {{{rules}, {check}}}"""
        for kind, check in checks.items()
    )
    lb = stage.start(
        stage.file(
            "listeners: [127.0.0.1:0]\nadmin: {bind: 127.0.0.1:0}\nstate_dir: ./state\n"
            f"access_log: {{path: {tmp_path}/access.log}}\nservices:{services}\n"
            f"  well:\n    pools: {{good: [http://{witness.address}]}}\n    readiness: {{path: /}}\n"
            "routes: [{path: /, service: http}]\n"
        ),
        1,
    )
    ids = {kind: f"{kind}/bad/{each[kind].address}" for kind in checks}
    eventually(lambda: all(lb.state(id) == "ready" for id in ids.values()), 20.0)

    for process in each.values():
        (process.folder / "flap").touch()

    def failed(kind: str) -> float:
        labels = f'pool="bad",result="failed",service="{kind}",target="{each[kind].address}"'
        return lb.metrics().get(f'lb_probes_total{{kind="readiness",{labels}}}', 0.0)

    eventually(lambda: all(failed(kind) >= 2 for kind in checks), 20.0)
    for process in each.values():
        (process.folder / "flap").unlink()
    assert not [event["text"] for event in events_of(lb) if event["after"] == "unready"]
    runs = ask(f"{lb.admin}/api/v1/probes?subject=http/bad").json
    assert {run["result"] for run in runs} >= {"passed", "failed"}

    slow = {kind: id for kind, id in ids.items() if kind != "tcp"}  # whoever accepts for it is never slow
    times = detection(CheckSpec(interval=0.2, timeout=0.3, rise=2, fall=3))
    assert times is not None
    for wanted, bound in (("unready", times.worst), ("ready", times.recovery)):
        for process in each.values():
            (process.folder / "slow").touch() if wanted == "unready" else (process.folder / "slow").unlink()
        began = time.monotonic()
        eventually(lambda wanted=wanted: all(lb.state(id) == wanted for id in slow.values()), bound + 5.0)
        changes = {event["subject"]: event["at"] for event in events_of(lb) if event["after"] == wanted}
        late = max(changes[id] for id in slow.values()) - (time.time() - time.monotonic() + began)
        assert late < bound + SLACK
    assert "within 0.3 s" in lb.cli("events").stdout
    assert lb.state(ids["tcp"]) == "ready"


def test_a_flapping_target_is_seen_however_short_its_outages(stage: Stage) -> None:
    """Caddy samples its gauge every 10 s and misses short outages: transitions are counted as they happen."""
    first, second = stage.pool("blue", 2)
    lb = stage.start(stage.config({"blue": [first, second]}), 1)
    eventually(lambda: lb.state(first.address) == "ready" and lb.state(second.address) == "ready")
    for _ in range(3):
        first.toggle()
        eventually(lambda: lb.state(first.address) == "unready")
        first.toggle()
        eventually(lambda: lb.state(first.address) == "ready")
    labels = f'pool="blue",service="greeting",target="{first.address}"'
    assert lb.metrics()[f'lb_target_transitions_total{{{labels},to="unready"}}'] == 3


def test_a_stalled_supervisor_blames_nobody(stage: Stage) -> None:
    """Its process stands still for longer than several time-outs; every probe under way is late, none is a failure."""
    backends = stage.pool("blue", 3)
    service = "readiness: {path: /health/readiness, interval: 100ms, timeout: 300ms, fall: 1}"
    lb = stage.start(stage.config({"blue": backends}, service=service), 1)
    eventually(lambda: all(lb.state(backend.address) == "ready" for backend in backends))
    for _ in range(3):
        lb.process.send_signal(signal.SIGSTOP)
        time.sleep(0.7)  # the stall itself
        lb.process.send_signal(signal.SIGCONT)
        lb.status()
    metrics = lb.metrics()
    left = {name: value for name, value in metrics.items() if "transitions" in name and 'to="unready"' in name}
    assert not any(left.values())


def test_one_of_ten_that_fails_half_its_requests_is_ejected(stage: Stage) -> None:
    """Its readiness says OK. Out within 5 s under load, and clients hardly notice."""
    backends = stage.pool("blue", 10)
    lb = stage.start(stage.config({"blue": backends}, service="readiness: {path: /health/readiness, interval: 1s}"))
    eventually(lambda: all(lb.state(backend.address) == "ready" for backend in backends))
    with Load(lb.url, clients=4) as load:
        eventually(lambda: load.count > 200)
        ask(f"{backends[3].url}/break?errors=50", "POST")
        eventually(lambda: lb.state(backends[3].address) == "ejected", within=5.0)
        failed = load.statuses.get(500, 0)

        def spared() -> bool:
            """A thousand requests in a row without one of its errors."""
            before, count = load.statuses.get(500, 0), load.count
            eventually(lambda: load.count > count + 1000, within=30.0)
            return load.statuses.get(500, 0) == before

        eventually(spared)
    assert 0 < failed < 400
    assert set(load.statuses) == {200, 500}
    assert not load.trouble
    [ejection] = [event for event in events_of(lb) if event["after"] == "ejected"]
    told = [json.loads(line) for line in lb.access.read_text().splitlines()]
    last = max(datetime.fromisoformat(line["time"]).timestamp() for line in told if line["status"] == 500)
    assert last < ejection["at"] + 1.0 + SLACK  # every worker knew within a second
    said = lb.cli("explain", backends[3].address).stdout
    assert re.search(r"Ejected .* ago for its own traffic: ", said)
    assert [lb.state(backend.address) for backend in backends].count("ejected") == 1


def test_liveness_runs_its_action_and_leaves_traffic_alone(stage: Stage, tmp_path: Path) -> None:
    backend = stage.backend()
    out = tmp_path / "restarted"
    service = f"""
readiness: {{path: /health/readiness, interval: 200ms}}
liveness:
  path: /no/such
  interval: 100ms
  timeout: 300ms
  fall: 2
  grace: 0s
  on_failure: {{command: "echo $LB_TARGET >> {out}"}}
"""
    lb = stage.start(stage.config({"blue": [backend]}, service=service), 1)
    eventually(out.exists)
    eventually(lambda: out.read_text() == f"greeting/blue/{backend.address}\n")
    assert lb.state(backend.address) == "ready"
    assert ask(f"{lb.url}/greeting").status == 200
    events = lb.cli("events").stdout
    assert "restart 1" in events
    assert "Liveness: " in lb.cli("explain", backend.address).stdout
    probes = lb.metrics()
    labels = f'pool="blue",result="failed",service="greeting",target="{backend.address}"'
    assert probes[f'lb_probes_total{{kind="liveness",{labels}}}'] >= 2


def test_a_reload_with_a_bad_check_takes_nobody_out(stage: Stage) -> None:
    """Marathon-LB #602, with real processes."""
    backends = stage.pool("blue", 2)
    lb = stage.start(stage.config({"blue": backends}), 1)
    eventually(lambda: all(lb.state(backend.address) == "ready" for backend in backends))
    quick = "readiness: {path: /helth/readiness, interval: 100ms, fall: 1, grace: 0s}"
    with Load(lb.url, clients=2) as load:
        stage.config({"blue": backends}, service=quick)
        assert lb.cli("reload").returncode == 0
        eventually(lambda: "changed check passes on no target" in lb.cli("events").stdout)
        assert all(lb.state(backend.address) == "ready" for backend in backends)
        assert "the former one still decides" in lb.cli("explain", backends[0].address).stdout
    assert not load.failed


def test_fresh_verdicts_outlive_a_restart(stage: Stage) -> None:
    up, down = stage.pool("blue", 2)
    config = stage.config({"blue": [up, down]}, service="readiness: {path: /health/readiness, interval: 1s, fall: 5}")
    lb = stage.start(config, 1)
    eventually(lambda: lb.state(up.address) == "ready")
    eventually(lambda: (stage.folder / "state" / "verdicts.json").exists())
    lb.stop()
    again = stage.start(config, 1, ready=False)
    assert "verdicts from before the restart are fresh" in again.cli("events").stdout
    assert again.state(up.address) == "ready"


def test_ejections_and_the_history_of_probes_outlive_a_supervisor_that_is_killed(stage: Stage) -> None:
    """Whoever was out for its own traffic is out afterwards, for the rest of its time and until a probe has passed."""
    backends = stage.pool("blue", 3)
    service = "readiness: {path: /health/readiness, interval: 100ms, fall: 2}"
    config = stage.config({"blue": backends}, service=service)
    lb = stage.start(config, 1)
    eventually(lambda: all(lb.state(backend.address) == "ready" for backend in backends))
    broken, sick, _ = backends
    with Load(lb.url, clients=4) as load:
        eventually(lambda: load.count > 100)
        ask(f"{broken.url}/break?errors=100", "POST")
        eventually(lambda: lb.state(broken.address) == "ejected")
    sick.toggle()
    eventually(lambda: lb.state(sick.address) == "unready")
    ended = stage.folder / "state" / "probes.jsonl"
    eventually(lambda: ended.exists() and sick.address in ended.read_text())
    lb.process.kill()
    lb.process.wait(5)
    with ended.open("a") as file:
        file.write('{"target": "greet')  # torn in the middle of a line

    again = stage.start(config, 1, ready=False)
    assert again.state(broken.address) == "ejected"
    assert "requests in a row failed" in again.cli("explain", broken.address).stdout
    [before, *_] = [line for line in again.cli("explain", sick.address).stdout.splitlines() if "✔ passed ×" in line]
    assert re.search(r"✔ passed ×\d+  +\d\d:\d\d:\d\d(–\d\d:\d\d:\d\d)?  +[0-9.]+–[0-9.]+ ms  HTTP 200", before)
    told = again.cli("events", "--probes", "--since", "1h").stdout
    assert re.search(rf"probes +greeting/blue/{sick.address}: passed ×\d+ within .* ms: HTTP 200", told)
    kinds = [line.split()[2] for line in told.splitlines() if re.match(r"\d\d-\d\d ", line)]
    assert {"probes", "transition", "start"} <= set(kinds)
    assert again.cli("events", "--probes", "--follow").returncode == 2
    [run, *_] = ask(f"{again.admin}/api/v1/probes?subject=greeting/blue/{sick.address}").json
    assert (run["result"], run["check"]) == ("passed", "readiness")
    assert run["count"] == run["passed"] > 1
    eventually(lambda: ask(f"{again.url}/greeting").status == 200)


def test_a_history_that_cannot_be_written_is_said_and_harms_nothing(stage: Stage) -> None:
    backend = stage.backend()
    (stage.folder / "state").mkdir()
    (stage.folder / "state" / "probes.jsonl").symlink_to("/dev/full")
    lb = stage.start(stage.config({"blue": [backend]}, service="readiness: {path: /health/readiness, interval: 100ms}"))
    backend.toggle()
    eventually(lambda: "No space left" in lb.status()["state_trouble"])
    backend.toggle()
    eventually(lambda: lb.state(backend.address) == "ready")
    assert "the history of probes is kept in memory alone" in lb.cli("events").stdout
    assert "status ×" in lb.cli("explain", backend.address).stdout


@pytest.mark.parametrize(
    ("target", "status"),
    [("/readyz", 200), ("http://{host}/readyz", 200), ("/livez", 200), ("/READYZ", 404), ("/readyZ", 404)],
)
def test_lb_is_asked_how_it_is_itself(admin: str, target: str, status: int) -> None:
    """[HAProxy http-monitor-uri] In absolute form as well; names are case-sensitive."""
    host, _, port = admin.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 5) as sock:
        wanted = target.format(host=f"{host}:{port}")
        sock.sendall(f"GET {wanted} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 %d " % status)


ONE_AT_A_TIME = "breaker: {connections: 1, pending: 5}\ntimeouts: {queue: 10s}"


def test_the_admin_port_shows_how_many_requests_wait_and_what_clients_got_wrong(stage: Stage) -> None:
    backend = stage.backend()
    lb = stage.start(stage.config({"blue": [backend]}, service=ONE_AT_A_TIME), 1)
    for _ in range(3):
        assert ask(f"{lb.url}/nothing-here").status == 404
    assert ask(f"{lb.url}/greeting").status == 200
    eventually(lambda: lb.status()["services"][0]["pools"][0]["client_error_rate"] == 0.75)
    assert lb.status()["services"][0]["client_error_rate"] == 0.75
    with ThreadPoolExecutor(3) as clients:
        asked = [clients.submit(ask, f"{lb.url}/slow?seconds=2") for _ in range(3)]
        eventually(lambda: lb.status()["services"][0]["pools"][0]["waiting"] == 2)
        assert lb.metrics()['lb_requests_waiting{pool="blue",service="greeting"}'] == 2
        assert "2 waiting" in lb.cli("status").stdout
        assert [each.result(20).status for each in asked] == [200, 200, 200]
    eventually(lambda: lb.status()["services"][0]["pools"][0]["waiting"] == 0)


def test_the_admin_port_shows_what_each_target_does(stage: Stage) -> None:
    """[Caddy TestAdminUpstreams] Failures and requests in flight of each; another method is 405."""
    backends = stage.pool("blue", 2)
    lb = stage.start(stage.config({"blue": backends}), 1)
    eventually(lambda: all(lb.state(backend.address) == "ready" for backend in backends))
    ask(f"{backends[0].url}/break?errors=100", "POST")
    with Load(lb.url, clients=2) as load:
        eventually(lambda: load.statuses.get(500, 0) >= 2)

    def shown() -> Any:
        return ask(f"{lb.admin}/api/v1/targets/greeting/blue/{backends[0].address}").json

    eventually(lambda: shown()["error_rate"] > 0 and shown()["in_flight"] == 0)
    backends[1].toggle()
    stage.config({"blue": [*backends, stage.backend()]})
    backends[0].kill()
    assert lb.cli("reload").returncode == 0

    def stages() -> dict[str, float]:
        labels = 'pool="blue",service="greeting"'
        told = lb.metrics()
        return {
            name: told[f'lb_pool_targets{{{labels},stage="{name}"}}'] for name in ("requested", "running", "healthy")
        }

    wanted = {"requested": 3, "running": 2, "healthy": 1}
    eventually(lambda: stages() == wanted)
    [pool] = [pool for service in lb.status()["services"] for pool in service["pools"]]
    assert {name: pool[name] for name in wanted} == wanted
    failed = f'lb_requests_total{{code="500",pool="blue",service="greeting",target="{backends[0].address}"}}'
    assert lb.metrics()[failed] == load.statuses[500]
    refused = ask(f"{lb.admin}/api/v1/status", "DELETE")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET,HEAD")


def test_lb_probe_shows_what_was_asked_got_and_expected(stage: Stage) -> None:
    backend = stage.backend()
    lb = stage.start(stage.config({"blue": [backend]}), 1)
    backend.toggle()
    shown = lb.cli("probe", backend.address).stdout
    for part in ("GET /health/readiness HTTP/1.1", "503", "Service is not ready", "status 200-299"):
        assert part in shown
