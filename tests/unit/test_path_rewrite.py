"""Paths rewritten by regular expressions with groups; Python's own `re` is the oracle where the two mean the same."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.core.path_rewrite import BadRewrite, PathRewrite

#: Parts that `re` lays out as here: each is one set that is repeated, or a fixed text.
PARTS = st.sampled_from(
    ["a*", "[ab]*", "[ab]+", ".*", ".+", "b?", "a{1,3}", "a", "/", "ab", r"\d*", "[^/]*", "[^/]+", "b{0,2}"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(PARTS, st.booleans()), min_size=1, max_size=6), st.lists(st.text("ab/1", max_size=9)))
def test_groups_as_re_has_them(parts: list[tuple[str, bool]], texts: list[str]) -> None:
    # Repetitions side by side in one part are laid out as one, and by `re` each by itself: here each is a part.
    pattern = "/" + "".join(f"({part})?" if optional else f"({part})" for part, optional in parts)
    number = len(parts)
    rewrite = PathRewrite(pattern, "/" + "|".join(f"{{{at}}}" for at in range(1, number + 1)))
    oracle = re.compile(pattern.encode())
    for text in texts:
        path = b"/" + text.encode()
        match = oracle.fullmatch(path)
        made = rewrite.apply(path)
        assert (made is None) is (match is None)
        if match is not None:
            assert made == b"/" + b"|".join(match.groups(b""))


@pytest.mark.parametrize(
    ("pattern", "to", "path", "made"),
    [
        ("/users/([0-9]+)", "/u/{1}", b"/users/7", b"/u/7"),
        ("/users/([0-9]+)", "/u/{1}", b"/users/7/x", None),
        ("/(.*)/(.*)", "/{2}/{1}", b"/a/b/c", b"/c/a/b"),
        ("/([^/]*)(/.*)?", "/{1}/v2{2}", b"/a/b", b"/a/v2/b"),
        ("/([^/]*)(/.*)?", "/{1}/v2{2}", b"/a", b"/a/v2"),
        ("/.*", "/all{0}", b"/x/y", b"/all/x/y"),
        ("/.*", "/all", b"/x", b"/all"),
        ("/a", "/{{1}}", b"/a", b"/{1}"),
        (r"(/.*)\.html", "{1}", b"/a/b.html", b"/a/b"),
        ("/.*", "{0}/", b"/a", b"/a/"),
        ("(?i)/API/(.*)", "/{1}", b"/api/X", b"/X"),
        ("/(a|ab)(.*)", "/{1}-{2}", b"/abc", b"/ab-c"),
        ("/(?:a|b)+/((x)|y)", "/{1}", b"/ab/y", b"/y"),
        ("/(?P<name>a+)b", "/{1}{1}", b"/aab", b"/aaaa"),
        ("(/.*)", "/x{1}", b"/{1}", b"/x/{1}"),
        ("/()(a)", "/{1}{2}", b"/a", b"/a"),
        ("/a|/(b)", "/c", b"/b", b"/c"),
        ("/x(.*)", "/{1}", b"/x%2Fy%20", b"/%2Fy%20"),
    ],
)
def test_rewrites(pattern: str, to: str, path: bytes, made: bytes | None) -> None:
    assert PathRewrite(pattern, to).apply(path) == made


@pytest.mark.parametrize(
    ("pattern", "to", "key", "said"),
    [
        ("/a", "/{1}", "to", "there is no group 1: the pattern has none"),
        ("/(a)", "/{2}", "to", "there is no group 2: the pattern has 1"),
        ("/((a)b)", "/{2}", "to", "group 2 stands within another one"),
        ("/(a)*", "/{1}", "to", "group 1 stands within"),
        ("/(a)|/b", "/{1}", "to", "group 1 stands within"),
        ("/a", "a", "to", "does not begin with /"),
        ("/(a)", "{1}", "to", "does not begin with /"),
        ("(/a)?.*", "{1}", "to", "does not begin with /"),
        ("/a", "", "to", "does not begin with /"),
        ("/a", "/b?c", "to", "is no path"),
        ("/a", "/b c", "to", "is no path"),
        ("/a", "/ü", "to", "is no path"),
        ("/a", "/{host}", "to", "{host} is no group"),
        ("/a", "/{", "to", "a single {"),
        ("/(a)", "/" + "{1}" * 21, "to", "at most 20"),
        ("/(.*?)/b", "/{1}", "pattern", "lazy"),
        ("/" + "(a)" * 10, "/b", "pattern", "at most 9"),
        ("/(a", "/b", "pattern", "without a closing one"),
        (r"/(a)\1", "/b", "pattern", "not supported"),
        ("/.*a.{20}(.*)", "/b", "pattern", "too"),
    ],
)
def test_what_cannot_be_done(pattern: str, to: str, key: str, said: str) -> None:
    with pytest.raises(BadRewrite) as caught:
        PathRewrite(pattern, to)
    assert caught.value.key == key
    assert said in str(caught.value)


def test_no_path_makes_it_slow() -> None:
    rewrite = PathRewrite("/((?:a+)+)((?:a|aa)*)(.*)b(.*)", "/{4}{3}{2}{1}")
    times = []
    for size in (2000, 8000):
        path = b"/" + b"a" * size + b"b"
        begun = time.perf_counter()
        assert rewrite.apply(path) == b"/" + b"a" * size
        times.append(time.perf_counter() - begun)
        assert rewrite.apply(b"/" + b"a" * size) is None
    assert times[1] < 1.0
