"""PyYAML's errors on a text that is not YAML, in words for people without its grammar."""

from __future__ import annotations

import re

import yaml

from lb.config.yaml.problems import Problem
from lb.config.yaml.tree import Place, Source

_SAID: list[tuple[str, str, str]] = [
    (
        "mapping values are not allowed",
        "a second `:` makes this line ambiguous",
        "Put the text in quotes if the colon belongs to it; check the indentation if it is a key.",
    ),
    (
        "did not find expected key",
        "this does not fit the mapping above it",
        "Check the indentation: keys of one mapping begin in the same column.",
    ),
    ("did not find expected ',' or ']'", "a list that began with `[` does not go on here", "Add a comma or the `]`."),
    (
        "did not find expected ',' or '}'",
        "a mapping that began with `{` does not go on here",
        "Add a comma or the `}`.",
    ),
    ("found unexpected end of stream", "a quoted text never ends", "Add the closing quote."),
    ("did not find expected '-' indicator", "this does not fit the list above it", "Begin the line with a dash."),
    ("did not find expected node content", "a value is missing here", "Write a value, or close the bracket."),
    ("could not find expected ':'", "a key without a colon", "Write `key: value`."),
]


def explain(source: Source, error: yaml.YAMLError) -> Problem:
    """The error with its place, what YAML stumbled over, and what to do."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = str(getattr(error, "problem", None) or "")
    if mark is None:
        position = getattr(error, "position", 0) or 0
        character = getattr(error, "character", "")
        code = character if isinstance(character, int) else 0
        message = f"the character U+{code:04X} is not allowed in YAML" if code else "this is not YAML"
        lines = source.lines
        for number, line in enumerate(lines, 1):
            if position <= len(line):
                return source.problem(Place(number, position + 1), message, "Remove it, or escape it in double quotes.")
            position -= len(line) + 1
        return source.problem(Place(1, 1), message)
    place = Place(mark.line + 1, mark.column + 1)
    quote = source.lines[mark.line] if mark.line < len(source.lines) else ""
    character = quote[mark.column : mark.column + 1]
    if character == "\t" or (quote[: mark.column].isspace() and "\t" in quote[: mark.column]):
        return source.problem(place, "a tab is used for indentation", "YAML indents with spaces.")
    if "cannot start any token" in said:
        hint = "Put the text in quotes."
        return source.problem(place, f"a plain text cannot begin with `{character}`", hint)
    for sign, message, hint in _SAID:
        if sign in said:
            context = getattr(error, "context_mark", None)
            if context is not None and context.line != mark.line:
                message = f"{message} (it began in line {context.line + 1})"
            if mark.line >= len(source.lines) and context is not None:  # the end of the file says little
                place = Place(context.line + 1, context.column + 1)
                message = message.partition(" (it began")[0]
            if re.search(r"//\[|[\s,\[]\[[0-9A-Fa-f]*:", quote):
                hint = "Put an address with brackets in quotes: 'http://[::1]:8080'."
            return source.problem(place, message, hint)
    return source.problem(place, f"this is not YAML: {said or error}")
