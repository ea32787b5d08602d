"""Listening sockets, and a process that has them and hands them over when it is visited."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from lb.process import fd_handover
from lb.process.fd_handover import HandoverSocket


def listening() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


class Standing:
    """A handover_socket with somebody behind it."""

    def __init__(self, directory: Path, sockets: dict[fd_handover.ListenerKey, socket.socket]) -> None:
        who = {"version": 1, "number": 3, "incarnation": 12345, "applied": 9}
        self.handover_socket = HandoverSocket(directory, lambda: who, lambda: sockets)
        self.handover_socket.sock.settimeout(5)
        self.admitted: socket.socket | None = None
        self.thread = threading.Thread(target=self._admit)
        self.thread.start()

    def _admit(self) -> None:
        self.admitted = self.handover_socket.admit()

    def close(self) -> None:
        self.thread.join(5)
        if self.admitted is not None:
            self.admitted.close()
        self.handover_socket.close()
