"""Cross-origin requests of a route."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lb.config.model.fields import Bounds, Flag, HeaderName, Origin, RequestMethod, Whole
from lb.config.model.section import Section
from lb.core import guards as core


class Cors(Section):
    """Lets pages of other origins read answers. Preflights are answered here, and fields of the target's about this are
    replaced."""

    origins: Annotated[list[Origin], Field(min_length=1)]
    """Origins: `https://a.example.org`, all below a name as `https://*.example.org`, or `"*"` for any."""
    methods: list[RequestMethod] = Field(default_factory=list)
    """Methods besides GET, HEAD and POST."""
    headers: list[HeaderName] = Field(default_factory=list)
    """Fields that a page may send besides the usual ones; `"*"` for any."""
    expose: list[HeaderName] = Field(default_factory=list)
    """Fields of answers that a page may read besides the usual ones."""
    credentials: Flag = False
    """Whether pages may send cookies and passwords along. Not with any origin."""
    max_age: Annotated[Whole, Bounds(0, 86400)] | None = None
    """Seconds that a browser may keep the answer to a preflight. Left out: the answer says nothing of it."""

    def value(self) -> core.Cors:
        """Its value for the data plane."""
        return core.Cors(
            tuple(self.origins),
            tuple(self.methods),
            tuple(self.headers),
            tuple(self.expose),
            self.credentials,
            -1 if self.max_age is None else self.max_age,
        )
