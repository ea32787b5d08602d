"""The modules that a program imports before it serves, or answers: a start is mostly imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: What only commands that ask an admin port need.
CLIENT_SIDE = ("lb.cli.client", "lb.cli.plain_http", "http.client")
#: What a question to a plain admin port does without.
NEEDLESS = ("ssl", "http", "email", "shutil", "asyncio", "msgspec", "pydantic", "yaml", "aiohttp", "uvloop")
#: What only the admin port needs. The supervisor imports it in a thread, once its workers serve.
ADMIN_SIDE = ("aiohttp", "prometheus_client", "lb.control.models", "lb.control.api", "lb.supervisor.operations")


def imported(code: str) -> set[str]:
    """The modules that are imported when `code` has run in a Python of its own."""
    code += "\nimport sys\nprint('modules', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("module", ADMIN_SIDE)
def test_workers_do_not_wait_until_the_admin_side_is_imported(module: str, before_workers: set[str]) -> None:
    assert "lb.supervisor.workers" in before_workers
    assert module not in before_workers


@pytest.mark.parametrize("module", CLIENT_SIDE)
def test_a_start_brings_in_no_client_of_the_admin_port(module: str, before_workers: set[str]) -> None:
    assert module not in before_workers


def test_models_read_the_texts_of_their_fields_when_they_are_wanted() -> None:
    code = "import inspect; inspect.findsource = None; import lb.config.load, lb.control.models"
    assert "lb.control.models" in imported(code)


@pytest.mark.parametrize("command", ["status", "events", "explain", "switch", "target", "reload", "upgrade"])
def test_a_command_that_asks_an_admin_port_brings_in_little(command: str) -> None:
    assert not imported(f"import lb.cli.main, lb.cli.{command}") & set(NEEDLESS)


def test_a_file_is_read_by_the_validator_of_the_whole_alone() -> None:
    """Pydantic makes a validator for each model that is made by itself. A file has none such, defaults included."""
    code = """
from lb.config.load import load_text
from lb.config.model.config import Config
from lb.config.model.section import Section
from lb.config.resolve import resolve

resolve(load_text("backends: [127.0.0.1:5001]"), 0)
made, waiting = set(), [Section]
while waiting:
    section = waiting.pop()
    waiting += section.__subclasses__()
    made |= {section.__name__} if section.__pydantic_complete__ else set()
assert made == {"Config"}, made
"""
    assert "lb.config.resolve" in imported(code)


@pytest.fixture(scope="module")
def before_workers() -> set[str]:
    return imported("import lb.cli.run, lb.supervisor.main")
