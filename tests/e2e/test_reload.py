"""Reloads under load: whole or not at all, what stays the same stays untouched, nobody notices."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.echo import EchoBackend, Tunnel
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.stage import Lb, Load, Stage, ask


@pytest.fixture
def echo() -> Iterator[EchoBackend]:
    made = EchoBackend()
    yield made
    made.close()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def targets(lb: Lb) -> dict[str, dict]:
    return {t["id"]: t for s in lb.status()["services"] for p in s["pools"] for t in p["targets"]}


@pytest.mark.parametrize("slow_start", ["0s", "2s"])
def test_all_targets_of_a_pool_are_replaced_and_no_request_fails(stage: Stage, slow_start: str) -> None:
    olds, news = stage.pool("blue", 2), stage.pool("blue", 2)
    for new in news:
        assert not new.toggle()
    path = stage.config({"blue": olds}, service=f"slow_start: {{window: {slow_start}}}\nrollout: {{bake: 0s}}")
    lb = stage.start(path)
    eventually(lambda: {lb.state(old.address) for old in olds} == {"ready"})
    with Load(lb.url, clients=4) as load:
        eventually(lambda: load.count > 100)
        for old, new in zip(olds, news, strict=True):
            edit(path, old.url, new.url)
        planned = lb.cli("plan", str(path)).stdout
        told = lb.cli("reload")
        assert told.returncode == 0
        for text in (planned, told.stdout):
            assert "all 2 targets are replaced; while it has traffic, the old ones serve" in text.replace("\n  ", " ")
        assert {id.rpartition("/")[2] for id, each in targets(lb).items() if each["replaced"]} == {
            old.address for old in olds
        }
        assert "0 of 2 ready" not in lb.cli("status").stdout
        assert "The file no longer has it" in lb.cli("explain", f"greeting/blue/{olds[0].address}").stdout
        assert lb.cli("upgrade").returncode == 1
        assert {ask(f"{lb.url}/greeting").json["instance"] for _ in range(12)} <= {old.address for old in olds}
        edit(path, "fall: 2", "fall: 3")
        assert lb.cli("reload").returncode == 0, "another reload while it is under way"
        counted = load.count
        eventually(lambda: load.count > counted + 100)
        assert news[1].toggle()
        eventually(lambda: len(targets(lb)) == 2)
        assert lb.state(news[1].address) == "ready", "its slow start is over"
        assert {ask(f"{lb.url}/greeting").json["instance"] for _ in range(12)} == {news[1].address}
        counted = load.count
        eventually(lambda: load.count > counted + 100)
    assert not load.failed
    said = [
        event["text"]
        for event in map(json.loads, lb.cli("events", "--json").stdout.splitlines())
        if event["kind"] == "handover"
    ]
    assert said[0].startswith("all targets are replaced: 2 old ones serve until a new one can, for 10 min at most")
    assert said[1].startswith(f"greeting/blue/{news[1].address} can serve after")
    assert len(said) == 2


def test_targets_come_and_go_and_no_request_fails(stage: Stage) -> None:
    one, two, three = stage.pool("blue", 3)
    path = stage.config({"blue": [one, two]})
    lb = stage.start(path)
    workers = lb.status()["workers"]
    since = targets(lb)[f"greeting/blue/{one.address}"]["since"]
    with Load(lb.url, clients=4) as load:
        eventually(lambda: load.count > 100)
        edit(path, two.url, three.url)
        told = lb.cli("reload")
        assert told.returncode == 0
        assert f"+ greeting/blue/{three.address}" in told.stdout
        assert f"- greeting/blue/{two.address}" in told.stdout
        eventually(lambda: lb.state(three.address) == "ready")
        seen = {ask(f"{lb.url}/greeting").json["instance"] for _ in range(12)}
        assert two.address not in seen
        both = {one.address, three.address}
        # The load takes turns as well, and a few requests may fall in step with it and see one target only.
        eventually(lambda: {ask(f"{lb.url}/greeting").json["instance"] for _ in range(12)} == both)
        counted = load.count
        eventually(lambda: load.count > counted + 100)
    assert not load.failed
    assert lb.status()["workers"] == workers, "nobody was restarted for it"
    kept = targets(lb)[f"greeting/blue/{one.address}"]
    assert abs(kept["since"] - since) < 0.1, "its health was not begun anew"
    assert kept["requests"] > 50, "nor were its counters"
    assert not [name for name in lb.metrics() if two.address in name], "a target that is gone has no series"


def test_tunnels_and_slow_answers_live_on(stage: Stage, echo: EchoBackend) -> None:
    slow = stage.backend()
    path = stage.file(
        f"""
listeners: [127.0.0.1:0]
admin: {{bind: 127.0.0.1:0}}
state_dir: state
access_log: off
services:
  ws: {{pools: {{blue: [{echo.url}]}}}}
  slow: {{pools: {{blue: [{slow.url}]}}, retries: {{attempts: 1}}}}
routes: [{{path: /ws, service: ws}}, {{path: /, service: slow}}]
"""
    )
    lb = stage.start(path)
    eventually(lambda: all(t["state"] == "ready" for t in targets(lb).values()))
    tunnel = Tunnel(lb.url)
    with Load(lb.url, clients=1, path="/slow?seconds=1.5") as load:
        eventually(lambda: lb.status()["in_flight"])
        for number in (2, 3, 4):
            edit(path, f"attempts: {number - 1}", f"attempts: {number}")
            assert lb.cli("reload").returncode == 0
            assert tunnel.echo(b"still here") == b"still here"
        eventually(lambda: load.count)
    assert not load.failed
    tunnel.close()


def test_an_invalid_file_changes_nothing_and_says_why_everywhere(stage: Stage) -> None:
    backend = stage.backend()
    path = stage.config({"blue": [backend]})
    lb = stage.start(path)
    text = path.read_text()
    path.write_text(text + "drain: soon\nnonsense: 1\n")
    refused = lb.cli("reload")
    assert refused.returncode == 1
    assert re.search(r"lb\.yaml:\d+:\d+", refused.stderr)
    assert "drain" in refused.stderr
    assert "nonsense" in refused.stderr
    assert not lb.status()["config"]["last_reload_ok"]
    assert "soon" in lb.status()["config"]["last_error"]
    path.write_text(text + f"drain: soon-{'s' * 100}\nnonsense: 1\n")
    assert lb.cli("reload").returncode == 1
    why = next(line for line in lb.cli("status").stdout.splitlines() if "was refused" in line)
    assert "s" * 100 in why, "cut at the wrap of the error's text"
    assert why.endswith("(and 1 more error; `lb check` shows all)")
    metrics = lb.metrics()
    assert metrics["lb_config_last_reload_successful"] == 0
    assert metrics['lb_config_reloads_total{result="failed"}'] == 2
    assert "refused, nothing has changed" in lb.errors.read_text()
    assert ask(f"{lb.url}/greeting").status == 200
    path.write_text(text)
    assert lb.cli("reload").stdout == "Nothing to change.\n"
    assert lb.metrics()["lb_config_last_reload_successful"] == 1


def test_by_signal_and_by_watch(stage: Stage) -> None:
    one, two = stage.pool("blue", 2)
    path = stage.config({"blue": [one]})
    lb = stage.start(path)
    edit(path, one.url, f"{one.url}, {two.url}")
    lb.process.send_signal(signal.SIGHUP)
    eventually(lambda: lb.state(two.address) == "ready")
    path.write_text(path.read_text() + "watch: true\n")
    lb.process.send_signal(signal.SIGHUP)
    eventually(lambda: lb.metrics()['lb_config_reloads_total{result="ok"}'] == 2)
    edit(path, f"{one.url}, ", "")
    eventually(lambda: len(targets(lb)) == 1, what="nobody had to ask for it")
    path.write_text(path.read_text() + "nonsense: 1\n")
    eventually(lambda: not lb.status()["config"]["last_reload_ok"])
    assert len(targets(lb)) == 1


def test_listeners_come_and_go(stage: Stage) -> None:
    path = stage.config({"blue": stage.pool("blue", 1)})
    lb = stage.start(path)
    workers, port = lb.status()["workers"], free_port()
    with Load(lb.url, clients=2) as load:
        edit(path, "[127.0.0.1:0]", f"[127.0.0.1:0, 127.0.0.1:{port}]")
        assert lb.cli("reload").returncode == 0
        with Load(f"http://127.0.0.1:{port}", clients=2) as other:
            eventually(lambda: other.count > 50)
            edit(path, f", 127.0.0.1:{port}", "")
            told = lb.cli("reload")
            assert "closes" in told.stdout
            eventually(lambda: other.trouble, what="its connections end, and new ones are refused")
        assert not [status for status in other.statuses if status >= 400]
        ends = [text for text in other.trouble if "Refused" not in text and "within a head: b''" not in text]
        assert not ends, "each request was answered before its connection closed"
        counted = load.count
        eventually(lambda: load.count > counted + 50)
    assert not load.failed
    assert lb.status()["workers"] == workers


def test_a_listener_in_use_refuses_the_whole_reload(stage: Stage) -> None:
    one, two = stage.pool("blue", 2)
    path = stage.config({"blue": [one]})
    lb = stage.start(path)
    edit(path, "[127.0.0.1:0]", f"[127.0.0.1:0, '{two.address}']")
    edit(path, one.url, f"{one.url}, {two.url}")
    refused = lb.cli("reload")
    assert refused.returncode == 1
    assert two.address in refused.stderr
    assert len(targets(lb)) == 1, "not even the target was added"
    assert len(lb.status()["listeners"]) == 1


def test_limits_of_a_listener_change_for_new_connections(stage: Stage) -> None:
    path = stage.config({"blue": stage.pool("blue", 1)})
    lb = stage.start(path)
    long = "/greeting?" + "x" * 500
    assert ask(f"{lb.url}{long}").status == 200
    edit(path, "[127.0.0.1:0]", "[{bind: '127.0.0.1:0', limits: {request_line: 256}}]")
    told = lb.cli("reload")
    assert "request_line" in told.stdout
    assert ask(f"{lb.url}{long}").status == 414
    assert ask(f"{lb.url}/greeting").status == 200


def test_a_renewed_certificate_is_served_after_a_reload(stage: Stage) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()

    def renew() -> str:
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(stage.folder / "cert.pem")
        issued.private_key_pem.write_to_path(stage.folder / "key.pem")
        return issued.cert_chain_pems[0].bytes().decode().split()[3][:40]

    def served() -> str:
        asked = ["openssl", "s_client", "-connect", lb.url.removeprefix("https://"), "-servername", "localhost"]
        said = subprocess.run(asked, input=b"", capture_output=True, timeout=10, check=False).stdout.decode()
        return said.partition("-----BEGIN CERTIFICATE-----")[2].split()[0][:40]

    renew()
    path = stage.config({"blue": stage.pool("blue", 1)})
    edit(path, "[127.0.0.1:0]", "[{bind: '127.0.0.1:0', tls: {cert_file: cert.pem, key_file: key.pem}}]")
    lb = stage.start(path)
    before = served()
    renew()
    assert lb.cli("reload").returncode == 0
    eventually(lambda: served() not in ("", before), what="the new certificate")


def test_plain_http_on_a_tls_listener_leaves_a_trace(stage: Stage) -> None:
    trustme = pytest.importorskip("trustme")
    issued = trustme.CA().issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(stage.folder / "cert.pem")
    issued.private_key_pem.write_to_path(stage.folder / "key.pem")
    path = stage.config({"blue": stage.pool("blue", 1)})
    edit(path, "[127.0.0.1:0]", "[{bind: '127.0.0.1:0', tls: {cert_file: cert.pem, key_file: key.pem}}]")
    lb = stage.start(path)
    host, _, port = lb.url.removeprefix("https://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        with contextlib.suppress(OSError):
            sock.recv(1000)
    eventually(lambda: lb.metrics().get('lb_rejected_total{reason="tls_plain_http"}') == 1)
    eventually(lambda: "sent plain HTTP, but this listener speaks TLS" in lb.errors.read_text())


class TestOverrides:
    """What an operator set at run time stands beside the value that it replaced: a later edit of the file wins."""

    def test_a_weight(self, stage: Stage) -> None:
        backend = stage.backend()
        path = stage.config({"blue": [backend]})
        edit(path, f"[{backend.url}]", f"[{{url: {backend.url}, weight: 2}}]")
        lb = stage.start(path)
        assert lb.cli("weight", backend.address, "7").returncode == 0
        [target] = targets(lb).values()
        assert (target["weight"], target["configured_weight"]) == (7, 2)
        edit(path, "interval: 200ms", "interval: 300ms")
        assert lb.cli("reload").returncode == 0
        assert next(iter(targets(lb).values()))["weight"] == 7, "another edit leaves it alone"
        edit(path, "weight: 2", "weight: 3")
        assert lb.cli("reload").returncode == 0
        assert next(iter(targets(lb).values()))["weight"] == 3

    def test_a_switch(self, stage: Stage) -> None:
        path = stage.config(
            {"blue": stage.pool("blue", 1), "green": stage.pool("green", 1)}, service="rollout: {bake: 0s}"
        )
        lb = stage.start(path)
        eventually(lambda: all(t["state"] == "ready" for t in targets(lb).values()))
        assert lb.cli("switch", "greeting", "green").returncode == 0
        edit(path, "interval: 200ms", "interval: 300ms")
        assert lb.cli("reload").returncode == 0
        assert lb.status()["services"][0]["active"] == "green"
        edit(path, "active: blue", "active: green")
        assert lb.cli("reload").returncode == 0
        edit(path, "active: green", "active: blue")
        assert lb.cli("reload").returncode == 0
        assert lb.status()["services"][0]["active"] == "blue"

    def test_they_survive_a_restart_and_an_edit_meanwhile_wins(self, stage: Stage) -> None:
        one, two = stage.pool("blue", 2)
        path = stage.config({"blue": [one, two]})
        lb = stage.start(path)
        assert lb.cli("weight", one.address, "7").returncode == 0
        assert lb.cli("drain", two.address, "--wait").returncode == 0
        assert lb.stop() == 0
        lb = stage.start(path)
        assert targets(lb)[f"greeting/blue/{one.address}"]["weight"] == 7
        eventually(lambda: lb.state(two.address) == "drained")
        assert lb.stop() == 0
        edit(path, one.url, f"{{url: {one.url}, weight: 4}}")
        lb = stage.start(path)
        assert targets(lb)[f"greeting/blue/{one.address}"]["weight"] == 4


def test_reloads_in_a_row_are_done_one_after_the_other(stage: Stage) -> None:
    path = stage.config({"blue": stage.pool("blue", 1)})
    lb = stage.start(path)
    with Load(lb.url, clients=2) as load:
        for _ in range(30):
            lb.process.send_signal(signal.SIGHUP)
            time.sleep(0.005)
        eventually(lambda: lb.metrics()['lb_config_reloads_total{result="ok"}'] >= 2)
        assert lb.cli("reload").returncode == 0
        counted = load.count
        eventually(lambda: load.count > counted + 20)
    assert not load.failed


def test_pools_named_by_version_leave_no_series_behind(stage: Stage) -> None:
    """A release a day, each in a pool and an address of its own; another service comes and goes beside it."""
    backends = stage.pool("v", 4)

    def text(number: int) -> str:
        pools = {f"v{n}": [backends[n % 4]] for n in (number, number + 1)}
        path = stage.config(pools, service="rollout: {bake: 0s}")
        path.write_text(f"{path.read_text()}  job{number}: {{pools: {{p{number}: [{backends[0].url}]}}}}\n")
        path.write_text(f"{path.read_text()}routes: [{{service: greeting}}, {{path: /job, service: job{number}}}]\n")
        return str(path)

    lb = stage.start(Path(text(1)))
    counts, sums = [], []
    for number in range(1, 9):
        text(number)
        assert lb.cli("reload").returncode == 0
        for path in ("/greeting", "/job"):
            eventually(lambda path=path: ask(f"{lb.url}{path}").status in (200, 404))
        found = lb.metrics()
        counts.append(len(found))
        sums.append(
            sum(n for name, n in found.items() if name.startswith("lb_requests_total{") and '"greeting"' in name)
        )
    named = {name for key in found for name in re.findall(r'(?:pool|service)="([^"]+)"', key)}
    assert named == {"greeting", "job8", "v8", "v9", "p8", "none", "removed"}
    assert counts[-1] <= counts[3] + 10, counts
    assert sums == sorted(sums), "what a service has answered never grows less"
    assert lb.metrics()['lb_config_reloads_total{result="ok"}'] == 8


def test_a_file_that_leaves_nobody_to_serve_is_refused_unless_forced(stage: Stage) -> None:
    """Switched to green long ago; then the file loses green, and blue is dead."""
    blue, green = stage.backend("blue"), stage.backend("green")
    path = stage.config({"blue": [blue], "green": [green]}, service="rollout: {bake: 0s}")
    lb = stage.start(path)
    eventually(lambda: all(t["state"] == "ready" for t in targets(lb).values()))
    assert lb.cli("switch", "greeting", "green").returncode == 0
    blue.kill()
    eventually(lambda: lb.state(blue.address) == "unready")
    base = ask(f"{lb.admin}/api/v1/config").headers["ETag"]
    edit(path, f"      green: [{green.url}]\n", "")
    said = "greeting is served by green now; with this file blue serves it, but 0 of 1 targets of blue are ready"

    planned = lb.cli("plan", str(path))
    assert planned.returncode == 1
    assert "pool greeting/green: is gone" in planned.stdout
    assert said in planned.stderr
    refused = lb.cli("reload")
    assert refused.returncode == 1
    assert said in refused.stderr
    assert "lb reload --force" in refused.stderr
    assert f"greeting/blue/{blue.address}: unready" in refused.stderr
    assert not lb.status()["config"]["last_reload_ok"]
    lb.process.send_signal(signal.SIGHUP)
    eventually(lambda: lb.metrics()['lb_config_reloads_total{result="failed"}'] == 2)
    assert said in lb.status()["config"]["last_error"]
    assert lb.errors.read_text().count(f"refused, nothing has changed: {said}") == 2
    order = {"text": path.read_text(), "force": True}
    headers = {"If-Match": base, "Content-Type": "application/json"}
    answer = ask(f"{lb.admin}/api/v1/config", "PUT", json.dumps(order).encode(), headers)
    assert answer.status == 409, "that the file was edited is another matter"
    assert answer.json["title"] == "No target could serve"
    assert {ask(f"{lb.url}/greeting").status for _ in range(6)} == {200}

    forced = lb.cli("reload", "--force")
    assert forced.returncode == 0
    assert "Forced: greeting is served by green now" in " ".join(forced.stdout.split())
    assert f"(forced: {said}" in lb.errors.read_text()
    assert ask(f"{lb.url}/greeting").status == 503
    path.write_text(path.read_text().replace("active: blue", "active: blue "))
    assert lb.cli("reload").returncode == 0, "who is not served cannot be cut off"


def test_an_edited_active_waits_for_a_pool_that_can_serve(stage: Stage) -> None:
    blue, green = stage.backend("blue"), stage.backend("green")
    path = stage.config({"blue": [blue]})
    lb = stage.start(path)
    eventually(lambda: lb.state(blue.address) == "ready")
    edit(path, "    active: blue", f"      green: [{green.url}]\n    active: green")
    refused = lb.cli("reload")
    assert refused.returncode == 1
    assert f"greeting/green/{green.address}: starting: not probed yet" in refused.stderr
    edit(path, "active: green", "active: blue")
    assert lb.cli("reload").returncode == 0
    eventually(lambda: lb.state(green.address) == "ready")
    edit(path, "active: blue", "active: green")
    assert lb.cli("reload").returncode == 0
    assert ask(f"{lb.url}/greeting").json["instance"] == green.address


def test_one_that_a_worker_does_not_confirm_is_no_success(stage: Stage) -> None:
    one, two = stage.pool("blue", 2)
    path = stage.config({"blue": [one]})
    lb = stage.start(path)
    pid = lb.status()["workers"][0]
    os.kill(pid, signal.SIGSTOP)
    try:
        edit(path, one.url, f"{one.url}, {two.url}")
        told = lb.cli("reload")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert told.returncode == 1
    assert "Not confirmed" in told.stderr
    assert f"worker 0 (process {pid}): has given no sign of life" in told.stderr
    assert lb.metrics()['lb_config_reloads_total{result="unconfirmed"}'] == 1
    assert lb.metrics()['lb_config_reloads_total{result="ok"}'] == 0
    eventually(lambda: lb.state(two.address) == "ready")  # it is in force all the same
    assert lb.cli("reload").stdout == "Nothing to change.\n"
