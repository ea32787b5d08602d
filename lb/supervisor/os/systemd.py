"""Messages between systemd and lb: readiness, status, signs of life (sd_notify(3)), sockets (sd_listen_fds(3)).

Everything is left out where systemd is not: the environment says whether it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import time

#: The first descriptor that systemd hands over.
FIRST = 3
#: Seconds that it has to act on what it was told.
HEARD_WITHIN = 5.0


def notify(*lines: str) -> None:
    """Tell it: READY=1, STOPPING=1, STATUS=…, WATCHDOG=1, MAINPID=…"""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(1.0)
        sock.connect(_place(address))
        sock.send("\n".join(lines).encode())


def _place(address: str) -> str:
    return "\0" + address[1:] if address.startswith("@") else address


def await_heard() -> None:
    """Return once it has acted on all that it was told so far (BARRIER=1), after 5 s at the latest.

    It closes the descriptor that it is sent then. One that knows no barrier (before 246) closes it as well.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.settimeout(1.0)
            sock.connect(_place(address))
            socket.send_fds(sock, [b"BARRIER=1"], [theirs])
        os.close(theirs)
        closed = select.poll()
        closed.register(ours)
        closed.poll(HEARD_WITHIN * 1000)
    finally:
        os.close(ours)


def notify_reloading() -> None:
    """A reload begins (Type=notify-reload wants to know when); READY=1 ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog() -> float:
    """Seconds between two signs of life, a third of the allowed time; 0: no watchdog."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or (pid.isdecimal() and int(pid) != os.getpid()):
        return 0.0
    return int(microseconds) / 3e6


async def show_life(every: float) -> None:
    """Give the watchdog its signs of life until cancelled."""
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(every)


def take_sockets() -> list[socket.socket]:
    """Listening sockets that systemd has opened for this process; none is left to children."""
    count, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if not count.isdecimal() or not pid.isdecimal() or int(pid) != os.getpid():
        return []
    taken = []
    for fd in range(FIRST, FIRST + int(count)):
        with contextlib.suppress(OSError):
            os.set_inheritable(fd, False)
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            taken.append(sock)
    return taken
