"""URLs, and paths and domains of cookies, in a target's answer: as clients know them instead of as the target does.

nginx has the same in `proxy_redirect`, `proxy_cookie_path` and `proxy_cookie_domain`.
"""

from __future__ import annotations

import re
from typing import Final

_ATTRIBUTE: Final = re.compile(rb"(;[ \t]*)(path|domain)([ \t]*=[ \t]*)([^;]*)", re.IGNORECASE)


def with_location(lines: bytes, prefix: bytes, to: bytes) -> bytes:
    """The lines with another beginning of the URLs in Location and Content-Location."""
    out: list[bytes] = []
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if name.lower() in (b"location", b"content-location"):
            url = value.strip(b" \t")
            if url.startswith(prefix):
                line = name + colon + b" " + to + url[len(prefix) :]
        out.append(line)
    return b"\r\n".join(out)


def with_cookies(lines: bytes, attribute: bytes, was: bytes, to: bytes) -> bytes:
    """The lines with another `path` or `domain` (lower case) of cookies: the beginning of a path, a whole domain."""
    out: list[bytes] = []
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if name.lower() == b"set-cookie":
            pair, semicolon, rest = value.partition(b";")
            line = name + colon + pair + _changed(semicolon + rest, attribute, was, to)
        out.append(line)
    return b"\r\n".join(out)


def _changed(attributes: bytes, attribute: bytes, was: bytes, to: bytes) -> bytes:
    def change(match: re.Match[bytes]) -> bytes:
        before, name, equals, value = match.groups()
        value = value.strip(b" \t")
        if name.lower() != attribute:
            return match[0]
        if attribute == b"domain":
            if value.lower().lstrip(b".") != was.lower().lstrip(b"."):
                return match[0]
            return before + name + equals + to
        return before + name + equals + to + value[len(was) :] if value.startswith(was) else match[0]

    return _ATTRIBUTE.sub(change, attributes)
