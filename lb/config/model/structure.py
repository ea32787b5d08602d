"""The allowed sections by their path in the file, for errors, reference and schema."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from lb.config.model.config import SHORT, Config
from lb.config.model.section import Section


def inner(annotation: Any) -> tuple[str, Any]:
    """("section", class) · ("list", item) · ("mapping", value) · ("choice", values) · ("value", type)."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return inner(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return inner(next(part for part in get_args(annotation) if part is not type(None)))
    if origin is list:
        return "list", get_args(annotation)[0]
    if origin is dict:
        return "mapping", get_args(annotation)[1]
    if origin is Literal:
        return "choice", get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section", annotation
    return "value", annotation


def at(path: tuple[str | int, ...]) -> tuple[str, Any] | None:
    """The section at a path of the long form; None: nothing may."""
    kind: str = "section"
    what: Any = Config
    for step in path:
        if kind == "section":
            field = what.model_fields.get(str(step))
            if field is None:
                return None
            kind, what = inner(field.annotation)
        elif kind in ("list", "mapping"):
            kind, what = inner(what)
        else:
            return None
    return kind, what


def keys(section: type[Section]) -> list[str]:
    """Keys that the section may have."""
    own = list(section.model_fields)
    return [*own, *SHORT] if section is Config else own


def deeper(section: type[Section], key: str) -> str:
    """A path below the section where `key` would be right; empty: none."""
    for name, field in section.model_fields.items():
        kind, what = inner(field.annotation)
        if kind == "section" and key in what.model_fields:
            return f"{name}.{key}"
    return ""
