"""What the kernel knows about a connection that failed (Linux TCP_INFO)."""

from __future__ import annotations

import socket
import struct

_BYTES_ACKED = 120  # offset of tcpi_bytes_acked, u64, in struct tcp_info (linux/tcp.h)


def undelivered(sock: socket.socket, sent_before: int) -> bool:
    """Whether the peer's kernel never took a byte of what was written after the first `sent_before` bytes.

    Then the application behind it cannot have seen the request, and it may be sent to another target, whatever its
    method. Where the kernel does not tell, the answer is no.
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
    except OSError:
        return False
    if len(info) < _BYTES_ACKED + 8:
        return False
    acked: int = struct.unpack_from("=Q", info, _BYTES_ACKED)[0]
    return acked <= sent_before + 1  # the SYN counts as one byte
