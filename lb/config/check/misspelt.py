"""Misspelt keys: each is reported, and then read as the key that was meant.

Without the second part a misspelt `services` would hide every error below it, though all errors are promised at once. A
key is read as another one on two conditions. That one is not given, and the value has the shape that the other one
takes.
"""

from __future__ import annotations

from lb.config.check import messages
from lb.config.model import structure
from lb.config.model.section import Section
from lb.config.yaml.problems import Problem
from lb.config.yaml.tree import Entry, Node, Path, Source

#: How alike two spellings are, from 0 to 1 (difflib's ratio), before one is read as the other.
ALIKE = 0.8


def mend(source: Source) -> list[Problem]:
    """Rename misspelt keys in the tree; returns an error for each, with its place in the file."""
    return _section(source, source.root, ())


def _section(source: Source, node: Node, path: Path) -> list[Problem]:
    """Mend `node`, which stands at `path` of the long form, and all below it."""
    found = structure.at(path)
    if found is None:
        return []
    kind, what = found
    problems: list[Problem] = []
    if node.entries is not None and kind == "section":
        problems += _keys(source, node, path, what)
    if node.entries is not None and kind in ("section", "mapping"):
        for key, entry in node.entries.items():
            problems += _section(source, entry.node, (*path, key))
    elif node.items is not None:
        list_path = (*path, "targets") if kind == "section" and "targets" in what.model_fields else path
        for index, item in enumerate(node.items):
            problems += _section(source, item, (*list_path, index))
    return problems


def _keys(source: Source, node: Node, path: Path, section: type[Section]) -> list[Problem]:
    assert node.entries is not None
    known = structure.keys(section)
    problems = []
    renamed: dict[str, Entry] = {}
    for key, entry in node.entries.items():
        meant = "" if key in known or key.startswith("x-") else messages.nearest(key.replace("-", "_"), known, ALIKE)
        if meant and meant not in node.entries and meant not in renamed and _fits(entry.node, (*path, meant)):
            hint = messages.unknown((*path, key), entry.node)
            dotted = messages.dotted((*path, key))
            problems.append(source.problem(entry.place, f"unknown key {key!r}", hint, dotted))
            renamed[meant] = entry
        else:
            renamed[key] = entry
    node.entries = renamed
    return problems


def _fits(node: Node, path: Path) -> bool:
    """Whether the value has the shape of what stands at `path`."""
    if path == ("backends",):
        return node.items is not None
    found = structure.at(path)
    if found is None:
        return False
    kind, what = found
    if kind == "list":
        return node.items is not None
    if kind in ("value", "choice"):
        return node.entries is None and node.items is None
    if kind == "section":
        return True  # a mapping, or the text or list that may stand for it
    if node.entries is None:
        return False
    inner_kind, inner = structure.inner(what)
    if inner_kind != "section":
        return True
    keys = set(structure.keys(inner))
    return any(keys.intersection(entry.node.entries or ()) for entry in node.entries.values())
