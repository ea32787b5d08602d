"""The JSON Schema of the file, for editors: completion, the reference under the cursor, red lines while typing.

Made from the model. It accepts every file that `load` accepts, so it is looser where JSON Schema cannot follow. Any
value may be a text with a `${…}` in it, and names are not looked up.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lb.config.model.config import SHORT, Config
from lb.config.model.described import descriptions
from lb.config.model.section import Section
from lb.config.model.services import Pool, Service

TITLE = "lb configuration"
_REFERENCE = {
    "type": "string",
    "pattern": r"\$\{",
    "x-kind": "reference",
    "description": "A value with a reference to the environment.",
}
_SCALARS = ("string", "integer", "number", "boolean")


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12."""
    made = Config.model_json_schema(mode="validation")
    document: dict[str, Any] = _tidied(made, {"Config": Config, **_sections(Config)})
    definitions = document.pop("$defs")
    properties = document["properties"]
    targets = definitions["Pool"]["properties"]["targets"]
    short = descriptions(Pool)["targets"]
    properties["backends"] = {**targets, "description": f"The short form: the targets of one service. {short}"}
    for key in SHORT[1:]:
        properties[key] = {
            **definitions["Service"]["properties"][key],
            "description": f"Beside `backends`: {descriptions(Service)[key]}",
        }
    document.pop("required", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE,
        **document,
        "properties": dict(sorted(properties.items(), key=lambda item: item[0] != "backends")),
        "patternProperties": {"^x-": {"description": "Holds anchors; not read."}},
        "oneOf": [
            {"required": ["services"], "not": {"anyOf": [{"required": [key]} for key in SHORT]}},
            {"required": ["backends"]},
        ],
        "$defs": definitions,
    }


def default_of(field: FieldInfo) -> Any:
    """A field's default in the spelling of the file; `PydanticUndefined` when it has none."""
    value = field.get_default(call_default_factory=True) if not field.is_required() else PydanticUndefined
    if value is PydanticUndefined or value is None or isinstance(value, Section):
        return PydanticUndefined if value is None or isinstance(value, Section) else value
    annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return TypeAdapter(annotation).dump_python(value, mode="json", exclude_unset=True)


def _sections(section: type[Section]) -> dict[str, type[Section]]:
    """All sections below, by name."""
    from lb.config.model.structure import inner

    found: dict[str, type[Section]] = {}
    waiting = [section]
    while waiting:
        for field in waiting.pop().model_fields.values():
            kind, what = inner(field.annotation)
            while kind in ("list", "mapping"):
                kind, what = inner(what)
            if kind == "section" and what.__name__ not in found:
                found[what.__name__] = what
                waiting.append(what)
    return found


def _tidied(made: dict[str, Any], sections: dict[str, type[Section]]) -> dict[str, Any]:
    """Without pydantic's titles and nulls, with defaults as they are written, and with `${…}` allowed everywhere."""
    for name, section in sections.items():
        of = made if section is Config else made["$defs"][name]
        for key, field in section.model_fields.items():
            of["properties"][key].pop("default", None)
            default = default_of(field)
            if default is not PydanticUndefined and default not in ("", [], {}):
                of["properties"][key]["default"] = default
    tidied = _walk(made)
    assert isinstance(tidied, dict)
    return tidied


def _walk(node: Any) -> Any:
    if isinstance(node, list):
        return [_walk(one) for one in node]
    if not isinstance(node, dict):
        return node
    found = {key: _walk(value) for key, value in node.items() if key not in ("title", "default", "properties", "$defs")}
    for named in ("properties", "$defs"):
        if named in node:
            found[named] = {key: _walk(value) for key, value in node[named].items()}
    if "default" in node:
        found["default"] = node["default"]
    if "description" in found:
        found["description"] = " ".join(str(found["description"]).split())
    if "anyOf" in found:
        found["anyOf"] = _flat([one for one in found["anyOf"] if one != {"type": "null"}])
        if len(found["anyOf"]) == 1:
            (only,) = found.pop("anyOf")
            found = {**only, **found}
    if found.get("type") in _SCALARS and (found["type"] != "string" or {"pattern", "enum", "const"} & found.keys()):
        outer = {key: found.pop(key) for key in ("description", "default", "examples") if key in found}
        return {**outer, "anyOf": [found, _REFERENCE]} if found != _REFERENCE else _REFERENCE
    return found


def _flat(options: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Nested choices as one list, without repetitions."""
    flat: list[dict[str, Any]] = []
    for option in options:
        for one in option["anyOf"] if set(option) == {"anyOf"} else [option]:
            if one not in flat:
                flat.append(one)
    return flat
