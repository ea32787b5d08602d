"""The hot modules, which mypyc can compile from the same source: what a request passes, and nothing else.

Left out, each for a reason:

- modules whose classes msgspec or pydantic read at run time (`core.targets`, `core.report`), which native classes are
  not made for;
- what runs for a configuration or a report, and not for a request (`proxy.plane`, `proxy.connect`, the supervisor);
- the rest of `net.tls`: what makes contexts and looks certificates up, once for each of them;
- `proxy.log_writer`: a thread that only waits and writes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

#: Folders all of whose modules are compiled.
FOLDERS = ("lb/http", "lb/http/h1", "lb/http/h2", "lb/core/balance", "lb/proxy/h1", "lb/proxy/h2", "lb/proxy/steps")
#: Folder → its modules that are compiled.
MODULES = {
    "lb/core": (
        "grpc keepalive limiter linear_pattern matching networks path_rewrite paths patterns rate_limit retry "
        "rewriting routing shares visibility"
    ),
    "lb/net/tls": "admission client_hello selection session transport",
    "lb/proxy": (
        "access_log asked auth_call client_stream compressing connectionless_stream context crash_counters deadlines "
        "exchange front grpc_web hold in_flight_table lane limit_key limit_memory mirror observers pace private "
        "rate_table read_deferral request_values route_fragment sending services stats target_stream tcp tunnel "
        "wrapped_stream"
    ),
}
#: What compiling needs: mypy, and msgspec, whose types the sources name.
REQUIREMENTS = ("mypy>=2.4,<3", "msgspec>=0.19,<1")


def sources(root: Path = ROOT) -> list[str]:
    """The files that are compiled, relative to the root."""
    found = [str(path.relative_to(root)) for folder in FOLDERS for path in sorted((root / folder).glob("*.py"))]
    return [*found, *(f"{folder}/{name}.py" for folder, names in MODULES.items() for name in names.split())]


def extensions() -> list[Any]:
    """The extension modules for setuptools: one library, and a shim for each module. The working directory is the
    root of the sources.

    Each module has a C file of its own: in one file of half a million lines the compiler takes twice the time, and only
    one processor.
    """
    from mypyc.build import mypycify

    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    options = ["--strict", "--config-file=", "--ignore-missing-imports", f"--python-version={python}"]
    target = os.environ.get("LB_COMPILE_DIR", "build/mypyc")
    return list(
        mypycify(
            [*options, *sources(Path.cwd())],
            opt_level="2",
            debug_level="0",
            target_dir=target,
            group_name="lb",
            multi_file=True,
        )
    )
