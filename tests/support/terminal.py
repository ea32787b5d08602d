"""A running `lb run --demo` and a terminal to type `lb` commands in, for the tests of the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.eventually import eventually

FILE = """
listeners: [127.0.0.1:0]
admin: {bind: 127.0.0.1:0}
services:
  greeting:
    pools:
      blue: [http://127.0.0.1:0, http://127.0.0.1:0]
      green: [http://127.0.0.1:0, http://127.0.0.1:0]
    active: blue
    readiness: {path: /health/readiness, interval: 100ms, timeout: 400ms, rise: 2, fall: 2}
    rollout: {bake: 0s, analysis: {min_requests: 10}}
access_log: off
state_dir: state
workers: 1
"""


def environment(**more: str) -> dict[str, str]:
    """What a reader's shell has, without what the tests' own has of lb."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LB_")}
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        kept.pop(name, None)
    return {**kept, "TERM": "xterm", **more}


def lb(*words: str, stdin: str = "", cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "lb", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(**env),
        cwd=cwd,
        check=False,
    )


class Running:
    """One `lb run FILE --demo`."""

    def __init__(self, directory: Path, text: str = FILE) -> None:
        self.file = directory / "backends.yaml"
        self.file.write_text(text)
        self.log = directory / "lb.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lb", "run", str(self.file), "--demo"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=True,
            )
        try:
            eventually(lambda: "Ctrl-C ends it all" in self.printed() or self.process.poll() is not None, 60.0)
        except AssertionError:
            self.stop()
            raise
        assert self.process.poll() is None, self.printed()
        self.admin = self.found(r"admin +(http://\S+)")
        self.url = self.found(r"lb serves (http://\S+)")
        self.blue = self.found(r"   blue +(.+)").split(", ")
        self.green = self.found(r"   green +(.+)").split(", ")

    def printed(self) -> str:
        return self.log.read_text()

    def found(self, pattern: str) -> str:
        match = re.search(pattern, self.printed())
        assert match, f"{pattern} in:\n{self.printed()}"
        return match[1]

    def lb(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return lb(*words, LB_ADMIN=self.admin, **more)

    def json(self, *words: str) -> Any:
        done = self.lb(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def states(self) -> dict[str, str]:
        """Address → state."""
        status = self.json("status")
        return {t["address"]: t["state"] for s in status["services"] for p in s["pools"] for t in p["targets"]}

    def post(self, address: str, path: str) -> Any:
        request = urllib.request.Request(f"http://{address}{path}", method="POST")
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read())

    def all_ready(self) -> None:
        eventually(lambda: set(self.states().values()) == {"ready"}, what=f"all ready: {self.states()}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
