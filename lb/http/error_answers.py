"""What lb's own answers look like where a route has error pages: HTML for browsers, a problem document for programs.

A page is read once, with the file. Only `{name}` with the name of a variable stands for something in it, so that style
sheets and scripts keep their braces. Values are escaped for HTML: they may come from clients.
"""

from __future__ import annotations

import json
import re
from typing import Final

from lb.http.h1.replies import REASONS, Reply
from lb.http.template import VARIABLES, Values

#: Variables of pages alone: the status, its name, and lb's text about what was wrong.
OWN: Final = ("status", "title", "detail")
_VARIABLE: Final = re.compile(r"\{(" + "|".join([re.escape(name) for name in (*OWN, *VARIABLES)]) + r")\}")
_ITEM: Final = re.compile(rb"([^;, \t]+)[ \t]*(?:;[^,]*?\bq=([01](?:\.[0-9]{0,3})?))?[^,]*", re.IGNORECASE)
_HTML: Final = (b"text/html", b"application/xhtml+xml")
_JSON: Final = (b"application/problem+json", b"application/json")

DEFAULT_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{status} {title}</title></head>
<body><h1>{status} {title}</h1><p>{detail}</p><p><small>Request {request_id}</small></p></body>
</html>
"""


class HtmlPage:
    """A page with variables, ready for requests."""

    __slots__ = ("names", "texts")

    def __init__(self, text: str) -> None:
        pieces = _VARIABLE.split(text)  # texts, and names in between
        self.texts = [piece.encode() for piece in pieces[::2]]
        self.names = pieces[1::2]

    def expand(self, reply: Reply, values: Values) -> bytes:
        """The page for a request."""
        out = [self.texts[0]]
        for place, name in enumerate(self.names):
            out.append(_escaped(_value(name, reply, values)))
            out.append(self.texts[place + 1])
        return b"".join(out)


def _value(name: str, reply: Reply, values: Values) -> str:
    if name == "status":
        return str(reply.status)
    if name == "title":
        return title_of(reply.status)
    if name == "detail":
        return reply.text
    return values.value(VARIABLES.index(name)).decode("utf-8", "replace")


def _escaped(text: str) -> bytes:
    """For HTML, in texts and in quoted attributes."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        text = text.replace(character, entity)
    return text.encode()


def title_of(status: int) -> str:
    """The name of a status."""
    return REASONS.get(status, b"Error").decode()


def problem_document(reply: Reply, request_id: bytes) -> bytes:
    """The answer as a problem document (RFC 9457). `reason` is the one of the access log and of
    `lb_rejected_total`."""
    members = {
        "type": "about:blank",
        "title": title_of(reply.status),
        "status": reply.status,
        "detail": reply.text,
        "reason": reply.reason,
        "request_id": request_id.decode("latin-1"),
    }
    return json.dumps(members, ensure_ascii=False).encode() + b"\n"


def takes_html(accept: bytes) -> bool:
    """Whether a client asks for HTML: it names the type, and likes JSON no better. `*/*` asks for none."""
    html = json_weight = 0.0
    for item in _ITEM.finditer(accept):
        name = item[1].lower()
        weight = float(item[2]) if item[2] is not None else 1.0
        if name in _HTML:
            html = max(html, weight)
        elif name in _JSON:
            json_weight = max(json_weight, weight)
    return html > 0.0 and html >= json_weight
