"""The provider `dns`, against a real server on loopback whose answers change, fail, grow, shrink and are cut short."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dnslib import QTYPE, RR, A, DNSRecord

from lb.config.model.discovery import Dns
from lb.core.membership import Answer
from lb.discovery.dns import DnsSource, Part, Records, Server, servers_of_system
from lb.discovery.source import NoAnswer
from lb.discovery.weights import scaled
from tests.support.dns_server import DnsServer
from tests.support.eventually_async import eventually
from tests.support.source_watch import Watching, watched

NAME = "web.test"


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as made:
        yield made


def source(*servers: DnsServer, **more: Any) -> DnsSource:
    settings = {"name": NAME, "port": 80, "timeout": 0.3, "min_refresh": 0.05, **more}
    if settings["name"].startswith("_"):
        del settings["port"]
    resolvers = [each.address for each in servers]
    return DnsSource(Dns.model_validate({**settings, "resolvers": resolvers}), dice=lambda: 0.0)


def addresses(answer: Answer | NoAnswer) -> list[str] | str:
    return sorted(each.address for each in answer.found) if isinstance(answer, Answer) else str(answer)


class Asked(Watching):
    """As the tests ask about it."""

    def says(self, *wanted: str) -> bool:
        return bool(self.told) and addresses(self.told[-1]) == sorted(wanted)

    def fails(self) -> bool:
        return bool(self.told) and isinstance(self.told[-1], NoAnswer)


# --- addresses -------------------------------------------------------------------------------------------------------


async def test_addresses_of_both_families(server: DnsServer) -> None:
    server.say(NAME, "127.0.0.1", "127.0.0.2", "::1")
    answer = await source(server).ask()
    assert addresses(answer) == ["127.0.0.1:80", "127.0.0.2:80", "[::1]:80"]
    assert [each.url for each in answer.found if each.part == "AAAA"] == ["http://[::1]:80"]


@pytest.mark.timing
async def test_the_set_follows_the_time_to_live(server: DnsServer) -> None:
    server.say(NAME, "127.0.0.1", ttl=1)
    async with watched(source(server, type="A"), Asked()) as watching:
        await eventually(lambda: watching.says("127.0.0.1:80"))
        server.say(NAME, "127.0.0.2", "127.0.0.3", ttl=1)
        began = time.monotonic()
        await eventually(lambda: watching.says("127.0.0.2:80", "127.0.0.3:80"))
        assert time.monotonic() - began < 2.0  # TTL + 1 s
        server.say(NAME, "127.0.0.3", "127.0.0.2", ttl=1)  # another order
        count = len(server.asked)
        await eventually(lambda: len(server.asked) > count + 1)
        assert len(watching.told) == 2


class Unheeding(DnsSource):
    """Its first question gets an answer in the moment in which it is cancelled."""

    lost = False

    async def _ask_part(self, kind: str) -> Part | NoAnswer:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            if self.lost:
                raise
            self.lost = True
        return NoAnswer("no answer")


async def test_a_cancellation_that_a_library_loses_ends_the_watch() -> None:
    one = Unheeding(Dns.model_validate({"name": NAME, "port": 80}))
    task = asyncio.ensure_future(one.watch(lambda answer: None))
    await asyncio.sleep(0.05)
    task.cancel()
    done, _ = await asyncio.wait((task,), timeout=2.0)
    assert done


@pytest.mark.parametrize(("ttl", "asked"), [(0, 1.0), (30, 30.0), (86400, 60.0)])
def test_a_name_is_asked_for_again_within_bounds(ttl: int, asked: float) -> None:
    one = DnsSource(Dns.model_validate({"name": NAME, "port": 80}))
    assert one.refresh(Records(("x",), ttl)) == asked
    assert one.refresh(Records((), ttl)) == max(1.0, min(5.0, ttl))


@pytest.mark.timing
async def test_a_dead_aaaa_beside_a_live_a_takes_nothing_away_and_delays_nothing(server: DnsServer) -> None:
    server.say(NAME, "127.0.0.1", "::1")
    async with watched(source(server), Asked()) as watching:
        await eventually(lambda: watching.says("127.0.0.1:80", "[::1]:80"))
        server.broken["AAAA"] = "timeout"
        await eventually(lambda: isinstance(watching.told[-1], Answer) and watching.told[-1].unanswered == {"AAAA"})
        server.say(NAME, "127.0.0.2")
        began = time.monotonic()
        await eventually(lambda: watching.says("127.0.0.2:80"))
        assert time.monotonic() - began < 2.0
        last = watching.told[-1]
        assert isinstance(last, Answer) and "AAAA records: web.test" in last.problems[0]


@pytest.mark.timing
@pytest.mark.parametrize("how", ["servfail", "refused", "timeout", "garbage"])
async def test_a_server_that_fails_is_no_answer_and_is_caught_up_with(server: DnsServer, how: str) -> None:
    server.say(NAME, "127.0.0.1")
    async with watched(source(server, type="A"), Asked()) as watching:
        await eventually(lambda: watching.says("127.0.0.1:80"))
        server.broken["*"] = how
        await eventually(watching.fails)
        server.say(NAME, "127.0.0.2")
        server.broken.clear()
        began = time.monotonic()
        await eventually(lambda: watching.says("127.0.0.2:80"))
        assert time.monotonic() - began < 2.0


async def test_the_next_server_is_asked_and_the_one_that_answers_comes_first(server: DnsServer) -> None:
    with DnsServer() as dead:
        dead.broken["*"] = "timeout"
        server.say(NAME, "127.0.0.1")
        one = source(dead, server, type="A")
        for _ in range(3):
            assert addresses(await one.ask()) == ["127.0.0.1:80"]
        assert len(dead.asked) == 1
        dead.say(NAME, "127.0.0.9")
        dead.broken["*"] = "refused"
        server.broken["*"] = "servfail"
        with pytest.raises(NoAnswer, match=r"answered SERVFAIL; .*answered REFUSED"):
            await one.ask()


async def test_names_that_do_not_exist_or_have_no_such_record_are_answers(server: DnsServer) -> None:
    assert addresses(await source(server).ask()) == []  # NXDOMAIN
    server.say(NAME, "127.0.0.1")
    assert addresses(await source(server, type="AAAA").ask()) == []


async def test_a_truncated_answer_is_asked_for_over_tcp(server: DnsServer) -> None:
    server.say(NAME, *(f"127.0.1.{number}" for number in range(1, 101)))
    server.truncate = True
    assert len((await source(server, type="A").ask()).found) == 100
    server.tcp = False
    with pytest.raises(NoAnswer):
        await source(server, type="A").ask()


async def test_a_server_that_knows_no_edns_is_asked_without(server: DnsServer) -> None:
    server.say(NAME, "127.0.0.1")
    server.broken["*"] = "formerr_edns"
    assert addresses(await source(server, type="A").ask()) == ["127.0.0.1:80"]


async def test_aliases_are_followed_and_circles_are_no_answer(server: DnsServer) -> None:
    server.alias(NAME, "a.test")
    server.alias("a.test", "b.test")
    server.say("b.test", "127.0.0.1")
    assert addresses(await source(server, type="A").ask()) == ["127.0.0.1:80"]
    server.forget("b.test")
    server.alias("b.test", NAME)
    with pytest.raises(NoAnswer):
        await source(server, type="A").ask()


async def test_a_server_that_gives_an_alias_alone_is_asked_for_that(server: DnsServer) -> None:
    def alias_alone(request: DNSRecord) -> bytes:
        reply = request.reply()
        name = str(request.q.qname).rstrip(".")
        if name == NAME:
            reply.add_answer(*server.records[NAME, "CNAME"])
        else:
            reply.add_answer(RR(name, QTYPE.A, rdata=A("127.0.0.7"), ttl=1))
        return bytes(reply.pack())

    server.alias(NAME, "b.test")
    server.strange = alias_alone
    assert addresses(await source(server, type="A").ask()) == ["127.0.0.7:80"]


async def test_case_does_not_count_and_other_names_in_an_answer_are_ignored(server: DnsServer) -> None:
    def other_names(request: DNSRecord) -> bytes:
        reply = request.reply()
        reply.add_answer(RR("WEB.Test", QTYPE.A, rdata=A("127.0.0.1"), ttl=1))
        reply.add_answer(RR("evil.test", QTYPE.A, rdata=A("127.0.0.66"), ttl=1))
        return bytes(reply.pack())

    server.strange = other_names
    assert addresses(await source(server, type="A", name="Web.TEST").ask()) == ["127.0.0.1:80"]


async def test_an_answer_to_another_question_is_ignored(server: DnsServer) -> None:
    def another_id(request: DNSRecord) -> bytes:
        reply = request.reply()
        reply.header.id ^= 1
        reply.add_answer(RR(NAME, QTYPE.A, rdata=A("127.0.0.66"), ttl=1))
        return bytes(reply.pack())

    server.strange = another_id
    with pytest.raises(NoAnswer, match="did not answer within"):
        await source(server, type="A").ask()


async def test_addresses_that_nothing_can_be_sent_to_are_named(server: DnsServer) -> None:
    server.say(NAME, "127.0.0.1", "0.0.0.0")
    answer = await source(server, type="A").ask()
    assert addresses(answer) == ["127.0.0.1:80"]
    assert "listen on" in answer.problems[0]


# --- services --------------------------------------------------------------------------------------------------------

SERVICE = "_http._tcp.web.test"


async def test_services_have_ports_weights_and_priorities(server: DnsServer) -> None:
    server.say("a.test", "127.0.0.1")
    server.say("b.test", "127.0.0.2", "::1")
    server.say_services(SERVICE, (1, 10, 8001, "a.test"), (2, 0, 8002, "b.test"))
    answer = await source(server, name=SERVICE).ask()
    assert [(each.address, each.weight, each.priority, each.name) for each in answer.found] == [
        ("127.0.0.1:8001", 10, 1, "a.test"),
        ("127.0.0.2:8002", 1, 2, "b.test"),
        ("[::1]:8002", 1, 2, "b.test"),
    ]
    server.say_services(SERVICE, (0, 0, 0, "."))
    assert addresses(await source(server, name=SERVICE).ask()) == []


async def test_a_host_of_a_service_that_cannot_be_looked_up_keeps_its_members_alone(server: DnsServer) -> None:
    server.say("a.test", "127.0.0.1")
    server.say_services(SERVICE, (1, 1, 8001, "a.test"), (1, 1, 8002, "b.test"))

    def half_broken(request: DNSRecord) -> bytes:
        reply = request.reply()
        name, kind = str(request.q.qname).rstrip("."), QTYPE[request.q.qtype]
        if name == "b.test":
            reply.header.rcode = 2
        reply.add_answer(*server.records.get((name, kind), []))
        return bytes(reply.pack())

    server.strange = half_broken
    answer = await source(server, name=SERVICE).ask()
    assert addresses(answer) == ["127.0.0.1:8001"]
    assert answer.unanswered == {"b.test A", "b.test AAAA"}


@pytest.mark.timing
async def test_slow_aaaa_records_of_a_service_do_not_hold_up_the_rest(server: DnsServer) -> None:
    server.say("a.test", "127.0.0.1")
    server.say_services(SERVICE, (1, 1, 8001, "a.test"))
    server.broken["AAAA"] = "timeout"
    began = time.monotonic()
    answer = await source(server, name=SERVICE, timeout=5.0).ask()
    assert addresses(answer) == ["127.0.0.1:8001"] and answer.unanswered == {"a.test AAAA"}
    assert time.monotonic() - began < 3.0


def test_weights_of_services_fit_those_of_targets() -> None:
    assert scaled([0, 0]) == [1, 1]
    assert scaled([0, 10, 1000]) == [1, 10, 1000]
    assert scaled([65535, 6553, 1]) == [1000, 100, 1]
    assert scaled([]) == []


# --- the system's servers --------------------------------------------------------------------------------------------


async def test_the_servers_of_the_system_are_asked_where_none_is_given(server: DnsServer, tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(
        "search test\nnameserver 127.0.0.1\nnameserver\nnameserver x\n# nameserver 9.9.9.9\nnameserver ::1\n"
    )
    assert servers_of_system(path) == [Server("127.0.0.1", 53), Server("::1", 53)]
    assert servers_of_system(tmp_path / "gone") == []
    server.say(NAME, "127.0.0.1")
    settings = Dns.model_validate({"name": NAME, "port": 80, "type": "A"})
    assert addresses(await DnsSource(settings, lambda: [Server("127.0.0.1", server.port)]).ask()) == ["127.0.0.1:80"]
    with pytest.raises(NoAnswer, match="names no DNS server"):
        await DnsSource(settings, list).ask()
