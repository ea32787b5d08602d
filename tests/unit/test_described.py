"""The texts under the fields of a model."""

from __future__ import annotations

from pydantic import Field

from lb.config.model.described import Described, descriptions


class Base(Described):
    """A part that others refine."""

    kept: int = 0
    """Its own
    text."""
    refined: int = 0
    """The base's text."""


class Refined(Base):
    """One of the others."""

    refined: int = 1
    """The text that counts."""
    silent: int = 0
    other: int = Field(0, alias="elsewhere")
    """Written by another name."""


def test_a_text_holds_until_a_subclass_has_another_one() -> None:
    assert descriptions(Base) == {"kept": "Its own\ntext.", "refined": "The base's text."}
    assert descriptions(Refined) == {
        "kept": "Its own\ntext.",
        "refined": "The text that counts.",
        "other": "Written by another name.",
    }


def test_the_schema_has_them_also_when_the_model_was_used_before() -> None:
    Refined(refined=2)
    properties = Refined.model_json_schema()["properties"]
    assert {name: of.get("description") for name, of in properties.items()} == {
        "kept": "Its own\ntext.",
        "refined": "The text that counts.",
        "silent": None,
        "elsewhere": "Written by another name.",
    }
