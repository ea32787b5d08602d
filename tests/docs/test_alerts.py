"""The alert rules in contrib: rules as Prometheus reads them, about metrics that lb has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from lb.control.metrics import METRICS

FILES = sorted((Path(__file__).parent.parent.parent / "contrib/prometheus").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_alerts_are_about_metrics_that_exist(path: Path) -> None:
    for group in yaml.safe_load(path.read_text())["groups"]:
        for rule in group["rules"]:
            named = set(re.findall(r"\blb_\w+", rule["expr"]))
            assert named and named <= METRICS.keys(), rule["alert"]
            assert "lb " in rule["annotations"]["description"], "it says what to run"
    promtool = shutil.which("promtool")
    if promtool is not None:
        subprocess.run([promtool, "check", "rules", str(path)], check=True, capture_output=True)
