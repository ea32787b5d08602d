"""The command's table of contents: in step with the commands, lazy, and readable in 80 columns."""

import importlib
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from lb.cli.main import COMMANDS, group

NAMES = [name for commands in COMMANDS.values() for name in commands]


def command(name: str) -> click.Command:
    found = group.get_command(click.Context(group), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_summary_is_the_command_s_own(name: str) -> None:
    place, summary = next(commands[name] for commands in COMMANDS.values() if name in commands)
    module, _, attribute = place.partition(":")
    assert getattr(importlib.import_module(module), attribute) is command(name)
    own = (command(name).help or "").split("\n\n")[0].replace("\n", " ").strip()
    # The table says the same in one line; the command may say more.
    assert own.startswith(summary.rstrip(".").split(";")[0].split(",")[0].split(":")[0]), (own, summary)


@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_fits_80_columns_and_has_examples(name: str) -> None:
    done = CliRunner().invoke(group, [*([name] if name else []), "--help"], prog_name="lb")
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 80, done.output
    assert "Example" in done.output


def test_help_is_lazy() -> None:
    code = (
        "import sys\nfrom lb.cli.main import group\n"
        "try:\n    group(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'pydantic', 'aiohttp', 'yaml', 'asyncio', 'http.client', 'uvloop'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr


def test_wrong_usage_ends_with_2() -> None:
    for words in (["stats"], ["--nonsense"], ["switch"], ["weight", "x"], ["run", "--workers", "0"]):
        assert CliRunner().invoke(group, words, prog_name="lb").exit_code == 2, words


def test_a_mistyped_command_gets_a_suggestion() -> None:
    done = CliRunner().invoke(group, ["stats"], prog_name="lb")
    assert "Did you mean `lb status`?" in done.output
    done = CliRunner().invoke(group, ["frobnicate"], prog_name="lb")
    assert "`lb --help` lists them" in done.output


def test_help_is_a_command_as_well() -> None:
    for words in (["help"], ["help", "switch"], ["help", "import", "marathon"]):
        done = CliRunner().invoke(group, words, prog_name="lb")
        assert done.exit_code == 0
        assert done.output == CliRunner().invoke(group, [*words[1:], "--help"], prog_name="lb").output


def test_the_version() -> None:
    from lb import __version__

    done = CliRunner().invoke(group, ["--version"], prog_name="lb")
    assert done.output.startswith(f"lb {__version__}, Python 3.")
