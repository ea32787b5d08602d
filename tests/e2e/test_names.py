"""Targets given by name, in real processes. A module on Python's path stands in for DNS: names end in `.test`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.stage import Lb, Load, Stage, ask

pytestmark = pytest.mark.real_start

#: Python runs it at its start. The file of answers has one line a name: the name, then its addresses.
STAND_IN = """
import socket
from pathlib import Path

system = socket.getaddrinfo
answers = Path({answers!r})

def getaddrinfo(host, *arguments, **more):
    if not isinstance(host, str) or not host.endswith(".test"):
        return system(host, *arguments, **more)
    for line in answers.read_text().splitlines():
        name, *addresses = line.split()
        if name == host and addresses:
            return [answer for address in addresses for answer in system(address, *arguments, **more)]
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

socket.getaddrinfo = getaddrinfo
"""


class Dns:
    """What names resolve to."""

    def __init__(self, folder: Path) -> None:
        self._answers = folder / "answers"
        self._answers.write_text("")
        (folder / "sitecustomize.py").write_text(STAND_IN.format(answers=str(self._answers)))

    def say(self, *addresses: str) -> None:
        """From now on web.test has these addresses."""
        new = self._answers.with_suffix(".new")
        new.write_text(f"web.test {' '.join(addresses)}\n")
        new.replace(self._answers)


@pytest.fixture
def dns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dns:
    folder = tmp_path / "stand-in"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")])))
    return Dns(folder)


CHECK = "{path: /health/readiness, interval: 200ms, timeout: 500ms, fall: 2}"


def start(stage: Stage, port: int, readiness: str = CHECK) -> Lb:
    text = (
        "listeners: [127.0.0.1:0]\nadmin: {bind: 127.0.0.1:0}\nstate_dir: ./state\naccess_log: off\nservices:\n  web:\n"
        f"    pools: {{main: ['http://web.test:{port}']}}\n"
        f"    readiness: {readiness}\n"
    )
    return stage.start(stage.file(text))


def served_by(lb: Lb, requests: int = 30) -> set[str]:
    """The versions that so many requests, each on a connection of its own, are answered by; all have to be."""
    answers = [ask(f"{lb.url}/greeting") for _ in range(requests)]
    assert {answer.status for answer in answers} == {200}
    return {answer.json["version"] for answer in answers}


def test_of_two_addresses_only_the_ready_one_is_used_and_a_sick_one_is_left_at_once(stage: Stage, dns: Dns) -> None:
    first = stage.backend("one")
    second = stage.backend("two", first.port, "127.0.0.2")
    first.toggle()  # its readiness fails
    dns.say("127.0.0.1", "127.0.0.2")
    lb = start(stage, first.port)
    assert served_by(lb) == {"two"}
    with Load(lb.url, 4) as load:
        first.toggle()
        second.toggle()
        eventually(lambda: served_by(lb, 1) == {"one"}, what="requests go to the other address")
    assert not load.failed, load.failed
    assert "requests for web.test go to 127.0.0.1, no longer to 127.0.0.2" in " ".join(lb.cli("events").stdout.split())


def test_a_name_that_moves_takes_kept_connections_along(stage: Stage, dns: Dns) -> None:
    first = stage.backend("one")
    stage.backend("two", first.port, "127.0.0.2")
    dns.say("127.0.0.1")
    lb = start(stage, first.port)
    assert served_by(lb) == {"one"}
    with Load(lb.url, 4) as load:
        dns.say("127.0.0.2")
        eventually(lambda: served_by(lb, 20) == {"two"}, 30.0, "all requests go to the new address")
    assert not load.failed, load.failed
    dns.say()  # the name is gone, and its last address passes
    assert served_by(lb) == {"two"}


def test_workers_serve_on_without_dns_and_without_a_supervisor(stage: Stage, dns: Dns) -> None:
    backend = stage.backend("one")
    dns.say("127.0.0.1")
    lb = start(stage, backend.port)
    dns.say()
    lb.process.kill()
    lb.process.wait(5)
    assert served_by(lb) == {"one"}


def test_a_target_that_is_not_probed_serves_from_the_first_request_on(stage: Stage, dns: Dns) -> None:
    backend = stage.backend("one")
    dns.say("127.0.0.9", "127.0.0.1")  # nobody listens at the first
    lb = start(stage, backend.port, "{protocol: none}")
    assert served_by(lb) == {"one"}
