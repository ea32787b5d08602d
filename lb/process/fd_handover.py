"""Listening sockets on their way between processes: from a supervisor to its workers, and from workers to a new one.

A supervisor sends each worker its sockets over a socket pair that keeps the bounds of messages (`hand`, `close`,
`receive`). It may do so at any time: for a listener that a reload adds, or for a neighbour that does not start.

Every worker also has a `HandoverSocket`: a Unix socket in the state directory. A process of the same user that connects
gets the worker's identity and its listening sockets (SCM_RIGHTS, unix(7)). With the first message the connection
becomes the worker's new channel. So a new `lb run` takes over workers whose supervisor has died, and an upgrade takes
over workers whose supervisor still runs. No address is closed for a moment.

Paths of Unix sockets have at most 107 bytes; a state directory may have more. So the sockets are reached through the
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
ListenerKey = tuple[str, int]
#: Seconds that a worker has to answer. It answers from its loop, so that a longer time means that it hangs.
PATIENCE = 2.0
#: The folder of the handover sockets within the state directory.
FOLDER = "workers"


# --- from a supervisor to its worker ---------------------------------------------------------------------------------


def pair() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end and the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def hand(channel: socket.socket, key: ListenerKey, sock: socket.socket, spare: bool = False) -> None:
    """Send a worker a copy of a listening socket. It only keeps a spare one. Raises OSError when it reads no more."""
    fdpass.send(channel, json.dumps((*key, spare)).encode(), [sock.fileno()])


def close(channel: socket.socket, key: ListenerKey) -> None:
    """Tell a worker to close its copy, because another worker listens there."""
    fdpass.send(channel, json.dumps((*key, False)).encode())


def receive(channel: socket.socket) -> tuple[list[tuple[ListenerKey, socket.socket | None, bool]], bool]:
    """The items received so far, and whether more may come. An item is a key, a socket, and whether it is a spare.

    A worker listens on a socket, or only keeps it when it is a spare. Without a socket it stops listening at that key.

    `channel` must not block.
    """
    items: list[tuple[ListenerKey, socket.socket | None, bool]] = []
    while True:
        try:
            data, sockets = _receive(channel)
        except BlockingIOError:
            return items, True
        except OSError:
            return items, False
        if not data:
            return items, False
        bind, slot, spare = json.loads(data)
        items.append(((bind, slot), sockets[0] if sockets else None, spare))


# --- from a worker to a new supervisor -------------------------------------------------------------------------------


@dataclass(slots=True)
class FoundWorker:
    """A worker of another supervisor, by its answer at its handover socket."""

    pid: int
    number: int
    incarnation: int
    applied: int  # newest version that it serves by
    connection: socket.socket  # becomes its channel when something is sent
    crash_counters: int = -1  # a descriptor of its page (`proxy.crash_counters`), if it has one
    sockets: dict[ListenerKey, socket.socket] = field(default_factory=dict)

    def close_sockets(self) -> None:
        """Close the sockets that were not taken over. The worker keeps its own copies."""
        for sock in self.sockets.values():
            sock.close()
        self.sockets.clear()

    def leave(self) -> None:
        """Close everything. The worker goes on as before."""
        self.close_sockets()
        self.connection.close()
        if self.crash_counters >= 0:
            os.close(self.crash_counters)


class HandoverSocket:
    """A worker's Unix socket for a new supervisor. Both `who` and `sockets` are called for each connection."""

    def __init__(
        self,
        directory: Path,
        who: Callable[[], dict[str, int]],
        sockets: Callable[[], dict[ListenerKey, socket.socket]],
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
        """Accept one supervisor and send it the sockets. Returns the connection, or None when it has failed."""
        try:
            connection, _ = self.sock.accept()
        except OSError:
            return None
        try:
            if _user(connection) not in (os.geteuid(), 0):
                raise PermissionError("another user's process")
            sockets = self._sockets()
            keys = list(sockets)
            identity = json.dumps({**self._who(), "pid": os.getpid(), "doors": keys}).encode()
            connection.sendall(len(identity).to_bytes(4, "big") + identity)
            descriptors = [sock.fileno() for sock in sockets.values()]
            for start in range(0, len(keys), fdpass.MOST_DESCRIPTORS):
                fdpass.send(connection, b".", descriptors[start : start + fdpass.MOST_DESCRIPTORS])
            connection.setblocking(False)
        except OSError:
            connection.close()
            return None
        return connection

    def close(self) -> None:
        """Close and remove the socket."""
        self.sock.close()
        if self._folder >= 0:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._folder)
            os.close(self._folder)
            self._folder = -1


def find_workers(directory: Path, but: Iterable[int] = ()) -> tuple[list[FoundWorker], list[int]]:
    """The workers that answer at a handover socket of the state directory, and the pids of hung workers.

    Sockets of ended processes are removed. Workers with a pid in `but` are skipped.
    """
    workers: list[FoundWorker] = []
    hung: list[int] = []
    if not (directory / FOLDER).is_dir():
        return workers, hung
    folder = _open_folder(directory)
    try:
        for name in sorted(os.listdir(folder)):  # noqa: PTH208 - of a descriptor
            pid = name.removesuffix(".sock")
            if not pid.isdecimal() or int(pid) in but:
                continue
            try:
                workers.append(_ask_worker(_through(folder, name)))
            except (ConnectionRefusedError, FileNotFoundError):
                with suppress(OSError):
                    os.unlink(name, dir_fd=folder)
            except (OSError, ValueError, KeyError, EOFError):
                hung.append(int(pid))
    finally:
        os.close(folder)
    return workers, hung


def forget(directory: Path, pid: int) -> None:
    """Remove the socket of a killed worker."""
    with suppress(OSError):
        (directory / FOLDER / f"{pid}.sock").unlink()


def _ask_worker(path: str) -> FoundWorker:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sockets: list[socket.socket] = []
    try:
        connection.settimeout(PATIENCE)
        connection.connect(path)
        answer: dict[str, Any] = json.loads(_exactly(connection, int.from_bytes(_exactly(connection, 4), "big")))
        keys = [(str(bind), int(slot)) for bind, slot in answer["doors"]]
        while len(sockets) < len(keys):
            data, more = _receive(connection, 1)
            if not data or not more:
                raise EOFError("the worker kept its sockets")
            sockets += more
        return FoundWorker(
            int(answer["pid"]),
            int(answer["number"]),
            int(answer["incarnation"]),
            int(answer["applied"]),
            connection,
            _crash_counters(answer),
            dict(zip(keys, sockets, strict=True)),
        )
    except BaseException:
        for sock in sockets:
            sock.close()
        connection.close()
        raise


def _crash_counters(answer: dict[str, Any]) -> int:
    """The worker's page, through the kernel's list of its descriptors."""
    if answer.get("last_words", -1) < 0:
        return -1
    try:
        return os.open(f"/proc/{int(answer['pid'])}/fd/{int(answer['last_words'])}", os.O_RDONLY | os.O_CLOEXEC)
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
    """The user id of the peer, from the kernel."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _open_folder(directory: Path) -> int:
    folder = directory / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _through(folder: int, name: str) -> str:
    return f"/proc/self/fd/{folder}/{name}"
