"""A transport that takes down what is done with it."""

from __future__ import annotations

from typing import Any


class FakeTransport:
    """One end of a connection. `peer` is the address of the other one; `waits` bytes are not taken by it."""

    def __init__(self, peer: tuple[str, int] | None = None, waits: int = 0) -> None:
        self.peer = peer
        self.waits = waits
        self.protocol: Any = None
        self.written = b""
        self.closed = self.lost = self.paused = False
        self.on_write: Any = None

    def write(self, data: bytes) -> None:
        assert not self.closed, f"written after it was closed: {data!r}"
        self.written += data
        if self.on_write is not None:
            self.on_write()

    def close(self) -> None:
        self.closed = True

    abort = close
    write_eof = close  # a client that is sent the end has nothing more to say

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str) -> Any:
        """It has no socket."""
        return self.peer if name == "peername" else None

    def get_write_buffer_size(self) -> int:
        return self.waits

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def take(self) -> bytes:
        """What was written since the last time."""
        data, self.written = self.written, b""
        return data

    def lose(self) -> None:
        """It is gone, and its protocol is told."""
        self.closed = self.lost = True
        self.protocol.connection_lost(None)
