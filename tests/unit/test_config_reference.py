"""docs/configuration.md and the JSON Schema follow from the model, and neither can fall behind it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lb.config.load import load_text
from lb.config.model.config import Config
from lb.config.model.described import descriptions
from lb.config.model.section import Section
from lb.config.model.structure import inner
from lb.config.output.reference import page
from lb.config.output.schema import schema
from lb.config.yaml.problems import ConfigError

jsonschema = pytest.importorskip("jsonschema")
REPO = Path(__file__).parents[2]


def all_sections(section: type[Section] = Config) -> set[type[Section]]:
    found = {section}
    for field in section.model_fields.values():
        kind, what = inner(field.annotation)
        while kind in ("list", "mapping"):
            kind, what = inner(what)
        if kind == "section" and what not in found:
            found |= all_sections(what)
    return found


def test_the_page_is_current() -> None:
    """`python -m lb.config.output.reference > docs/configuration.md` makes it so."""
    assert (REPO / "docs" / "configuration.md").read_text() == page()


def test_every_option_is_documented() -> None:
    text = page()
    for section in all_sections():
        assert section.__doc__, section
        texts = descriptions(section)
        for name in section.model_fields:
            assert texts[name].endswith((".", "?", ")")), (section, name)
            assert f"| `{name}` |" in text, (section, name)


def test_the_pages_files_are_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", page(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        load_text(block)


def test_links_of_the_page_lead_somewhere() -> None:
    anchors = {re.sub(r"[^a-z0-9_-]", "", title.lower()) for title in re.findall(r"^### `(.*)`$", page(), re.MULTILINE)}
    links = re.findall(r"\]\(#([^)]*)\)", page())
    assert links
    assert set(links) <= anchors


# --- schema ----------------------------------------------------------------------------------------------------------

SCHEMA = schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def accepted(text: str) -> bool:
    # As an editor sees it: YAML 1.2, in which `no` and 1:30 are texts and 010 is ten.
    return not list(VALIDATOR.iter_errors(yaml.load(text, Loader=_Core)))


class _Core(yaml.SafeLoader):
    """YAML 1.2's core schema."""


_Core.yaml_implicit_resolvers = {}
for tag, pattern, first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Core.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert "title" not in json.dumps(SCHEMA["$defs"])


def test_texts_with_a_unit_say_their_kind() -> None:
    """Forms show the units, and take no pattern apart."""
    kinds = {"2s": "duration", "64KiB": "size", "20%": "percent", "${NAME}": "reference"}
    seen = set()
    for section in SCHEMA["$defs"].values():
        for said in section.get("properties", {}).values():
            for option in said.get("anyOf", [said]):
                fits = {kind for text, kind in kinds.items() if re.search(option.get("pattern", "$^"), text)}
                if len(fits) == 1 and "pattern" in option:
                    assert option.get("x-kind") == min(fits), option
                    seen |= fits
    assert seen == set(kinds.values())


def files() -> list[str]:
    """The demo's, and every one that the tests of loading and resolving have."""
    here = Path(__file__).parent
    sources = "".join((here / f"test_config_{name}.py").read_text() for name in ("load", "resolve"))
    blocks = re.findall(r'"""\\\n(.*?)"""', sources, re.DOTALL)
    return [
        (REPO / "backends.yaml").read_text(),
        *(block.encode().decode("unicode_escape") for block in blocks if "services:" in block or "backends" in block),
    ]


@pytest.mark.parametrize("text", files())
def test_what_load_accepts_the_schema_accepts(text: str) -> None:
    try:
        load_text(text, "f.yaml", {"HOST": "h", "N": "1", "TRICK": "x"})
    except ConfigError:
        return  # one of the files that are wrong on purpose
    if "[http://$" in text:
        return  # plain YAML cannot read a reference inside brackets; lb can
    assert accepted(text), [error.message for error in VALIDATOR.iter_errors(yaml.load(text, Loader=_Core))]


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "backends: [127.0.0.1:1]\nservices: {}",
        "services: {a: {pools: {x: [h:1]}, readines: /x}}",
        "services: {a: {pools: {x: [h:1]}, readiness: {interval: 10}}}",
        "services: {a: {pools: {x: [h:1]}, readiness: {fall: 0}}}",
        "services: {a: {pools: {x: [h:1]}, balance: rond_robin}}",
        "services: {a: {pools: {x: []}}}",
        "services: {a: {}}",
        "services: {a: {pools: {x: [h:1]}}}\nworkers: many",
        "backends: [h:1]\nwatch: yes",
    ],
)
def test_the_schema_refuses_what_an_editor_should_mark(text: str) -> None:
    assert not accepted(text)
    with pytest.raises(ConfigError):
        load_text(text)


def test_defaults_are_written_as_in_the_file() -> None:
    readiness: dict[str, Any] = SCHEMA["$defs"]["Readiness"]["properties"]
    assert (readiness["interval"]["default"], readiness["jitter"]["default"]) == ("2s", "10%")
    assert readiness["max_body"]["default"] == "64KiB"
    assert SCHEMA["$defs"]["Rollout"]["properties"]["min_ready"]["default"] == "100%"
