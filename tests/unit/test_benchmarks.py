"""Measurements are made seldom: what keeps them from breaking unseen meanwhile."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(
    f"benchmarks.{file.stem}"
    for file in (ROOT / "benchmarks").glob("*.py")
    if file.stem != "__main__" and "ArgumentParser" in file.read_text()
)


@pytest.mark.parametrize("program", ["benchmarks", *PROGRAMS])
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
