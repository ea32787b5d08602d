"""Paths as targets are to get them: a prefix stripped or replaced, and the result judged like a client's path."""

from __future__ import annotations

from lb.core.paths import ODD, Unreadable, readings


def with_prefix(path: bytes, prefix: bytes, to: bytes) -> bytes:
    """The path with `to` instead of `prefix`, which ends at a segment's border. A path without it stays as it is.

    `/v1` → `/` makes `/v1/x` `/x` and `/v1` `/`. `/v1` → `/api` makes `/v1/x` `/api/x` and `/v1` `/api`. The rest of
    the path keeps its escapes.
    """
    prefix = prefix.removesuffix(b"/")
    if not path.startswith(prefix):
        return path
    rest = path[len(prefix) :]
    if rest and rest[:1] != b"/":
        return path
    return to.removesuffix(b"/") + rest or b"/"


def fault_of(path: bytes) -> str:
    """Why a rewritten path may not be sent; empty: it may."""
    if path[:1] != b"/":
        return "it does not begin with /"
    if path[:2] == b"//":
        return "it begins with //, which names a host"
    if ODD.search(path) is not None:
        try:
            readings(path)
        except Unreadable as error:
            return str(error)
    return ""
