"""The dashboard compares fields of answers, and takes no sentence apart: another wording would break it unseen."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

FOLDER = files("lb.control") / "dashboard"
SCRIPTS = sorted(file.name for file in FOLDER.iterdir() if file.name.endswith(".js"))
#: The patterns of each script; none is for a sentence of the API.
PATTERNS = {
    "actions.js": {r"/[\s,;%]+/", r"/^(\d+(\.\d+)?(ms|s|m|h|d))*$/"},  # an operator's entries
    "config.js": {
        r"/[.*+?^${}()|[\]\\]/g",  # a key, looked for in the YAML text
        *(r"/^W\//", r"/^\d+-/", r"/-?gzip$/"),  # an ETag
    },
    "docs.js": {r"/(`[^`]+`|\*\*[^*]+\*\*)/", r"/\n\n+/", r"/^\* /m", r"/\s+/"},  # markup; a filter
    "dom.js": {"/^on/"},  # an attribute's name
    "editor.js": {r"/^ *(?:- )?/", r"/:\s*$/"},  # a line of YAML
    "fields.js": {
        *(r"/\btls\b/", r"/\burl\b/", r"/\bgrpc\b/", r"/\b1xx\b/"),  # a key as a label
        *("/`([^`]*)`/", "/[.;] (?=[A-Z`(])/"),  # markup, and where a long description is folded
        *(r"/^[\d-]+$/", r"/[\s,]+/", r"/^\d{1,15}$/", r"/:\s*(.*)/s", r"/^\d+\.\d+$/"),  # an operator's entries
    },
    "filter.js": {r"/\s+/"},  # a filter
    "main.js": {r"/^[\w.:-]{8,64}$/", r"/\d/"},  # a filter
    "timeline.js": {r"/\s+/"},  # a filter
}
#: A regular expression where an expression may begin; it is on one line.
LITERAL = re.compile(r"(?:[(,=:!&|?\[{};]|return)\s*(/(?![/*\s])(?:[^/\\\n\[]|\\.|\[(?:[^\]\\]|\\.)*\])+/[a-z]*)")
SENTENCES = "text|detail|title|summary|predicate|reason|message|hint|told|analysis|trial|last_error"
TAKING_APART = "startsWith|endsWith|includes|indexOf|lastIndexOf|search|match|matchAll|split|replace|replaceAll|slice"
#: `editor.text` and `this.text` are YAML, or an input.
FAULT = re.compile(
    rf"(?<!editor)(?<!this)\??\.(?:{SENTENCES})\??\.(?:{TAKING_APART})\(" rf'|[!=]== "[^" ]* [^"]*"' r"|\.pattern\b"
)


def code(name: str) -> str:
    """A script without its comments."""
    text = re.sub(r"/\*\*.*?\*/", "", (FOLDER / name).read_text(), flags=re.DOTALL)
    return re.sub(r"(?m)(?:^|\s)// .*$", "", text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_patterns_are_not_for_sentences(name: str) -> None:
    assert set(LITERAL.findall(code(name))) == PATTERNS.get(name, set())
    assert code(name).count("RegExp(") == (name == "config.js")


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_sentence_is_taken_apart_or_compared(name: str) -> None:
    assert FAULT.findall(code(name)) == []


@pytest.mark.parametrize(
    "line",
    [
        "event.text.startsWith(`${event.subject} `)",
        'each.hint.split("\\n")[0]',
        'error.title === "The file was edited"',
        "found.summary?.slice(3)",
        "each.pattern",
    ],
)
def test_what_takes_a_sentence_apart_is_seen(line: str) -> None:
    assert FAULT.search(line)


def test_a_pattern_is_seen() -> None:
    assert LITERAL.findall(r'one.replace(/[\d.:[\]]+/g, "#")') == [r"/[\d.:[\]]+/g"]
