"""Listening sockets: opened once, by the supervisor, one per worker and address, and handed down.

With SO_REUSEPORT the kernel spreads connections over the workers' sockets. As the supervisor keeps every socket open, a
worker that dies leaves its accept queue to its successor. SO_REUSEPORT would also let a second `lb`, or any process of
the same user, take the address silently. So the address is first tried without it.

Sockets may also be given: by workers of an earlier supervisor, or by systemd (socket activation). Then the address is
ours already, and only what is missing is opened beside them.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

#: Connections that wait to be accepted (the kernel caps it at net.core.somaxconn).
BACKLOG = 4096
#: The Unix sockets of this machine, and the flag of listening ones (proc(5)).
UNIX_SOCKETS = Path("/proc/net/unix")
LISTENS = 0x10000


class CannotListen(Exception):  # noqa: N818 - it says what happened
    """An address cannot be listened on; the text names it and says why."""


def parse_bind(bind: str) -> tuple[socket.AddressFamily, tuple[str, int] | str]:
    """The family and address of `host:port`, `[v6]:port` or `unix:/path`."""
    if bind.startswith("unix:"):
        return socket.AF_UNIX, bind[5:]
    host, _, port = bind.rpartition(":")
    host = host.strip("[]") or "0.0.0.0"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return family, (host, int(port))


def open_listener(bind: str, count: int, given: Sequence[socket.socket] = ()) -> list[socket.socket]:
    """At least `count` listening sockets on one address (one, shared, for a Unix socket). Raises `CannotListen`.

    `given` are used first. Every given queue is kept, also when there are more than `count`: the kernel resets the
    connections in a queue whose last descriptor is closed. Further descriptors of one queue are closed.
    """
    opened = _distinct(given)
    try:
        family, address = parse_bind(bind)
        if opened and not _has_own_queue(opened[0]):
            for sock in opened[count:]:
                sock.close()
            del opened[count:]
            return [*opened, *(opened[0].dup() for _ in range(count - len(opened)))]
        if isinstance(address, str):
            opened.append(_open_unix(address))
            return [*opened, *(opened[0].dup() for _ in range(count - 1))]
        host, port = address
        if opened:
            port = opened[0].getsockname()[1]
        elif port:
            _probe(family, (host, port))
        while len(opened) < count:
            opened.append(_open_inet(family, (host, port)))
            port = opened[0].getsockname()[1]
    except OSError as error:
        for sock in opened:
            sock.close()
        raise CannotListen(f"cannot listen on {bind}: {why(error)}") from None
    return opened


def _distinct(given: Sequence[socket.socket]) -> list[socket.socket]:
    """One descriptor of each queue: a worker that stands in for a neighbour has a copy of the neighbour's socket."""
    found: dict[int, socket.socket] = {}
    for sock in given:
        if found.setdefault(os.fstat(sock.fileno()).st_ino, sock) is not sock:
            sock.close()
    return list(found.values())


def why(error: OSError) -> str:
    """An address's error, in words."""
    return {
        errno.EADDRINUSE: "the address is in use",
        errno.EACCES: "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)",
        errno.EADDRNOTAVAIL: "this machine does not have the address",
    }.get(error.errno or 0, error.strerror or str(error))


def listen_once(bind: str) -> socket.socket:
    """The single socket of an address that one process serves (the admin port). Raises OSError."""
    family, address = parse_bind(bind)
    if isinstance(address, str):
        return _open_unix(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(128)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def remove_left_over(bind: str) -> None:
    """Remove the file of a Unix socket, unless another process still listens on it.

    An lb that backs out of an upgrade has only copies of the sockets of the lb that goes on. And systemd keeps the
    sockets that it opened. The kernel's list is read: a connection would start a service again that systemd has just
    stopped.
    """
    if bind.startswith("unix:") and not _is_listened_on(bind[5:]):
        remove_file(bind)


def remove_file(bind: str) -> None:
    """Remove the file of a Unix socket, also while draining workers hold copies: it gets no new clients any more."""
    if bind.startswith("unix:"):
        with suppress(OSError):
            Path(bind[5:]).unlink()


def is_at(sock: socket.socket, bind: str) -> bool:
    """Whether a socket listens on the address that `bind` means."""
    family, address = parse_bind(bind)
    if sock.family != family:
        return False
    where = sock.getsockname()
    if isinstance(address, str):
        return bool(where == address)
    try:
        wanted = socket.getaddrinfo(*address, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][4]
    except OSError:
        return False
    return tuple(where[:2]) == tuple(wanted[:2])


def bound_name(bind: str, sock: socket.socket) -> str:
    """The address with the port that was chosen for port 0."""
    if bind.startswith("unix:"):
        return bind
    return f"{bind.rpartition(':')[0]}:{sock.getsockname()[1]}"


def _has_own_queue(sock: socket.socket) -> bool:
    """Whether other sockets may listen on the address beside it, each with a queue of its own."""
    return sock.family != socket.AF_UNIX and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))


def _probe(family: socket.AddressFamily, address: tuple[str, int]) -> None:
    """Fail if any process listens there, whether with SO_REUSEPORT or not."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)


def _open_inet(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _open_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_left_over(path):
            Path(path).unlink()
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _is_listened_on(path: str) -> bool:
    """Whether a socket that was bound to the path listens, in any process."""
    try:
        lines = UNIX_SOCKETS.read_bytes().splitlines()[1:]
    except OSError:
        return False
    rows = (line.split(b" ", 7) for line in lines if line.endswith(os.fsencode(path)))
    return any(row[-1] == os.fsencode(path) and int(row[3], 16) & LISTENS for row in rows)


def _is_left_over(path: str) -> bool:
    """Whether the path is a socket that no process listens on any more."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
