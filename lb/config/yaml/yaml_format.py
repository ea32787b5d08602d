"""Plain values → YAML as a person would write it: without quotes where none are needed, short things in one line."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.resolver import Resolver

from lb.config.yaml.environment import veil

#: Longest line that a mapping or a list may make where it could have lines of its own.
FITS = 88
_RESOLVER: Any = Resolver()
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT = "tag:yaml.org,2002:str"


def scalar(value: Any, *, flow: bool, style: str | None = None) -> str:
    """One value; a text keeps the quotes that `style` names."""
    if not isinstance(value, str):
        return yaml.safe_dump(value).removesuffix("\n...\n").strip()
    if style not in ("'", '"') and _plain(value, flow):
        return value
    if style != '"' and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    return yaml.safe_dump(value, default_style='"', width=2**30, allow_unicode=True).strip()


def inline(value: Any) -> str:
    """In one line, with brackets."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key, flow=True)}: {inline(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return scalar(value, flow=True)


def lines(value: Any, indent: int, step: int) -> list[str]:
    """A mapping or list that is not empty, with indentation; the first line is not indented."""
    if isinstance(value, dict):
        entries = [entry(key, one, indent, step) for key, one in value.items()]
    else:
        entries = [item(one, indent, step) for one in value]
    found = [line for one in entries for line in one]
    return [found[0].lstrip(" "), *found[1:]]


def entry(key: str, value: Any, indent: int, step: int) -> list[str]:
    """`key: value` with its indentation."""
    begin = f"{' ' * indent}{scalar(key, flow=False)}:"
    if not _has_lines(value):
        return [f"{begin} {_short(value)}"]
    if isinstance(value, list) and _simple(value) and len(begin) + 1 + len(inline(value)) <= FITS:
        return [f"{begin} {inline(value)}"]
    below = lines(value, indent + step, step)
    return [begin, f"{' ' * (indent + step)}{below[0]}", *below[1:]]


def item(value: Any, indent: int, step: int) -> list[str]:
    """`- value` with its indentation."""
    begin = f"{' ' * indent}- "
    if not _has_lines(value):
        return [f"{begin}{_short(value)}"]
    if _simple(value) and len(begin) + len(inline(value)) <= FITS:
        return [f"{begin}{inline(value)}"]
    below = lines(value, indent + 2, step)
    return [f"{begin}{below[0]}", *below[1:]]


def _short(value: Any) -> str:
    return inline(value) if isinstance(value, dict | list) else scalar(value, flow=False)


def _has_lines(value: Any) -> bool:
    return isinstance(value, dict | list) and bool(value)


def _simple(value: Any) -> bool:
    """Whether nothing in it is nested more than once."""
    inner = value.values() if isinstance(value, dict) else value
    return not any(
        isinstance(deep, dict | list)
        for one in inner
        for deep in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
    )


def _plain(value: str, flow: bool) -> bool:
    """Whether YAML reads the bare characters as this very text, as a value and as a key."""
    if not value or not value.isprintable() or value != value.strip() or value == "<<":
        return False
    hidden = veil(value)
    if _RESOLVER.resolve(yaml.ScalarNode, hidden, (True, False)) != _TEXT:
        return False
    for text in (f"{{{hidden}: 1}}", f"[1, {hidden}]") if flow else (f"{hidden}: 1", f"k: {hidden}", f"- {hidden}"):
        try:
            found = [event for event in yaml.parse(text, Loader=_LOADER) if isinstance(event, yaml.ScalarEvent)]
        except yaml.YAMLError:
            return False
        if len(found) != (1 if text.startswith("- ") else 2) or not any(one.value == hidden for one in found):
            return False
    return True
