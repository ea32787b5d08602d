"""The settings of a text for forms: all of them in the long form, and each of them changed where it really stands.

A form knows `services.greeting.readiness.path`. The file may say `readiness: /health`, or `backends: […]` and no
service at all. `settings` shows the long form of the text, also of files that are not valid. Shorthands are written
out, aliases and merges followed, references to the environment left as they are. `change` takes a path of that long
form: where a shorthand has no room for the setting, it is written out first.
"""

from __future__ import annotations

from typing import Any

from lb.config.edit.in_place import REMOVE, Path, edit
from lb.config.edit.yaml_cst import Part, Unwritable, outline
from lb.config.model.config import DEFAULT, SHORT, lengthen, origin
from lb.config.yaml.environment import unveil

#: Values that aliases may expand to.
MAX_VALUES = 200_000

#: Sections that mean the same when they are empty as when they are left out.
_PRUNED = frozenset((
    "admin", "balance", "bake", "breaker", "damping", "expect", "headers", "limits", "log", "outlier", "readiness",
    "retries", "rollout", "slow_start", "sticky", "timeouts", "worker_limits",
))  # fmt: skip
#: Settings that the short form has room for.
_ROOM: tuple[Path, ...] = (
    ("services", DEFAULT, "pools", DEFAULT, "targets"),
    *(("services", DEFAULT, key) for key in SHORT[1:]),
)
#: The meaning of a text, by the key that it belongs to.
_SHORTHANDS = {
    "access_log": "format",
    "bake": "time",
    "balance": "policy",
    "canary": "url",
    "expect": "status",
    "slow_start": "window",
}
#: The meaning of a text in a list.
_ITEMS = {"targets": "url", "backends": "url", "listeners": "bind", "certificates": "authority"}


def settings(text: str) -> dict[str, Any]:
    """The text's settings, in the long form. Scalars are the texts that are written; nothing is checked.

    Raises `Unwritable` when the text is not YAML, or not a mapping."""
    root = outline(text)
    if root is None or root.null:
        return {}
    written = _Values(root).of(root)
    if not isinstance(written, dict):
        raise Unwritable("the file is not a mapping")
    document = lengthen(written)
    return {key: _long(key, value) for key, value in document.items()}


def is_short(text: str) -> bool:
    """Whether it is the short form: `backends`, and no services."""
    root = outline(text)
    keys = {key.text for key, _ in root.entries} if root is not None else set()
    return "backends" in keys and "services" not in keys


def change(text: str, path: Path, value: Any) -> str:
    """`text` with a setting of the long form changed, or with `REMOVE` set back to its default.

    A file of the short form that has no room for it is written out as a service. Raises `Unwritable`."""
    if is_short(text) and path[0] == "services":
        if not any(path[: len(room)] == room for room in _ROOM):
            text = write_out(text)
        else:
            path = origin(path)
            if path == ("backends",) and value is REMOVE:
                raise Unwritable("without its targets nothing would be left")
    root = outline(text)
    if root is None or root.null:
        return text if value is REMOVE else edit(text, path, value)
    written = _Values(root).of(root)
    path, expanded = _placed(written, path)
    for where, long in expanded:
        if value is REMOVE and not _has(long, path[len(where) :]):
            return text
        text = edit(text, where, long)
        written = _values_of(text)
    if value is REMOVE:
        path = _pruned(written, path)
    return edit(text, path, value)


def write_out(text: str) -> str:
    """The short form as one service, `default`: for settings that it has no room for."""
    if not is_short(text):
        return text
    root = outline(text)
    assert root is not None
    typed = _Values(root, typed=True)
    said = {key.text: typed.of(value) for key, value in root.entries}
    service = lengthen(said)["services"][DEFAULT]
    text = edit(text, ("services", DEFAULT), service)
    for key in SHORT:
        text = edit(text, (key,), REMOVE)
    return text


# --- the long form ---------------------------------------------------------------------------------------------------


def _long(key: str, value: Any) -> Any:
    """A value below `key`, without shorthands."""
    value = _expanded(key, value)
    if isinstance(value, dict):
        if key == "pools":
            return {name: _long_pool(pool) for name, pool in value.items()}
        return {name: _long(name, one) for name, one in value.items()}
    if isinstance(value, list) and key in _ITEMS:
        return [_long("", {_ITEMS[key]: one} if isinstance(one, str) else one) for one in value]
    return value


def _long_pool(pool: Any) -> Any:
    pool = {"targets": pool} if isinstance(pool, list) else pool
    return _long("", pool)


def _expanded(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if key in ("readiness", "liveness"):
        return {"path": value} if value.startswith("/") else {"protocol": value}
    return {_SHORTHANDS[key]: value} if key in _SHORTHANDS else value


def _placed(written: Any, path: Path) -> tuple[Path, list[tuple[Path, Any]]]:
    """Where a path of the long form leads in what is written, and what must be written out on the way."""
    real: list[str | int] = []
    node, key = written, ""
    listed = False  # in a list that stands for its pool
    for at, step in enumerate(path):
        last = at == len(path) - 1
        if isinstance(node, list) and len(real) > 1 and real[-2] == "pools" and not listed:
            if step == "targets":
                if last:  # the list stands for its pool: it is replaced in its place
                    return tuple(real), []
                key, listed = "targets", True
                continue
            where = tuple(real)
            return (*where, *path[at:]), [(where, {"targets": _retyped(node)})]
        if isinstance(node, str):
            item = _ITEMS.get(key, "") if real and isinstance(real[-1], int) else ""
            long = {item: node} if item else _expanded(key, node)
            if long == node:
                return (*real, *path[at:]), []  # a text where none can be; to change it will be refused
            where = tuple(real)
            if list(long) == [step] and last:
                return where, []  # the shorthand itself is replaced
            return (*where, *path[at:]), [(where, long)]
        real.append(step)
        if isinstance(node, dict) and isinstance(step, str):
            node = node.get(step)
        elif isinstance(node, list) and isinstance(step, int) and step < len(node):
            node = node[step]
        else:
            node = None
        key = step if isinstance(step, str) else key
        if node is None:
            return (*real, *path[at + 1 :]), []
    return tuple(real), []


def _pruned(written: Any, path: Path) -> Path:
    """The path of what would be empty without the value: an empty section says nothing."""
    while len(path) > 1:
        above = _at(written, path[:-1])
        if path[-2] in _PRUNED and isinstance(above, dict) and list(above) == [path[-1]]:
            path = path[:-1]
        else:
            break
    return path


def _at(value: Any, path: Path) -> Any:
    for step in path:
        if isinstance(value, dict):
            value = value.get(str(step))
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def _has(value: Any, path: Path) -> bool:
    return not path or (isinstance(value, dict) and path[0] in value)


def _retyped(value: Any) -> Any:
    """Texts of numbers as numbers again, so that they are written without quotes."""
    if isinstance(value, dict):
        return {key: _retyped(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_retyped(one) for one in value]
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16 else value


# --- what is written -------------------------------------------------------------------------------------------------


def _values_of(text: str) -> Any:
    root = outline(text)
    return _Values(root).of(root) if root is not None else {}


class _Values:
    """The values of a text, with aliases and merges followed; scalars as they are written."""

    def __init__(self, root: Part, typed: bool = False) -> None:
        self._anchors = {part.anchor: part for part in root.below() if part.anchor is not None}
        self._left = MAX_VALUES
        self._typed = typed
        self._inside: list[str] = []

    def of(self, part: Part) -> Any:
        self._left -= 1
        if self._left < 0:
            raise Unwritable(f"the aliases expand to more than {MAX_VALUES} values")
        if part.kind == "alias":
            if part.text not in self._anchors or part.text in self._inside:
                raise Unwritable(f"*{part.text} names nothing that stands above it")
            self._inside.append(part.text)
            found = self.of(self._anchors[part.text])
            self._inside.pop()
            return found
        if part.kind == "list":
            return [self.of(item) for item in part.items]
        if part.kind == "mapping":
            return self._mapping(part)
        if part.null:
            return None
        return _retyped(unveil(part.text)) if self._typed and part.tag.endswith(":int") else unveil(part.text)

    def _mapping(self, part: Part) -> dict[str, Any]:
        found = {unveil(key.text): self.of(value) for key, value in part.entries if key.text != "<<"}
        for key, value in part.entries:
            if key.text == "<<":
                merged = self.of(value)
                for one in merged if isinstance(merged, list) else [merged]:
                    for name, brought in one.items() if isinstance(one, dict) else ():
                        found.setdefault(name, brought)
        return found
