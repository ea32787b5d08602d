"""The messages between the supervisor and a worker, and the wire for them.

Down go states (`Snapshot`, `Rotation`, `Targets`, `Challenges`, `TicketSecret`) and orders; up go reports, alarms and
confirmations. Every message is whole state or a mergeable delta, so that a lost or repeated one harms nothing. A
`RotationChange` names what it is a change of; `core.rotation_change` says why that is as safe. A frame is its length
(4 bytes), the kind (1 byte) and the value as MessagePack. Bytes that wait for a slow reader are bounded: a worker that
does not read counts as hung, and its channel is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from lb.core.challenges import Challenges
from lb.core.report import Alarm, Report
from lb.core.targets import Rotation, RotationChange, Snapshot, Targets

#: Grows when a message changes its meaning; a worker of another version is replaced.
VERSION = 7
#: Bytes that may wait to be read by the other side.
PENDING_LIMIT = 64 << 20
#: Bytes of one message at most: a snapshot of 10,000 targets has about three million.
MESSAGE_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a worker."""

    version: int
    worker: int
    pid: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Poll:
    """Report now; the `Polled` that follows the report carries the same number."""

    number: int


@dataclass(frozen=True, slots=True)
class Polled:
    """The answer to a poll: the report before it is as new as the poll."""

    number: int


@dataclass(frozen=True, slots=True)
class Applied:
    """New requests are served by this version and by none before it."""

    version: int


@dataclass(frozen=True, slots=True)
class Behind:
    """The configuration of this version could not be installed. Until a snapshot can, nothing is `Applied`."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class Command:
    """An order to a worker. `what` is one of

    - settle: its supervisor has started well; from now on it outlives it. (Before, it ends with it.)
    - drain: take no further connection, let what is under way end for `within` seconds, then end
    - stop: end now
    - reopen: the logs, after a rotation
    - recall: send what is kept of the request whose id is `subject` with the next report
    """

    what: str
    within: float = 60.0
    subject: str = ""


@dataclass(frozen=True, slots=True)
class TicketSecret:
    """The secret from which all workers make the keys of TLS session tickets (`net.tls.ticket_keys`)."""

    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WorkerError:
    """An error that a worker reports. The worker goes on."""

    text: str


Message = (
    Snapshot
    | Rotation
    | RotationChange
    | Targets
    | Challenges
    | TicketSecret
    | Poll
    | Command
    | Hello
    | Polled
    | Applied
    | Behind
    | Report
    | Alarm
    | WorkerError
)

_KINDS: dict[bytes, type[Any]] = {
    b"S": Snapshot,
    b"R": Rotation,
    b"r": RotationChange,
    b"t": Targets,
    b"c": Challenges,
    b"k": TicketSecret,
    b"P": Poll,
    b"O": Command,
    b"H": Hello,
    b"p": Polled,
    b"A": Applied,
    b"B": Behind,
    b"T": Report,
    b"!": Alarm,
    b"x": WorkerError,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_DECODERS = {name: msgspec.msgpack.Decoder(kind) for name, kind in _KINDS.items()}
_encode = msgspec.msgpack.Encoder().encode


def pack(message: Message) -> bytes:
    """One message as a frame."""
    payload = _encode(message)
    return (len(payload) + 1).to_bytes(4, "big") + _NAMES[type(message)] + payload


class Channel(asyncio.Protocol):
    """One end of the wire."""

    def __init__(self, on_message: Callable[[Message], None], on_lost: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._held = bytearray()
        self._lost = asyncio.Event()

    @classmethod
    async def over(
        cls, sock: socket.socket, on_message: Callable[[Message], None], on_lost: Callable[[], None]
    ) -> Channel:
        """A channel over one end of a socket pair."""
        channel = cls(on_message, on_lost)
        await channel.attach(sock)
        return channel

    async def attach(self, sock: socket.socket) -> None:
        """Begin to talk over a socket. Messages may come before this returns."""
        sock.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)

    @property
    def open(self) -> bool:
        """Whether messages can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, message: Message) -> bool:
        """Send, without waiting; False when the other side is gone, or so slow that it is given up."""
        return self.send_frame(pack(message))

    def send_frame(self, frame: bytes) -> bool:
        """Send a packed message: one that goes to several workers is packed once."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() > PENDING_LIMIT:
            transport.abort()
            return False
        transport.write(frame)
        return True

    def close(self) -> None:
        """Close after what was sent."""
        if self._transport is not None:
            self._transport.close()

    async def read_to_end(self, within: float) -> None:
        """Wait until the other side, whose process has ended, has no message left, `within` seconds at most; close.

        The kernel delivers the end of the connection behind the last byte. Closing on the process's exit status alone
        drops messages. One SIGCHLD makes libuv ask for every child, also for one whose last bytes no poll has seen yet.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._lost.wait()
        self.close()

    async def finish(self, within: float) -> None:
        """Close, and wait until what was sent is out, `within` seconds at most."""
        self.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._lost.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are not of asyncio's classes

    def data_received(self, data: bytes) -> None:
        held = self._held
        held += data
        position = 0
        while len(held) - position >= 5:
            length = int.from_bytes(held[position : position + 4], "big")
            if length > MESSAGE_LIMIT or bytes(held[position + 4 : position + 5]) not in _DECODERS:
                self._abort()
                return
            end = position + 4 + length
            if len(held) < end:
                break
            decoder = _DECODERS[bytes(held[position + 4 : position + 5])]
            try:
                message = decoder.decode(held[position + 5 : end])
            except msgspec.DecodeError:
                self._abort()
                return
            position = end
            self._on_message(message)
        del held[:position]

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        self._on_lost()

    def _abort(self) -> None:
        """The other side speaks another language: nothing after this can be understood."""
        self._held.clear()
        if self._transport is not None:
            self._transport.abort()
