"""schemathesis reads the API's own description and finds no request that is answered otherwise than it says.

It tries each operation's examples, the boundaries of every value and what violates them, methods that are not there,
missing and wrong tokens, and then values by chance. What replaces the configuration is tried on an lb of its own.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.control.conftest import TOKEN, Api, start

#: Operations that end what the others need.
ALONE = ("replaceConfig", "reload")
NEVER = ("upgrade",)

#: What is right by HTTP, and unknown to schemathesis: a condition that does not hold (412), or is needed (428).
SETTINGS = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "412", "422"]
[checks.missing_required_header]
expected-statuses = ["400", "428"]
"""


def fuzz(api: Api, folder: Path, *options: str) -> str:
    """Everything schemathesis has to say about an lb; empty: nothing."""
    settings = folder / "schemathesis.toml"
    settings.write_text(SETTINGS)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings)),
            *("run", f"{api.lb.admin}/openapi.json", "--header", f"Authorization: Bearer {TOKEN}"),
            *(
                "--checks",
                "all",
                "--phases",
                "examples,coverage,fuzzing",
                "--max-examples",
                "2",
                "--seed",
                "1",
                "--warnings",
                "off",
            ),
            *("--continue-on-failure", "--no-color", "--generation-database", "none", *options),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    most = [f"--exclude-operation-id={name}" for name in (*ALONE, *NEVER)]
    rest = [f"--include-operation-id={name}" for name in ALONE]

    def one(name: str, options: list[str]) -> str:
        folder = tmp_path / name
        folder.mkdir()
        with ExitStack() as stack:
            return fuzz(start(folder, stack, TOKEN), folder, *options)

    with ThreadPoolExecutor(2) as pool:
        assert "".join(pool.map(one, ("most", "rest"), (most, rest))) == ""
