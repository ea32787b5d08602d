"""`python -m tests.model.mutate [NAME…]`: takes repairs out again, one at a time, and sees whether the model notices.

A mutation is a file in `mutations/`: a kind, what is wrong, and exact replacements. It is made in a copy of `lb/`,
`tests/model/` and `tests/support/`; the model then runs there until its first violation, or until its budget is used
up.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent / "mutations"
_TOLD = re.compile(r"^seed (\d+), step (\d+): (.*)$", re.M)
_SUM = re.compile(r"^(\d+) steps, (\d+) seeds, (\d+) violations$", re.M)


@dataclass(frozen=True)
class Edit:
    """`old` is in `file` exactly once."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """One repair taken out again."""

    name: str
    kind: str
    what: str
    edits: tuple[Edit, ...]

    @classmethod
    def read(cls, path: Path) -> Mutation:
        told: dict[str, Any] = yaml.safe_load(path.read_text())
        edits = tuple(Edit(each["file"], each["old"], each["new"]) for each in told["edits"])
        return cls(path.stem, told["kind"], told["what"], edits)

    def misfits(self, root: Path) -> list[str]:
        """Why it cannot be made; empty: it can. Edits are made one after the other."""
        texts: dict[str, str] = {}
        found = []
        for edit in self.edits:
            if edit.file not in texts:
                path = root / edit.file
                texts[edit.file] = path.read_text() if path.exists() else ""
            times = texts[edit.file].count(edit.old)
            if times != 1:
                found.append(f"{self.name}: {edit.file} has its text {times} times: {edit.old[:60]!r}")
            texts[edit.file] = texts[edit.file].replace(edit.old, edit.new)
        return found

    def make(self, root: Path) -> None:
        for edit in self.edits:
            path = root / edit.file
            path.write_text(path.read_text().replace(edit.old, edit.new))


@dataclass(frozen=True)
class Outcome:
    """What the model said of a mutation."""

    mutation: Mutation
    found: bool
    steps: int
    seconds: float
    text: str


def all_mutations() -> list[Mutation]:
    return [Mutation.read(path) for path in sorted(FOLDER.glob("*.yaml"))]


def attempt(mutation: Mutation, steps: int, seeds: int, jobs: int, having: str) -> Outcome:
    """Run the model on a copy with the mutation. What it finds without the mutation as well is not counted."""
    misfits = mutation.misfits(ROOT)
    if misfits:
        return Outcome(mutation, False, 0, 0.0, f"cannot be made: {misfits[0]}")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="lb-mutated-") as name:
        root = Path(name)
        ignore = shutil.ignore_patterns("__pycache__", "dashboard")
        shutil.copytree(ROOT / "lb", root / "lb", ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("model", "support"):
            shutil.copytree(ROOT / "tests" / part, root / "tests" / part, ignore=ignore)
        (root / "tests" / "__init__.py").touch()
        mutation.make(root)
        taken, first, each = 0, 1, max(1, steps // seeds)
        while first <= seeds:
            ended = _model(root, first, seeds - first + 1, each, jobs, having)
            told, summed = _TOLD.search(ended.stdout), _SUM.search(ended.stdout)
            seconds = time.perf_counter() - began
            if summed is None:
                return Outcome(mutation, False, taken, seconds, f"the model broke down: {ended.stderr[-300:]}")
            taken += int(summed[1])
            if told is None:
                break
            if told[3].startswith("model:"):
                return Outcome(mutation, False, taken, seconds, f"the model broke down: {ended.stdout[:2000]}")
            unmutated = _TOLD.search(_model(ROOT, int(told[1]), 1, each, 1, having).stdout)
            if unmutated is None or unmutated[2] != told[2]:
                return Outcome(mutation, True, taken, seconds, f"seed {told[1]}: {told[3]}")
            first = int(told[1]) + 1  # of several jobs, one that ended earlier may have been a later seed
    return Outcome(mutation, False, taken, time.perf_counter() - began, "")


def _model(root: Path, first: int, seeds: int, each: int, jobs: int, having: str) -> subprocess.CompletedProcess[str]:
    """Runs of `each` steps against the `lb` in `root`, until the first violation."""
    command = [sys.executable, "-m", "tests.model", "--steps", str(seeds * each), "--seeds", str(seeds)]
    command += ["--first", str(first), "--jobs", str(jobs), "--with", having, "--no-shorten"]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("LB_MODEL_PREPARED", None)
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model.mutate", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="these mutations alone")
    parser.add_argument("--steps", type=int, default=40_000, help="the budget of each (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=200, help="runs that share it (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--with", dest="having", default="", help="themes that each run has, such as found,restart")
    wanted = parser.parse_args(arguments)
    mutations = [each for each in all_mutations() if not wanted.names or each.name in wanted.names]
    outcomes = []
    for mutation in mutations:
        outcome = attempt(mutation, wanted.steps, wanted.seeds, wanted.jobs, wanted.having)
        outcomes.append(outcome)
        print(_line(outcome), flush=True)
    found = sum(outcome.found for outcome in outcomes)
    print(f"\n{found} of {len(outcomes)} mutations found")
    for outcome in outcomes:
        if not outcome.found:
            print(f"  not found: {outcome.mutation.name} ({outcome.mutation.kind}): {outcome.mutation.what}")
    return 0 if found == len(outcomes) else 1


def _line(outcome: Outcome) -> str:
    said = "found" if outcome.found else "NOT FOUND"
    mutation = outcome.mutation
    spent = f"{outcome.steps:6} steps {outcome.seconds:4.0f} s"
    return f"{mutation.kind:4} {mutation.name:32} {said:9} {spent}  {outcome.text[:150]}"


if __name__ == "__main__":
    sys.exit(main())
