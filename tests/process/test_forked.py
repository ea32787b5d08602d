"""Processes that the tests fork behave as started ones do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import fork_server
from tests.support.processes import alive

#: Says what it has, on a descriptor and on stderr, and ends.
PROGRAM = """
import json, os, sys
os.write({descriptor}, json.dumps([os.getcwd(), os.environ["COLOUR"], sys.orig_argv[1:4]]).encode())
print("said", file=sys.stderr, flush=True)
os._exit(3)
"""


def test_it_has_a_command_line_a_folder_an_environment_and_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exit code comes back as well. A module of the standard library, which runs a program, stands in for `lb`."""
    monkeypatch.setenv("COLOUR", "blue")
    reading, writing = os.pipe()
    with (tmp_path / "errors").open("wb") as errors:
        process = fork_server.start(
            "timeit", "-n1", "-r1", PROGRAM.format(descriptor=writing),
            cwd=tmp_path, stderr=errors.fileno(), inherits=(writing,),
        )  # fmt: skip
        os.close(writing)
    assert process.wait(20) == 3
    assert process.poll() == process.returncode == 3
    assert json.loads(os.read(reading, 4096)) == [str(tmp_path), "blue", ["-m", "timeit", "-n1"]]
    assert (tmp_path / "errors").read_text() == "said\n"
    os.close(reading)


def test_it_can_be_signalled_and_waited_for() -> None:
    process = fork_server.start("timeit", "-n1", "-r1", "import time; time.sleep(60)")
    assert process.poll() is None and alive(process.pid)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    process.kill()  # has no effect any more
    assert not alive(process.pid)
