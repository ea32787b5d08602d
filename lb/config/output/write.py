"""A `Config` → the text of a file that loads as the same configuration. Fields that were left out stay left out."""

from __future__ import annotations

from typing import Any

import yaml

from lb.config.model.config import Config
from lb.config.model.section import Section


def write(config: Config) -> str:
    return write_data(data_of(config))


def data_of(section: Section) -> Any:
    """Plain values in the spelling of the file: `2s`, `64KiB`, `20%`."""
    return section.model_dump(mode="json", exclude_unset=True, exclude_none=True)


def write_data(data: Any) -> str:
    """YAML of plain values, with dollar signs escaped."""
    return yaml.dump(
        _escaped(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=False
    )


class _Dumper(yaml.SafeDumper):
    """Lists of plain values in one line, and indented where they are not."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def represent_list_shortly(self, items: list[Any]) -> yaml.Node:
        plain = all(not isinstance(item, dict | list) for item in items)
        return self.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=plain)

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(list, _Dumper.represent_list_shortly)


def _escaped(data: Any) -> Any:
    if isinstance(data, dict):
        return {_escaped(key): _escaped(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_escaped(item) for item in data]
    return data.replace("$", "$$") if isinstance(data, str) else data
