"""Lists and watches of EndpointSlices: what pages and events make of the known slices. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from lb.core.membership import Answer
from lb.discovery.kubernetes_slices import Metadata, Part, Slice, answer_of, part_of

#: The status that says that a version is older than what the server still knows.
GONE = 410
#: Octets of one event: an object has at most 1.5 MiB in etcd.
MOST_OF_EVENT = 4 << 20


class Status(msgspec.Struct, frozen=True):
    """The API server's word on a request that has failed."""

    code: int = 0
    reason: str = ""
    message: str = ""


class Page(msgspec.Struct, frozen=True):
    """A part of a list."""

    items: list[Slice] | None
    metadata: Metadata = Metadata()


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class Garbled(ValueError):  # noqa: N818 - it says what an answer is
    """An answer that cannot be read; the text says why."""


class Outdated(Exception):  # noqa: N818 - it says what a version is
    """The server no longer knows the version from which on changes were asked for: the list has to be asked for."""


class Slices:
    """The slices of one Service, and the version up to which they are known."""

    def __init__(self, service: str, port: str, scheme: Literal["http", "https", "h2c", "h2"] = "http") -> None:
        self._service = service
        self._port = port
        self._scheme = scheme
        self._parts: dict[str, Part] = {}
        self.version = ""

    def add(self, page: Page) -> str:
        """Take a page of the list. Returns what the next one is asked for with; empty: it was the last one."""
        for each in page.items or ():
            self._put(each)
        self.version = page.metadata.resource_version
        return page.metadata.next

    def apply(self, line: bytes) -> bool:
        """Take an event of a watch. Returns whether it may have changed what is named.

        Raises `Outdated`, and `Garbled` for what is no event: changes may have been missed then.
        """
        try:
            event = _EVENT.decode(line)
            if event.type == "ERROR":
                status = _STATUS.decode(event.object)
                if status.code == GONE or status.reason in ("Expired", "Gone"):
                    raise Outdated
                raise Garbled(f"the watch has failed: {status.message or status.reason or status.code}")
            if event.type not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
                return False
            given = _SLICE.decode(event.object)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Garbled(f"an event cannot be read: {error}") from None
        if given.metadata.resource_version:
            self.version = given.metadata.resource_version
        if event.type == "BOOKMARK":
            return False
        if event.type == "DELETED":
            return self._parts.pop(given.metadata.name, None) is not None
        return self._put(given)

    def answer(self) -> Answer:
        """What all slices say together."""
        return answer_of(self._parts, self._service, self._port)

    def _put(self, given: Slice) -> bool:
        part = part_of(given, self._port, self._scheme)
        before = self._parts.get(given.metadata.name)
        self._parts[given.metadata.name] = part
        return part != before


def read_page(raw: bytes | bytearray) -> Page:
    """A page of the list. Raises `Garbled`."""
    try:
        return _PAGE.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Garbled(f"its list of EndpointSlices cannot be read: {error}") from None


def read_status(raw: bytes | bytearray) -> Status:
    """The server's word on a failed request; an empty one where it has none."""
    try:
        return _STATUS.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return Status()


_PAGE = msgspec.json.Decoder(Page)
_EVENT = msgspec.json.Decoder(_Event)
_SLICE = msgspec.json.Decoder(Slice)
_STATUS = msgspec.json.Decoder(Status)
