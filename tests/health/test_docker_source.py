"""The provider `docker`, against a stand-in for an engine: containers come, go and fall ill, and the engine goes."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lb.config.model.discovery import Docker
from lb.core.membership import Answer
from lb.discovery import docker
from lb.discovery.docker import DockerSource
from lb.discovery.source import NoAnswer
from tests.support.certificates import Authority
from tests.support.docker_engine import Engine
from tests.support.eventually_async import eventually
from tests.support.source_watch import Watching, watched


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "docker.sock") as made:
        yield made


def source(engine: Engine, resync: float = 60.0, **more: Any) -> DockerSource:
    return DockerSource(Docker.model_validate({"label": "pool=main", "socket": engine.url, **more}), resync)


def addresses(answer: Answer) -> list[str]:
    return [each.address for each in answer.found]


class Asked(Watching):
    def says(self, *wanted: str) -> bool:
        return isinstance(self.last, Answer) and sorted(each.name for each in self.last.found) == sorted(wanted)


async def test_running_containers_with_the_label_are_named(engine: Engine) -> None:
    engine.run("one", "127.0.0.1", port=8001)
    engine.run("two", "127.0.0.2", port=8001, lb_port="9000", lb_weight="3", lb_check="/ready")
    engine.run("other", "127.0.0.3", pool="other")
    answer = await source(engine).ask()
    assert [(each.address, each.url, each.weight, each.name, each.settings) for each in answer.found] == [
        ("127.0.0.1:8001", "http://127.0.0.1:8001", 1, "one", ""),
        ("127.0.0.2:9000", "http://127.0.0.2:9000", 3, "two", '{"readiness": {"path": "/ready"}}'),
    ]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"lb_port": "x"}, "its lb.port is 'x'; allowed is a number from 1 to 65535"),
        ({"lb_weight": "5000"}, "its lb.weight is '5000'"),
        ({"lb_check": "ready"}, "its lb.check is 'ready', which is no path"),
        ({"lb_network": "backend"}, "it is not in the network backend; it is in bridge"),
    ],
)
async def test_a_container_whose_labels_are_wrong_is_left_out_by_name(
    engine: Engine, labels: dict[str, str], said: str
) -> None:
    engine.run("good")
    engine.run("bad", "127.0.0.2", **labels)
    answer = await source(engine).ask()
    assert [each.name for each in answer.found] == ["good"]
    assert answer.problems == (f"container bad is left out: {said}",) or said in answer.problems[0]


async def test_which_port_and_which_network(engine: Engine) -> None:
    id = engine.run("one", port=0)
    assert "exposes no port" in (await source(engine).ask()).problems[0]
    assert addresses(await source(engine, port=7000).ask()) == ["127.0.0.1:7000"]
    networks = {"a": {"IPAddress": "127.0.0.2"}, "b": {"IPAddress": "", "GlobalIPv6Address": "::1"}}
    engine.change(id, "update", NetworkSettings={"Networks": networks})
    assert "it is in several networks (a, b)" in (await source(engine, port=7000).ask()).problems[0]
    assert addresses(await source(engine, port=7000, network="a").ask()) == ["127.0.0.2:7000"]
    assert addresses(await source(engine, port=7000, network="b").ask()) == ["[::1]:7000"]
    engine.change(id, "update", NetworkSettings={"Networks": None})  # podman, of one in the host's network
    assert addresses(await source(engine, port=7000, network="host").ask()) == ["127.0.0.1:7000"]
    assert addresses(await source(engine, port=7000).ask()) == []
    engine.change(id, "update", HostConfig={"NetworkMode": "host"})  # Docker
    assert addresses(await source(engine, port=7000).ask()) == ["127.0.0.1:7000"]
    engine.change(id, "update", HostConfig={})
    engine.change(id, "update", NetworkSettings={"Networks": {"bridge": {"IPAddress": ""}}})
    answer = await source(engine, port=7000).ask()
    assert answer.found == () and answer.problems == ()


@pytest.mark.parametrize(
    ("status", "named"),
    [
        ("Up 2 seconds", True),
        ("Up 2 seconds (healthy)", True),
        ("Up 2 seconds (health: starting)", False),
        ("Up 2 seconds (unhealthy)", False),
    ],
)
async def test_a_container_with_a_check_is_named_when_that_has_passed(engine: Engine, status: str, named: bool) -> None:
    engine.change(engine.run("one"), "health_status", Status=status)
    assert bool((await source(engine).ask()).found) is named


async def test_events_are_followed(engine: Engine) -> None:
    async with watched(source(engine), Asked()) as watching:
        one = engine.run("one")
        await eventually(lambda: watching.says("one"))
        two = engine.run("two", "127.0.0.2", health="health: starting")
        engine.change(two, "health_status: healthy", Status="Up 3 seconds (healthy)")
        await eventually(lambda: watching.says("one", "two"))
        engine.end(one)
        await eventually(lambda: watching.says("two"))


async def test_a_container_that_is_told_to_stop_is_named_no_more(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker, "LEAVING", 0.5)
    one, _ = engine.run("one"), engine.run("two", "127.0.0.2")
    async with watched(source(engine), Asked()) as watching:
        await eventually(lambda: watching.says("one", "two"))
        engine.kill(one, "1")  # SIGHUP: it reads its configuration again
        engine.run("three", "127.0.0.3")
        await eventually(lambda: watching.says("one", "two", "three"))
        engine.kill(one)
        await eventually(lambda: watching.says("two", "three"))
        await eventually(lambda: watching.says("one", "two", "three"))  # it has ignored the signal


async def test_an_engine_that_is_gone_is_no_answer_and_is_caught_up_with(engine: Engine) -> None:
    one = engine.run("one")
    async with watched(source(engine), Asked()) as watching:
        await eventually(lambda: watching.says("one"))
        engine.stop()
        await eventually(lambda: isinstance(watching.last, NoAnswer))
        del engine.containers[one]
        engine.containers["two"] = {**engine_container("two")}
        engine.start()
        await eventually(lambda: watching.says("two"))


def engine_container(name: str) -> dict[str, Any]:
    """One that has come while nobody was listening."""
    return {
        "Id": name,
        "Names": [f"/{name}"],
        "Labels": {"pool": "main"},
        "State": "running",
        "Status": "Up 1 second",
        "Ports": [{"PrivatePort": 80, "Type": "tcp"}],
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "127.0.0.2"}}},
    }


async def test_an_event_that_was_lost_costs_one_interval(engine: Engine) -> None:
    engine.events_allowed = False
    async with watched(source(engine, resync=0.1), Asked()) as watching:
        engine.run("one")
        await eventually(lambda: watching.says("one"))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ('{"message": "no such filter"}', "answered 500: no such filter"),
        ("<html>", "answered something that is no JSON"),
        ('"text"', "answered 200"),
    ],
)
async def test_an_answer_that_is_no_list_is_no_answer(engine: Engine, broken: str, said: str) -> None:
    engine.broken = broken
    with pytest.raises(NoAnswer, match=said):
        await source(engine).ask()


async def test_a_socket_that_is_not_there_is_no_answer(tmp_path: Path) -> None:
    missing = DockerSource(Docker.model_validate({"label": "a", "socket": f"unix://{tmp_path}/no.sock"}))
    with pytest.raises(NoAnswer, match="cannot be asked"):
        await missing.ask()


# --- over TLS --------------------------------------------------------------------------------------------------------


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[Engine, dict[str, str]]]:
    """An engine that asks for certificates, as `dockerd --tlsverify` does, and the files that it is reached with."""
    authority = Authority("docker")
    authority.issue("127.0.0.1").write(tmp_path, "server")
    authority.issue("lb", client=True).write(tmp_path, "client")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.pem"))
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    files = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key"}
    with Engine(tmp_path / "unused", context) as made:
        yield made, {key: str(tmp_path / name) for key, name in files.items()}


async def test_an_engine_over_tls_is_followed_and_caught_up_with(secured: tuple[Engine, dict[str, str]]) -> None:
    engine, files = secured
    engine.run("one")
    async with watched(source(engine, tls=files), Asked()) as watching:
        await eventually(lambda: watching.says("one"))
        engine.run("two", "127.0.0.2")
        await eventually(lambda: watching.says("one", "two"))
        engine.stop()
        await eventually(lambda: isinstance(watching.last, NoAnswer))
        engine.start()
        await eventually(lambda: watching.says("one", "two"))


async def test_an_engine_over_tls_is_verified_and_wants_a_certificate(
    secured: tuple[Engine, dict[str, str]], tmp_path: Path
) -> None:
    engine, files = secured
    assert (await source(engine, tls=files).ask()).found == ()
    with pytest.raises(NoAnswer, match="cannot be asked: "):
        await source(engine, tls={"ca_file": files["ca_file"]}).ask()
    another = tmp_path / "another.pem"
    another.write_bytes(Authority("another").pem)
    with pytest.raises(NoAnswer, match="its certificate cannot be verified"):
        await source(engine, tls={**files, "ca_file": str(another)}).ask()
    with pytest.raises(NoAnswer, match="its certificate cannot be verified"):
        await source(engine, tls={**files, "server_name": "engine.test"}).ask()
    with pytest.raises(NoAnswer, match="no such file"):
        await source(engine, tls={**files, "ca_file": str(tmp_path / "none.pem")}).ask()
    with pytest.raises(NoAnswer, match="cannot be asked"):
        await source(engine).ask()  # without TLS
    settings = Docker.model_validate({"label": "a", "socket": engine.url.replace("tcp:", "https:")})
    with pytest.raises(NoAnswer, match="its certificate cannot be verified"):  # by the system's authorities
        await DockerSource(settings).ask()


async def test_a_renewed_file_is_used_at_once(secured: tuple[Engine, dict[str, str]]) -> None:
    engine, files = secured
    made = source(engine, tls=files)
    cert = Path(files["cert_file"])
    good = cert.read_bytes()
    cert.write_text("nonsense")
    with pytest.raises(NoAnswer):
        await made.ask()
    cert.write_bytes(good)
    assert (await made.ask()).found == ()
