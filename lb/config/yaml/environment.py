"""`${NAME}` and `${NAME:-default}` in scalars. Pure: the environment is an argument.

They are replaced after YAML has found the scalars, so that no value can change the structure of the file. But inside
brackets and braces YAML would read the braces of `${NAME}` itself. So each reference is veiled before YAML sees the
text. Every character of it becomes one of the private-use area, which keeps lines and columns as they are, and back
afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Characters that a file must not hold itself, as they could not be told from a veiled reference.
HIDDEN = re.compile("[\ue000-\ue07f]")
_VEIL = {code: chr(0xE000 + code) for code in range(0x20, 0x7F)}
_UNVEIL = {0xE000 + code: chr(code) for code in range(0x20, 0x7F)}
_REFERENCE = re.compile(r"\$\$|\$\{[^}\n]*\}")
_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<broken>\$\{)")


@dataclass(slots=True)
class Substituted:
    """A scalar's text with its references replaced."""

    text: str
    replaced: bool = False  # there was at least one
    faults: list[tuple[str, str]] = field(default_factory=list)  # (what is wrong, what to do)


def veil(text: str) -> str:
    """The file's text with its references hidden from YAML."""
    return _REFERENCE.sub(lambda match: match[0].translate(_VEIL) if match[0] != "$$" else match[0], text)


def unveil(veiled: str) -> str:
    """The text that `veil` hid."""
    return veiled.translate(_UNVEIL)


def substitute(veiled: str, environ: Mapping[str, str]) -> Substituted:
    """The text of a scalar as YAML gave it, with `$$` and the references replaced."""
    text = unveil(veiled)
    done = Substituted(text)
    if "$" not in text:
        return done

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if match["broken"]:
            shown = text if len(text) <= 40 else f"{text[:39]}…"
            hint = "Write ${NAME} or ${NAME:-default}, or $$ for a dollar sign."
            done.faults.append((f"{shown!r} has a reference that cannot be read", hint))
            return ""
        done.replaced = True
        name, default = match["name"], match["default"]
        found = environ.get(name)
        if default is not None:
            return found or default  # as in a shell, `:-` covers the empty value too
        if found is None:
            hint = f"Set it, or give a default: ${{{name}:-…}}."
            done.faults.append((f"the environment variable {name} is not set", hint))
            return match[0]
        return found

    done.text = _VARIABLE.sub(value, text)
    return done
