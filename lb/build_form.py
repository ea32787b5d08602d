"""Which form of lb runs, interpreted or compiled, and whether its Python was built with optimisation.

Both decide what a request costs, and nothing else (docs/operations.md has the price).
"""

from __future__ import annotations

import sys
import sysconfig
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from typing import Literal

Form = Literal["pure", "compiled"]

#: A module that is compiled where any is (`build_backend/native.py` lists them).
_HOT = "lb.proxy.exchange"


@cache
def form() -> Form:
    """`compiled` where the hot modules are extension modules, else `pure`."""
    spec = find_spec(_HOT)
    origin = (spec.origin if spec is not None else None) or ""
    return "compiled" if origin.endswith(tuple(EXTENSION_SUFFIXES)) else "pure"


def is_optimised() -> bool:
    """Whether this Python was built with profile-guided optimisation, as far as it says.

    `./configure` without --enable-optimizations is what pyenv and plain builds from source come to. Distributions
    optimise theirs by ways that leave no word in it, so that a Python in /usr is taken at their word.
    """
    if sys.base_prefix == "/usr":
        return True
    return "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
