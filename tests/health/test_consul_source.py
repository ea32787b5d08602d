"""The provider `consul`, against a stand-in for an agent: real sockets, real waits, and what goes wrong."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lb.config.model.discovery import Consul
from lb.core.membership import Answer
from lb.discovery import consul
from lb.discovery.consul import ConsulSource, Pace
from lb.discovery.source import NoAnswer
from tests.support.certificates import Authority
from tests.support.consul_agent import Agent
from tests.support.eventually_async import eventually
from tests.support.source_watch import Watching, watched

#: Seconds as usual, but for those that a test would wait for.
QUICK = Pace(answer=1.0, grace=0.2, interval=0.05, longest=0.3, longest_denied=0.5)


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Agent() as made:
        yield made


def source(agent: Agent, pace: Pace = QUICK, **more: Any) -> ConsulSource:
    return ConsulSource(Consul.model_validate({"service": "web", "address": agent.url, **more}), pace)


class Asked(Watching):
    def says(self, *wanted: str) -> bool:
        """Whether instances on node-1 with these ids are named, in the order of their addresses."""
        return isinstance(self.last, Answer) and [each.name for each in self.last.found] == [
            f"{id} on node-1" for id in wanted
        ]

    @property
    def failures(self) -> list[NoAnswer]:
        return [each for each in self.told if isinstance(each, NoAnswer)]


async def test_instances_of_the_service_are_named(agent: Agent) -> None:
    agent.register("one", "127.0.0.1", 8001)
    agent.register("two", "", 8001, node="node-2", node_address="127.0.0.2", Meta={"lb_check": "/ready"})
    agent.register("heavy", "127.0.0.3", 8001, Weights={"Passing": 3, "Warning": 1})
    agent.register("ill", "127.0.0.4", 8001, status="critical")
    agent.register("other", "127.0.0.9", service="other")
    answer = await source(agent).ask()
    assert [(each.address, each.url, each.weight, each.name, each.settings) for each in answer.found] == [
        ("127.0.0.1:8001", "http://127.0.0.1:8001", 1, "one on node-1", ""),
        ("127.0.0.2:8001", "http://127.0.0.2:8001", 1, "two on node-2", '{"readiness": {"path": "/ready"}}'),
        ("127.0.0.3:8001", "http://127.0.0.3:8001", 3, "heavy on node-1", ""),
    ]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"tags": ["blue"]}, ["blue", "tested"]),
        ({"tags": ["blue", "tested"]}, ["tested"]),
        ({"filter": "Service.Meta.color == green"}, ["green"]),
        ({"filter": 'Service.Meta.color == "green"', "tags": ["blue"]}, []),
        ({"namespace": "shop"}, ["shop"]),
        ({"partition": "east"}, ["east"]),
        ({"warning": False, "tags": ["slow"]}, []),
        ({"warning": True, "tags": ["slow"]}, ["slow"]),
        ({"service": "other"}, ["other"]),
        ({"datacenter": "dc1", "service": "other"}, ["other"]),
    ],
)
async def test_settings_choose_instances(agent: Agent, settings: dict[str, Any], named: list[str]) -> None:
    agent.register("blue", "127.0.0.1", Tags=["blue"])
    agent.register("tested", "127.0.0.2", Tags=["tested", "blue"])
    agent.register("green", "127.0.0.3", Tags=["green"], Meta={"color": "green"})
    agent.register("slow", "127.0.0.4", Tags=["slow"], status="warning")
    agent.register("shop", "127.0.0.5", Namespace="shop")
    agent.register("east", "127.0.0.6", Partition="east")
    agent.register("other", "127.0.0.7", service="other")
    found = (await source(agent, **settings).ask()).found
    assert [each.name for each in found] == [f"{id} on node-1" for id in named]


async def test_the_scheme_is_that_of_the_targets(agent: Agent) -> None:
    agent.register("one")
    assert [each.url for each in (await source(agent, scheme="h2c").ask()).found] == ["h2c://127.0.0.1:80"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"datacenter": "south"}, "answered 500: No path to datacenter"),
        ({"filter": "Service.Meta.color ~ blue"}, "answered 400: Failed to create boolean expression evaluator"),
    ],
)
async def test_the_agent_s_word_on_a_wrong_setting_is_shown(agent: Agent, settings: dict[str, str], said: str) -> None:
    with pytest.raises(NoAnswer, match=said):
        await source(agent, **settings).ask()


# --- blocking queries ------------------------------------------------------------------------------------------------


async def test_changes_are_followed_by_waiting_for_them(agent: Agent) -> None:
    agent.register("one", "127.0.0.1")
    async with watched(source(agent), Asked()) as watching:
        await eventually(lambda: watching.says("one") and agent.waiting)
        agent.register("two", "127.0.0.2")
        await eventually(lambda: watching.says("one", "two"))
        agent.check("one", "critical")
        await eventually(lambda: watching.says("two"))
        agent.check("one", "passing")
        await eventually(lambda: watching.says("one", "two"))
        agent.deregister("two")
        await eventually(lambda: watching.says("one") and agent.waiting)
    assert "index" not in agent.asked[0]
    assert {each["wait"] for each in agent.asked[1:]} == {"30000ms"}
    indexes = [int(each["index"]) for each in agent.asked[1:]]
    assert indexes == sorted(set(indexes)) and len(watching.told) == 5


@pytest.mark.timing
async def test_a_change_is_told_at_once(agent: Agent) -> None:
    """By the pace of every day, and a second one right after it."""
    agent.register("one", "127.0.0.1")
    async with watched(source(agent, Pace()), Asked()) as watching:
        await eventually(lambda: watching.says("one") and agent.waiting)
        await asyncio.sleep(2.0)  # the bucket is full
        began = time.monotonic()
        agent.register("two", "127.0.0.2")
        await eventually(lambda: watching.says("one", "two") and agent.waiting)
        agent.register("three", "127.0.0.3")
        await eventually(lambda: watching.says("one", "two", "three"))
        assert time.monotonic() - began < 0.5


async def test_a_write_that_changes_nothing_is_no_change(agent: Agent) -> None:
    agent.register("one")
    async with watched(source(agent), Asked()) as watching:
        await eventually(lambda: watching.says("one") and agent.waiting)
        agent.touch()
        await eventually(lambda: len(agent.asked) == 3 and agent.waiting)
    assert len(watching.told) == 1 and int(agent.asked[2]["index"]) > int(agent.asked[1]["index"])


async def test_a_wait_that_ends_without_a_change_goes_on_with_its_index(agent: Agent) -> None:
    agent.register("one")
    async with watched(source(agent, wait="1s"), Asked()) as watching:
        await eventually(lambda: len(agent.asked) == 3)
        assert agent.asked[1] == agent.asked[2] and agent.asked[1]["wait"] == "1000ms"
    assert len(watching.told) == 1 and watching.says("one")


async def test_an_index_that_goes_back_starts_anew(agent: Agent) -> None:
    """Servers are restored from a snapshot: with the old index the agent would hold the query through every change."""
    agent.register("one", "127.0.0.1")
    async with watched(source(agent), Asked()) as watching:
        await eventually(lambda: watching.says("one") and agent.waiting)
        agent.restore(3)
        await eventually(lambda: len(agent.asked) == 4 and agent.waiting)
        assert "index" not in agent.asked[2] and agent.asked[3]["index"] == "3"
        agent.register("two", "127.0.0.2")
        await eventually(lambda: watching.says("one", "two"))
    assert not watching.failures


async def test_an_answer_without_an_index_is_asked_for_again_and_again(agent: Agent) -> None:
    agent.indexed = False
    agent.register("one", "127.0.0.1")
    async with watched(source(agent), Asked()) as watching:
        await eventually(lambda: watching.says("one"))
        agent.register("two", "127.0.0.2")
        await eventually(lambda: watching.says("one", "two"))
    assert all("index" not in each for each in agent.asked)


@pytest.mark.timing
@pytest.mark.parametrize("fault", ["eager", "no index"])
async def test_an_agent_that_answers_at_once_is_asked_once_a_second(agent: Agent, fault: str) -> None:
    agent.register("one")
    agent.eager, agent.indexed = True, fault != "no index"
    async with watched(source(agent, Pace()), Asked()) as watching:
        await eventually(lambda: watching.says("one"))
        await asyncio.sleep(2.5)
        assert 2 <= len(agent.asked) <= 4
    assert len(watching.told) == 1


# --- what goes wrong -------------------------------------------------------------------------------------------------


async def test_an_agent_that_is_gone_is_caught_up_with(agent: Agent) -> None:
    agent.register("one", "127.0.0.1")
    async with watched(source(agent), Asked()) as watching:
        await eventually(lambda: watching.says("one") and agent.waiting)
        agent.stop()
        await eventually(lambda: watching.failures)
        assert "cannot be asked: connection refused" in str(watching.failures[0])
        agent.register("two", "127.0.0.2")
        agent.start()
        await eventually(lambda: watching.says("one", "two") and agent.waiting)
        assert "index" not in agent.asked[2]


@pytest.mark.timing
async def test_an_agent_that_is_back_is_caught_up_with_in_two_seconds(agent: Agent) -> None:
    agent.register("one", "127.0.0.1")
    async with watched(source(agent, Pace()), Asked()) as watching:
        await eventually(lambda: watching.says("one") and agent.waiting)
        agent.stop()
        await eventually(lambda: watching.failures)
        await asyncio.sleep(3.0)  # waits have grown
        agent.start()
        began = time.monotonic()
        await eventually(lambda: watching.says("one"))
        assert time.monotonic() - began < 2.0


async def test_a_query_that_is_cut_costs_one_more_and_is_no_failure(agent: Agent) -> None:
    agent.register("one", "127.0.0.1")
    async with watched(source(agent), Asked()) as watching:
        await eventually(lambda: watching.says("one") and agent.waiting)
        for _ in range(3):
            before = len(agent.asked)
            agent.cut()
            await eventually(lambda before=before: len(agent.asked) > before and agent.waiting)
        agent.register("two", "127.0.0.2")
        await eventually(lambda: watching.says("one", "two"))
    assert not watching.failures


async def test_where_waiting_always_fails_changes_are_noticed_and_that_is_said(agent: Agent) -> None:
    agent.register("one", "127.0.0.1")
    agent.impatient = True
    async with watched(source(agent), Asked()) as watching:
        await eventually(lambda: isinstance(watching.last, Answer) and watching.last.problems)
        assert isinstance(watching.last, Answer)
        (problem,) = watching.last.problems
        assert problem == f"changes are noticed late: {agent.url} answered 504: stream timeout"
        agent.register("two", "127.0.0.2")
        await eventually(lambda: watching.says("one", "two"))
        agent.impatient = False
        agent.touch()
        await eventually(lambda: agent.waiting)
        agent.touch()
        await eventually(lambda: isinstance(watching.last, Answer) and not watching.last.problems)
    assert not watching.failures


async def test_a_query_that_is_never_answered_is_given_up(agent: Agent) -> None:
    """As on a connection that is dead without a word."""
    agent.register("one", "127.0.0.1")
    async with watched(source(agent, wait="1s"), Asked()) as watching:
        await eventually(lambda: watching.says("one") and agent.waiting)
        agent.hung = True
        await eventually(lambda: watching.failures)
        assert "did not answer within 1 s" in str(watching.failures[0])
        agent.register("two", "127.0.0.2")
        agent.hung = False
        await eventually(lambda: watching.says("one", "two"))


async def test_without_a_leader_nothing_changes_unless_any_server_may_answer(agent: Agent) -> None:
    agent.register("one", "127.0.0.1")
    async with watched(source(agent), Asked()) as watching:
        await eventually(lambda: watching.says("one") and agent.waiting)
        agent.leader = False
        agent.touch()
        agent.cut()
        await eventually(lambda: watching.failures)
        assert "answered 500: No cluster leader" in str(watching.failures[0])
        answer = await source(agent, stale=True).ask()
        assert len(answer.found) == 1 and "knows no leader" in answer.problems[0]
        agent.leader = True
        await eventually(lambda: watching.says("one"))


async def test_a_token_that_is_replaced_is_shown(agent: Agent, tmp_path: Path) -> None:
    agent.register("one")
    agent.tokens = {"good": {"web"}, "narrow": {"other"}}
    file = tmp_path / "token"
    file.write_text("good\n")
    async with watched(source(agent, token_file=str(file), wait="1s"), Asked()) as watching:
        await eventually(lambda: watching.says("one") and agent.waiting)
        assert agent.asked[-1]["token"] == "good"
        file.write_text("revoked")
        await eventually(lambda: watching.failures)
        assert "answered 403: rpc error making call: ACL not found" in str(watching.failures[0])
        assert "docs/discovery.md has the policy" in str(watching.failures[0])
        file.write_text("narrow")
        await eventually(lambda: "hides all instances" in str(watching.last))
        file.unlink()
        await eventually(lambda: "Consul's token cannot be read from" in str(watching.last))
        file.write_text("good")
        await eventually(lambda: watching.says("one"))
    assert all(each.found for each in watching.told if isinstance(each, Answer))


async def test_without_a_token_an_empty_answer_says_what_may_be_missing(agent: Agent) -> None:
    agent.register("one")
    agent.tokens = {"good": {"web"}}
    answer = await source(agent).ask()
    assert answer.found == () and "it may hide them, because lb shows no token" in answer.problems[0]


async def test_a_token_is_not_shown_to_another_server(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("good")
    agent.status = 307
    with pytest.raises(NoAnswer, match="answered 307"):
        await source(agent, token_file=str(tmp_path / "token")).ask()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("<html>", 200, "its list of instances cannot be read"),
        ('{"error": 1}', 200, "its list of instances cannot be read"),
        ('[{"Service": {"Port": ', 200, "its list of instances cannot be read"),
        ("rpc error:\x1b[31m red", 500, r"answered 500: rpc error:\\x1b\[31m red"),
        ("x" * 100_000, 500, "answered more than 64 KiB"),
        ("", 429, "answered 429"),
    ],
)
async def test_what_is_no_answer(agent: Agent, body: str, status: int, said: str) -> None:
    agent.broken, agent.status = body, status
    with pytest.raises(NoAnswer, match=said):
        await source(agent).ask()


async def test_an_answer_without_an_end_is_not_read(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul, "MOST_OCTETS", 1 << 20)
    agent.broken = " " * (2 << 20)
    with pytest.raises(NoAnswer, match="answered more than 1 MiB"):
        await source(agent).ask()


async def test_an_agent_that_hangs_is_no_answer(agent: Agent) -> None:
    agent.hung = True
    with pytest.raises(NoAnswer, match=r"did not answer within 0\.2 s"):
        await source(agent, Pace(answer=0.2)).ask()


# --- maintenance -----------------------------------------------------------------------------------------------------


async def test_instances_in_maintenance_stand_by_until_it_ends(agent: Agent) -> None:
    agent.register("one", "127.0.0.1")
    agent.register("two", "127.0.0.2")
    async with watched(source(agent), Asked()) as watching:

        def priorities() -> list[int]:
            return [each.priority for each in watching.last.found] if isinstance(watching.last, Answer) else []

        await eventually(lambda: priorities() == [0, 0])
        agent.maintain("one", True)
        await eventually(lambda: priorities() == [1, 0])
        agent.maintain("", True)  # the node, and so both
        await eventually(lambda: priorities() == [1, 1])
        agent.maintain("", False)
        agent.maintain("one", False)
        await eventually(lambda: priorities() == [0, 0])
        agent.maintain("one", True)
        agent.check("one", "critical")
        await eventually(lambda: watching.says("two"))


# --- how the agent is reached ----------------------------------------------------------------------------------------


async def test_an_agent_at_a_unix_socket(tmp_path: Path) -> None:
    with Agent(tmp_path / "consul.sock") as agent:
        agent.register("one")
        async with watched(source(agent), Asked()) as watching:
            await eventually(lambda: watching.says("one") and agent.waiting)
            agent.register("two", "127.0.0.2")
            await eventually(lambda: watching.says("one", "two"))
    with pytest.raises(NoAnswer, match="no such file"):
        await source(agent).ask()


async def test_an_agent_over_tls_is_verified_and_wants_a_certificate(tmp_path: Path) -> None:
    authority = Authority("consul")
    authority.issue("127.0.0.1", "server.dc1.consul").write(tmp_path, "server")
    authority.issue("lb", client=True).write(tmp_path, "client")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "another.pem").write_bytes(Authority("another").pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.pem"))
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    files = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key"}
    files = {key: str(tmp_path / name) for key, name in files.items()}
    with Agent(tls=context) as agent:
        agent.register("one")
        for name in ({}, {"server_name": "server.dc1.consul"}):
            async with watched(source(agent, tls={**files, **name}), Asked()) as watching:
                await eventually(lambda w=watching: w.says("one") and agent.waiting)
        with pytest.raises(NoAnswer, match="cannot be asked: "):
            await source(agent, tls={"ca_file": files["ca_file"]}).ask()
        with pytest.raises(NoAnswer, match="its certificate cannot be verified"):
            await source(agent, tls={**files, "ca_file": str(tmp_path / "another.pem")}).ask()
        with pytest.raises(NoAnswer, match="its certificate cannot be verified"):  # by the system's authorities
            await source(agent).ask()
