"""What is compiled, how a class of it is used, and how one sees which form runs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from build_backend import backend
from build_backend.native import REQUIREMENTS, ROOT, sources
from lb import build_form
from lb.core.balance import Balancer
from lb.core.retry import RetryBudget
from lb.http.message import RequestFields, RequestHead, ResponseHead
from lb.proxy.access_log import Log
from lb.proxy.exchange import Exchange
from lb.proxy.h1.client import Downstream
from lb.proxy.h1.target import Upstream
from lb.proxy.lane import Lane, Lease
from lb.proxy.services import LiveService

#: Modules that the compiled ones may import of lb beside one another: of values, or of what is no part of a request.
VALUES = {
    "lb.core.affinity",
    "lb.core.claims",
    "lb.core.guards",
    "lb.core.key_file",
    "lb.core.native",
    "lb.core.renames",
    "lb.core.report",
    "lb.core.rotation_change",
    "lb.core.targets",
    "lb.net.jwks",
    "lb.net.tls.identity",
    "lb.net.tls.resuming",
    "lb.net.tls.session",
    "lb.net.tls.target_faults",
    "lb.proxy.guards",
    "lb.proxy.log_writer",
    "lb.proxy.offload",
    "lb.proxy.page_set",
    "lb.proxy.passwords",
}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for source in sources():
        yield source, ast.parse((ROOT / source).read_text())


def test_the_modules_that_are_compiled_exist() -> None:
    assert len(sources()) == len(set(sources())) > 40
    assert [source for source in sources() if not (ROOT / source).is_file()] == []


def test_they_import_one_another_and_values() -> None:
    own = {source.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for source in sources()}
    imported = {
        node.module
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lb.")
    }
    assert imported - own <= VALUES


def test_no_generator_expression_in_them_is_relied_on_to_be_lazy() -> None:
    """Compiled, it is worked out at once, unless it stands in a call that the compiler makes a loop of, or that would
    have gone through all of it anyway."""
    whole = {"all", "any", "dict", "frozenset", "join", "list", "max", "min", "next", "set", "sorted", "sum", "tuple"}
    found = []
    for source, tree in trees():
        parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.GeneratorExp):
                call = parents[node]
                function = call.func if isinstance(call, ast.Call) else None
                name = getattr(function, "id", None) or getattr(function, "attr", "")
                if name not in whole:
                    found.append(f"{source}:{node.lineno}")
    assert found == []


@pytest.mark.parametrize(
    "native", [Balancer, Downstream, Exchange, Lane, Lease, LiveService, Log, RequestFields, RequestHead, ResponseHead,
               RetryBudget, Upstream],
)  # fmt: skip
def test_hot_classes_are_native_where_lb_is_compiled(native: type) -> None:
    """A class that mypyc made native has no dictionary of its own, and methods that are no Python functions."""
    methods = [value for name, value in vars(native).items() if callable(value) and not name.startswith("__")]
    python = [method for method in methods if hasattr(method, "__code__")]
    assert bool(python) == (build_form.form() == "pure") or not methods


def test_a_checkout_is_interpreted_unless_it_says_otherwise() -> None:
    wanted = os.environ.get("LB_EXPECT_FORM", build_form.form())
    assert build_form.form() == wanted
    done = subprocess.run([sys.executable, "-m", "lb", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.endswith(f", {wanted}\n")


def test_only_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "lb"\nversion = "1"\n')
    monkeypatch.delenv("LB_COMPILE", raising=False)
    assert not set(REQUIREMENTS) & set(backend.get_requires_for_build_wheel())
    monkeypatch.setenv("LB_COMPILE", "1")
    assert set(REQUIREMENTS) <= set(backend.get_requires_for_build_wheel())


def test_an_editable_installation_is_a_path_and_no_import_hook(tmp_path: Path) -> None:
    (tmp_path / "lb").mkdir()
    (tmp_path / "lb" / "__init__.py").touch()
    for name in ("build_backend", "setup.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "backend"\nbackend-path = ["build_backend"]\n'
        '[project]\nname = "lb"\nversion = "1"\n[tool.setuptools]\npackages = ["lb"]\n'
    )
    code = "import sys; sys.path.insert(0, 'build_backend'); import backend; print(backend.build_editable('.'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(tmp_path / done.stdout.splitlines()[-1]) as wheel:
        files = {name: wheel.read(name).decode() for name in wheel.namelist() if "dist-info" not in name}
    assert list(files.values()) == [f"{tmp_path}\n"] and next(iter(files)).endswith(".pth")


@pytest.mark.parametrize(
    ("arguments", "prefix", "optimised"),
    [
        ("'--enable-shared'", "/root/.pyenv/versions/3.11.7", False),
        ("'--enable-optimizations' '--with-lto'", "/usr/local", True),
        ("'--enable-shared' '--with-system-expat'", "/usr", True),
        ("", "/opt/python", False),
    ],
)
def test_a_python_without_optimisation_is_known(
    arguments: str, prefix: str, optimised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "base_prefix", prefix)
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: arguments)
    assert build_form.is_optimised() is optimised
