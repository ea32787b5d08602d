"""Messages with file descriptors over Unix sockets (SCM_RIGHTS, unix(7))."""

from __future__ import annotations

import socket
from array import array
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
    # `socket.recv_fds` takes flags and does not pass them on (CPython 3.11): programs started later would inherit them.
    width = array("i").itemsize
    room = socket.CMSG_SPACE(MOST_DESCRIPTORS * width)
    data, ancillary, _, _ = sock.recvmsg(most_bytes, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array("i")
    for level, kind, rights in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(rights[: len(rights) - len(rights) % width])
    return data, list(descriptors)
