"""Only what pyproject.toml cannot say: with LB_COMPILE=1 the hot modules are compiled."""

import os
import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent))

# setuptools runs this to ask for requirements and metadata as well, before there is a compiler.
builds = {"bdist_wheel", "build", "build_ext"} & set(sys.argv)
if builds and os.environ.get("LB_COMPILE") == "1":
    from build_backend.native import extensions
    from build_backend.side_by_side import BuildExtensions

    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExtensions})
else:
    setup()
