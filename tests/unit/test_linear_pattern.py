"""Patterns that are matched in one pass; Python's own `re` is the oracle."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.core.linear_pattern import MOST_STATES, BadLinearPattern, LinearPattern

ATOMS = st.sampled_from(["a", "b", "/", "[ab]", "[^a]", ".", r"\d", r"\.", "[a-c/]", "%"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{0,2}", "{1,}", "*?"])).map(
            lambda two: f"(?:{two[0]}){two[1]}"
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(PATTERNS, st.lists(st.text("abc/1.%", max_size=7), max_size=8))
def test_the_same_as_re(pattern: str, texts: list[str]) -> None:
    linear, oracle = LinearPattern(pattern), re.compile(pattern.encode())
    for text in texts:
        matches = linear.matches(text.encode())
        assert matches == bool(oracle.fullmatch(text.encode()))
        assert not matches or text.encode().startswith(linear.literal)


@pytest.mark.parametrize(
    ("pattern", "matched", "other"),
    [
        (r"/users/\d{1,3}", b"/users/123", b"/users/1234"),
        ("(?i)/Users", b"/uSERS", b"/user"),
        ("^/a$", b"/a", b"/a/"),
        ("/[]a-]", b"/-", b"/b"),
        (r"/\x41\{", b"/A{", b"/A"),
        ("/(?P<name>a|b)", b"/b", b"/c"),
        (r"[\w-]+", b"a_-1", b"a b"),
    ],
)
def test_syntax(pattern: str, matched: bytes, other: bytes) -> None:
    assert LinearPattern(pattern).matches(matched)
    assert not LinearPattern(pattern).matches(other)


@pytest.mark.parametrize(
    "pattern",
    [
        ".*a.{20}", "a" * 257, "(a|b", "a)", "[a", "a{3", "*a", "a**", r"(a)\1", "(?=a)", "(?<!a)b", r"\b", "a^b",
        "((a{50}){50}){50}", "ä", "[b-a]", "a{2,1}", r"\xZZ", "(" * 30 + ")" * 30,
    ],
)  # fmt: skip
def test_patterns_that_are_refused(pattern: str) -> None:
    with pytest.raises(BadLinearPattern):
        LinearPattern(pattern)


def test_a_pattern_that_others_try_for_years() -> None:
    """One step for each byte; the time limit of the test is what fails else."""
    assert not LinearPattern("(a+)+(a*)*b?").matches(b"a" * 100_000 + b"c")
    assert MOST_STATES <= 500


def test_what_lies_below_a_beginning() -> None:
    pattern = LinearPattern("/a(/.*)?")
    assert pattern.matches_all_below(b"/a/")
    assert not pattern.matches_all_below(b"/a")
    assert pattern.matches_some_below(b"/")
    assert not pattern.matches_some_below(b"/b")
