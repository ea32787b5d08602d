"""What has to be so before anything of `lb` is imported: the same hashes and addresses in each run, and the clock."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings

_PREPARED = "LB_MODEL_PREPARED"
#: personality(2): addresses are not drawn at random, so that sets of objects have the same order in each run.
_ADDR_NO_RANDOMIZE = 0x0040000


def prepare() -> None:
    """Start this command again under the same conditions each time, then install the clock."""
    if os.environ.get(_PREPARED) != "1":
        os.environ.update({_PREPARED: "1", "PYTHONHASHSEED": "0"})
        ctypes.CDLL(None).personality(_ADDR_NO_RANDOMIZE)  # where that is refused, runs are only nearly the same
        os.execv(sys.executable, sys.orig_argv)
    warnings.simplefilter("ignore", ResourceWarning)
    from tests.model import clock

    clock.install()
