"""Reading requests and writing answers: bodies, queries, ETags, conditions, compression, problem documents."""

from __future__ import annotations

import asyncio
import gzip
import math
import re
from collections.abc import Callable, Collection
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from lb.control.api import problems
from lb.control.api.problems import Rejected
from lb.control.operations import Base, Operations
from lb.core.digest import digest
from lb.core.refusals import Obstacle, Refused

OPERATIONS: web.AppKey[Operations] = web.AppKey("operations", Operations)

#: In a request: the name of the token that it came with; empty: the token has none, or none is needed.
HOLDER = "holder"

#: In a request: a function that says whether its token still counts.
MAY_GO_ON = "may_go_on"

#: Seconds that a body may take to come.
BODY_TIME = 20.0
#: Bytes below which an answer is not compressed.
SMALL = 4096

M = TypeVar("M", bound=BaseModel)

_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,40})?(?:[eE][-+]?[0-9]{1,3})?")
_ETAG = re.compile(r'(?:W/)?"([0-9]{1,15})(?:-([0-9a-f]{1,64}))?"')
_UNQUOTED = re.compile(r"[0-9]{1,15}")


# --- requests --------------------------------------------------------------------------------------------------------


async def body(request: web.Request, model: type[M]) -> M:
    """The body's value. No body at all stands for `{}`."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Rejected(problems.UNSUPPORTED_MEDIA_TYPE, "the body must not be compressed")
    try:
        async with asyncio.timeout(BODY_TIME):
            raw = await request.read()
    except TimeoutError:
        raise Rejected(problems.BODY_TOO_SLOW, f"it was not there after {BODY_TIME:g} s") from None
    if raw and request.content_type != "application/json":
        raise Rejected(
            problems.UNSUPPORTED_MEDIA_TYPE, f"the body must be application/json, not {request.content_type}"
        )
    try:
        return model.model_validate_json(raw or b"{}")
    except ValidationError as error:
        obstacles = [
            Obstacle(str(item["msg"]), where=".".join(map(str, item["loc"])) or "body")
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise Rejected(problems.INVALID_REQUEST, "the body does not say what is wanted", obstacles) from None


def query(request: web.Request, known: Collection[str]) -> dict[str, str]:
    """The values of the query, each known and there once."""
    found: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in known:
            there = f"there is {', '.join(known)}" if known else "there is none here"
            raise Rejected(problems.BAD_PARAMETER, f"there is no parameter {name!r}; {there}")
        if name in found:
            raise Rejected(problems.BAD_PARAMETER, f"{name} is there twice")
        found[name] = value
    return found


def number(name: str, text: str, most: float = math.inf) -> float:
    """A number of the query, 0 or more."""
    if not _NUMBER.fullmatch(text):
        raise Rejected(problems.BAD_PARAMETER, f"{name}: {text!r} is not a number of 0 or more")
    value = float(text)
    if value > most or math.isinf(value):
        raise Rejected(problems.BAD_PARAMETER, f"{name}: {text} is more than {most:g}")
    return value


def whole(name: str, text: str, least: int, most: int) -> int:
    """A whole number of the query."""
    if not (text.isascii() and text.isdigit() and len(text) < 17 and least <= int(text) <= most):
        raise Rejected(problems.BAD_PARAMETER, f"{name}: {text!r} is not a whole number from {least} to {most}")
    return int(text)


def may_go_on(request: web.Request) -> bool:
    """Whether an answer that goes on may do so: the token that it was asked with still counts."""
    still: Callable[[], bool] | None = request.get(MAY_GO_ON)
    return still is None or still()


def actor(request: web.Request) -> str:
    """The actor, for the events: the token's name, the client's name for itself, and its address.

    A client's own name cannot pass as a token's: a token's name is first, and ends with a colon.
    """
    name = request.headers.get("X-LB-Actor", "")[:64].replace(":", "")
    where = request.remote or "a local socket"
    said = name if name.isprintable() and name else "admin API"
    holder = request.get(HOLDER, "")
    return f"{holder}: {said} ({where})" if holder else f"{said} ({where})"


def bases(request: web.Request) -> tuple[Base, ...] | None:
    """The revision that an order is based on; None: on whatever there is."""
    if "If-Match" not in request.headers:
        return None
    text = ", ".join(request.headers.getall("If-Match")).strip()
    if text == "*":
        return None
    found = []
    for tag in map(str.strip, text.split(",")):
        if _UNQUOTED.fullmatch(tag):
            found.append(Base(int(tag), ""))
        elif match := _ETAG.fullmatch(tag):
            found.append(Base(int(match[1]), match[2] or ""))
        else:
            raise Rejected(problems.BAD_IF_MATCH, f"{tag[:80]!r} is no ETag of an earlier answer")
    return tuple(found)


def as_seen(request: web.Request) -> tuple[Operations, int | None]:
    """The operations, when what the order is based on is still so, and the revision that it is based on; None: on none.
    Raises `Refused`."""
    operations = request.app[OPERATIONS]
    given = bases(request)
    return operations, None if given is None else operations.check_base(given)


def config_as_seen(request: web.Request) -> tuple[Operations, set[str] | None]:
    """The operations, when the configuration that the order is based on still runs, and the marks of the texts that it
    is based on; None: on none. Raises `Refused`."""
    operations, given = request.app[OPERATIONS], bases(request)
    if given is None:
        return operations, None
    marks = {base.mark for base in given}
    operations.check_config_base(marks)
    return operations, marks


# --- answers ---------------------------------------------------------------------------------------------------------


class Body:
    """The bytes of an answer, with what is derived from them once, however often they are sent."""

    def __init__(self, data: bytes, mark: str = "") -> None:
        self.data = data
        self.mark = mark or digest(data)
        self._packed: bytes | None = None

    def packed(self) -> bytes:
        """Compressed, at the level that costs least."""
        if self._packed is None:
            self._packed = gzip.compress(self.data, compresslevel=1, mtime=0)
        return self._packed


def as_json(said: BaseModel) -> bytes:
    """A model as it is sent."""
    return said.model_dump_json(by_alias=True).encode()


def view(request: web.Request, said: BaseModel, code: int = 200) -> web.Response:
    """An answer of one model."""
    return send(request, Body(as_json(said)), code)


def send(request: web.Request, content: Body, code: int = 200, media: str = "application/json") -> web.Response:
    """An answer with its ETag: the revision that orders may be based on, and what tells contents apart."""
    etag = f'"{request.app[OPERATIONS].revision}-{content.mark}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Content-Type": media}
    if request.method in ("GET", "HEAD") and code == 200 and _known(request, etag):
        return web.Response(status=304, headers=headers)
    data = content.data
    if len(data) >= SMALL:
        headers["Vary"] = "Accept-Encoding"
        if _takes_gzip(request):
            data = content.packed()
            headers["Content-Encoding"] = "gzip"
            headers["ETag"] = f"W/{etag}"  # other bytes, the same content
    return web.Response(status=code, body=data, headers=headers)


def _known(request: web.Request, etag: str) -> bool:
    text = request.headers.get("If-None-Match", "")
    return text.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in text.split(",")]


def _takes_gzip(request: web.Request) -> bool:
    for part in request.headers.get("Accept-Encoding", "").lower().split(","):
        name, _, options = part.partition(";")
        if name.strip() == "gzip":
            return options.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def problem(error: Refused | Rejected) -> web.Response:
    """The answer of a refusal."""
    said = problems.problem(error)
    return web.Response(
        status=said.status,
        body=said.model_dump_json().encode(),
        headers={"Content-Type": "application/problem+json", "Cache-Control": "no-store"},
    )
