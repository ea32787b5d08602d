"""Listening sockets on their way between processes: from the supervisor to its workers, from workers to an heir.

A supervisor sends each worker its sockets over a socket pair that keeps the bounds of messages (`hand`, `close`,
`take`). It may do so at any time: a listener that a reload adds, or the sockets of a neighbour that does not come up.

Every worker also keeps a `Doorway`: a Unix socket in the state directory. Whoever of the same user connects there is
told who the worker is and given its listening sockets (SCM_RIGHTS, unix(7)); the connection then becomes the worker's
new channel as soon as something is said on it. So a new `lb run` takes over from workers whose supervisor died, and an
upgrade from those whose supervisor still lives, without an address being closed for a moment.

Paths of Unix sockets may have 107 bytes only; a state directory may have more. So they are reached through the
directory's descriptor (/proc/self/fd/N/name).
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lb.net import fdpass

#: The listening sockets' names: a listener's bind as configured, and the number of the queue.
Door = tuple[str, int]
#: Seconds that a worker has to answer a visitor; it answers from its loop, so more means that it hangs.
PATIENCE = 2.0
#: The folder of the doorways within the state directory.
FOLDER = "workers"


# --- from a supervisor to its worker ---------------------------------------------------------------------------------


def pair() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end and the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def hand(doors: socket.socket, door: Door, sock: socket.socket, spare: bool = False) -> None:
    """Give a worker a copy of a listening socket; a spare one is only kept. OSError: it reads no more."""
    fdpass.send(doors, json.dumps((*door, spare)).encode(), [sock.fileno()])


def close(doors: socket.socket, door: Door) -> None:
    """Tell a worker to close its copy: another one listens there."""
    fdpass.send(doors, json.dumps((*door, False)).encode())


def take(doors: socket.socket) -> tuple[list[tuple[Door, socket.socket | None, bool]], bool]:
    """What has come so far: sockets to listen on, or (True) to keep, and (None) doors to leave; whether more may come.

    `doors` must not block.
    """
    found: list[tuple[Door, socket.socket | None, bool]] = []
    while True:
        try:
            data, sockets = _receive(doors)
        except BlockingIOError:
            return found, True
        except OSError:
            return found, False
        if not data:
            return found, False
        bind, seat, spare = json.loads(data)
        found.append(((bind, seat), sockets[0] if sockets else None, spare))


# --- from a worker to an heir ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Visit:
    """A worker of another supervisor, as it answered at its doorway."""

    pid: int
    number: int
    incarnation: int
    applied: int  # newest version that it serves by
    connection: socket.socket  # becomes its channel when something is sent
    crash_counters: int = -1  # a descriptor of its page (`proxy.crash_counters`), if it has one
    sockets: dict[Door, socket.socket] = field(default_factory=dict)

    def close_sockets(self) -> None:
        """Close those that nobody has taken: the worker keeps its own."""
        for sock in self.sockets.values():
            sock.close()
        self.sockets.clear()

    def leave(self) -> None:
        """Close everything: the worker goes on as before."""
        self.close_sockets()
        self.connection.close()
        if self.crash_counters >= 0:
            os.close(self.crash_counters)


class Doorway:
    """A worker's Unix socket for heirs. `who` and `sockets` are asked when somebody comes."""

    def __init__(
        self, directory: Path, who: Callable[[], dict[str, int]], sockets: Callable[[], dict[Door, socket.socket]]
    ) -> None:
        self._who = who
        self._sockets = sockets
        self._folder = _open_folder(directory)
        self._name = f"{os.getpid()}.sock"
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        try:
            with suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._folder)
            old = os.umask(0o177)
            try:
                self.sock.bind(_through(self._folder, self._name))
            finally:
                os.umask(old)
            self.sock.listen(4)
        except OSError:
            self.close()
            raise

    def admit(self) -> socket.socket | None:
        """Let one visitor in and give it the sockets; returns the connection, or None when it was nobody."""
        try:
            connection, _ = self.sock.accept()
        except OSError:
            return None
        try:
            if _user(connection) not in (os.geteuid(), 0):
                raise PermissionError("another user's process")
            sockets = self._sockets()
            doors = list(sockets)
            told = json.dumps({**self._who(), "pid": os.getpid(), "doors": doors}).encode()
            connection.sendall(len(told).to_bytes(4, "big") + told)
            descriptors = [sock.fileno() for sock in sockets.values()]
            for start in range(0, len(doors), fdpass.MOST_DESCRIPTORS):
                fdpass.send(connection, b".", descriptors[start : start + fdpass.MOST_DESCRIPTORS])
            connection.setblocking(False)
        except OSError:
            connection.close()
            return None
        return connection

    def close(self) -> None:
        """Nobody comes in any more."""
        self.sock.close()
        if self._folder >= 0:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._folder)
            os.close(self._folder)
            self._folder = -1


def visit_all(directory: Path, but: Iterable[int] = ()) -> tuple[list[Visit], list[int]]:
    """Every worker that answers at a doorway of the state directory, and the pids of those that hang.

    Doorways that nobody stands behind any more are removed. `but`: pids that are not visited.
    """
    found: list[Visit] = []
    hung: list[int] = []
    if not (directory / FOLDER).is_dir():
        return found, hung
    folder = _open_folder(directory)
    try:
        for name in sorted(os.listdir(folder)):  # noqa: PTH208 - of a descriptor
            pid = name.removesuffix(".sock")
            if not pid.isdecimal() or int(pid) in but:
                continue
            try:
                found.append(_visit(_through(folder, name)))
            except (ConnectionRefusedError, FileNotFoundError):
                with suppress(OSError):
                    os.unlink(name, dir_fd=folder)
            except (OSError, ValueError, KeyError, EOFError):
                hung.append(int(pid))
    finally:
        os.close(folder)
    return found, hung


def forget(directory: Path, pid: int) -> None:
    """Remove what a killed worker has left behind."""
    with suppress(OSError):
        (directory / FOLDER / f"{pid}.sock").unlink()


def _visit(path: str) -> Visit:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sockets: list[socket.socket] = []
    try:
        connection.settimeout(PATIENCE)
        connection.connect(path)
        told: dict[str, Any] = json.loads(_exactly(connection, int.from_bytes(_exactly(connection, 4), "big")))
        doors = [(str(bind), int(seat)) for bind, seat in told["doors"]]
        while len(sockets) < len(doors):
            data, more = _receive(connection, 1)
            if not data or not more:
                raise EOFError("the worker kept its sockets")
            sockets += more
        return Visit(
            int(told["pid"]),
            int(told["number"]),
            int(told["incarnation"]),
            int(told["applied"]),
            connection,
            _crash_counters(told),
            dict(zip(doors, sockets, strict=True)),
        )
    except BaseException:
        for sock in sockets:
            sock.close()
        connection.close()
        raise


def _crash_counters(told: dict[str, Any]) -> int:
    """The worker's page, through the kernel's list of its descriptors."""
    if told.get("last_words", -1) < 0:
        return -1
    try:
        return os.open(f"/proc/{int(told['pid'])}/fd/{int(told['last_words'])}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


# --- messages with descriptors ---------------------------------------------------------------------------------------


def _receive(sock: socket.socket, size: int = fdpass.MOST_BYTES) -> tuple[bytes, list[socket.socket]]:
    data, descriptors = fdpass.receive(sock, size)
    return data, [_nonblocking(descriptor) for descriptor in descriptors]


def _nonblocking(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError("the worker closed the connection")
        data += more
    return data


def _user(connection: socket.socket) -> int:
    """Who is at the other end, by the kernel's word."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _open_folder(directory: Path) -> int:
    folder = directory / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _through(folder: int, name: str) -> str:
    return f"/proc/self/fd/{folder}/{name}"
