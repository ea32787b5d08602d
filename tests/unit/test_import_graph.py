"""Files inside a folder import one another without circles, but for the one that docs/architecture.md names.

Imports for type checkers count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Folders that have no circle, and are to stay so.
LAYERED = ("worker", "supervisor", "control", "config", "health", "issuing")
#: A request waits in the queue of a pool, the queue holds requests, and a mirrored copy is a request.
CIRCLE = ["exchange", "mirror", "services"]


def imports(path: Path, module: str, known: set[str]) -> Iterator[str]:
    """The modules among `known` that a file imports, at its top or later."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")[: -node.level]
                base = ".".join([*parts, *filter(None, [node.module])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield from {name if name in known else base} & known


def graph(folder: Path) -> dict[str, set[str]]:
    """Module → the modules of the same folder, and the folders below it, that it imports."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in folder.rglob("*.py")}
    known = {module for module in modules if not module.endswith("__init__")}
    return {module: set(imports(path, module, known)) - {module} for module, path in modules.items() if module in known}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules in which each reaches each other one."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            for name in edges[waiting.pop()] - found:
                found.add(name)
                waiting.append(name)
        return found

    reach = {module: reached(module) for module in edges}
    groups = {frozenset(other for other in reach[m] if m in reach[other]) for m in edges if m in reach[m]}
    return sorted(sorted(group) for group in groups)


@pytest.mark.parametrize("folder", LAYERED)
def test_files_of_a_folder_import_one_another_without_a_circle(folder: str) -> None:
    assert circles(graph(ROOT / "lb" / folder)) == []


def test_the_data_plane_has_one_circle_of_files() -> None:
    assert circles(graph(ROOT / "lb" / "proxy")) == [[f"lb.proxy.{name}" for name in CIRCLE]]


def test_the_circle_is_named_where_it_is_justified() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert " · ".join(f"`{name}`" for name in CIRCLE) in text


def test_a_circle_for_type_checkers_alone_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    folder = tmp_path / "lb" / "room"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("from lb.room.b import B\n")
    (folder / "b.py").write_text("if TYPE_CHECKING:\n    from lb.room import a\n")
    (folder / "c.py").write_text("def late():\n    import lb.room.a\n")
    assert circles(graph(folder)) == [["lb.room.a", "lb.room.b"]]
