"""The file's commands as processes: a plan tells what the reload then does; an invalid file starts nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.stage import Stage


def lb(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lb", *map(str, arguments)], capture_output=True, text=True, timeout=30
    )


def test_a_plan_tells_what_the_reload_then_does(stage: Stage) -> None:
    blue = stage.pool("blue", 2)
    path = stage.config({"blue": blue})
    running = stage.start(path, 1)
    third = stage.backend("blue")
    old, new = (f"127.0.0.1:{backend.port}" for backend in (blue[1], third))

    assert "Nothing would change." in running.cli("plan", str(path)).stdout
    path.write_text(path.read_text().replace(old, new))
    plan = running.cli("plan", str(path), "--json")
    assert plan.returncode == 0, plan.stderr
    changes = [(change["kind"], change["subject"].rpartition("/")[2]) for change in json.loads(plan.stdout)["changes"]]
    assert changes == [("add", new), ("drain", old)]
    assert new not in json.dumps(running.status())  # a plan only tells

    assert running.cli("reload").returncode == 0
    eventually(lambda: running.state(new) == "ready")
    assert old not in json.dumps(running.status())


@pytest.mark.parametrize("broken", ["intervall: 2s", "interval: 2x", "interval:"])
def test_an_invalid_file_starts_nothing(tmp_path: Path, broken: str) -> None:
    file = tmp_path / "backends.yaml"
    file.write_text(f"backends: [127.0.0.1:1]\nlisteners: [127.0.0.1:0]\nreadiness:\n  path: /x\n  {broken}\n")
    for command in ("run", "check"):
        result = lb(command, file)
        assert result.returncode == 1
        assert result.stdout == ""
        assert f"{file}:5:" in result.stderr
        assert f"5 |   {broken}" in result.stderr
        assert "Traceback" not in result.stderr
