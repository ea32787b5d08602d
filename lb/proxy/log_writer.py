"""Writes the access log: a thread of its own, to which the loop hands lines in batches.

A reader that is too slow costs log lines (they are counted), never requests. Lines go out whole: in one write to a
file, in pieces of at most PIPE_BUF bytes to a pipe. So workers that share one do not tear each other's lines.
"""

from __future__ import annotations

import os
import queue
import stat
import threading
from collections.abc import Iterator
from typing import Final, NamedTuple

from lb.proxy.crash_counters import TAKEN, UNWRITTEN, WRITTEN

#: Bytes that may wait for a slow reader.
PENDING_LIMIT: Final = 8 << 20
_PIPE_BUF: Final = 4096
_IOV_MAX: Final = 1024


class _Batch(NamedTuple):
    """Lines that go to the writing thread at a time."""

    pieces: list[bytes]
    lines: int
    size: int  # bytes


class LogWriter:
    """A thread that writes pieces to a file, standard output or a pipe, and does next to nothing else.

    While it runs Python, the loop cannot. So lines come to it ready to be written, and a file takes them in one call.
    """

    def __init__(self, path: str, crash_counters: memoryview) -> None:
        self.lost = 0
        self.cannot_open = self.cannot_write = ""  # why, since the last try; empty: it can be done
        self._path = path
        self._crash_counters = crash_counters
        self._pending = 0
        self._torn = False  # the disk became full within a line: the next one is not to hang on it
        self._queue: queue.SimpleQueue[_Batch | str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def put(self, pieces: list[bytes], count: int, size: int) -> None:
        """Write pieces of whole lines: `count` lines, `size` bytes."""
        if self._pending + size > PENDING_LIMIT:
            self.lost += count
            self._crash_counters[UNWRITTEN] += count
            return
        self._pending += size
        self._queue.put(_Batch(pieces, count, size))

    def reopen(self) -> None:
        self._queue.put("reopen")

    def close(self) -> None:
        self._queue.put("close")
        self._thread.join(1.0)

    def _run(self) -> None:
        fd = self._opened(-1)
        while True:
            item = self._queue.get()
            if item == "close":
                return
            if item == "reopen":
                fd = self._opened(fd)
                continue
            assert isinstance(item, _Batch)
            try:
                if self.cannot_open:
                    fd = self._opened(fd)
                self._crash_counters[TAKEN] = self._crash_counters[WRITTEN] + item.lines
                self._write(fd, item.pieces)
                self.cannot_write = ""
            except OSError as error:  # disk full, reader gone: the lines are lost, the proxy is not
                self.lost += item.lines
                self.cannot_write = f"{self._name} cannot be written: {error.strerror or error}"
            self._crash_counters[WRITTEN] += item.lines
            self._pending -= item.size

    @property
    def _name(self) -> str:
        return "stdout" if self._path == "-" else self._path

    def _opened(self, before: int) -> int:
        """A descriptor of the file, opened anew. Where that fails `before` stays open. After a rotation lines go on to
        the file that was moved away, rather than nowhere; it is tried again with the next lines."""
        if self._path == "-":
            return 1
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            self.cannot_open = f"{self._path} cannot be opened: {error.strerror}"
            return before
        if before > 1:
            os.close(before)
        self.cannot_open = ""
        return fd

    def _write(self, fd: int, pieces: list[bytes]) -> None:
        if fd < 0:
            raise OSError("the log file cannot be opened")
        if self._torn:
            os.write(fd, b"\n")
            self._torn = False
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            for piece in pieces:
                for part in [piece] if len(piece) <= _PIPE_BUF else _parts(piece):
                    self._write_all(fd, part)
            return
        for at in range(0, len(pieces), _IOV_MAX):
            some = pieces[at : at + _IOV_MAX]
            written = os.writev(fd, some)
            if written < sum(map(len, some)):
                self._write_all(fd, b"".join(some), written)

    def _write_all(self, fd: int, data: bytes, written: int = 0) -> None:
        """Write `data`, of which so many bytes are written already."""
        view = memoryview(data)[written:]
        try:
            while view:
                view = view[os.write(fd, view) :]
        except OSError:
            self._torn = data[: len(data) - len(view)][-1:] not in (b"", b"\n")
            raise


def _parts(piece: bytes) -> Iterator[bytes]:
    """Whole lines, as many at a time as a pipe takes in one; a line that is longer goes alone."""
    batch = b""
    for line in piece.splitlines(keepends=True):
        if batch and len(batch) + len(line) > _PIPE_BUF:
            yield batch
            batch = b""
        batch += line
    yield batch
