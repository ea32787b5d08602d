"""The drill's decisions: what is kept of a file, what will notice a fault, and what counts as a broken promise."""

import pytest
import yaml

from lb.cli.stage import Outcome
from lb.cli.terminal import Ink, plain_length
from lb.cli.verdicts import Result, judge, report
from lb.config.load import load_text
from lb.demo.faults import FAULTS
from lb.demo.rehearsal import SEEN, Rehearsal, document, passing, rehearse, signature

FILE = """
services:
  shop:
    pools:
      blue:
        targets: [{url: https://shop-1.example.org, weight: 3}, https://shop-2.example.org]
      green: [https://shop-3.example.org]
    active: blue
    tls: {verify: false}
    readiness: {path: /ready, interval: 500ms, timeout: 200ms, fall: 2, expect: {status: 201, body: fine}}
    liveness: {path: /live, on_failure: {command: "reboot"}}
    retries: {attempts: 1, statuses: [503]}
    previews: [{pool: green, header: X-Green}]
    rollout: {pre: {command: "false"}}
  twin:
    pools: {blue: [{url: "http://twin-1:80", weight: 3}, http://twin-2:80]}
    readiness: {path: /ready, interval: 500ms, timeout: 200ms, fall: 2, expect: {status: 201, body: fine}}
    retries: {attempts: 1, statuses: [503]}
  rpc:
    pools: {blue: [http://rpc-1:50051]}
    readiness: {grpc_service: greeter, interval: 3s, timeout: 2s}
  pattern:
    pools: {blue: [http://a:1, http://b:1]}
    readiness: {path: /r, expect: {status: 200-204, body: "/re.*dy/"}}
  blind:
    pools: {blue: [http://a:1, http://b:1]}
    readiness: none
routes: [{path: /, service: shop}, {path: /t, service: twin}, {path: /r, service: rpc}, {path: /p, service: pattern},
  {path: /b, service: blind}]
"""


def rehearsal(name: str) -> Rehearsal:
    return rehearse(load_text(FILE), name)


def test_what_decides_is_kept_and_what_points_outside_is_not() -> None:
    found = rehearsal("shop")
    assert found.weights == [3, 1]
    assert found.model["retries"] == {"attempts": 1, "statuses": [503]}
    assert found.model["readiness"]["interval"] == "500ms"
    assert not {"liveness", "tls", "previews", "rollout", "pools", "active"} & set(found.model)


def test_the_rehearsal_is_a_valid_file_with_loopback_addresses_only() -> None:
    config = load_text(FILE)
    for name in config.services:
        found = rehearse(config, name)
        addresses = [f"127.0.0.1:{port}" for port in range(1, len(found.weights) + 1)]
        text = yaml.safe_dump(document({"copy": (found, addresses)}, config, 0, "/nowhere"))
        assert "example.org" not in text and "reboot" not in text
        copy = load_text(text).services["copy"]
        original = config.services[name].readiness
        assert (copy.readiness.interval, copy.readiness.fall) == (original.interval, original.fall)


def test_services_with_the_same_settings_are_drilled_once() -> None:
    assert signature(rehearsal("shop")) == signature(rehearsal("twin"))
    assert signature(rehearsal("shop")) != signature(rehearsal("rpc"))


def test_what_a_fake_target_cannot_speak_is_said() -> None:
    assert rehearsal("rpc").protocol == "tcp"
    assert any("grpc check is stood in for by a TCP check" in note for note in rehearsal("rpc").notes)
    assert any("nobody to take over" in note for note in rehearsal("rpc").notes)
    assert any("regular expressions" in note for note in rehearsal("pattern").notes)
    assert rehearsal("shop").notes == []


def test_a_fake_target_passes_the_real_check() -> None:
    from lb.config.resolve import resolve

    world = resolve(load_text(FILE), 1)
    spec = world.checks["shop/blue/shop-1.example.org:443"].readiness
    assert passing(spec) == (201, "fine", ())


@pytest.mark.parametrize(
    ("name", "fault", "outlier", "noticed_by"),
    [
        ("shop", "errors", True, "probe"),
        ("shop", "lies", True, "requests"),
        ("shop", "lies", False, ""),
        ("rpc", "refuse", False, "probe"),
        ("rpc", "errors", True, "requests"),
        ("rpc", "slow", True, ""),
        ("blind", "refuse", True, "requests"),
        ("blind", "refuse", False, ""),
    ],
)
def test_who_notices(name: str, fault: str, outlier: bool, noticed_by: str) -> None:
    assert rehearsal(name).sees(fault, outlier) == noticed_by


def test_faults_are_spelled_alike_everywhere() -> None:
    assert {fault for faults in SEEN.values() for fault in faults} <= set(FAULTS)


class Shots:
    """A load that is over."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)


def judged(
    fault: str,
    out_at: float,
    *outcomes: Outcome,
    promised: float | None = 1.0,
    by: str = "probe",
    retries: dict[str, str] | None = None,
) -> Result:
    result = Result("shop", fault, promised=promised, undoubted=promised and 1.0, noticed_by=by)
    rehearsed = rehearsal("shop")
    if retries is not None:
        rehearsed.model["retries"] = retries
    judge(result, Shots(*outcomes), 10.0, out_at, rehearsed)  # type: ignore[arg-type]
    return result


def test_as_promised() -> None:
    result = judged("errors", 10.8, Outcome(9.0, 9.1, ""), Outcome(10.2, 10.3, "500"), Outcome(11.0, 11.1, ""))
    assert (result.requests, result.failed, result.failed_after) == (2, 1, 0)
    assert result.out_after == pytest.approx(0.8)
    assert result.failures == {"500": 1}
    assert result.broken_promises == []


def test_later_than_promised() -> None:
    assert judged("errors", 12.0).broken_promises == ["out after 2s, promised was 1s"]


def test_silence_is_taken_for_overload_first_but_not_for_ever() -> None:
    """The bound is the one that `lb check` prints for what is doubted."""
    doubted = judged("slow", 20.0, promised=16.5)
    assert (doubted.broken_promises, "overloaded" in doubted.remarks[0]) == ([], True)
    assert judged("slow", 10.9, promised=16.5).remarks == []
    assert judged("slow", 30.0, promised=16.5).broken_promises == ["out after 20s, promised was 16.5s"]


def test_lost_requests_of_a_target_that_hangs_get_a_hint() -> None:
    lost = Outcome(10.1, 15.2, "504")
    assert "`retries.per_try`" in judged("hang", 11.0, lost).remarks[0]
    assert judged("hang", 11.0).remarks == []
    assert judged("errors", 11.0, lost).remarks == []
    assert judged("hang", 11.0, lost, retries={"per_try": "1s"}).remarks == []


def test_failures_after_the_target_was_out() -> None:
    late = Outcome(11.5, 11.6, "502")
    assert judged("errors", 11.0, late).broken_promises == ["1 requests failed that began after the target was out"]


def test_a_refusal_is_never_the_client_s_problem() -> None:
    assert judged("refuse", 11.0, Outcome(10.1, 10.2, "502")).broken_promises == [
        "1 requests failed though they could have been tried elsewhere"
    ]
    # One that was under way when the target died is another matter.
    assert judged("refuse", 11.0, Outcome(9.9, 10.2, "502")).broken_promises == []


def test_never_out() -> None:
    assert judged("lies", float("inf"), promised=None, by="requests").broken_promises == [
        "the target stayed in rotation"
    ]
    assert judged("lies", float("inf"), promised=None, by="").broken_promises == []


def test_the_report_says_it_all_in_80_columns() -> None:
    good, bad = judged("refuse", 10.5), judged("errors", 12.0, Outcome(10.2, 10.3, "500"))
    unseen = judged("lies", float("inf"), promised=None, by="")
    lines = list(report([good, bad, unseen], Ink(True)))
    assert max(map(plain_length, lines)) <= 80
    text = "\n".join(report([good, bad, unseen], Ink(False)))
    assert "errors: out after 2s, promised was 1s." in text
    assert "errors: clients saw 1 × 500." in text
    assert "lies: neither the readiness check nor outlier ejection looks for this." in text
    assert text.endswith("1 of 3 faults were worse than this configuration promises.")
    assert "\n".join(report([good, unseen], Ink(False))).endswith("Everything as promised. 1 fault went unseen.")


def test_outlier_ejection_that_is_turned_off_is_off() -> None:
    from lb.config.resolve import resolve

    text = "backends: [http://a:1, http://b:1]\n"
    on = resolve(load_text(text), 1).rules["default"].outlier
    services = "services: {default: {pools: {default: [http://a:1]}, outlier: {enabled: false}}}\n"
    off = resolve(load_text(services), 1).rules["default"].outlier
    assert not on.off and off.off
