"""The bases of all models of the admin API."""

from __future__ import annotations

from pydantic import ConfigDict

from lb.config.model.described import Described


class View(Described):
    """Something the API says."""

    model_config = ConfigDict(extra="forbid", defer_build=True, populate_by_name=True)


class Wanted(Described):
    """Something the API is told. Values are taken as they are: `"5"` is no number, and 1 is not `true`."""

    model_config = ConfigDict(extra="forbid", defer_build=True, strict=True)
