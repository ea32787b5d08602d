"""Texts with variables: `{client_ip}` in a header or a redirect stands for the client's address.

A template is read once, with the file. For a request its parts are joined once. So a value that looks like a variable
is never expanded again. `{{` and `}}` are braces.
"""

from __future__ import annotations

import re
from typing import Final

from lb.core.native import mypyc_attr

CLIENT_IP: Final = 0
HOST: Final = 1
METHOD: Final = 2
PATH: Final = 3
QUERY: Final = 4
REQUEST_ID: Final = 5
SCHEME: Final = 6
TLS_VERSION: Final = 7
TLS_CIPHER: Final = 8
TLS_SERVER_NAME: Final = 9
#: By their numbers.
VARIABLES: Final = (
    "client_ip",
    "host",
    "method",
    "path",
    "query",
    "request_id",
    "scheme",
    "tls.version",
    "tls.cipher",
    "tls.server_name",
)
#: Variables that stand for something else in each request, though it has the same fields on the same connection.
OF_ONE_REQUEST: Final = frozenset(("host", "method", "path", "query", "request_id"))
_PART: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class BadTemplate(ValueError):  # noqa: N818 - it says what is wrong
    """The text is no template; the message says why."""


class BadValue(Exception):  # noqa: N818 - it says what is wrong
    """A variable's value cannot stand in a head; the text is the variable."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Values:
    """The values of variables for one request."""

    __slots__ = ()

    def value(self, variable: int) -> bytes:
        """The value; b"": the request has none."""
        raise NotImplementedError


class Template:
    """A text with variables, ready to be expanded."""

    __slots__ = ("_texts", "_variables", "static", "variables")

    def __init__(self, text: str) -> None:
        texts = [""]
        variables: list[int] = []
        for part in _PART.finditer(text):
            if part[0] in ("{{", "}}"):
                texts[-1] += part[0][0]
            elif part[1] is not None:
                if part[1] not in VARIABLES:
                    raise BadTemplate(f"there is no variable {{{part[1]}}}")
                variables.append(VARIABLES.index(part[1]))
                texts.append("")
            elif part[0] in ("{", "}"):
                raise BadTemplate(f"a single {part[0]}; write {part[0] * 2} for the character")
            else:
                texts[-1] += part[0]
        self._texts = [piece.encode() for piece in texts]
        self._variables = variables
        self.static = not variables  # it is the same for every request
        self.variables = frozenset([VARIABLES[variable] for variable in variables])

    def expand(self, values: Values) -> bytes:
        """The text for a request. Raises `BadValue`."""
        if self.static:
            return self._texts[0]
        out = [self._texts[0]]
        for place, variable in enumerate(self._variables):
            value = values.value(variable)
            if _CONTROL.search(value):
                raise BadValue(VARIABLES[variable])
            out.append(value)
            out.append(self._texts[place + 1])
        return b"".join(out)
