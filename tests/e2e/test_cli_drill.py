"""`lb drill` for real: a second lb, fake targets that break, load, and the promise held against the measurement."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.terminal import lb

FILE = """
services:
  greeting:
    pools: {blue: [http://203.0.113.1:80, http://203.0.113.2:80]}
    readiness: {path: /ready, interval: 300ms, timeout: 300ms, rise: 1, fall: 2, expect: {body: yes-I-am}}
workers: 1
"""


def test_a_target_that_dies_costs_no_request(tmp_path: Path) -> None:
    file = tmp_path / "backends.yaml"
    file.write_text(FILE)
    done = lb("drill", str(file), "--fault", "refuse", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    (result,) = json.loads(done.stdout)
    assert result["requests"] > 50 and result["failed"] == 0
    assert round(result["promised"], 3) == 0.9  # an interval, another one, and a timeout
    assert 0 < result["out_after"] <= 0.9 + 0.75
    assert result["back_after"] is not None


def test_what_nothing_looks_for_is_said(tmp_path: Path) -> None:
    file = tmp_path / "backends.yaml"
    file.write_text(FILE.replace("workers: 1", "    outlier: {enabled: false}\nworkers: 1"))
    done = lb("drill", str(file), "--fault", "lies")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("1 fault, 100 requests per second.")
    assert "unseen" in done.stdout and "clients saw" in done.stdout
    assert "neither the readiness check nor outlier ejection looks for this" in done.stdout


def test_wrong_questions(tmp_path: Path) -> None:
    file = tmp_path / "backends.yaml"
    file.write_text(FILE)
    assert lb("drill", str(file), "--fault", "earthquake").returncode == 2
    done = lb("drill", str(file), "--service", "nobody")
    assert done.returncode == 1 and "there is no service 'nobody'" in done.stderr
    file.write_text("services: 3\n")
    done = lb("drill", str(file))
    assert done.returncode == 1 and "is not valid" in done.stderr
