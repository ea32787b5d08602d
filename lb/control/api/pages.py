"""The pages for a browser: files of this package, served from memory.

They hold no secrets, so they load without the token; what they show comes from the API, which wants it. A strict
Content-Security-Policy lets nothing in that is not from this port, no inline script or style, no frame around the page.
Trusted types make it impossible to turn data into markup. An HTML file `x.html` is the page `/x` (`index` is `/`),
everything else is `/static/NAME`. Answers carry an ETag of their content and are asked about each time (`no-cache`), so
that an upgrade of lb shows at once.

Outside its scope: it knows nothing of the pages' contents, and reads no file before its first request.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from aiohttp import web

#: Content types by the ending of the file.
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}


class Page(NamedTuple):
    """One file as it is sent."""

    type: str
    body: bytes
    zipped: bytes
    etag: str  # of the content, without quotes


@cache
def pages() -> dict[str, Traversable]:
    """All files by the path they are served at."""
    found = {}
    for file in files("lb.control").joinpath("dashboard").iterdir():
        stem, _, ending = file.name.rpartition(".")
        if ending in TYPES:
            found[f"/static/{file.name}" if ending != "html" else "/" if stem == "index" else f"/{stem}"] = file
    return found


@cache
def page(path: str) -> Page:
    """The file served at a path, read once."""
    file = pages()[path]
    body = file.read_bytes()
    etag = hashlib.sha256(body).hexdigest()[:20]
    return Page(TYPES[file.name.rpartition(".")[2]], body, gzip.compress(body, 9, mtime=0), etag)


def is_page(method: str, path: str) -> bool:
    """Whether a request needs no token because it is for a page or a part of one."""
    return method in ("GET", "HEAD") and path in pages()


def routes() -> list[web.RouteDef]:
    """Where they are served."""
    return [web.get(path, serve) for path in sorted(pages())]


async def serve(request: web.Request) -> web.Response:
    """A file of the pages."""
    sent = page(request.path)
    zipped = "gzip" in request.headers.get("Accept-Encoding", "")
    # The zipped form is another sequence of bytes, so its strong ETag is another one.
    etag = f"{sent.etag}-gz" if zipped else sent.etag
    headers = {**HEADERS, "ETag": f'"{etag}"'}
    if request.if_none_match is not None and any(tag.value in (etag, "*") for tag in request.if_none_match):
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = sent.type
    if zipped:
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=sent.zipped if zipped else sent.body, headers=headers)
