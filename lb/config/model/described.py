"""The texts under the fields of a model. Each is the reference of its field, in pages, schemas and errors.

Pydantic can read them as well (`use_attribute_docstrings`). It would do so at each start, and search the sources once
for each class: half of what the models cost. Here they are read when something wants them.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from functools import cache

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Described(BaseModel):
    """The base of models whose fields have texts."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler(core_schema)
        properties = handler.resolve_ref_schema(made).get("properties", {})
        for name, text in descriptions(cls).items():
            properties.get(cls.model_fields[name].alias or name, {}).setdefault("description", text)
        return made


@cache
def descriptions(model: type[BaseModel]) -> Mapping[str, str]:
    """Field → its text. A base's text holds where a field has none of its own."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, Described) and base is not Described:
            found |= _texts_of(base.__module__).get(base.__name__, {})
    return {name: found[name] for name in model.model_fields if name in found}


@cache
def _texts_of(module: str) -> dict[str, dict[str, str]]:
    """Class → field → text, of all classes in the source of a module."""
    texts: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(node, ast.ClassDef):
            texts[node.name] = dict(_texts_under(node))
    return texts


def _texts_under(node: ast.ClassDef) -> list[tuple[str, str]]:
    return [
        (field.target.id, inspect.cleandoc(below.value.value))
        for field, below in zip(node.body, node.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    ]
