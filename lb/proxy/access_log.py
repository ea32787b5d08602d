"""The access log: one line per request, gathered in a list and written in batches by a thread of its own.

A reader that is too slow costs log lines (they are counted), never requests. Lines go out whole: in one write to a
file, in pieces of at most PIPE_BUF bytes to a pipe, so that workers that share one do not tear each other's lines.
"""

from __future__ import annotations

import json
import os
import queue
import re
import stat
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from lb.core.renames import split_id
from lb.core.report import RequestRecord
from lb.core.targets import AccessLog
from lb.http.h1.excerpt import Excerpt
from lb.proxy.crash_counters import OVER, TAKEN, UNWRITTEN, WRITTEN
from lb.proxy.observers import Ended

#: Bytes of lines that are kept for `lb explain`: some three thousand requests of a worker.
KEPT = 1 << 20
#: Bytes that may wait for a slow reader.
PENDING_LIMIT = 8 << 20
#: Requests without a JSON line that are kept for `lb explain`, and characters of a path that it shows.
RECENT, PATH = 2000, 200
#: Lines that become bytes at a time.
PIECE = 12
#: Bytes that are written without waiting for the sweeper: a megabyte at once would hold up who shares the processor.
FULL = 65536
_PIPE_BUF = 4096
_IOV_MAX = 1024
_PLAIN = re.compile(r'[^"\\\x00-\x1f\x7f-\uffff]*')


def quoted(raw: bytes) -> str:
    """The bytes as a JSON string; header values are bytes of no known charset, so each is one character."""
    text = raw.decode("latin-1")
    if _PLAIN.fullmatch(text):
        return f'"{text}"'
    return '"' + "".join(c if c not in '"\\' and " " <= c < "\x7f" else f"\\u{ord(c):04x}" for c in text) + '"'


def escaped(raw: bytes) -> str:
    """The bytes as text that is safe to print, whatever a client sent."""
    return quoted(raw)[1:-1]


class _Batch(NamedTuple):
    """What goes to the writing thread at a time."""

    pieces: list[bytes]
    lines: int
    size: int  # bytes


#: What is kept of a recent request that has no JSON line: id, start (monotonic), seconds, status, method, whole path,
#: peer, and the id of its target (empty: the proxy answered by itself). A plain tuple of values that exist anyhow, as a
#: worker without an access log makes one for each request.
Brief = tuple[bytes, float, float, int, bytes, bytes, bytes, str]


def brief(exchange: Ended, seconds: float) -> Brief:
    """What is kept of an exchange that has ended."""
    head, lease = exchange.head, exchange.lease
    target = lease.lane.id if lease is not None else ""
    peer = exchange.client.peer
    return exchange.request_id, exchange.started, seconds, exchange.status, head.method, head.target, peer, target


def find_brief(recent: Iterable[Brief], request_id: str, wall: float) -> RequestRecord | None:
    """What is kept of a request, as `lb explain` wants it; `wall` is Unix time less monotonic time."""
    wanted = request_id.encode("latin-1", "replace")
    match = next((each for each in recent if each[0] == wanted), None)
    if match is None:
        return None
    _, started, seconds, status, method, path, peer, target = match
    service, pool, _ = split_id(target) if target else ("none", "none", "")
    return RequestRecord(
        id=request_id,
        at=started + wall,
        client=peer.decode(),
        method=method.decode(),
        path=path.decode("latin-1")[:PATH],
        service=service,
        pool=pool,
        target=target or "none",
        code=status,
        seconds=seconds,
        reason="",
    )


def _record_of(line: dict[str, Any]) -> RequestRecord:
    """What a JSON line says."""
    return RequestRecord(
        id=line["id"],
        at=0.0,
        client=line.get("client", ""),
        method=line.get("method", ""),
        path=line.get("path", "")[:PATH],
        service=line.get("service", "none"),
        pool=line.get("pool", "none"),
        target=line.get("target", "none"),
        code=line["status"],
        seconds=line.get("seconds", 0.0),
        reason=line.get("reason", ""),
        tries=line.get("tries", []),
    )


class Recent:
    """Keeps what `lb explain` may ask for of recent requests, where there is no access log to look it up."""

    __slots__ = ("_briefs",)

    def __init__(self, briefs: deque[Brief]) -> None:
        self._briefs = briefs

    def ended(self, exchange: Ended, seconds: float) -> None:
        self._briefs.append(brief(exchange, seconds))


class Log:
    """One worker's access log."""

    def __init__(
        self, spec: AccessLog, wall_offset: float, crash_counters: memoryview, recent: deque[Brief] | None = None
    ) -> None:
        self.spec = spec
        self.recent: deque[Brief] = deque(maxlen=RECENT) if recent is None else recent  # requests without a JSON line
        self._crash_counters = crash_counters
        # No line is owed for requests that ended before this log began.
        crash_counters[UNWRITTEN] = crash_counters[OVER] - crash_counters[WRITTEN]
        self.lost = 0  # lines that no reader took in time, or that could not be written
        self.trouble = ""  # why the file cannot be opened or written; empty: it can
        self.wall = wall_offset  # Unix time less monotonic time
        self._lines: list[str] = []
        self._packed: list[bytes] = []  # pieces of `PIECE` lines
        self._count = 0  # lines in them
        self._size = 0  # and bytes
        self._json = spec.format == "json"
        self._sample = spec.sample
        self._sampled = 0.0
        self._second = 0
        self._stamp = ""
        self._writer = _Writer(spec.path, crash_counters)
        self._kept: deque[tuple[int, list[bytes]]] = deque()  # (bytes, pieces) that were handed over, oldest first
        self._kept_size = 0

    def ended(self, exchange: Ended, seconds: float) -> None:
        """Add the line of a finished exchange."""
        status = exchange.status
        if self._sample < 1.0 and status < 400 and not exchange.attempt_log:
            self._sampled += self._sample
            if self._sampled < 1.0:
                self._crash_counters[UNWRITTEN] += 1
                self.recent.append(brief(exchange, seconds))
                return
            self._sampled -= 1.0
        started = exchange.started
        wall = started + self.wall
        second = int(wall)
        if second != self._second:
            self._second = second
            form = "%Y-%m-%dT%H:%M:%S." if self._json else "%d/%b/%Y:%H:%M:%S +0000"
            self._stamp = time.strftime(form, time.gmtime(second))
        if not self._json:
            self._combined(exchange, status)
            self.recent.append(brief(exchange, seconds))
            return
        head = exchange.head
        fields = head.fields
        fragment = fields.log_fragment
        if not fragment:
            fragment = fields.log_fragment = self._fragment_of(exchange)
        lease = exchange.lease
        path = head.target.decode()
        if '"' in path or "\\" in path:
            path = escaped(head.target)
        line = (
            f'{{"time":"{self._stamp}{int((wall - second) * 1000):03d}Z","id":"{exchange.request_id.decode()}",'
            f'"method":"{head.method.decode()}","path":"{path}","status":{status},"seconds":{seconds:.6f},'
            f'"bytes_in":{exchange.bytes_in},"bytes_out":{exchange.bytes_out},'
            f"{lease.lane.log_fragment if lease is not None else self._without_target(exchange)},{fragment}"
        )
        if exchange.connected_at or exchange.first_byte_at or exchange.reason or exchange.attempt_log:
            # There is more to tell than of a request that one kept connection answered at once.
            line += self._rare(exchange)
        # `_add`, written out: this is the way of nearly every request.
        lines = self._lines
        lines.append(line + "}\n")
        if len(lines) >= PIECE:
            self._pack()

    def _add(self, line: str) -> None:
        """Take a line of whatever form; a dozen become bytes at once."""
        lines = self._lines
        lines.append(line)
        if len(lines) >= PIECE:
            self._pack()

    @staticmethod
    def _fragment_of(exchange: Ended) -> str:
        """What follows from the connection and the header fields alone."""
        head = exchange.head
        return (
            f'"client":"{exchange.client.peer.decode()}","host":{quoted(head.host)},"protocol":"HTTP/1.{head.minor}",'
            f'"user_agent":{quoted(head.fields.user_agent)}'
        )

    @staticmethod
    def _without_target(exchange: Ended) -> str:
        return f'"service":"{exchange.service.name}","pool":"{exchange.pool.name}","target":"none"'

    @staticmethod
    def _rare(exchange: Ended) -> str:
        """What only an eventful request has: phases that took time of their own, other tries, a reason."""
        line = f',"attempts":{exchange.attempt + 1}'
        if exchange.connected_at:
            line += f',"connect_seconds":{exchange.connected_at - exchange.started:.6f}'
        if exchange.first_byte_at:
            line += f',"first_byte_seconds":{exchange.first_byte_at - exchange.started:.6f}'
        if exchange.reason:
            line += f',"reason":"{exchange.reason}"'
        if exchange.attempt_log:
            attempts = ",".join(quoted(text.encode("latin-1", "replace")) for text in exchange.attempt_log)
            line += f',"tries":[{attempts}]'
        return line

    def refused(
        self, peer: bytes, request_id: bytes, status: int, reason: str, size: int, now: float, seen: Excerpt
    ) -> None:
        """Add the line of a request that was refused before it was understood; what could not be read is empty."""
        wall = now + self.wall
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S" if self._json else "%d/%b/%Y:%H:%M:%S +0000", time.gmtime(wall))
        if self._json:
            self._add(
                f'{{"time":"{stamp}.{int(wall % 1 * 1000):03d}Z","id":"{request_id.decode()}",'
                f'"method":{quoted(seen.method)},"path":{quoted(seen.target)},"status":{status},"bytes_out":{size},'
                f'"service":"none","pool":"none","target":"none","client":"{peer.decode()}",'
                f'"host":{quoted(seen.host)},"protocol":{quoted(seen.protocol)},"user_agent":{quoted(seen.user_agent)},'
                f'"reason":"{reason}"}}\n'
            )
        else:
            line = b" ".join(part for part in (seen.method, seen.target, seen.protocol) if part)
            self._add(
                f"{peer.decode()} - - [{stamp}] {quoted(line or b'-')} {status} {size} "
                f'"-" {quoted(seen.user_agent or b"-")}\n'
            )

    def _combined(self, exchange: Ended, status: int) -> None:
        head = exchange.head
        fields = head.fields
        request = quoted(head.method + b" " + head.target + b" HTTP/1.%d" % head.minor)
        self._add(
            f"{exchange.client.peer.decode()} - - [{self._stamp}] {request} {status} {exchange.bytes_out} "
            f"{quoted(fields.value(b'referer') or b'-')} {quoted(fields.user_agent or b'-')}\n"
        )

    def flush(self) -> None:
        """Hand the gathered lines to the writing thread."""
        self._pack()
        if self._packed:
            self._hand_over()
        self.lost = self._writer.lost
        self.trouble = self._writer.cannot_open or self._writer.cannot_write

    def find(self, request_id: str) -> RequestRecord | None:
        """What a recent line says of a request; None: there is no such line any more."""
        if not self._json:
            return None
        self._pack()
        wanted = f'"id":"{request_id}"'.encode("latin-1", "replace")
        for pieces in (self._packed, *(kept for _, kept in reversed(self._kept))):
            for piece in pieces:
                if wanted in piece:
                    line = next(line for line in piece.splitlines() if wanted in line)
                    return _record_of(json.loads(line))
        return None

    def _hand_over(self) -> None:
        self._kept.append((self._size, self._packed))
        self._kept_size += self._size
        while self._kept_size > KEPT and len(self._kept) > 1:
            size, _ = self._kept.popleft()
            self._kept_size -= size
        self._writer.put(self._packed, self._count, self._size)
        self._packed = []
        self._count = self._size = 0

    def _pack(self) -> None:
        """Make bytes of some lines now: all at once would keep every client waiting for a few milliseconds."""
        lines = self._lines
        if lines:
            piece = "".join(lines).encode("latin-1", "replace")
            self._packed.append(piece)
            self._count += len(lines)
            self._size += len(piece)
            lines.clear()
            if self._size >= FULL:
                self._hand_over()

    def reopen(self) -> None:
        """Open the file anew (after a log rotation)."""
        self.flush()
        self._writer.reopen()

    def close(self) -> None:
        """Write what is left; waits a second at most."""
        self.flush()
        self._writer.close()


class _Writer:
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
        """A descriptor of the file, opened anew. Where that fails `before` stays open: after a rotation lines go on to
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
