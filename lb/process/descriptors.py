"""File descriptors: as many as the system gives, and bounds that keep below them.

A proxied connection needs two. A process that runs out of them cannot accept, connect or open its log. So the soft
limit is raised to the hard one at the start, as nginx, HAProxy and Go programs do. Workers accept no more connections
than they have descriptors for. A further client gets an answer instead of a hanging socket.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path

#: Descriptors of a worker that are not for connections: channel, sockets, log, loop, name look-ups, idle connections.
RESERVE = 100
#: No more than this is asked for: some systems allow a thousand million, and some libraries walk through them all.
PLENTY = 1 << 20


def raise_limit() -> int:
    """Raise the soft limit to the hard one; returns what holds now. Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = PLENTY if hard == resource.RLIM_INFINITY else min(hard, PLENTY)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft
        return wanted
    return soft if soft != resource.RLIM_INFINITY else PLENTY


def keep_from_children() -> None:
    """Leave to children none of the descriptors that this process got from its parent, but the standard ones. A worker
    may outlive `lb` by an hour, and a lock or pipe of the caller would be held for as long."""
    for each in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):  # the listing's own is closed already
            if int(each.name) > 2:
                os.set_inheritable(int(each.name), False)


def connections() -> int:
    """Client connections that this process has descriptors for: each may need one to a target as well."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return PLENTY
    return max(1, (soft - min(RESERVE, soft // 2)) // 2)


def open_now(pid: int | None = None) -> int:
    """Descriptors that a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid or 'self'}/fd").iterdir())
