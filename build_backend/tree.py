"""`python -m build_backend.tree`: a copy of this checkout in build/compiled whose hot modules are compiled.

The checkout stays as it is, interpreted. Tests and benchmarks run on the compiled form from there:

    cd build/compiled && PYTHONPATH=$PWD ../../.venv/bin/python -m pytest tests/unit

Everything but `lb` is linked; `lb` is copied, as an extension module has to lie beside its source. What was compiled
stays as long as no source of `lb`, and neither Python nor mypy, has changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import version

from build_backend.native import ROOT

TREE = ROOT / "build" / "compiled"
#: What the tree does not show: it is made by tools, or is the tree.
HIDDEN = {"lb", "build", "dist", ".git", ".venv"}


def digest() -> str:
    """Of all that decides what the compiler makes."""
    total = hashlib.sha256(f"{sys.version} {version('mypy')}".encode())
    for path in sorted([*(ROOT / "lb").rglob("*.py"), *(ROOT / "build_backend").glob("*.py")]):
        total.update(f"{path.relative_to(ROOT)} ".encode() + path.read_bytes())
    return total.hexdigest()


def link() -> None:
    """Have the tree show the checkout."""
    for path in TREE.iterdir():
        if path.is_symlink():
            path.unlink()
    for path in ROOT.iterdir():
        if path.name not in HIDDEN and not path.name.endswith(".egg-info") and not (TREE / path.name).exists():
            (TREE / path.name).symlink_to(path)


def copy() -> None:
    """Bring `lb` up to date, without what was compiled before."""
    shutil.rmtree(TREE / "lb", ignore_errors=True)
    shutil.copytree(ROOT / "lb", TREE / "lb", ignore=shutil.ignore_patterns("__pycache__", "*.so"))


def main() -> int:
    TREE.mkdir(parents=True, exist_ok=True)
    stamp = TREE / ".digest"
    wanted = digest()
    link()
    if stamp.exists() and stamp.read_text() == wanted:
        print(f"{TREE.relative_to(ROOT)} is up to date")
        return 0
    stamp.unlink(missing_ok=True)
    copy()
    began = time.monotonic()
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--build-temp", "build/objects"]
    with (TREE / "build.log").open("w") as log:
        done = subprocess.run(
            command, cwd=TREE, env={**os.environ, "LB_COMPILE": "1"}, stdout=log, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        print((TREE / "build.log").read_text()[-5000:], file=sys.stderr)
        return 1
    stamp.write_text(wanted)
    print(f"{TREE.relative_to(ROOT)} was compiled in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
