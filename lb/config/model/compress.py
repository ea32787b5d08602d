"""Compression of a route's answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lb.config.model.fields import MediaType, Size
from lb.config.model.section import Section
from lb.core import guards as core

Coding = Literal["zstd", "br", "gzip"]
CODINGS: tuple[Coding, ...] = ("zstd", "br", "gzip")
TYPES = (
    "text/*",
    "application/json",
    "application/javascript",
    "application/xml",
    "application/wasm",
    "application/manifest+json",
    "application/ld+json",
    "application/problem+json",
    "application/xhtml+xml",
    "application/rss+xml",
    "application/atom+xml",
    "image/svg+xml",
)


class Compress(Section):
    """Answers that are compressed: 200 to 203 and errors, of these types, and long enough. Events, ranges, and what has
    a coding already or `no-transform`, are left as they are."""

    types: Annotated[list[MediaType], Field(min_length=1)] = Field(default_factory=lambda: list(TYPES))
    """Media types; `text/*` stands for all of one kind."""
    minimum: Size = 1024
    """Bytes of an answer at least. One of unknown length is taken for a long one."""
    codings: Annotated[list[Coding], Field(min_length=1)] = Field(default_factory=lambda: list(CODINGS))
    """Codings, the one that is taken first where a client has no preference."""

    def value(self) -> core.Compression:
        """Its value for the data plane."""
        return core.Compression(tuple(self.types), self.minimum, tuple(dict.fromkeys(self.codings)))
