"""The Grafana dashboard and the guide's alerts: their queries parse, and ask for metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.docs.blocks import REPO, blocks
from tests.support.eventually import eventually
from tests.support.terminal import Running

DASHBOARD = json.loads((REPO / "contrib" / "grafana" / "lb.json").read_text())
GUIDE = REPO / "docs" / "guides" / "prometheus-and-grafana.md"
NAME = re.compile(r"\blb_[a-z0-9_]+")


def queries() -> list[str]:
    """Every PromQL expression of the dashboard, with Grafana's variables filled in."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    found += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    return [expr.replace("$__rate_interval", "1m").replace("$service", ".*") for expr in found]


def test_every_query_parses(tmp_path: Path) -> None:
    rules = {
        "groups": [{"name": "grafana", "rules": [{"record": f"q{n}", "expr": q} for n, q in enumerate(queries())]}]
    }
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    promtool = shutil.which("promtool")
    assert promtool, "promtool comes with Debian's package prometheus"
    done = subprocess.run([promtool, "check", "rules", str(tmp_path / "rules.yaml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_do_not_overlap() -> None:
    seen: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & seen, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        seen |= cells


def test_every_metric_that_is_asked_for_is_told(tmp_path: Path) -> None:
    asked: dict[str, Any] = {name: query for query in queries() for name in NAME.findall(query)}
    for block in blocks(GUIDE):
        if block.language in ("promql", "yaml"):
            asked |= dict.fromkeys(NAME.findall(block.text), str(block))
    running = Running(tmp_path)
    try:
        running.all_ready()
        urllib.request.urlopen(f"{running.url}/greeting", timeout=5).read()
        running.lb("switch", "greeting", "green")

        def missing() -> set[str]:
            text = urllib.request.urlopen(f"{running.admin}/metrics", timeout=5).read().decode()
            declared = set(re.findall(r"^# TYPE (\S+)", text, re.M)) | set(re.findall(r"^(lb_\w+)", text, re.M))
            return {name for name in asked if name not in declared}

        eventually(lambda: not missing(), what=f"these are not told: {missing()}")
    finally:
        running.stop()
