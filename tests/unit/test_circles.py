"""Files of the data plane import each other one way, but for the one circle that docs/architecture.md names."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: A request waits in the queue of a pool, the queue holds requests, and a mirrored copy is a request.
CIRCLE = {"exchange", "services", "mirror"}


def imports(folder: Path) -> dict[str, set[str]]:
    """Each file of the folder, and those that it imports, also for types alone."""
    package = ".".join(folder.relative_to(ROOT).parts)
    modules = {
        ".".join(path.relative_to(folder).with_suffix("").parts): path
        for path in folder.rglob("*.py")
        if path.name != "__init__.py"
    }
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        asked = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                asked |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        found[name] = {other for other in modules if f"{package}.{other}" in asked} - {name}
    return found


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of more than one file."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for other in graph[todo.pop()] - seen:
                seen.add(other)
                todo.append(other)
        return seen

    reach = {name: reached(name) for name in graph}
    found = {frozenset(other for other in reach[name] if name in reach[other]) for name in graph}
    return [set(each) for each in found if len(each) > 1]


def test_the_data_plane_has_one_circle_of_files() -> None:
    assert circles(imports(ROOT / "lb" / "proxy")) == [CIRCLE]


def test_the_circle_is_named_where_it_is_justified() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert " · ".join(f"`{name}`" for name in sorted(CIRCLE)) in text
