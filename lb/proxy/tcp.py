"""The kernel's view of a connection: bytes sent and acknowledged (Linux TCP_INFO, SIOCOUTQ), and what has come in."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
from contextlib import suppress
from typing import Final, NamedTuple

# Offsets of two u64 fields in struct tcp_info (linux/tcp.h).
_BYTES_ACKED: Final = 120
_BYTES_SENT: Final = 200


class Delivery(NamedTuple):
    """Bytes of data that left this machine, and bytes that the peer's kernel has acknowledged, since the connect."""

    sent: int
    acked: int


def delivery(sock: socket.socket) -> Delivery | None:
    """The bytes sent and acknowledged. None when the kernel does not report them."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_SENT + 8)
    except OSError:
        return None
    if len(info) < _BYTES_SENT + 8:
        return None
    acked: int = struct.unpack_from("=Q", info, _BYTES_ACKED)[0]
    sent: int = struct.unpack_from("=Q", info, _BYTES_SENT)[0]
    return Delivery(sent, max(0, acked - 1))  # the SYN counts as one byte


def unacknowledged(sock: socket.socket) -> int:
    """Bytes in the kernel's send buffer that the peer's kernel has not acknowledged, or a Unix socket's peer not read.
    It is 0 where unknown."""
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):
        return 0
    count: int = struct.unpack("=i", answer)[0]
    return count


def arrivals(sock: socket.socket) -> select.poll | None:
    """An object whose `poll(0)` tells whether unread bytes, the end or an error have come. None when `sock` is closed.

    Asking it costs a fifth of a peeking recv, which raises an exception when there is no data.
    """
    watch = select.poll()
    try:
        watch.register(sock, select.POLLIN)
    except ValueError:
        return None
    return watch


def send_end(sock: socket.socket) -> None:
    """Send the end of file now: a transport closes in a later step of the loop. Nothing more can be written.

    What has been written to the socket goes before it. Where it cannot be sent, the close that follows has to do.
    """
    with suppress(OSError), socket.fromfd(sock.fileno(), sock.family, sock.type) as same:
        same.shutdown(socket.SHUT_WR)
