"""Listening sockets: opened once, by the supervisor, one per worker and address, and handed down.

With SO_REUSEPORT the kernel spreads connections over the workers' sockets. As the supervisor keeps every socket open,
a worker that dies leaves its accept queue to its successor. SO_REUSEPORT would also let a second `lb`, or anything
else of the same user, take the address silently: so the address is first tried without it.
"""

from __future__ import annotations

import errno
import socket
import stat
from pathlib import Path

#: Connections that wait to be accepted (the kernel caps it at net.core.somaxconn).
BACKLOG = 4096


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


def open_listener(bind: str, count: int) -> list[socket.socket]:
    """`count` listening sockets on one address (one, shared, for a Unix socket). Raises `CannotListen`."""
    family, address = parse_bind(bind)
    try:
        if isinstance(address, str):
            first = _open_unix(address)
            return [first, *(first.dup() for _ in range(count - 1))]
        host, port = address
        if port:
            _probe(family, (host, port))
        sockets = [_open_inet(family, (host, port))]
        chosen = sockets[0].getsockname()[1]
        sockets += [_open_inet(family, (host, chosen)) for _ in range(count - 1)]
    except OSError as error:
        reason = {
            errno.EADDRINUSE: "the address is in use",
            errno.EACCES: "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)",
            errno.EADDRNOTAVAIL: "this machine does not have the address",
        }.get(error.errno or 0, error.strerror or str(error))
        raise CannotListen(f"cannot listen on {bind}: {reason}") from None
    return sockets


def bound_name(bind: str, sock: socket.socket) -> str:
    """The address with the port that was chosen for port 0."""
    if bind.startswith("unix:"):
        return bind
    return f"{bind.rpartition(':')[0]}:{sock.getsockname()[1]}"


def _probe(family: socket.AddressFamily, address: tuple[str, int]) -> None:
    """Fail if anybody listens there, whether with SO_REUSEPORT or not."""
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


def _is_left_over(path: str) -> bool:
    """Whether the path is a socket that nobody listens on any more."""
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
