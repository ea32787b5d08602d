"""Blue/green at once: the gate, the switch that nobody notices, the way back, the watch, hooks, two operators."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.fleet import Fleet
from tests.support.releases import events, order, service, two_pools
from tests.support.stage import Answer, Lb, Load, Stage, ask


def test_a_switch_to_a_pool_that_is_not_ready_is_refused_with_reasons(stage: Stage) -> None:
    lb, _, green = two_pools(stage, count=2)
    green[1].toggle()
    eventually(lambda: lb.state(green[1].address) == "unready")
    refused = order(lb, "switch", {"to": "green"})
    assert refused.status == 409
    assert refused.headers["Content-Type"].startswith("application/problem+json")
    [reason] = refused.json["reasons"]
    assert reason["target"] == f"greeting/green/{green[1].address}"
    assert "503" in reason["reason"]
    assert service(lb)["active"] == "blue"
    by_command = lb.cli("switch", "greeting", "green")
    assert by_command.returncode == 1
    assert green[1].address in by_command.stderr
    forced = lb.cli("switch", "greeting", "green", "--force")
    assert forced.returncode == 0, forced.stderr
    assert service(lb)["active"] == "green"
    assert ask(f"{lb.url}/greeting").json["version"] == "green"
    assert lb.metrics()['lb_switches_total{result="refused",service="greeting"}'] == 2
    assert lb.metrics()['lb_switches_total{result="done",service="greeting"}'] == 1


def test_a_lower_min_ready_opens_the_gate(stage: Stage) -> None:
    lb, _, green = two_pools(stage, "min_ready: 50%", count=2)
    green[1].toggle()
    eventually(lambda: lb.state(green[1].address) == "unready")
    assert order(lb, "switch", {"to": "green"}).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"to": "red"}, 404),
        ({"to": "green", "steps": [50, 25, 100]}, 422),
        ({"to": "green", "steps": [50]}, 422),
        ({"to": "green", "steps": []}, 422),
        ({"to": "green", "step_time": "soon"}, 422),
        ({"to": "green", "bake": "1 fortnight"}, 422),
        ({}, 422),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(shared: Lb, body: dict, status: int) -> None:
    before = service(shared)
    answer = order(shared, "switch", body)
    assert answer.status == status, answer.body
    assert answer.json["detail"]
    after = service(shared)
    assert (after["active"], after["since"]) == (before["active"], before["since"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with Stage(tmp_path_factory.mktemp("shared")) as made:
        yield two_pools(made)[0]


def test_nobody_notices_forty_switches(stage: Stage) -> None:
    """GET and POST under way all the time: none fails, and none that is sent after a switch goes to the old pool."""
    lb, _, _ = two_pools(stage, "bake: 0s")
    with Fleet(lb.url, clients=6) as gets, Fleet(lb.url, clients=4, body=b"x" * 3000) as posts:
        moments = [(time.monotonic(), "blue")]
        for number in range(40):
            to = ("green", "blue")[number % 2]
            answer = order(lb, "switch", {"to": to})
            assert answer.status == 200, answer.body
            moments.append((time.monotonic(), to))
        eventually(lambda: gets.versions(since=moments[-1][0])["blue"] > 20)
        eventually(lambda: posts.versions(since=moments[-1][0])["blue"] > 20)
    assert not gets.failed
    assert not posts.failed
    wrong = 0
    for seen in gets.seen + posts.seen:
        settled = [
            pool for (at, pool), (end, _) in zip(moments, [*moments[1:], (9e9, "")], strict=True) if at < seen.sent
        ]
        following = [at for at, _ in moments if at > seen.sent]
        # Answered before the next order was even given: only the newest confirmed pool may have answered.
        if settled and (not following or seen.done < following[0] - 0.5):
            wrong += seen.version != settled[-1]
    assert wrong == 0
    assert lb.metrics()['lb_switches_total{result="done",service="greeting"}'] == 40


def test_rollback_is_at_once_and_asks_nothing(stage: Stage) -> None:
    lb, blue, _ = two_pools(stage)
    assert order(lb, "rollback").status == 409
    order(lb, "switch", {"to": "green"})
    assert service(lb)["previous"] == "blue"
    blue[0].toggle()
    eventually(lambda: lb.state(blue[0].address) == "unready")
    assert lb.cli("rollback", "greeting").returncode == 0
    assert {ask(f"{lb.url}/greeting").json["version"] for _ in range(10)} == {"blue"}
    assert "an operator asked for it" in events(lb, "switch")[-1]["text"]


def test_requests_under_way_end_where_they_began(stage: Stage) -> None:
    lb, _, _ = two_pools(stage)
    answers = []
    slow = threading.Thread(target=lambda: answers.append(ask(f"{lb.url}/slow?seconds=1.5").json["version"]))
    slow.start()
    eventually(lambda: sum(t["in_flight"] for p in service(lb)["pools"] for t in p["targets"]) == 1)
    order(lb, "switch", {"to": "green"})
    assert ask(f"{lb.url}/greeting").json["version"] == "green"
    slow.join(10)
    assert answers == ["blue"]


def test_the_switch_holds_over_kill_9_and_the_file(stage: Stage) -> None:
    lb, _, _ = two_pools(stage)
    order(lb, "switch", {"to": "green"})
    pids = lb.status()["workers"]
    lb.process.kill()
    lb.process.wait()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    again = stage.start(stage.folder / "lb.yaml")
    view = service(again)
    assert (view["active"], view["configured"], view["previous"]) == ("green", "blue", "blue")
    assert ask(f"{again.url}/greeting").json["version"] == "green"


@pytest.mark.timing
def test_trouble_after_the_switch_rolls_back(stage: Stage) -> None:
    """The gate was passed, then green begins to fail one request in five: blue serves again, by itself."""
    lb, _, green = two_pools(stage, "bake: 60s")
    with Fleet(lb.url, clients=4, rps=200) as load:
        eventually(lambda: len(load.seen) > 200)
        assert order(lb, "switch", {"to": "green"}).status == 200
        assert service(lb)["rollout"]["phase"] == "baking"
        for backend in green:
            ask(f"{backend.url}/break?errors=20", "POST")
        began = time.monotonic()
        eventually(lambda: service(lb)["active"] == "blue", within=15)
        took = time.monotonic() - began
        eventually(lambda: load.versions(since=time.monotonic() - 0.2)["blue"] > 10)
    view = service(lb)
    assert view["rollout"] is None
    assert view["previous"] is None, "a second rollback must not lead to the release that failed"
    errors = len(load.failed)
    assert errors <= 0.2 * 200 * (took + 1.0), (errors, took)
    assert "green fails" in events(lb, "switch")[-1]["text"]
    assert lb.metrics()['lb_switches_total{result="rolled_back",service="greeting"}'] == 1


def test_freeze_on_fail_stops_and_tells(stage: Stage) -> None:
    lb, _, green = two_pools(stage)
    with Fleet(lb.url, clients=4, rps=200) as load:
        eventually(lambda: len(load.seen) > 100)
        for backend in green:
            ask(f"{backend.url}/break?errors=50", "POST")
        done = lb.cli(
            "switch", "greeting", "green", "--steps", "20,100", "--step-time", "30s", "--freeze-on-fail", "--wait"
        )
    assert done.returncode == 1
    assert "frozen at 20 %" in done.stdout
    view = service(lb)
    assert {pool["name"]: pool["share"] for pool in view["pools"]} == {"blue": 80, "green": 20}
    assert (view["rollout"]["phase"], view["active"]) == ("frozen", "blue")
    assert "frozen at 20 %" in view["rollout"]["text"]
    assert lb.metrics()['lb_switches_total{result="frozen",service="greeting"}'] == 1
    assert lb.metrics()['lb_rollout_state{service="greeting",state="frozen"}'] == 1
    assert lb.cli("rollback", "greeting").returncode == 0
    assert not [name for name in lb.metrics() if name.startswith("lb_rollout_state")]
    assert service(lb)["rollout"] is None


def test_two_operators_at_once(stage: Stage) -> None:
    """Each order may carry the revision it was based on; the later one is refused, with what changed."""
    lb, _, _ = two_pools(stage, "bake: 0s")
    seen = ask(f"{lb.admin}/api/v1/services/greeting").headers["ETag"]
    assert order(lb, "switch", {"to": "green"}, {"If-Match": seen}).status == 200
    late = order(lb, "switch", {"to": "blue"}, {"If-Match": seen})
    assert late.status == 412
    assert "green has all the traffic" in late.json["detail"]
    assert service(lb)["active"] == "green"


class Hooked(HTTPServer):
    """A webhook's receiver."""

    def __init__(self) -> None:
        self.got: list[dict] = []
        self.code = 200

        class Receive(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server: Hooked = self.server  # type: ignore[assignment]
                server.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(server.code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Receive)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


def test_post_says_safe_only_when_the_old_pool_is_drained(stage: Stage) -> None:
    hook = Hooked()
    lb, _, _ = two_pools(stage, f"bake: 0s, post: {{webhook: '{hook.url}'}}")
    slow = threading.Thread(target=lambda: ask(f"{lb.url}/slow?seconds=3"))
    slow.start()
    eventually(lambda: sum(t["in_flight"] for p in service(lb)["pools"] for t in p["targets"]) == 1)
    order(lb, "switch", {"to": "green"})
    slow.join(1.5)
    assert slow.is_alive()
    assert not hook.got, "blue still works on a request"
    slow.join(10)
    eventually(lambda: hook.got)
    assert hook.got == [
        {
            "event": "post",
            "service": "greeting",
            "from": "blue",
            "to": "green",
            "steps": "100",
            "actor": hook.got[0]["actor"],
            "outcome": "done",
            "reason": "green has all the traffic",
            "drained": "blue",
            "safe": True,
        }
    ]
    # The event comes once lb has the webhook's answer, and has written that the drain is announced.
    eventually(lambda: events(lb, "rollout"))
    assert "blue is drained, and safe to scale to zero" in events(lb, "rollout")[-1]["text"]
    hook.shutdown()


def test_a_pre_hook_can_say_no(stage: Stage) -> None:
    pre = stage.folder / "pre.sh"
    pre.write_text(
        '#!/bin/sh\necho "$LB_EVENT $LB_SERVICE $LB_FROM $LB_TO" >> told\n[ -f yes ] || { echo not today; exit 3; }\n'
    )
    pre.chmod(0o755)
    lb, _, _ = two_pools(stage, f"bake: 0s, pre: {{command: [{pre}], timeout: 5s}}")
    refused = lb.cli("switch", "greeting", "green")
    assert refused.returncode == 1
    assert "nothing has changed" in refused.stderr
    assert "exit status 3, not today" in refused.stderr
    assert service(lb)["active"] == "blue"
    Path(stage.folder / "yes").touch()
    assert lb.cli("switch", "greeting", "green").returncode == 0
    assert service(lb)["active"] == "green"
    assert (stage.folder / "told").read_text().splitlines() == ["pre greeting blue green"] * 2


WAITING = "bake: 0s, pre: {command: 'touch runs; while [ ! -f go ]; do sleep 0.05; done', timeout: 30s}"


def switch_while(stage: Stage, lb: Lb, change: Callable[[], None]) -> Answer:
    """The answer to a switch to green during whose pre hook something else happens."""
    answers: list[Answer] = []
    slow = threading.Thread(target=lambda: answers.append(order(lb, "switch", {"to": "green"})))
    slow.start()
    eventually((stage.folder / "runs").exists, what="the hook runs")
    change()
    (stage.folder / "go").touch()
    slow.join(20)
    return answers[0]


def reloaded(stage: Stage, lb: Lb, *changes: tuple[str, str]) -> None:
    path = stage.folder / "lb.yaml"
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    done = lb.cli("reload")
    assert done.returncode == 0, done.stderr


def test_a_pre_hook_may_give_the_pool_other_targets(stage: Stage) -> None:
    """It deploys the new version, writes the file and reloads."""
    lb, _, [green] = two_pools(stage, WAITING, count=1)
    fresh = stage.backend("green")

    def deploy() -> None:
        reloaded(stage, lb, (green.url, fresh.url))
        eventually(lambda: lb.state(fresh.address) == "ready")

    answer = switch_while(stage, lb, deploy)
    assert answer.status == 200, answer.body
    assert service(lb)["active"] == "green"
    assert ask(f"{lb.url}/greeting").json["version"] == "green"


def test_what_a_pre_hook_deployed_stands_before_the_same_gate(stage: Stage) -> None:
    lb, _, [green] = two_pools(stage, WAITING, count=1)
    fresh = stage.backend("green")
    fresh.toggle()
    answer = switch_while(stage, lb, lambda: reloaded(stage, lb, (green.url, fresh.url)))
    assert answer.status == 409, answer.body
    assert answer.json["title"] == "Not ready"
    assert answer.json["reasons"][0]["target"].endswith(fresh.address)
    assert service(lb)["active"] == "blue"


def test_a_pool_that_is_gone_when_its_hook_ends_is_refused_in_words(stage: Stage) -> None:
    lb, _, _ = two_pools(stage, WAITING, count=1)
    answer = switch_while(stage, lb, lambda: reloaded(stage, lb, ("      green:", "      jade:")))
    assert answer.status == 409, answer.body
    assert answer.json["title"] == "The service has changed"
    assert "a reload took green away" in answer.json["detail"]
    assert service(lb)["active"] == "blue"


def test_a_service_that_is_gone_when_its_hook_ends_is_refused_in_words(stage: Stage) -> None:
    lb, _, _ = two_pools(stage, WAITING, count=1)
    answer = switch_while(stage, lb, lambda: reloaded(stage, lb, ("  greeting:", "  hello:")))
    assert answer.status == 409, answer.body
    assert "a reload took greeting away" in answer.json["detail"]


def test_a_container_that_waits_to_stop_while_its_target_is_taken_away_is_answered_in_words(stage: Stage) -> None:
    lb, [blue, other], _ = two_pools(stage, "bake: 0s")
    answers: list[Answer] = []
    with Load(lb.url, clients=1, path="/slow?seconds=1.5"):
        url = f"{lb.admin}/api/v1/prestop?target={blue.address}&wait=20"
        waiting = threading.Thread(target=lambda: answers.append(ask(url)))
        waiting.start()
        eventually(lambda: lb.state(blue.address) in ("draining", "drained"))
        reloaded(stage, lb, (f"{blue.url}, ", ""))
        waiting.join(20)
    # Either it was empty before the reload, or the answer names the reload.
    [answer] = answers
    assert answer.status == 200 or (answer.status == 404 and "a reload has taken" in answer.json["detail"])
    assert lb.state(other.address) == "ready"


def test_what_a_hook_finds_in_its_environment_is_spelled_as_documented(stage: Stage) -> None:
    post = "post: {command: 'echo $LB_EVENT $LB_OUTCOME $LB_DRAINED $LB_SAFE >> told'}"
    lb, _, _ = two_pools(stage, f"bake: 0s, {post}", "previews: [{pool: blue, header: X-Version, value: old}]", 1)
    told = stage.folder / "told"
    assert order(lb, "switch", {"to": "green"}).status == 200
    eventually(lambda: told.read_text() == "post done blue false\n")
    assert order(lb, "switch", {"to": "blue"}).status == 200
    eventually(lambda: told.read_text().endswith("post done green true\n"))


@pytest.mark.timing
def test_a_hook_that_hangs_is_killed(stage: Stage) -> None:
    lb, _, _ = two_pools(stage, "bake: 0s, pre: {command: 'sleep 60', timeout: 300ms}")
    began = time.monotonic()
    refused = order(lb, "switch", {"to": "green"})
    assert refused.status == 409
    assert "still running after 0.3 s and was killed" in refused.json["detail"]
    assert time.monotonic() - began < 5


@pytest.mark.timing
def test_a_rollback_waits_for_no_hook(stage: Stage) -> None:
    lb, _, _ = two_pools(stage, "bake: 60s, pre: {command: '[ $LB_TO = green ] || (touch runs; sleep 3)', timeout: 9s}")
    assert order(lb, "switch", {"to": "green"}).status == 200
    answers = []
    slow = threading.Thread(target=lambda: answers.append(order(lb, "switch", {"to": "blue"})))
    slow.start()
    eventually((stage.folder / "runs").exists, what="the hook runs")
    assert order(lb, "switch", {"to": "blue"}).status == 409
    began = time.monotonic()
    assert order(lb, "rollback").status == 200
    assert time.monotonic() - began < 2
    assert service(lb)["active"] == "blue"
    slow.join(10)
    assert answers[0].status == 409, "what the hook prepared is no longer what there is"
    assert service(lb)["active"] == "blue"
