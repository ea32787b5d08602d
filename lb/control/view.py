"""The bases of all models of the admin API."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class View(BaseModel):
    """Something the API says."""

    model_config = ConfigDict(extra="forbid", defer_build=True, use_attribute_docstrings=True, populate_by_name=True)


class Wanted(BaseModel):
    """Something the API is told. Values are taken as they are: `"5"` is no number, and 1 is not `true`."""

    model_config = ConfigDict(extra="forbid", defer_build=True, use_attribute_docstrings=True, strict=True)
