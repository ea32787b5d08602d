"""Descriptors of a process: what its children get of them."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import os, subprocess, sys
from lb.process.descriptors import keep_from_children
keep_from_children()
child = "import os, sys; sys.exit(os.path.exists('/proc/self/fd/' + sys.argv[1]))"
sys.exit(subprocess.call([sys.executable, "-c", child, sys.argv[1]], close_fds=False))
"""


def test_children_get_no_descriptor_that_the_caller_has_left() -> None:
    mine, other = os.pipe()
    os.set_inheritable(other, True)
    fd = 77  # children open lower ones themselves
    os.dup2(other, fd, inheritable=True)
    try:
        assert subprocess.call([sys.executable, "-c", PROGRAM, str(fd)], pass_fds=(fd,), timeout=60) == 0
    finally:
        for each in (mine, other, fd):
            os.close(each)
