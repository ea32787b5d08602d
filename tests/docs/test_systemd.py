"""The units that are shipped: systemd accepts them, they shut lb in, and they fit what lb does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from lb.config.load import load
from tests.docs.blocks import REPO

UNITS = REPO / "contrib/systemd"
ANALYZE = shutil.which("systemd-analyze")


def settings(name: str) -> dict[str, list[str]]:
    """Key → values, in order."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", (UNITS / name).read_text(), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def seconds(text: str) -> float:
    return float(text.removesuffix("ms")) / 1000 if text.endswith("ms") else float(text)


def test_the_service_fits_what_lb_does(tmp_path: Path) -> None:
    unit = settings("lb.service")
    assert unit["Type"] == ["notify"]
    assert unit["KillMode"] == ["process"], "workers outlive a supervisor that dies"
    assert unit["Restart"] == ["always"]
    assert "-HUP" in unit["ExecReload"][0]
    (tmp_path / "lb.yaml").write_text("backends: [http://127.0.0.1:1]\n")
    config = load(tmp_path / "lb.yaml")
    assert seconds(unit["TimeoutStopSec"][0]) > config.lame_duck + config.drain
    for key in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "MemoryDenyWriteExecute", "RestrictNamespaces"):
        assert unit[key] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["User"] == ["lb"]


def _placed(folder: Path) -> Path:
    """The units as they would be installed, except that the program and the user exist."""
    for path in UNITS.glob("lb.*"):
        text = path.read_text().replace("/opt/lb/bin/lb", str(Path(sys.executable).parent / "lb"))
        (folder / path.name).write_text(re.sub(r"^(User|Group)=.*\n", "", text, flags=re.MULTILINE))
    return folder / "lb.service"


def test_systemd_accepts_both(tmp_path: Path) -> None:
    if ANALYZE is None:
        return  # nobody here to ask
    service = _placed(tmp_path)
    for unit in (service, service.with_suffix(".socket")):
        ended = subprocess.run([ANALYZE, "verify", unit], capture_output=True, text=True, timeout=30, check=False)
        mine = [line for line in ended.stderr.splitlines() if "lb." in line]
        assert not mine, mine


def test_systemd_finds_the_service_shut_in(tmp_path: Path) -> None:
    if ANALYZE is None:
        return  # nobody here to ask
    command = [ANALYZE, "security", "--offline=true", "--threshold=25", "--no-pager", _placed(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "unrecognized option" in ended.stderr or ended.returncode == 0, ended.stdout
