"""The build backend (PEP 517): setuptools' own, which needs a compiler's packages only where something is compiled."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

sys.path.insert(0, str(Path(__file__).parent.parent))  # for setup.py, which setuptools runs from here

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Put the checkout on Python's path. Setuptools' import hook, its default, costs each start of Python 12 ms."""
    settings = {"editable_mode": "compat", **(config_settings or {})}
    return build_meta.build_editable(wheel_directory, settings, metadata_directory)


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """What has to be installed to build a wheel."""
    from build_backend.native import REQUIREMENTS

    compiles = os.environ.get("LB_COMPILE") == "1"
    return [*build_meta.get_requires_for_build_wheel(config_settings), *(REQUIREMENTS if compiles else ())]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """The same for an editable installation, of which nothing is compiled: its sources are to change."""
    return build_meta.get_requires_for_build_editable(config_settings)
