"""How the client commands write: columns, ages, numbers, and when they use colour."""

import io

import pytest

from lb.cli import terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_colour_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_colour_is_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminal.colours(Terminal())
    assert not terminal.colours(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not terminal.colours(Terminal())


def test_no_color_wins_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert terminal.colours(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal.colours(Terminal())


def test_a_state_is_a_word_with_and_without_colour() -> None:
    assert terminal.Ink(False).state("unready") == "✖ unready"
    painted = terminal.Ink(True).state("ready")
    assert painted.startswith("\x1b[") and painted.endswith("\x1b[0m") and "● ready" in painted
    assert terminal.plain_length(painted) == len("● ready")


def test_every_public_state_has_its_sign() -> None:
    from lb.core.lifecycle import STATES

    assert set(terminal.STATES) == set(STATES)


def test_columns_line_up_whatever_is_painted() -> None:
    ink = terminal.Ink(True)
    lines = terminal.columns([["a", ink("1", "red")], ["long", "22"]], "<>")
    assert [terminal.plain_length(line) for line in lines] == [8, 8]
    assert terminal.columns([], "<>") == []


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (200, "3m20s"),
        (900, "15m"),
        (3600, "1h00m"),
        (90000, "25h"),
        (9e6, "104d"),
    ],
)
def test_ages(seconds: float, told: str) -> None:
    assert terminal.age(seconds) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0s"), (0.0004, "0.4ms"), (0.012, "12ms"), (1.5, "1.5s"), (30, "30s"), (-1, "-"), (300, "5m00s")],
)
def test_spans(seconds: float, told: str) -> None:
    assert terminal.span(seconds) == told


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "0"),
        (0.4, "0.4"),
        (7, "7"),
        (999, "999"),
        (999.9, "1k"),
        (1234, "1.2k"),
        (35_400, "35k"),
        (4_100_000, "4.1M"),
    ],
)
def test_counts(number: float, told: str) -> None:
    assert terminal.count(number) == told


@pytest.mark.parametrize(("share", "told"), [(0, "0%"), (0.0002, "<.1%"), (0.003, "0.3%"), (0.12, "12%"), (1, "100%")])
def test_a_small_share_never_shows_as_none(share: float, told: str) -> None:
    assert terminal.percent(share) == told


def test_what_is_cut_says_so() -> None:
    assert terminal.shorten("abcdef", 4) == "abc…"
    assert terminal.shorten("abcd", 4) == "abcd"
