"""Rules for tests: helpers are shared from tests/support, and what is tested is seen from outside.

ruff refuses an attribute that begins with an underscore (SLF001). What it cannot see is looked for here: the same by
its name as a string, private names that are imported, locals of frames, imports from files of tests, and tests that
measure time without the mark that has them run alone.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "tests").rglob("*.py"))
#: What leads from a coroutine, generator, traceback or frame to the locals of a function.
FRAMES = {"f_locals", "f_back", "cr_frame", "gi_frame", "ag_frame", "tb_frame"}
BY_NAME = {"getattr", "setattr", "delattr", "hasattr"}


def is_private(name: str) -> bool:
    """`_x` and `a.b._x`, but not `__x__`."""
    last = name.rpartition(".")[2]
    return last.startswith("_") and not last.endswith("__")


def faults(text: str, folder: tuple[str, ...] = ()) -> Iterator[str]:
    """What a file of tests must not do; `folder` is where it lies, as parts of its path below the repository."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            yield from (f"line {node.lineno}: {fault}" for fault in _import_faults(node, folder))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.rpartition(".")[2].startswith("test_"):
                    yield f"line {node.lineno}: {alias.name} is a file of tests"
        elif isinstance(node, ast.Attribute) and node.attr in FRAMES:
            yield f"line {node.lineno}: {node.attr} leads to the locals of a function"
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            names = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            if called in BY_NAME and any(map(is_private, names)):
                yield f"line {node.lineno}: {called} of the private {names[0]}"

    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _measures_time(node) and not _is_marked(node):
            yield f"line {node.lineno}: {node.name} measures time, and is not marked `timing`"


def _is_marked(test: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(each) == "pytest.mark.timing" for each in test.decorator_list)


def _measures_time(test: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it asserts that few seconds have passed. A bound of ten or more only asks whether something hangs."""
    asserted = [node for node in ast.walk(test) if isinstance(node, ast.Assert)]
    compared = [node for each in asserted for node in ast.walk(each) if isinstance(node, ast.Compare)]
    for compare in compared:
        sides = [compare.left, *compare.comparators]
        for earlier, operator, later in zip(sides, compare.ops, sides[1:], strict=False):
            if isinstance(operator, ast.Lt | ast.LtE) and _is_a_time_passed(earlier) and _number(later) < 10:
                return True
    return False


def _is_a_time_passed(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Sub)
        and ast.unparse(node.left) in ("time.monotonic()", "time.perf_counter()", "time.process_time()")
    )


def _number(node: ast.expr) -> float:
    """The value of a number; nought for what is worked out."""
    return float(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, int | float) else 0.0


def _import_faults(node: ast.ImportFrom, folder: tuple[str, ...]) -> Iterator[str]:
    module = node.module or ""
    parts = module.split(".")
    names = [alias.name for alias in node.names]
    if parts[0] == "tests" and any(name.startswith("test_") for name in (parts[-1], *names)):
        yield f"{module} is a file of tests: what is shared goes to tests/support"
    if parts[-1] == "conftest" and tuple(parts[:-1]) != folder:
        yield f"{module} belongs to another folder: what is shared goes to tests/support"
    if parts[0] in ("lb", "tests"):
        yield from (f"{module}.{name} is private" for name in names if is_private(name))


def test_no_file_of_tests_breaks_a_rule() -> None:
    found = {
        str(path.relative_to(ROOT)): list(faults(path.read_text(), path.relative_to(ROOT).parent.parts))
        for path in FILES
    }
    assert {path: broken for path, broken in found.items() if broken} == {}


@pytest.mark.parametrize(
    "text",
    [
        "from tests.unit.test_exchange import Stage",
        "from tests.unit import test_exchange",
        "import tests.unit.test_exchange",
        "from tests.e2e.conftest import stage",
        "from lb.proxy.access_log import _Writer",
        "coroutine.cr_frame.f_locals['lane']",
        "monkeypatch.setattr(worker, '_listen', fail)",
        "monkeypatch.setattr('lb.worker.main.Worker._listen', fail)",
        "getattr(worker, '_listen')",
        "def test_it():\n    assert time.monotonic() - began < 2.0",
        "async def test_it():\n    assert 0.1 < time.monotonic() - began < 0.2 * 2 + LIMIT",
    ],
)
def test_what_breaks_a_rule_is_found(text: str) -> None:
    assert list(faults(text, ("tests", "unit")))


@pytest.mark.parametrize(
    "text",
    [
        "from tests.support.data_plane import Stage",
        "from tests.unit.conftest import Stage",
        "from lb.proxy.access_log import Log",
        "monkeypatch.setattr(workers, 'BACKOFF', (0.0,))",
        "getattr(call, '__self__', None)",
        "def test_it():\n    assert time.monotonic() - began > 2.0",
        "def test_it():\n    assert time.monotonic() - began < 25.0",
        "@pytest.mark.timing\ndef test_it():\n    assert time.monotonic() - began < 2.0",
    ],
)
def test_what_breaks_no_rule_is_let_pass(text: str) -> None:
    assert not list(faults(text, ("tests", "unit")))


@pytest.mark.parametrize(("path", "refused"), [("tests/unit/test_new.py", True), ("lb/core/new.py", False)])
def test_private_attributes_are_refused_in_tests(path: str, refused: bool) -> None:
    text = "from lb.core.outlier import Ejector, Outlier\n\nEjector(Outlier())._windows.clear()\n"
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--quiet", "--stdin-filename", path, "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ("SLF001" in done.stdout) is refused, done
