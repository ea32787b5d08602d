"""`python -m benchmarks.open_loop PORT RATE SECONDS CONNECTIONS`: small GETs at a constant rate; prints JSON.

Each request is due at its own time, whether or not earlier ones were answered, and what it waits for its turn (for a
free connection, or for this process) counts as its latency: coordinated omission is left out (G. Tene; wrk2). One
thread on bare sockets and `select`, whose time-out knows microseconds; between two requests it sleeps, so that the
origin, which shares its processor, is not kept waiting. How late it sent those for which a connection was free is told
as well: if that is much, the client was the bottleneck and the figures are its own.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
from ctypes import CDLL
from time import perf_counter

_REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
_PR_SET_TIMERSLACK = 29
#: Answers still missing are waited for at most this long after the last request was due, seconds.
_GRACE = 2.0


def run(port: int, rate: float, seconds: float, connections: int) -> dict[str, object]:
    """One round."""
    CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # nanoseconds by which a sleep may be longer; usually 50,000
    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    for sock in socks:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
    free = list(socks)
    due_at: dict[socket.socket, float] = {}
    times: list[float] = []
    late: list[float] = []
    errors = 0
    total = int(rate * seconds)
    sent = 0
    waited = False  # for a connection
    gc.disable()
    began = perf_counter()
    end = began + seconds + _GRACE
    while len(times) + errors < total:
        now = perf_counter()
        if now > end:
            break
        while free and sent < total and (due := began + sent / rate) <= now:
            sock = free.pop()
            sock.send(_REQUEST)
            due_at[sock] = due
            if not waited:
                late.append(now - due)
            sent += 1
        waited = not free
        until = end if waited or sent == total else began + sent / rate
        readable, _, _ = select.select(due_at, (), (), max(0.0, until - perf_counter()))
        for sock in readable:
            data = sock.recv(65536)
            times.append(perf_counter() - due_at.pop(sock))
            if data.startswith(b"HTTP/1.1 200"):
                free.append(sock)
            else:
                times.pop()
                errors += 1
    errors += total - len(times) - errors
    for sock in socks:
        sock.close()
    return {"times": times, "late": late, "errors": errors, "bytes": 0}


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))))
