"""Changed checks, kept verdicts and restarts: a verdict holds for one question, one address, and not for long."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import replace

import pytest
import trustme
from msgspec import structs

from lb.core.checks import Checks, CheckSpec
from lb.core.lifecycle import Drain, Eject, Ejection, SlowStart, in_rotation, ramp, shown
from lb.core.restore import LONGEST_TRIAL
from lb.core.rotation import ServiceRules, rules_of
from lb.core.targets import TlsClient
from tests.health.conftest import Watcher, ok
from tests.support.eventually_async import eventually

HTTP = CheckSpec(protocol="http", path="/health", interval=0.05, timeout=1.0, rise=2, fall=3, grace=0.0)


async def by_path(reader, writer):
    request = await reader.readuntil(b"\r\n\r\n")
    writer.write(ok() if b" /health " in request else ok(b"", b"404 Not Found"))


async def test_a_bad_new_check_does_not_remove_healthy_targets(watcher: Watcher, backend):
    """Marathon-LB #602."""
    servers = [await backend(by_path) for _ in range(3)]
    targets = [server.target() for server in servers]
    watcher.watch(*[(target, HTTP) for target in targets])
    await eventually(lambda: all(in_rotation(watcher.monitor.health(target.id)) for target in targets))
    watcher.watch(*[(target, replace(HTTP, path="/helth")) for target in targets])
    await eventually(lambda: len(watcher.notices) == 3)
    assert all(notice.cause == "trial" and "HTTP 404" in notice.text for notice in watcher.notices)
    assert all(in_rotation(watcher.monitor.health(target.id)) for target in targets)
    trial = watcher.monitor.on_trial(targets[0].id)
    assert trial is not None and trial.probe == "unready"
    # The former check goes on and decides: a target that really fails leaves.
    servers[0].script = ok(b"", b"500 Oops")
    await eventually(lambda: not in_rotation(watcher.monitor.health(targets[0].id)))
    assert in_rotation(watcher.monitor.health(targets[1].id))


async def test_a_new_check_that_passes_takes_over(watcher: Watcher, backend):
    server = await backend()
    target = server.target()
    watcher.watch((target, HTTP))
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    watcher.watch((target, replace(HTTP, path="/ready")))
    assert in_rotation(watcher.monitor.health(target.id))
    assert watcher.monitor.history(target.id) == ()  # the old check's probes are not its own
    await eventually(lambda: watcher.monitor.on_trial(target.id) is None)
    asked = len(server.asked)
    await eventually(lambda: len(server.asked) > asked + 3)
    assert all(b" /ready " in request for request in server.asked[asked + 1 :])
    assert not any(e.kind in ("enter", "leave") for _, _, _, effects in watcher.changes[1:] for e in effects)


async def test_a_new_check_that_passes_elsewhere_is_believed(watcher: Watcher, backend):
    good, old = await backend(), await backend(by_path)
    targets = [good.target(), old.target()]
    watcher.watch(*[(target, HTTP) for target in targets])
    await eventually(lambda: all(in_rotation(watcher.monitor.health(target.id)) for target in targets))
    watcher.watch(*[(target, replace(HTTP, path="/ready")) for target in targets])
    await eventually(lambda: watcher.monitor.health(old.target().id).probe == "unready")
    assert "HTTP 404" in watcher.monitor.health(old.target().id).text
    assert in_rotation(watcher.monitor.health(good.target().id))


async def test_a_change_that_is_taken_back_leaves_everything_as_it_was(watcher: Watcher, backend):
    server = await backend(by_path)
    target = server.target()
    watcher.watch((target, HTTP))
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    watcher.watch((target, replace(HTTP, path="/x")))
    watcher.watch((target, replace(HTTP, path="/y")))
    await eventually(lambda: watcher.monitor.history(target.id))
    history = watcher.monitor.history(target.id, "former")
    watcher.watch((target, HTTP))
    assert watcher.monitor.on_trial(target.id) is None
    assert watcher.monitor.history(target.id)[: len(history)] == history
    server.script = ok(b"", b"500 Oops")
    await eventually(lambda: watcher.monitor.health(target.id).probe == "unready")


async def test_a_target_that_was_not_ready_is_probed_first_by_the_new_check(watcher: Watcher, backend):
    server = await backend(ok(b"", b"500 Oops"))
    target = server.target()
    watcher.watch((target, HTTP))
    await eventually(lambda: watcher.monitor.health(target.id).probe == "unready")
    watcher.watch((target, replace(HTTP, path="/other")))
    assert watcher.monitor.health(target.id).probe == "starting"


async def test_another_way_to_the_target_is_another_target(watcher: Watcher, backend):
    server = await backend()
    target = server.target()
    watcher.watch((target, HTTP))
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    watcher.watch((replace(target, tls=TlsClient(verify=False)), HTTP))
    assert watcher.monitor.health(target.id).probe == "starting"


async def test_a_first_check_does_not_interrupt_an_unprobed_target(watcher: Watcher, backend):
    server = await backend()
    target = server.target()
    watcher.watch((target, CheckSpec(protocol="none")))
    watcher.watch((target, HTTP))
    assert in_rotation(watcher.monitor.health(target.id))
    server.script = ok(b"", b"500 Oops")
    await eventually(lambda: watcher.monitor.health(target.id).probe == "unready")
    watcher.watch((target, CheckSpec(protocol="none")))
    assert in_rotation(watcher.monitor.health(target.id))


async def test_drains_and_ejections_outlive_a_changed_check(watcher: Watcher, backend):
    server = await backend(ok(b"", b"500 Oops"))
    target = server.target()
    watcher.watch((target, HTTP))
    watcher.monitor.feed(target.id, Drain())
    watcher.monitor.feed(target.id, Eject("5 requests in a row failed"))
    watcher.watch((target, replace(HTTP, path="/other")))
    health = watcher.monitor.health(target.id)
    assert (health.admin, health.ejected_for) == ("draining", "5 requests in a row failed")


async def test_a_shorter_interval_takes_effect_at_once(watcher: Watcher, backend):
    server = await backend()
    target = server.target()
    watcher.watch((target, replace(HTTP, interval=60.0)))
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    watcher.watch((target, HTTP))
    await eventually(lambda: len(watcher.monitor.history(target.id)) >= 3)  # not after 60 s


async def test_an_ejected_target_returns_through_a_probe_at_its_time(watcher: Watcher, backend):
    server = await backend()
    target = server.target()
    watcher.watch((target, replace(HTTP, interval=60.0)), service=ServiceRules(ejection=Ejection(base=0.3)))
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    watcher.monitor.feed(target.id, Eject("half of its requests failed"))
    assert shown(watcher.monitor.health(target.id), time.monotonic()) == "ejected"
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))  # not after 60 s
    assert len(watcher.monitor.history(target.id)) == 2


async def test_a_check_on_trial_that_passes_at_last_is_told(watcher: Watcher, backend):
    server = await backend(by_path)
    target = server.target()
    watcher.watch((target, HTTP))
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    watcher.watch((target, replace(HTTP, path="/ready")))
    await eventually(lambda: len(watcher.notices) == 1)
    assert watcher.monitor.trials() == [target.id]
    server.script = ok()
    await eventually(lambda: len(watcher.notices) == 2)
    assert (watcher.notices[-1].began, watcher.monitor.trials()) == (False, [])
    assert "decides from now on" in watcher.notices[-1].text


# --- restart of the supervisor ---------------------------------------------------------------------------------------


async def restarted(old: Watcher, *pairs, aged: float = 0.0) -> tuple[Watcher, list[str]]:
    heir = Watcher()
    heir.watch(*pairs)
    kept = [structs.replace(each, checked=each.checked - aged) for each in old.monitor.keep()]
    held = heir.monitor.restore(kept)
    return heir, held


async def test_fresh_verdicts_of_unchanged_checks_outlive_a_restart(watcher: Watcher, backend):
    up, down = await backend(), await backend(ok(b"", b"500 Oops"))
    pairs = [(up.target(), HTTP), (down.target(), HTTP)]
    watcher.watch(*pairs)
    await eventually(lambda: watcher.monitor.health(down.target().id).probe == "unready")
    heir, held = await restarted(watcher, *pairs)
    assert sorted(held) == sorted(target.id for target, _ in pairs)
    assert shown(heir.monitor.health(up.target().id), time.monotonic()) == "ready"  # no slow start: it is warm
    assert heir.monitor.health(down.target().id).probe == "unready"
    assert "(before the restart)" in heir.monitor.health(up.target().id).text
    await heir.monitor.start()
    await eventually(lambda: heir.monitor.history(up.target().id))  # and it is probed at once
    await heir.monitor.close()


async def test_stale_changed_or_unknown_verdicts_do_not(watcher: Watcher, backend):
    server, new = await backend(), await backend()
    target = server.target()
    watcher.watch((target, HTTP))
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    for pairs, aged in (
        ([(target, HTTP)], 0.05 * 3 + 1.0 + 0.5),  # older than the time in which its death would have been noticed
        ([(target, HTTP)], -5.0),  # from the future: a clock jumped
        ([(target, replace(HTTP, path="/other"))], 0.0),
        ([(replace(target, port=new.port), HTTP)], 0.0),
    ):
        heir, held = await restarted(watcher, *pairs, aged=aged)
        assert held == []
        assert heir.monitor.health(target.id).probe == "starting"
    heir, held = await restarted(watcher, (target, replace(HTTP, interval=0.06)))
    assert held == [target.id]  # another pace is the same question


async def test_an_ejection_outlives_a_restart_if_address_and_check_are_unchanged(watcher: Watcher, backend):
    server, plain, new = await backend(), await backend(), await backend()
    target, unprobed = server.target(), plain.target(pool="green")
    none = CheckSpec(protocol="none")
    watcher.watch((target, HTTP), (unprobed, none))
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    for each in (target, unprobed):
        watcher.monitor.feed(each.id, Eject("half of its requests failed"))
    heir, _ = await restarted(watcher, (target, HTTP), (unprobed, none), aged=100.0)  # its verdict is stale
    for each in (target, unprobed):
        health = heir.monitor.health(each.id)
        assert shown(health, time.monotonic()) == "ejected"
        assert 25 < health.ejected_until - time.monotonic() <= 30
        assert health.ejected_for == "half of its requests failed"
    await heir.monitor.start()
    await eventually(lambda: len(heir.monitor.history(target.id)) >= 2)
    assert not in_rotation(heir.monitor.health(target.id))  # passes do not end it before its time
    await heir.monitor.close()
    for changed in ((target, replace(HTTP, path="/other")), (replace(target, port=new.port), HTTP)):
        heir, _ = await restarted(watcher, changed, (unprobed, HTTP))
        assert not any(heir.monitor.health(each.id).ejected_until for each in (target, unprobed))


async def test_an_ejection_that_came_while_the_next_lb_was_starting_is_taken_over(watcher: Watcher, backend):
    server = await backend()
    target = server.target()
    watcher.watch((target, HTTP))
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    heir, _ = await restarted(watcher, (target, HTTP))
    watcher.monitor.feed(target.id, Eject("half of its requests failed"))
    assert heir.monitor.restore_ejections(watcher.monitor.keep()) == [target.id]
    assert not in_rotation(heir.monitor.health(target.id))
    assert heir.monitor.restore_ejections(watcher.monitor.keep()) == []


async def test_an_ejection_of_one_that_is_not_probed_ends_by_time_alone(watcher: Watcher, backend):
    target = (await backend()).target()
    watcher.watch((target, CheckSpec(protocol="none")), service=ServiceRules(ejection=Ejection(base=0.2)))
    watcher.monitor.feed(target.id, Eject("half of its requests failed"))
    watcher.monitor.tick()
    assert not in_rotation(watcher.monitor.health(target.id))
    await asyncio.sleep(0.25)
    watcher.monitor.tick()
    assert in_rotation(watcher.monitor.health(target.id))


async def test_slow_start_goes_on_after_a_reload_and_a_restart(watcher: Watcher, backend):
    server, plain = await backend(), await backend()
    pairs = [(server.target(), HTTP), (plain.target(), CheckSpec(protocol="none"))]

    def ramped(where: Watcher, window: float) -> list[float]:
        now = time.monotonic()
        return [ramp(where.monitor.health(target.id), now, SlowStart(window)) for target, _ in pairs]

    watcher.watch(*pairs, service=ServiceRules(slow_start=SlowStart(60.0)))
    await eventually(lambda: in_rotation(watcher.monitor.health(server.target().id)))
    await asyncio.sleep(0.5)
    watcher.watch(*pairs, service=ServiceRules(slow_start=SlowStart(1000.0, floor=0.0)))
    assert all(share <= 0.1 for share in ramped(watcher, 1000.0))
    assert all(watcher.monitor.health(target.id).warm_at - time.monotonic() > 900 for target, _ in pairs)
    before = ramped(watcher, 1000.0)
    heir = Watcher()
    heir.watch(*pairs, service=ServiceRules(slow_start=SlowStart(1000.0, floor=0.0)))
    heir.monitor.restore(watcher.monitor.keep())
    assert all(share <= 0.1 for share in ramped(heir, 1000.0)), "a cold target does not get its full share"
    assert all(shown(heir.monitor.health(target.id), time.monotonic()) == "slow_start" for target, _ in pairs)
    assert before != [1.0, 1.0]
    watcher.watch(*pairs, service=ServiceRules())
    assert ramped(watcher, 1000.0) == [1.0, 1.0], "slow start was switched off"


async def test_what_was_never_decided_is_not_kept(watcher: Watcher, backend):
    async def hang(reader, writer):
        await reader.read()

    server = await backend(hang)
    watcher.watch((server.target(), HTTP))
    await eventually(lambda: server.connections == 1)
    assert watcher.monitor.keep() == []


# --- liveness --------------------------------------------------------------------------------------------------------


async def test_liveness_never_takes_traffic_away_nor_readiness_life(watcher: Watcher, backend):
    async def split(reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        writer.write(ok() if good in request else ok(b"", b"500 Oops"))

    good = b" /health "
    server = await backend(split)
    target = server.target()
    watcher.watch((target, Checks(HTTP, replace(HTTP, path="/alive"))))
    await eventually(lambda: watcher.monitor.liveness[target.id].state == "dead")
    assert in_rotation(watcher.monitor.health(target.id))
    assert {kind for _, kind, _ in watcher.probes} == {"readiness", "liveness"}
    good = b" /alive "
    await eventually(lambda: not in_rotation(watcher.monitor.health(target.id)))
    await eventually(lambda: watcher.monitor.liveness[target.id].state == "alive")
    assert watcher.monitor.asked(target.id, "liveness").split("\n")[1] == "GET /alive HTTP/1.1"
    await asyncio.sleep(0)


# --- restart while a changed check is on trial -----------------------------------------------------------------------


async def mistyped(watcher: Watcher, backend) -> tuple[list, list]:
    """Two targets, ready by the former check, on which a mistyped one has failed."""
    servers = [await backend(by_path) for _ in range(2)]
    targets = [server.target() for server in servers]
    watcher.watch(*[(target, HTTP) for target in targets])
    await eventually(lambda: all(in_rotation(watcher.monitor.health(target.id)) for target in targets))
    watcher.watch(*[(target, replace(HTTP, path="/helth")) for target in targets])
    await eventually(lambda: len(watcher.notices) == 2)
    return servers, targets


@pytest.mark.parametrize("aged", [0.0, 60.0], ids=["at once", "a minute later"])
async def test_a_bad_new_check_is_no_outage_after_a_restart_either(watcher: Watcher, backend, aged: float):
    """[Marathon-LB 602] What the reload survived, the restart survives: the former check decides on."""
    servers, targets = await mistyped(watcher, backend)
    heir, held = await restarted(watcher, *[(target, replace(HTTP, path="/helth")) for target in targets], aged=aged)
    assert sorted(held) == ([] if aged else sorted(target.id for target in targets))
    assert sorted(heir.monitor.trials()) == sorted(target.id for target in targets)
    await heir.monitor.start()
    try:
        await eventually(lambda: len(heir.notices) == 2, what="the new check has failed here as well")
        assert all(in_rotation(heir.monitor.health(target.id)) for target in targets)
        servers[0].script = ok(b"", b"500 Oops")
        await eventually(lambda: not in_rotation(heir.monitor.health(targets[0].id)))
        assert in_rotation(heir.monitor.health(targets[1].id))
        again, _ = await restarted(heir, *[(target, replace(HTTP, path="/helth")) for target in targets])
        assert len(again.monitor.trials()) == 2, "a second restart changes nothing"
        servers[1].script = ok()
        await eventually(lambda: heir.monitor.trials() == [targets[0].id])
        assert in_rotation(heir.monitor.health(targets[1].id))
    finally:
        await heir.monitor.close()


async def test_a_trial_of_days_ago_is_over(watcher: Watcher, backend):
    _, targets = await mistyped(watcher, backend)
    pairs = [(target, replace(HTTP, path="/helth")) for target in targets]
    heir, held = await restarted(watcher, *pairs, aged=2 * LONGEST_TRIAL)
    assert (held, heir.monitor.trials()) == ([], [])
    assert not any(in_rotation(heir.monitor.health(target.id)) for target in targets)


# --- renewed certificates -------------------------------------------------------------------------------------------


class Renewable:
    """A target over TLS, whose certificate and whose checker's authority can each be renewed by another authority."""

    def __init__(self, server, folder) -> None:
        self.folder = folder
        self.authorities = [trustme.CA(), trustme.CA()]
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.renew_target(0)
        self.server = server
        self.contents: dict[str, bytes] = {}

    def renew_target(self, number: int) -> None:
        self.authorities[number].issue_cert("127.0.0.1").configure_cert(self.context)

    def tls(self, number: int) -> TlsClient:
        data = self.authorities[number].cert_pem.bytes()
        self.contents[f"ca{number}"] = data
        return TlsClient(ca_file="/nowhere/ca.pem", digests=(f"ca{number}", "", ""))

    def watch(self, watcher: Watcher, number: int, spec: CheckSpec) -> str:
        target = replace(self.server.target(), tls=self.tls(number))
        spec = replace(spec, tls=target.tls if spec.protocol == "https" else None)
        checks = {target.id: Checks(readiness=spec)}
        rules = {target.id: rules_of(ServiceRules(), spec)}
        watcher.monitor.update(checks, {target.id: target}, rules, contents=self.contents)
        return target.id


HTTPS = replace(HTTP, protocol="https")


@pytest.fixture
async def renewable(backend, tmp_path) -> Renewable:
    made = Renewable(None, tmp_path)
    made.server = await backend(ssl=made.context)
    return made


async def test_requests_take_renewed_authorities_once_a_check_has_passed_with_them(renewable: Renewable):
    taken: list[str] = []
    watcher = Watcher(on_tls=taken.append)
    await watcher.monitor.start()
    id = renewable.watch(watcher, 0, HTTPS)
    await eventually(lambda: in_rotation(watcher.monitor.health(id)))
    renewable.renew_target(1)
    renewable.watch(watcher, 1, HTTPS)
    assert in_rotation(watcher.monitor.health(id)), "a renewal alone takes no target out"
    assert watcher.monitor.former_tls() == {id: renewable.tls(0)}
    await eventually(lambda: taken == [id])
    assert watcher.monitor.former_tls() == {} and in_rotation(watcher.monitor.health(id))
    await watcher.monitor.close()


async def test_with_the_wrong_new_authority_the_former_one_serves_on(renewable: Renewable):
    taken: list[str] = []
    watcher = Watcher(on_tls=taken.append)
    await watcher.monitor.start()
    id = renewable.watch(watcher, 0, HTTPS)
    await eventually(lambda: in_rotation(watcher.monitor.health(id)))
    renewable.watch(watcher, 1, HTTPS)  # the target still has its old certificate
    await eventually(lambda: watcher.notices)
    assert "certificate" in watcher.notices[0].text and watcher.notices[0].cause == "trial"
    assert in_rotation(watcher.monitor.health(id)) and watcher.monitor.former_tls() == {id: renewable.tls(0)}
    renewable.watch(watcher, 1, replace(HTTPS, path="/other"))  # still on trial, and asked something else
    assert watcher.monitor.former_tls() == {id: renewable.tls(0)}
    renewable.renew_target(1)
    await eventually(lambda: taken == [id])
    assert in_rotation(watcher.monitor.health(id))
    await watcher.monitor.close()


async def test_a_check_that_goes_without_tls_holds_no_certificates_back(renewable: Renewable):
    watcher = Watcher()
    await watcher.monitor.start()
    tcp = replace(HTTP, protocol="tcp")
    id = renewable.watch(watcher, 0, tcp)
    await eventually(lambda: in_rotation(watcher.monitor.health(id)))
    renewable.watch(watcher, 1, tcp)
    assert watcher.monitor.former_tls() == {} and in_rotation(watcher.monitor.health(id))
    await watcher.monitor.close()
