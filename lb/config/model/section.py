"""The base of all parts of the model: unknown keys are errors, nothing is coerced, values are frozen.

The text under a field is its reference: `reference` makes the page from it and `schema` the editors' help.
"""

from __future__ import annotations

from pydantic import ConfigDict

from lb.config.model.described import Described


class Section(Described):
    """A mapping of the file."""

    model_config = ConfigDict(extra="forbid", defer_build=True, strict=True, frozen=True)
