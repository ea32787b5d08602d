"""Targets that are found: sources that grow, shrink, fail and lie, under load, with real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.consul_agent import Agent
from tests.support.dns_server import DnsServer
from tests.support.docker_engine import Engine
from tests.support.eventually import eventually
from tests.support.kubernetes_api import ApiServer, leaving, pod
from tests.support.stage import Backend, Lb, Load, Stage, ask

CHECK = "{path: /health/readiness, interval: 200ms, timeout: 500ms, rise: 2, fall: 2}"


def say(path: Path, *backends: Backend) -> None:
    """The source names these from now on; replaced by a rename."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps([backend.url for backend in backends]))
    new.replace(path)


def start(stage: Stage, more: str = "", *, ready: bool = True) -> Lb:
    text = (
        "listeners: [127.0.0.1:0]\nadmin: {bind: 127.0.0.1:0}\nstate_dir: ./state\naccess_log: off\nservices:\n  web:\n"
        f"    pools: {{main: {{discover: {{file: found.json}}{more}}}}}\n    readiness: {CHECK}\n"
    )
    return stage.start(stage.file(text), ready=ready)


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


def start_dns(stage: Stage, dns: DnsServer, settings: str) -> Lb:
    text = (
        "listeners: [127.0.0.1:0]\nadmin: {bind: 127.0.0.1:0}\nstate_dir: ./state\naccess_log: off\nservices:\n  web:\n"
        f"    pools: {{main: {{discover: {{dns: {{{settings}, timeout: 300ms, resolvers: ['{dns.address}']}}}}}}}}\n"
        f"    readiness: {CHECK}\n"
    )
    return stage.start(stage.file(text))


def pool(lb: Lb) -> dict[str, object]:
    found: dict[str, object] = lb.status()["services"][0]["pools"][0]
    return found


def targets(lb: Lb) -> dict[str, str]:
    """Address → state."""
    return {each["address"]: each["state"] for each in pool(lb)["targets"]}  # type: ignore[attr-defined]


def ready(lb: Lb, *backends: Backend) -> bool:
    return targets(lb) == {backend.address: "ready" for backend in backends}


def text_of(lb: Lb, *words: str) -> str:
    return " ".join(lb.cli(*words).stdout.split())


def test_the_set_follows_the_file_and_no_request_fails(stage: Stage) -> None:
    path = stage.folder / "found.json"
    one, two, three = stage.backend("one"), stage.backend("two"), stage.backend("three")
    say(path, one, two)
    lb = start(stage)
    eventually(lambda: ready(lb, one, two), what="both are ready")
    with Load(lb.url, 4) as load:
        say(path, three, two, one)
        eventually(lambda: ready(lb, one, two, three), what="the third is ready")
        say(path, two, three)
        eventually(lambda: ready(lb, two, three), what="the first is gone")
        one.kill()
        before = load.count
        eventually(lambda: load.count > before + 100, what="requests go on")
    assert not load.failed, load.failed
    assert "1 target found" in text_of(lb, "events")
    explained = text_of(lb, "explain", two.address)
    assert "It was found by file" in explained and "answered" in explained
    metrics = lb.metrics()
    assert metrics['lb_discovery_up{pool="main",provider="file",service="web"}'] == 1
    assert metrics['lb_discovery_targets{pool="main",provider="file",service="web"}'] == 2


def test_a_source_that_is_gone_or_broken_changes_nothing(stage: Stage) -> None:
    path = stage.folder / "found.json"
    backends = stage.pool("blue", 2)
    say(path, *backends)
    lb = start(stage)
    eventually(lambda: ready(lb, *backends), what="both are ready")
    with Load(lb.url, 4) as load:
        path.write_text('["http://127.0.0.1:1", ')
        eventually(lambda: pool(lb)["discovery"]["error"], what="status says so")  # type: ignore[index]
        assert ready(lb, *backends)
        path.unlink()
        eventually(lambda: "there is no such file" in pool(lb)["discovery"]["error"], what="…")  # type: ignore[index]
        assert ready(lb, *backends)
        assert "it does not answer, its targets stay" in text_of(lb, "status")
        assert lb.metrics()['lb_discovery_up{pool="main",provider="file",service="web"}'] == 0
        say(path, backends[0])
        eventually(lambda: ready(lb, backends[0]), what="it is caught up with")
    assert not load.failed, load.failed
    assert "answers again" in text_of(lb, "events")


def test_an_empty_answer_is_held_until_probes_or_an_operator_agree(stage: Stage) -> None:
    path = stage.folder / "found.json"
    backends = stage.pool("blue", 3)
    say(path, *backends)
    lb = start(stage)
    eventually(lambda: ready(lb, *backends), what="all are ready")
    with Load(lb.url, 4) as load:
        say(path)
        eventually(lambda: len(pool(lb)["discovery"]["kept"]) == 3, what="they are kept")  # type: ignore[index]
        assert "no longer names it" in text_of(lb, "explain", backends[0].address)
        backends[0].kill()
        eventually(lambda: ready(lb, *backends[1:]), what="one that fails goes alone")
    assert not load.failed, load.failed
    assert lb.metrics()['lb_discovery_held_removals{pool="main",provider="file",service="web"}'] == 2
    said = text_of(lb, "discover", "--confirm", "web/main")
    assert "web/main: 2 targets go" in said
    eventually(lambda: targets(lb) == {}, what="they are gone")
    assert ask(f"{lb.url}/greeting").status == 503


def test_replaced_targets_serve_until_enough_new_ones_can(stage: Stage) -> None:
    path = stage.folder / "found.json"
    old, new = stage.pool("old", 2), stage.pool("new", 2)
    for each in new:
        each.toggle()
    say(path, *old)
    lb = start(stage)
    eventually(lambda: ready(lb, *old), what="both are ready")
    with Load(lb.url, 4) as load:
        say(path, *new)
        eventually(lambda: len(targets(lb)) == 4, what="the new ones are probed")
        for each in new:
            each.toggle()
        eventually(lambda: ready(lb, *new), what="the old ones are gone")
    assert not load.failed, load.failed


def test_a_restart_without_the_source_serves(stage: Stage) -> None:
    path = stage.folder / "found.json"
    backends = stage.pool("blue", 2)
    say(path, *backends)
    lb = start(stage)
    eventually(lambda: ready(lb, *backends), what="both are ready")
    eventually(lambda: (stage.folder / "state/discovery.json").exists(), what="they are on the disk")
    lb.stop()
    path.unlink()
    lb = start(stage)
    eventually(lambda: ready(lb, *backends), what="both are ready again")
    assert ask(f"{lb.url}/greeting").status == 200


def test_readiness_of_lb_waits_for_the_first_answer(stage: Stage) -> None:
    backend = stage.backend()
    fixed = f", targets: ['{backend.url}']"
    lb = start(stage, fixed, ready=False)
    eventually(lambda: targets(lb) == {backend.address: "ready"}, what="the fixed target is ready")
    answer = ask(f"{lb.admin}/readyz")
    assert answer.status == 503 and b"no targets yet from file" in answer.body
    assert ask(f"{lb.url}/greeting").status == 200
    say(stage.folder / "found.json", backend)
    eventually(lambda: ask(f"{lb.admin}/readyz").status == 200, what="lb is ready")


def test_a_reload_changes_the_source_and_fixed_targets_hand_over(stage: Stage) -> None:
    fixed, found = stage.pool("fixed", 2), stage.pool("found", 2)
    say(stage.folder / "found.json", *found)
    lb = stage.start(stage.config({"main": fixed}))
    with Load(lb.url, 4) as load:
        text = (stage.folder / "lb.yaml").read_text()
        line = next(line for line in text.splitlines() if line.startswith("      main:"))
        stage.file(text.replace(line, "      main: {discover: {file: found.json}}"))
        plan = text_of(lb, "plan", str(stage.folder / "lb.yaml"))
        assert "targets are found by none → file" in plan
        assert lb.cli("reload").returncode == 0
        eventually(lambda: ready(lb, *found), what="the found ones serve alone")
    assert not load.failed, load.failed


def test_what_a_source_says_is_printed_without_a_running_lb(stage: Stage) -> None:
    backends = stage.pool("blue", 2)
    say(stage.folder / "found.json", *backends)
    lb = start(stage)
    said = text_of(lb, "discover", str(stage.folder / "lb.yaml"))
    assert "names 2 targets" in said and backends[0].url in said
    (stage.folder / "found.json").unlink()
    failed = lb.cli("discover", str(stage.folder / "lb.yaml"))
    assert failed.returncode == 1 and "does not answer" in failed.stdout


def weights(lb: Lb) -> dict[str, int]:
    """Address → weight."""
    return {each["address"]: each["weight"] for each in pool(lb)["targets"]}  # type: ignore[attr-defined]


# --- DNS -------------------------------------------------------------------------------------------------------------


def versions(lb: Lb, requests: int = 20) -> set[str]:
    """Who answers so many requests, each on a connection of its own; all have to be answered well."""
    answers = [ask(f"{lb.url}/greeting") for _ in range(requests)]
    assert {answer.status for answer in answers} == {200}
    return {answer.json["version"] for answer in answers}


def test_a_name_that_changes_fails_and_comes_back_costs_no_request(stage: Stage, dns: DnsServer) -> None:
    one = stage.backend("one")
    two = stage.backend("two", one.port, "127.0.0.2")
    three = stage.backend("three", one.port, "127.0.0.3")
    dns.say("web.test", "127.0.0.1", "127.0.0.2")
    lb = start_dns(stage, dns, f"name: web.test, port: {one.port}, type: A")
    eventually(lambda: ready(lb, one, two), what="both are ready")
    with Load(lb.url, 4) as load:
        dns.say("web.test", "127.0.0.2", "127.0.0.3")
        eventually(lambda: ready(lb, two, three), what="the set follows")
        dns.broken["*"] = "timeout"
        eventually(lambda: pool(lb)["discovery"]["error"], what="status says so")  # type: ignore[index]
        dns.say("web.test", "127.0.0.3")
        assert ready(lb, two, three)
        dns.broken.clear()
        eventually(lambda: ready(lb, three), what="it is caught up with")
        dns.forget("web.test")
        eventually(lambda: pool(lb)["discovery"]["kept"] == [three.address], what="it is kept")  # type: ignore[index]
    assert not load.failed, load.failed
    assert lb.metrics()['lb_discovery_up{pool="main",provider="dns",service="web"}'] == 1
    assert "It was found by dns web.test" in text_of(lb, "explain", three.address)


def test_a_dead_aaaa_beside_a_live_a_fails_no_request(stage: Stage, dns: DnsServer) -> None:
    one = stage.backend("one")
    dns.say("web.test", "127.0.0.1", "::1")  # nothing listens there
    lb = start_dns(stage, dns, f"name: web.test, port: {one.port}")
    eventually(lambda: targets(lb).get(one.address) == "ready", what="it is ready")
    with Load(lb.url, 4) as load:
        dns.broken["AAAA"] = "timeout"
        eventually(lambda: pool(lb)["discovery"]["problems"], what="status says so")  # type: ignore[index]
        before = load.count
        eventually(lambda: load.count > before + 200, what="requests go on")
    assert not load.failed, load.failed


def test_services_have_ports_weights_and_stand_by(stage: Stage, dns: DnsServer) -> None:
    first, second, reserve = stage.backend("first"), stage.backend("second"), stage.backend("reserve")
    dns.say("a.test", "127.0.0.1", ttl=60)
    services = [(1, 3, first.port, "a.test"), (1, 1, second.port, "a.test"), (9, 1, reserve.port, "a.test")]
    dns.say_services("_http._tcp.web.test", *services)
    lb = start_dns(stage, dns, "name: _http._tcp.web.test")
    eventually(lambda: ready(lb, first, second, reserve), what="all are ready")
    assert versions(lb, 40) == {"first", "second"}
    assert weights(lb) == {first.address: 3, second.address: 1, reserve.address: 0}
    assert "It stands by" in text_of(lb, "explain", reserve.address)
    first.toggle()
    second.toggle()
    eventually(lambda: b"reserve" in ask(f"{lb.url}/greeting").body, what="the reserve serves")
    assert versions(lb) == {"reserve"}


# --- Docker ----------------------------------------------------------------------------------------------------------


def test_containers_come_stop_and_the_engine_goes(stage: Stage) -> None:
    one, two, three = stage.backend("one"), stage.backend("two"), stage.backend("three")
    with Engine(stage.folder / "docker.sock") as engine:
        first = engine.run("one", port=one.port)
        engine.run("two", port=two.port)
        text = (
            "listeners: [127.0.0.1:0]\nadmin: {bind: 127.0.0.1:0}\nstate_dir: ./state\naccess_log: off\n"
            "services:\n  web:\n"
            f"    pools: {{main: {{discover: {{docker: {{label: pool=main, socket: '{engine.url}'}}}}}}}}\n"
            f"    readiness: {CHECK}\n"
        )
        lb = stage.start(stage.file(text))
        eventually(lambda: ready(lb, one, two), what="both are ready")
        with Load(lb.url, 4) as load:
            engine.run("three", port=three.port)
            eventually(lambda: ready(lb, one, two, three), what="the third is ready")
            engine.kill(first)
            eventually(lambda: ready(lb, two, three), what="the first gets nothing more")
            one.kill()
            engine.stop()
            eventually(lambda: pool(lb)["discovery"]["error"], what="status says so")  # type: ignore[index]
            before = load.count
            eventually(lambda: load.count > before + 200, what="requests go on")
            assert ready(lb, two, three)
            engine.start()
            eventually(lambda: pool(lb)["discovery"]["up"], what="it is heard again")  # type: ignore[index]
        assert not load.failed, load.failed
        assert "container" not in str(pool(lb)["discovery"]["problems"])  # type: ignore[index]


# --- Kubernetes ------------------------------------------------------------------------------------------------------


def test_pods_come_stop_and_the_api_server_goes(stage: Stage) -> None:
    one = stage.backend("one")
    two, three = stage.backend("two", one.port, "127.0.0.2"), stage.backend("three", one.port, "127.0.0.3")
    ports = [{"name": "metrics", "port": 1}, {"name": "http", "port": one.port}]
    with ApiServer() as api:
        api.put("web-a", pod("127.0.0.1"), pod("127.0.0.2"), ports=ports)
        config = api.kubeconfig(stage.folder / "kubeconfig")
        text = (
            "listeners: [127.0.0.1:0]\nadmin: {bind: 127.0.0.1:0}\nstate_dir: ./state\naccess_log: off\n"
            "services:\n  web:\n"
            f"    pools: {{main: {{discover: {{kubernetes: {{service: web, port: http, kubeconfig: {config}}}}}}}}}\n"
            f"    readiness: {CHECK}\n"
        )
        lb = stage.start(stage.file(text))
        eventually(lambda: ready(lb, one, two), what="both are ready")
        with Load(lb.url, 4) as load:
            api.put("web-b", pod("127.0.0.3"), ports=ports)
            eventually(lambda: ready(lb, one, two, three), what="the third is ready")
            api.put("web-a", leaving("127.0.0.1"), pod("127.0.0.2"), ports=ports)
            eventually(lambda: weights(lb)[one.address] == 0, what="the first gets nothing more")
            explained = text_of(lb, "explain", one.address)
            assert "It stands by" in explained and "Its source calls it pod-1 (terminating)" in explained
            one.kill()
            api.put("web-a", pod("127.0.0.2"), ports=ports)
            eventually(lambda: ready(lb, two, three), what="the first is gone")
            api.stop()
            eventually(lambda: pool(lb)["discovery"]["error"], what="status says so")  # type: ignore[index]
            before = load.count
            eventually(lambda: load.count > before + 200, what="requests go on")
            assert ready(lb, two, three)
            api.put("web-a", leaving("127.0.0.2"), ports=ports)
            api.compact()
            api.start()
            eventually(lambda: weights(lb) == {two.address: 0, three.address: 1}, what="it is caught up with")
        assert not load.failed, load.failed
        assert "It was found by kubernetes web" in text_of(lb, "explain", three.address)
        said = text_of(lb, "discover", str(stage.folder / "lb.yaml"))
        assert "kubernetes web names 2 targets" in said and "pod-2 (terminating), priority 1" in said


def test_pods_that_terminate_together_serve_until_other_ones_can(stage: Stage) -> None:
    one = stage.backend("one")
    two = stage.backend("two", one.port, "127.0.0.2")
    ports = [{"name": "http", "port": one.port}]
    with ApiServer() as api:
        api.put("web-a", pod("127.0.0.1"), ports=ports)
        config = api.kubeconfig(stage.folder / "kubeconfig")
        text = (
            "listeners: [127.0.0.1:0]\nadmin: {bind: 127.0.0.1:0}\nstate_dir: ./state\naccess_log: off\n"
            "services:\n  web:\n"
            f"    pools: {{main: {{discover: {{kubernetes: {{service: web, kubeconfig: {config}}}}}}}}}\n"
            f"    readiness: {CHECK}\n"
        )
        lb = stage.start(stage.file(text))
        with Load(lb.url, 4) as load:
            api.put("web-a", leaving("127.0.0.1"), ports=ports)
            before = load.count
            eventually(lambda: load.count > before + 200, what="requests go on")
            api.put("web-a", leaving("127.0.0.1"), pod("127.0.0.2"), ports=ports)
            eventually(lambda: weights(lb) == {one.address: 0, two.address: 1}, what="the other one serves")
            assert versions(lb) == {"two"}
        assert not load.failed, load.failed


# --- Consul ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def consul() -> Iterator[Agent]:
    with Agent() as agent:
        yield agent


def start_consul(stage: Stage, agent: Agent, *services: str) -> Lb:
    """A service of lb for each service of Consul, found there."""
    text = "listeners: [127.0.0.1:0]\nadmin: {bind: 127.0.0.1:0}\nstate_dir: ./state\naccess_log: off\nservices:\n"
    for name in services or ("web",):
        text += (
            f"  {name}:\n    pools: {{main: {{discover: {{consul: {{service: {name}, address: '{agent.url}'}}}}}}}}\n"
            f"    readiness: {CHECK}\n"
        )
    text += "routes:\n" + "".join(f"  - {{path: /greeting, service: {name}}}\n" for name in (services or ("web",))[:1])
    return stage.start(stage.file(text))


def test_instances_come_fall_ill_and_the_agent_goes(stage: Stage, consul: Agent) -> None:
    one, two, three, four = (stage.backend(name) for name in ("one", "two", "three", "four"))
    consul.register("one", "127.0.0.1", one.port)
    consul.register("two", "", two.port, status="warning")  # at its node's address
    lb = start_consul(stage, consul)
    eventually(lambda: ready(lb, one, two), what="both are ready")
    with Load(lb.url, 4) as load:
        consul.register("three", "127.0.0.1", three.port)
        eventually(lambda: ready(lb, one, two, three), what="the third is ready")
        consul.check("one", "critical")
        eventually(lambda: ready(lb, two, three), what="the first gets nothing more")
        one.kill()
        consul.stop()
        eventually(lambda: pool(lb)["discovery"]["error"], what="status says so")  # type: ignore[index]
        before = load.count
        eventually(lambda: load.count > before + 500, what="requests go on")
        assert ready(lb, two, three)
        assert "it does not answer, its targets stay" in text_of(lb, "status")
        assert lb.metrics()['lb_discovery_up{pool="main",provider="consul",service="web"}'] == 0
        consul.deregister("one")
        consul.register("four", "127.0.0.1", four.port)
        consul.restore(2)  # it has an older index when it is back
        consul.start()
        eventually(lambda: ready(lb, two, three, four), what="it is caught up with")
        consul.check("three", "warning")
        eventually(lambda: consul.waiting, what="it is asked for changes")
    assert not load.failed, load.failed
    assert "It was found by consul web" in text_of(lb, "explain", three.address)
    said = text_of(lb, "discover", str(stage.folder / "lb.yaml"))
    assert "consul web names 3 targets" in said and three.url in said and "three on node-1" in said


@pytest.mark.timing
def test_consul_is_followed_within_a_second_and_caught_up_with_within_two(stage: Stage, consul: Agent) -> None:
    one, two = stage.backend("one"), stage.backend("two")
    consul.register("one", "127.0.0.1", one.port)
    consul.register("two", "127.0.0.1", two.port)
    lb = start_consul(stage, consul)
    eventually(lambda: ready(lb, one, two), what="both are ready")
    with Load(lb.url, 4) as load:
        consul.check("one", "critical")
        eventually(lambda: ready(lb, two), within=1.0, what="the first is out")
        consul.stop()
        before = load.count
        eventually(lambda: load.count > before + 3000, what="some seconds go by")
        consul.check("one", "passing")
        consul.start()
        eventually(lambda: set(targets(lb)) == {one.address, two.address}, within=2.0, what="it is caught up with")
    assert not load.failed, load.failed


def test_a_catalogue_that_is_empty_at_once_is_held(stage: Stage, consul: Agent) -> None:
    web, shop = stage.backend("web"), stage.backend("shop")
    consul.register("one", "127.0.0.1", web.port)
    consul.register("shop", "127.0.0.1", shop.port, service="shop")
    lb = start_consul(stage, consul, "web", "shop")

    def kept() -> dict[str, list[str]]:
        return {each["name"]: each["pools"][0]["discovery"]["kept"] for each in lb.status()["services"]}

    def states() -> dict[str, str]:
        pools = [each["pools"][0] for each in lb.status()["services"]]
        return {each["address"]: each["state"] for pool in pools for each in pool["targets"]}

    eventually(lambda: states() == {web.address: "ready", shop.address: "ready"}, what="both are ready")
    with Load(lb.url, 4) as load:
        consul.deregister("one")
        consul.deregister("shop", service="shop")
        eventually(lambda: kept() == {"web": [web.address], "shop": [shop.address]}, what="both are kept")
        assert "Consul knows no instance of web" in text_of(lb, "status")
        before = load.count
        eventually(lambda: load.count > before + 200, what="requests go on")
        consul.register("one", "127.0.0.1", web.port)
        eventually(lambda: kept() == {"web": [], "shop": [shop.address]}, what="it is named again")
    assert not load.failed, load.failed


def test_instances_in_maintenance_get_requests_only_when_there_is_no_other(stage: Stage, consul: Agent) -> None:
    one, two = stage.backend("one"), stage.backend("two")
    consul.register("one", "127.0.0.1", one.port)
    consul.register("two", "127.0.0.1", two.port, node="node-2")
    lb = start_consul(stage, consul)
    eventually(lambda: ready(lb, one, two), what="both are ready")
    with Load(lb.url, 4) as load:
        consul.maintain("one", True)
        eventually(lambda: weights(lb) == {one.address: 0, two.address: 1}, what="the first gets nothing more")
        assert versions(lb) == {"two"}
        explained = text_of(lb, "explain", one.address)
        assert "It stands by" in explained and "one on node-1 (maintenance)" in explained
        consul.maintain("", True, node="node-2")
        eventually(lambda: versions(lb) == {"one", "two"}, what="there is no other")
        consul.maintain("one", False)
        eventually(lambda: weights(lb) == {one.address: 1, two.address: 0}, what="the first serves")
        assert versions(lb) == {"one"}
    assert not load.failed, load.failed


def test_a_restart_without_the_agent_serves(stage: Stage, consul: Agent) -> None:
    one = stage.backend("one")
    consul.register("one", "127.0.0.1", one.port)
    lb = start_consul(stage, consul)
    eventually(lambda: ready(lb, one), what="it is ready")
    eventually(lambda: (stage.folder / "state/discovery.json").exists(), what="it is on the disk")
    lb.stop()
    consul.stop()
    lb = start_consul(stage, consul)
    eventually(lambda: ready(lb, one), what="it is ready again")
    assert ask(f"{lb.url}/greeting").status == 200


# --- a function of one's own -----------------------------------------------------------------------------------------


def test_a_function_of_ones_own_that_fails_changes_nothing(stage: Stage) -> None:
    """The example, with a file for the registry."""
    example = Path(__file__).parent.parent.parent / "examples/own-source"
    (stage.folder / "registry.py").write_text((example / "registry.py").read_text())
    one, two, other = stage.backend("one"), stage.backend("two"), stage.backend("other")
    registry = stage.folder / "instances.json"

    def say_instances(*backends: Backend) -> None:
        instances = [{"host": "127.0.0.1", "port": each.port, "zone": "north"} for each in backends]
        instances += [{"host": "127.0.0.1", "port": other.port, "zone": "south"}]
        new = registry.with_suffix(".new")
        new.write_text(json.dumps({"instances": instances}))
        new.replace(registry)

    say_instances(one, two)
    text = (example / "backends.yaml").read_text()
    text = text.replace("http://127.0.0.1:8500/instances", f"'file://{registry}'")
    text = text.replace("path: .\n", "path: .\n            interval: 100ms\n")
    text = text.replace("/health/readiness", CHECK) + (
        "listeners: [127.0.0.1:0]\nadmin: {bind: 127.0.0.1:0}\nstate_dir: ./state\naccess_log: off\n"
    )
    lb = stage.start(stage.file(text))
    eventually(lambda: ready(lb, one, two), what="both are ready")
    with Load(lb.url, 4) as load:
        registry.unlink()
        eventually(lambda: "has failed: " in pool(lb)["discovery"]["error"], what="status says so")  # type: ignore[index]
        assert ready(lb, one, two)
        registry.write_text('{"instances": [{"host": "", "port": 0}]}')
        eventually(lambda: pool(lb)["discovery"]["error"], what="it is refused")  # type: ignore[index]
        say_instances(two)
        eventually(lambda: ready(lb, two), what="it is caught up with")
    assert not load.failed, load.failed
    assert "It was found by python registry:targets" in text_of(lb, "explain", two.address)
    said = text_of(lb, "discover", str(stage.folder / "lb.yaml"))
    assert f"python registry:targets names 1 target {two.url}" in said


# --- upgrades --------------------------------------------------------------------------------------------------------


@pytest.mark.real_start
def test_an_upgrade_keeps_the_targets_and_follows_the_source(stage: Stage) -> None:
    path = stage.folder / "found.json"
    one, two, three = stage.backend("one"), stage.backend("two"), stage.backend("three")
    say(path, one, two)
    lb = start(stage)
    eventually(lambda: ready(lb, one, two), what="both are ready")
    eventually(lambda: (stage.folder / "state/discovery.json").exists(), what="they are on the disk")
    text = path.read_text()
    path.unlink()  # the new lb has to know them without the source
    with Load(lb.url, 4) as load:
        done = lb.cli("upgrade", timeout=60.0)
        assert done.returncode == 0, done.stderr
        assert ready(lb, one, two)
        path.write_text(text)
        eventually(lambda: pool(lb)["discovery"]["up"], what="it is read again")  # type: ignore[index]
        say(path, one, two, three)
        eventually(lambda: ready(lb, one, two, three), what="the set follows")
    assert not load.failed, load.failed
