"""The access log: one line per request, gathered in a list and written in batches (`log_writer`)."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from lb.core.renames import split_id
from lb.core.report import RequestRecord
from lb.core.targets import AccessLog
from lb.http.h1.excerpt import Excerpt
from lb.http.message import PROTOCOLS
from lb.proxy.crash_counters import OVER, UNWRITTEN, WRITTEN
from lb.proxy.log_writer import LogWriter
from lb.proxy.observers import Ended, Observer
from lb.proxy.route_fragment import read_fragment, read_remarks

#: Bytes of lines that are kept for `lb explain`: some three thousand requests of a worker.
KEPT: Final = 1 << 20
#: Requests without a JSON line that are kept for `lb explain`, and characters of a path that it shows.
RECENT: Final = 2000
PATH: Final = 200
#: Lines that are joined at a time.
PIECE: Final = 12
#: Bytes that are written without waiting for the sweeper: a megabyte at once would delay other processes.
FULL: Final = 65536
_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f\x7f-\uffff]*')

# Parts of a line that follow from a number below a thousand.
NUMBERS: Final = [b"%d" % number for number in range(1000)]
MILLIS: Final = [b'%03dZ","id":"' % number for number in range(1000)]
STATUS: Final = [b'","status":%d,"seconds":' % number for number in range(1000)]
FRACTION: Final = [b"0.%03d" % number for number in range(1000)]
MICROS: Final = [b'%03d,"bytes_in":' % number for number in range(1000)]
# Looked for by its number: for bytes in bytes, CPython makes an exception each time, and throws it away.
QUOTE: Final = 0x22
BACKSLASH: Final = 0x5C
_END: Final = b"}\n"  # of a line


def quoted(raw: bytes) -> str:
    """The bytes as a JSON string; header values are bytes of no known charset, so each is one character."""
    text = raw.decode("latin-1")
    if _PLAIN.fullmatch(text):
        return f'"{text}"'
    return '"' + "".join(c if c not in '"\\' and " " <= c < "\x7f" else f"\\u{ord(c):04x}" for c in text) + '"'


def escaped(raw: bytes) -> str:
    """The bytes as text that is safe to print, whatever a client sent."""
    return quoted(raw)[1:-1]


#: The record of a recent request without a JSON line. Its values are id, start (monotonic), seconds, status, method,
#: whole path, `RequestHead.minor`, peer, the id of its target (empty: the proxy answered by itself), and its
#: `route_fragment`. A plain tuple of values that exist anyhow, as a worker without an access log makes one for each
#: request.
Brief = tuple[bytes, float, float, int, bytes, bytes, int, bytes, str, bytes]


def brief(exchange: Ended, seconds: float) -> Brief:
    """The record of an exchange that has ended."""
    head = exchange.received
    who = exchange.peer, exchange.target_id, exchange.route_fragment
    return (exchange.request_id, exchange.started, seconds, exchange.status, head.method, head.target, head.minor, *who)


def find_brief(recent: Iterable[Brief], request_id: str, wall: float) -> RequestRecord | None:
    """The record of a request, for `lb explain`. `wall` is Unix time less monotonic time."""
    wanted = request_id.encode("latin-1", "replace")
    match = next((each for each in recent if each[0] == wanted), None)
    if match is None:
        return None
    _, started, seconds, status, method, path, minor, peer, target, fragment = match
    route, steps = read_fragment(fragment)
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
        protocol=PROTOCOLS[minor].decode(),
        route=route,
        steps=steps,
        remarks=read_remarks(fragment),
    )


def _record_of(line: dict[str, Any]) -> RequestRecord:
    """The record in a JSON line."""
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
        protocol=line.get("protocol", ""),
        route=line.get("route", ""),
        steps=line.get("steps", []),
        remarks=line.get("remarks", []),
    )


def _sent(exchange: Ended) -> bytes:
    """The path that the target got, where a step has changed it."""
    target = exchange.head.target
    if target == exchange.received.target:
        return b""
    if QUOTE in target or BACKSLASH in target or not target.isascii():
        return b',"sent":' + quoted(target).encode()
    return b',"sent":"' + target + b'"'


class Recent(Observer):
    """Keeps records of recent requests for `lb explain`, when there is no access log."""

    __slots__ = ("_briefs",)

    def __init__(self, briefs: deque[Brief]) -> None:
        self._briefs = briefs

    def ended(self, exchange: Ended, seconds: float) -> None:
        self._briefs.append(brief(exchange, seconds))


class Log(Observer):
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
        self._lines: list[bytes] = []
        self._packed: list[bytes] = []  # pieces of `PIECE` lines
        self._count = 0  # lines in them
        self._size = 0  # and bytes
        self._json = spec.format == "json"
        self._sample = spec.sample
        self._sampled = 0.0
        self._second = 0
        self._stamp = b""  # the begin of a line, or the time in one of the combined form
        self._writer = LogWriter(spec.path, crash_counters)
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
            form = '{"time":"%Y-%m-%dT%H:%M:%S.' if self._json else "%d/%b/%Y:%H:%M:%S +0000"
            self._stamp = time.strftime(form, time.gmtime(second)).encode()
        if not self._json:
            self._combined(exchange, status)
            self.recent.append(brief(exchange, seconds))
            return
        head = exchange.received
        fields = head.fields
        fragment = fields.log_fragment
        if not fragment:
            fragment = fields.log_fragment = self._fragment_of(exchange)
        target = head.target
        if QUOTE in target or BACKSLASH in target:
            target = escaped(target).encode()
        micros = int(seconds * 1e6 + 0.5)
        taken, size = exchange.bytes_in, exchange.bytes_out
        # Joined of bytes that exist, some from tables: formatting costs three times as much.
        line = b"".join(
            (
                self._stamp,
                MILLIS[int((wall - second) * 1000)],
                exchange.request_id,
                b'","method":"',
                head.method,
                b'","path":"',
                target,
                STATUS[status],
                FRACTION[micros // 1000] if micros < 1_000_000 else b"%d.%03d" % divmod(micros // 1000, 1000),
                MICROS[micros % 1000],
                NUMBERS[taken] if taken < 1000 else b"%d" % taken,
                b',"bytes_out":',
                NUMBERS[size] if size < 1000 else b"%d" % size,
                exchange.target_fragment or self._without_target(exchange),
                fragment,
            )
        )
        grpc = exchange.grpc_status >= 0
        if exchange.route_fragment:
            line = b"".join((line[: -len(_END)], exchange.route_fragment, _sent(exchange), _END))
        if exchange.connected_at or exchange.first_byte_at or exchange.reason or exchange.attempt_log or grpc:
            # There is more to tell than of a request that one kept connection answered at once.
            line = line[: -len(_END)] + self._rare(exchange) + _END
        # `_add`, written out: this is the way of nearly every request.
        lines = self._lines
        lines.append(line)
        if len(lines) >= PIECE:
            self._pack()

    def _add(self, line: str) -> None:
        """Take a line of whatever form; a dozen are joined at once."""
        lines = self._lines
        lines.append(line.encode("latin-1", "replace"))
        if len(lines) >= PIECE:
            self._pack()

    @staticmethod
    def _fragment_of(exchange: Ended) -> bytes:
        """The end of a line: the values that depend on the connection and the header fields alone."""
        head = exchange.received
        text = (
            f',"client":"{exchange.peer.decode()}","host":{quoted(head.host)},"protocol":"{head.protocol.decode()}",'
            f'"user_agent":{quoted(head.fields.user_agent)}'
        )
        if exchange.tls is not None:
            known = exchange.tls
            text += (
                f',"tls_version":"{known.version}","tls_cipher":"{known.cipher}","tls_name":"{known.server_name}",'
                f'"tls_resumed":{"true" if known.resumed else "false"}'
            )
        return text.encode() + _END

    @staticmethod
    def _without_target(exchange: Ended) -> bytes:
        text = f',"service":"{exchange.service_name}","pool":"{exchange.pool_name}","target":"none"'
        return text.encode("latin-1", "replace")

    @staticmethod
    def _rare(exchange: Ended) -> bytes:
        """The fields of an eventful request: times of its phases, other tries, a reason."""
        line = f',"attempts":{exchange.attempt + 1}'
        if exchange.connected_at:
            line += f',"connect_seconds":{exchange.connected_at - exchange.started:.6f}'
        if exchange.first_byte_at:
            line += f',"first_byte_seconds":{exchange.first_byte_at - exchange.started:.6f}'
        if exchange.grpc_status >= 0:
            line += f',"grpc_status":{exchange.grpc_status}'
        if exchange.reason:
            line += f',"reason":"{exchange.reason}"'
        if exchange.attempt_log:
            attempts = ",".join(quoted(text.encode("latin-1", "replace")) for text in exchange.attempt_log)
            line += f',"tries":[{attempts}]'
        return line.encode("latin-1", "replace")

    def refused(
        self, peer: bytes, request_id: bytes, status: int, reason: str, size: int, now: float, seen: Excerpt
    ) -> None:
        """Add the line of a request that was refused while its head was read. Unreadable values are empty."""
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
        head = exchange.received
        fields = head.fields
        request = quoted(b" ".join((head.method, head.target, head.protocol)))
        self._add(
            f"{exchange.peer.decode()} - - [{self._stamp.decode()}] {request} {status} {exchange.bytes_out} "
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
        """The record of a recent request. None when its line is gone."""
        if not self._json:
            return None
        self._pack()
        wanted = f'"id":"{request_id}"'.encode("latin-1", "replace")
        for pieces in (self._packed, *[kept for _, kept in reversed(self._kept)]):
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
        """Join some lines now: all at once would keep every client waiting for a few milliseconds."""
        lines = self._lines
        if lines:
            piece = b"".join(lines)
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
        """Write the remaining lines, for at most a second."""
        self.flush()
        self._writer.close()
