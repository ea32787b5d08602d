"""Ports for servers that come back at the same place, which no outgoing connection can be given meanwhile.

The kernel takes the ports of outgoing connections from 32768 on (`ip_local_port_range`), and tests of other processes
open thousands: a port that the kernel has chosen for a server may be one of theirs by the time it is bound again.
"""

from __future__ import annotations

import random
import socket
import threading

FROM_PORT, TO_PORT = 20000, 32000

_dice = random.SystemRandom()  # not seeded by whoever runs the tests: several processes draw at the same time
_given: set[int] = set()
_giving = threading.Lock()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has, and that no other caller of this process is given; in order."""
    found: list[int] = []
    with _giving:
        while len(found) < count:
            port = _dice.randrange(FROM_PORT, TO_PORT)
            with socket.socket() as sock:
                try:
                    sock.bind(("127.0.0.1", port))
                except OSError:
                    continue
            if port not in _given:
                _given.add(port)
                found.append(port)
    return sorted(found)


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
