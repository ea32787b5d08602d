"""The base of all parts of the model: unknown keys are errors, nothing is coerced, values are frozen.

The text under a field is its reference: `reference` makes the page from it and `schema` the editors' help.
"""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict

from lb.config.model.described import Described


class Section(Described):
    """A mapping of the file."""

    model_config = ConfigDict(extra="forbid", defer_build=True, strict=True, frozen=True)

    @classmethod
    def defaults(cls) -> Self:
        """The section that the file leaves out.

        Defaults are not validated: that would have pydantic build a validator for this section alone, at each start.
        The validator of `Config` has all sections in it.
        """
        return cls.model_construct()  # type: ignore[return-value]  # pydantic.mypy names this class
