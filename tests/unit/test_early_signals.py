"""Which command lines are `lb run`, before anything knows how to read one."""

from __future__ import annotations

import pytest

from lb.early_signals import command_of


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("", ""),
        ("run", "run"),
        ("run backends.yaml --workers 2", "run"),
        ("--admin http://a:1 run", "run"),
        ("--admin=http://a:1 --token-file t run", "run"),
        ("--admin run status", "status"),
        ("events run", "events"),
        ("--version", ""),
        ("help run", "help"),
    ],
)
def test_the_command_is_the_first_word_that_belongs_to_no_option(words: str, command: str) -> None:
    assert command_of(words.split()) == command
