"""The Makefile and .ci/run: what they do when something is missing, old, broken, or ran no test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import REPO

LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-bench.lock")  # of environments


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def make(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    command = ["make", "--no-print-directory", *words]
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that make looks at, in a directory of their own."""
    for name in ("Makefile", "pyproject.toml", *LOCKS):
        shutil.copy(REPO / name, tmp_path / name)
    shutil.copytree(REPO / "build_backend", tmp_path / "build_backend")
    return tmp_path


def test_an_old_python_is_named(clone: Path) -> None:
    old = script(clone / "python3.9", 'case "$1" in -V) echo "Python 3.9.2";; *) exit 1;; esac')
    done = make(clone, "run", f"PYTHON={old}")
    assert done.returncode == 2
    assert "lb needs Python 3.11 or newer" in done.stderr and "Python 3.9.2" in done.stderr


def test_a_python_without_venv_is_told_what_to_install(clone: Path) -> None:
    bare = script(clone / "python3", 'case "$2" in *ensurepip*) exit 1;; esac')
    done = make(clone, "run", f"PYTHON={bare}")
    assert done.returncode == 2
    assert "apt-get install python3-venv" in done.stderr


def environment_of(clone: Path) -> None:
    """An environment that looks complete; its python writes down what pip is asked for."""
    (clone / ".venv/bin").mkdir(parents=True)
    script(clone / ".venv/bin/python", f'[ "$1" = -c ] && exec {sys.executable} "$@"; echo "$@" >> {clone}/asked')
    script(clone / ".venv/bin/lb", f'echo lb "$@" >> {clone}/asked')


def asked(clone: Path) -> list[str]:
    file = clone / "asked"
    found = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return found


def test_the_environment_is_made_again_only_when_a_lock_changed(clone: Path) -> None:
    environment_of(clone)
    assert make(clone, "run").returncode == 0
    first = asked(clone)
    assert any("--require-hashes -r requirements.lock" in line for line in first)
    assert any("--no-deps --no-build-isolation --editable ." in line for line in first)
    assert first[-1] == "lb run backends.yaml --demo"
    assert make(clone, "run").returncode == 0
    assert asked(clone) == ["lb run backends.yaml --demo"]
    later = (clone / ".venv/.run").stat().st_mtime + 5
    os.utime(clone / "requirements.lock", (later, later))
    assert make(clone, "run").returncode == 0
    assert len(asked(clone)) == len(first)


def test_an_environment_whose_python_is_gone_is_made_anew(clone: Path) -> None:
    environment_of(clone)
    assert make(clone, "run").returncode == 0
    (clone / ".venv/bin/python").unlink()
    (clone / ".venv/bin/python").symlink_to("/nowhere/python3")
    done = make(clone, "run", "--dry-run")
    assert "-m venv --clear .venv" in done.stdout and "--require-hashes" in done.stdout


def test_bytecode_is_kept_whatever_the_environment_says(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests start `lb` more than a thousand times, and compiling its sources is a third of a start."""
    environment_of(clone)
    script(clone / ".venv/bin/lb", f'echo "kept: ${{PYTHONDONTWRITEBYTECODE-yes}}" >> {clone}/asked')
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert make(clone, "run").returncode == 0
    assert asked(clone)[-1] == "kept: yes"


def test_make_alone_lists_what_there_is(clone: Path) -> None:
    printed = make(clone).stdout
    for target in ("run", "test", "unit", "compiled", "test-compiled", "lint", "bench", "docs", "lock", "clean"):
        assert re.search(rf"^  make {target} +\S", printed, re.M), printed


@pytest.mark.parametrize(
    ("parallel", "timing", "code"),
    [(0, 0, 0), (0, 5, 0), (5, 0, 0), (5, 5, 2), (1, 0, 2), (0, 1, 2)],
    ids=["all pass", "no timing", "timing alone", "no test at all", "a test fails", "a timing test fails"],
)
def test_tests_that_measure_time_run_alone_after_the_others(clone: Path, parallel: int, timing: int, code: int) -> None:
    environment_of(clone)
    for tool in ("ruff", "mypy", "lint-imports"):
        script(clone / ".venv/bin" / tool, "exit 0")
    with (clone / ".venv/bin/python").open("a") as python:
        python.write(f'case "$*" in *"-m not timing"*) exit {parallel};; *"-m timing"*) exit {timing};; esac\n')
    assert make(clone, "test", "TESTS=tests/wire").returncode == code
    first, *second = [line for line in asked(clone) if line.startswith("-m pytest")]
    assert "-n 4" in first and "tests/wire" in first
    if parallel == 1:
        assert not second
    else:
        [alone] = second
        assert "-n 0" in alone and "tests/wire" in alone


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_hashes_and_no_index(lock: str) -> None:
    text = (REPO / lock).read_text()
    packages = re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.M)
    assert len(packages) > 20 and "setuptools" in packages
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host|@ file|^-e", text, re.M)
    blocks = re.split(r"^(?=[A-Za-z0-9_.-]+==)", text, flags=re.M)[1:]
    for block in blocks:
        assert "--hash=sha256:" in block, block.splitlines()[0]
    # Wheels for each Python and the source: more than one file of each compiled package.
    for name in ("aiohttp", "uvloop", "pydantic-core", "msgspec"):
        (block,) = (block for block in blocks if block.startswith(f"{name}=="))
        assert block.count("--hash=sha256:") > 10, name


def test_the_compiler_of_the_image_is_the_one_that_checks_types() -> None:
    text, tests = (REPO / "requirements-compile.lock").read_text(), (REPO / "requirements-dev.lock").read_text()
    packages = re.split(r"^(?=[A-Za-z0-9_.-]+==)", text, flags=re.M)[1:]
    assert any(package.startswith("mypy==") for package in packages)
    for package in packages:
        name, *hashes = re.findall(r"^\S+==\S+|--hash=\S+", package, re.M)
        assert name in tests and hashes and all(each in tests for each in hashes)


@pytest.mark.parametrize(
    ("printed", "made", "code"),
    [
        ("12 passed in 3.4s", 0, 0),
        ("no tests ran in 0.01s", 0, 1),
        ("", 0, 1),
        ("0 passed", 0, 1),
        ("3 failed, 12 passed", 2, 2),
        ("no tests ran", 5, 5),
    ],
)
def test_ci_takes_nothing_for_success_but_passed_tests(tmp_path: Path, printed: str, made: int, code: int) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(REPO / ".ci" / "run", tmp_path / ".ci" / "run")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("curl", "promtool", "nginx", "haproxy", "chromium", "chromedriver", "gcc", "python3-config"):
        script(tools / name, "exit 0")
    asked = tmp_path / "asked"
    script(tools / "make", f'echo "$1" >> {asked}; echo "{printed}"; exit {made}')
    done = subprocess.run(
        ["bash", ".ci/run"],
        cwd=tmp_path,
        env={"PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}", "CI": "true"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert asked.read_text().split() == (["test"] if code else ["test", "test-compiled"])
