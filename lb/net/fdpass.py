"""Messages with file descriptors over Unix sockets (SCM_RIGHTS, unix(7))."""

from __future__ import annotations

import socket
from collections.abc import Sequence

#: Descriptors in one message; the kernel allows 253.
MOST_DESCRIPTORS = 200
#: Bytes of one message.
MOST_BYTES = 65536


def send(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one message. Raises `OSError`: the other side is gone, or reads no more."""
    if descriptors:
        socket.send_fds(sock, [data], list(descriptors))
    else:
        sock.sendmsg([data])


def receive(sock: socket.socket, most_bytes: int = MOST_BYTES) -> tuple[bytes, list[int]]:
    """The next message and its descriptors, which are closed on exec. Raises `OSError`, `BlockingIOError` included."""
    data, descriptors, _, _ = socket.recv_fds(sock, most_bytes, MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    return data, descriptors
