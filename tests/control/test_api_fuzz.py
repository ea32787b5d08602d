"""schemathesis reads the API's own description and finds no request that is answered otherwise than it says.

It tries each operation's examples, the boundaries of every value and what violates them, methods that are not there,
missing and wrong tokens, and then values by chance. What replaces the configuration is tried on an lb of its own.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.stage import Lb, Stage, ask, eventually

TOKEN = "c2l4dGVlbiBieXRlcyBhdCBsZWFzdA"
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


def guarded(folder: Path, stage: Stage) -> Lb:
    """An lb with a token and two pools."""
    folder.joinpath("token").write_text(f"{TOKEN}\n")
    folder.joinpath("token").chmod(0o600)
    path = stage.config(
        {"blue": stage.pool("blue", 2), "green": stage.pool("green", 1)}, service="rollout: {bake: 0s, min_ready: 1}"
    )
    path.write_text(path.read_text().replace("admin: {bind", "admin: {token_file: token, bind"))
    lb = stage.start(path, 1, ready=False)

    def all_ready() -> bool:
        found = ask(f"{lb.admin}/api/v1/status", headers={"Authorization": f"Bearer {TOKEN}"}).json
        return all(pool["healthy"] == pool["requested"] for pool in found["services"][0]["pools"])

    eventually(all_ready, 40.0, "all targets are ready")
    return lb


def fuzz(lb: Lb, folder: Path, *options: str) -> str:
    """Everything schemathesis has to say about an lb; empty: nothing."""
    settings = folder / "schemathesis.toml"
    settings.write_text(SETTINGS)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings)),
            *("run", f"{lb.admin}/openapi.json", "--header", f"Authorization: Bearer {TOKEN}"),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", "2", "--seed", "1", "--warnings", "off"),
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
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    with Stage(folders[0]) as one, Stage(folders[1]) as other, ThreadPoolExecutor(2) as pool:
        most = [f"--exclude-operation-id={name}" for name in (*ALONE, *NEVER)]
        rest = [f"--include-operation-id={name}" for name in ALONE]
        found = pool.map(
            lambda what: fuzz(guarded(*what[:2]), what[0], *what[2]),
            [(folders[0], one, most), (folders[1], other, rest)],
        )
        assert "".join(found) == ""
