"""Measurements are made seldom: what keeps them from breaking unseen meanwhile."""

from __future__ import annotations

import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(
    f"benchmarks.{file.stem}"
    for file in (ROOT / "benchmarks").glob("*.py")
    if file.stem != "__main__" and "ArgumentParser" in file.read_text()
)


@pytest.mark.parametrize("program", ["benchmarks.__main__", *PROGRAMS])
def test_each_says_what_it_does(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "--help"])
    monkeypatch.delitem(sys.modules, program, raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_the_readme_names_programs_that_are_there() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    named = set(re.findall(r"python -m (benchmarks\.\w+)", text))
    assert named
    assert named <= set(PROGRAMS)


def test_a_peer_that_is_not_installed_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import __main__ as front

    monkeypatch.setattr("benchmarks.processes.shutil.which", lambda name, path: None if name == "caddy" else name)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick"])
    assert front.main() == 1
    assert capsys.readouterr().err == "benchmarks: caddy is needed: apt-get install caddy\n"


def test_one_that_is_neither_asked_for_nor_installed_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import report

    monkeypatch.setattr("benchmarks.processes.shutil.which", lambda name, path: None)
    about = report.machine()
    assert "python" in about
    assert "caddy" not in about


def test_a_machine_that_is_slow_for_a_while_is_waited_for() -> None:
    from benchmarks.pace import Pace

    readings = [2.0, 2.1, 4.0, 4.1, 2.2]
    pace = Pace(0, read=lambda: readings.pop(0))
    assert pace.factor() == 1.0
    assert pace.factor() == pytest.approx(1.05)
    naps: list[float] = []
    pace.wait(within=5.0, sleep=naps.append)
    assert len(naps) == 2  # two readings were slow
    assert not readings


def test_it_is_not_waited_for_longer_than_said() -> None:
    from benchmarks.pace import LOOK_EVERY, Pace

    readings = iter([2.0])
    pace = Pace(0, read=lambda: next(readings, 4.0))
    pace.factor()
    naps: list[float] = []
    pace.wait(within=1.0, sleep=naps.append)
    assert sum(naps) == pytest.approx(1.0, abs=LOOK_EVERY)


@pytest.mark.parametrize(
    ("readings", "kept", "made"),
    [
        ([1.0, 1.0, 1.0], 0, 1),  # full pace throughout
        ([1.0, 1.0, 1.9, 1.0, 1.0, 1.0], 1, 2),  # slow at the end of the first
        ([1.0, 1.0, 1.9, 1.0, 1.0, 1.5, 1.0, 1.0, 1.8], 1, 3),  # never: the one that came closest
    ],
    ids=["at once", "at the second try", "never"],
)
def test_a_round_at_a_slow_pace_is_made_again(readings: list[float], kept: int, made: int) -> None:
    from benchmarks.pace import Pace
    from benchmarks.rounds import Round, at_full_pace

    rounds = [Round(number, 0, 1.0, 0, {}, 0, 1.0, 0, 0, 0) for number in range(3)]
    makes = iter(rounds)
    best = at_full_pace(lambda: next(makes), Pace(0, read=lambda: readings.pop(0)))
    assert best.requests == kept
    assert len(list(makes)) == 3 - made


def test_the_pace_is_read_where_the_proxies_run() -> None:
    from benchmarks.pace import Pace

    before = os.sched_getaffinity(0)
    assert Pace(min(before)).factor() == 1.0
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("failed", "noticed", "in_force", "good"),
    [(0, 0.1, 2.0, True), (1, 0.1, 0.5, False), (0, math.inf, 0.5, False), (0, 0.1, 2.01, False)],
    ids=["good", "a request failed", "status said nothing", "caught up too late"],
)
def test_a_source_that_was_away_must_cost_nothing(failed: int, noticed: float, in_force: float, good: bool) -> None:
    from benchmarks.source_away import Result

    assert Result("file", 120_000, failed, noticed, in_force).good is good


def test_a_peer_that_cannot_do_a_scenario_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.load import Result
    from benchmarks.processes import Server
    from benchmarks.rounds import tabulate

    def one(server: Server) -> Result:
        if server.name == "caddy":
            raise RuntimeError("no connection with HTTP/2")
        return Result(0 if server.name == "envoy" else 100, 1.0, 0, 7 if server.name == "envoy" else 0)

    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        running = {name: Server(name, 1, process, lambda: [process.pid]) for name in ("nginx", "envoy", "caddy", "lb")}
        tabulate(running, {"get": ("small GET", one)}, 1, tmp_path)
    *_, row, blank, envoy, caddy = capsys.readouterr().out.splitlines()
    assert ", –, –, " in row  # what a request costs the two
    assert " | 1.00 [1.00–1.00] | " in row  # beside nginx
    assert row.endswith(" | – | – | – | – | 0 / – / – / 0 |")
    assert blank == ""
    assert envoy == "envoy is left out of get: 7 requests failed, 0 did not"
    assert caddy == "caddy is left out of get: no connection with HTTP/2"


def test_beside_http2_a_peer_that_is_not_installed_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import http2
    from benchmarks.processes import Server
    from benchmarks.servers import Setup

    monkeypatch.setattr("benchmarks.processes.shutil.which", lambda name, path: None)
    running: dict[str, Server] = {}
    http2.start_peers(["lb", "caddy"], Setup(tmp_path, ("127.0.0.1:1",), http2=True), running)
    assert running == {}
    assert capsys.readouterr().out == "caddy is left out: caddy is needed: apt-get install caddy\n"
