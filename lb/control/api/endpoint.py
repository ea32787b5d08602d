"""One operation of the admin API: its address, its arguments, its answers, and the function that carries it out.

The routes and the OpenAPI document are both made from these values, so that neither can say what the other does not do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from lb.control.api.problems import Kind
from lb.core.roles import CONFIGURE, DRAIN, OPERATE, READ

Run = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: A target's id at the end of an address, which does not end in the name of something that can be done with it.
WHOLE_ID = "{id:(?!.*/(?:drain|undrain|weight|probe)(?:/preview)?$).+}"

#: Roles of operations: what looks, and what an operator may do as well as a container that stops.
LOOKING = (READ,)
DRAINING = (DRAIN, OPERATE)
OPERATING = (OPERATE,)
CONFIGURING = (CONFIGURE,)
#: The same for what only tells what an order would do.
PREVIEWING_DRAIN = (READ, *DRAINING)
PREVIEWING = (READ, *OPERATING)
NO_ROLE = ()

JSON = "application/json"
TEXT = "text/plain"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value of the query."""

    name: str
    text: str
    schema: dict[str, Any]
    example: object = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer when it was not refused."""

    text: str
    model: type[BaseModel] | None = None
    many: bool = False  # a list of them
    media: str = JSON
    also: str = ""  # another media type that can be asked for


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation. `path` is an OpenAPI template."""

    method: str
    path: str
    run: Run
    id: str
    roles: tuple[str, ...]  # a token needs one of these
    tag: str
    summary: str
    answers: dict[int, Answer]
    about: str = ""  # more than the summary says
    takes: type[BaseModel] | None = None
    takes_nothing_too: bool = False  # the body may be left out
    query: tuple[Parameter, ...] = ()
    refusals: tuple[Kind, ...] = ()  # the kinds that are its own
    changes: bool = False  # takes If-Match
    base_needed: bool = False  # and does not go without
    acts: bool = False  # does something all the same
    open: bool = False  # answers without a token; it has no roles
    headers: tuple[Parameter, ...] = ()

    @property
    def order(self) -> bool:
        """Whether it changes something: a person is asked before it is sent."""
        return self.changes or self.acts

    @property
    def strict(self) -> bool:
        """Whether an unknown parameter is refused: not by what monitoring asks, which adds its own."""
        return self.path.startswith("/api/")

    @property
    def route(self) -> str:
        """The address as the router writes it: ids and subjects have slashes in them, and what follows an id is none
        of it."""
        path = self.path.removesuffix("{id}") + WHOLE_ID if self.path.endswith("{id}") else self.path
        for name in ("id", "subject", "route"):
            path = path.replace(f"{{{name}}}", f"{{{name}:.+}}")
        return path
