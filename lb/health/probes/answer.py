"""An HTTP answer to a probe: read within bounds and compared with `expect`. Pure.

The head is checked like every other answer of a target (`http.h1.parse`): an answer that the proxy would refuse is no
sign of readiness. An answer counts when it is complete, or when `max_body` bytes of its body have come. The probe's
timeout ends an answer that trickles.

The final answer counts, not interim ones (1xx). When only interim answers came, `ignore_1xx` leaves the target's state
unchanged (Marathon's ignoreHttp1xx). Without it the last interim answer is judged like any other status.

A ready target may ask for a smaller share: `X-LB-Weight: 50%` or `X-LB-State: drain` as a header, or `50%`, `drain`,
`50% drain` as the first line of the body (HAProxy's agent words).
"""

from __future__ import annotations

import re
from functools import lru_cache

from lb.core.checks import CheckSpec, Expect
from lb.core.lifecycle import Verdict
from lb.core.patterns import Pattern
from lb.core.printable import SHOWN, printable
from lb.http.h1.chunked import BadChunk, ChunkedBody
from lb.http.h1.parse import BadResponse, check_partial_response, read_response, read_response_fields
from lb.http.message import CHUNKED, LENGTH, NONE, ResponseHead

#: Bytes of all heads of one answer, interim ones included.
HEADS_LIMIT = 65536
#: Heads up to this size are kept, raw and read.
MEMO_LIMIT = 2048

_SHARE = re.compile(r"(\d{1,3})%")
_BARE_SHARE = re.compile(r"(\d{1,3})%?")
_LONGEST_LINE = 40  # characters of agent words

#: The share of its weight that a target asks for (None: the whole weight), and whether it asks for a drain.
Words = tuple[float | None, bool]


@lru_cache(maxsize=64)
def _read(raw: bytes, method: bytes) -> tuple[ResponseHead, bytes, Words]:
    """A head, its field lines and the agent words in them. Raises `BadResponse`.

    Cached, because the targets of a pool send the same head within a second.
    """
    line_end = raw.find(b"\r\n")
    fields = raw[line_end + 2 : -2]
    return read_response(raw, line_end, read_response_fields(fields), method), fields, _words_in_fields(fields)


class Answer:
    """Takes bytes until it is `done`."""

    __slots__ = (
        "_chunked",
        "_heads",
        "_limit",
        "_method",
        "_remaining",
        "body",
        "broken",
        "done",
        "fields",
        "head",
        "raw",
        "words",
    )

    def __init__(self, method: str, limit: int) -> None:
        self._method = method.encode()
        self._limit = limit
        self._heads = 0  # bytes of heads so far
        self._remaining = -1  # bytes of body still to come; -1: its length is unknown
        self._chunked: ChunkedBody | None = None
        self.raw = b""  # of a head that is not complete yet
        self.head: ResponseHead | None = None  # the newest head, interim or final
        self.fields = b""  # the newest head's field lines
        self.words: Words = (None, False)  # the agent words in these lines
        self.body = b""
        self.done = False
        self.broken = ""  # why the answer is nonsense

    def feed(self, data: bytes) -> None:
        try:
            if self.head is None or self.head.status < 200:
                data = self._feed_head(data)
                if self.head is None or self.head.status < 200:
                    return
            self._feed_body(data)
        except (BadResponse, BadChunk) as error:
            self.broken = str(error) or "nonsense"
            self.done = True

    def end(self) -> None:
        """The target has closed its side."""
        if self.done:
            return
        self.done = True
        if self.head is None:
            self.broken = "closed the connection in the middle of its answer's head" if self.raw else "closed"
        elif self.head.status < 200:
            self.broken = "closed after an interim answer" if self.raw else ""
        elif self._chunked is not None or self._remaining > 0:
            self.broken = "closed the connection in the middle of its answer's body"

    def _feed_head(self, data: bytes) -> bytes:
        self.raw += data
        while True:
            end = self.raw.find(b"\r\n\r\n")
            if end < 0:
                if self._heads + len(self.raw) > HEADS_LIMIT:
                    raise BadResponse(f"the head is longer than {HEADS_LIMIT} bytes")
                if self.raw:
                    check_partial_response(self.raw, HEADS_LIMIT)
                return b""
            self._heads += end + 4
            if self._heads > HEADS_LIMIT:
                raise BadResponse(f"its heads are longer than {HEADS_LIMIT} bytes")
            raw, rest = self.raw[: end + 4], self.raw[end + 4 :]
            read = _read if len(raw) <= MEMO_LIMIT else _read.__wrapped__
            self.head, self.fields, self.words = read(raw, self._method)
            self.raw = rest
            if self.head.status >= 200:
                break
        head = self.head
        self.raw = b""
        if head.framing == NONE:
            self._remaining = 0
        elif head.framing == LENGTH:
            self._remaining = head.fields.length
        elif head.framing == CHUNKED:
            self._chunked = ChunkedBody(framed=False, trailers=False)
        return rest

    def _feed_body(self, data: bytes) -> None:
        if self._chunked is not None:
            data, end = self._chunked.feed(data)
            if end >= 0:
                self._chunked = None
                self._remaining = 0
        elif self._remaining >= 0:
            data = data[: self._remaining]
            self._remaining -= len(data)
        self.body += data[: self._limit - len(self.body)]
        self.done = self._remaining == 0 or len(self.body) >= self._limit

    def excerpt(self) -> str:
        """The body's beginning, for people."""
        return _excerpt(self.body[: SHOWN * 4 + 1])

    def sketch(self) -> str:
        """The answer, for people: the status line and the body's beginning."""
        if self.head is None:
            return printable(self.raw) if self.raw else ""
        return _sketch(self.head.line, self.body[: SHOWN * 4])


@lru_cache(maxsize=64)
def _excerpt(beginning: bytes) -> str:
    """A body's beginning for people; the escapes of control characters count for its length."""
    text = printable(beginning)
    return f"{text[:SHOWN]}…" if len(text) > SHOWN else text


@lru_cache(maxsize=64)
def _sketch(line: bytes, beginning: bytes) -> str:
    """A status line and the body's beginning, for people. Cached: nearly all answers of a pool are alike."""
    status_line = line.decode("latin-1").strip()
    return f"{status_line}\n{printable(beginning)}" if beginning else status_line


def judge(answer: Answer, spec: CheckSpec, seconds: float, wanted: Wanted, limit: float) -> Verdict:
    """The verdict on an answer that is `done`. Raises `TooCostly` when a pattern needs more than `limit` seconds."""
    head = answer.head
    if answer.broken == "closed":
        return Verdict(False, seconds, "closed the connection without an answer", "reset")
    if answer.broken:
        kind = "reset" if answer.broken.startswith("closed") else "garbage"
        return Verdict(False, seconds, f"not a valid answer: {answer.broken}", kind, got=answer.sketch())
    assert head is not None
    text = f"HTTP {head.status}"
    if head.status < 200 and spec.ignore_1xx:
        return Verdict(False, seconds, f"{text}, ignored as configured", ignored=True, got=answer.sketch())
    if not wanted.fits_status(head.status):
        return Verdict(
            False,
            seconds,
            f"{text}, expected {wanted.statuses}",
            "status",
            got=answer.sketch(),
            excerpt=answer.excerpt(),
        )
    for name, value in spec.expect.headers:
        values = _values(answer.fields, name.lower().encode())
        if not any(wanted.fits_header(name, each, limit) for each in values):
            got = f"{name}: {', '.join(values)}" if values else f"no {name}"
            text = f"{text}, but {got}; expected {value or 'it to be there'}"
            return Verdict(False, seconds, text, "header", got=answer.sketch(), excerpt=answer.excerpt())
    if spec.expect.body and not wanted.fits_body(answer.body, limit):
        text = f"{text}, but its body ({len(answer.body)} bytes) has no {spec.expect.body}"
        return Verdict(False, seconds, text, "body", got=answer.sketch(), excerpt=answer.excerpt())
    weight, drain = agent_words(answer)
    if weight is not None or drain:
        asks = " and ".join(([f"weight {weight:.0%}"] if weight is not None else []) + (["drain"] if drain else []))
        text = f"{text}, asks for {asks}"
    return Verdict(True, seconds, text, "passed", weight, drain, got=answer.sketch())


class Wanted:
    """An `Expect` with its patterns compiled."""

    __slots__ = ("_body", "_headers", "_ranges", "statuses")

    def __init__(self, expect: Expect) -> None:
        self._ranges = expect.status
        self.statuses = ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in expect.status)
        self._body = Pattern(expect.body)
        self._headers = {name: Pattern(value) for name, value in expect.headers}

    def fits_status(self, status: int) -> bool:
        for low, high in self._ranges:  # noqa: SIM110 - `any` of a generator costs four times as much
            if low <= status <= high:
                return True
        return False

    def fits_header(self, name: str, value: str, limit: float) -> bool:
        """Whether a header's value equals the expected text or matches the /regex/. True when any value will do."""
        wanted = self._headers[name]
        if wanted.is_text:
            return not wanted.text or value == wanted.text
        return wanted.found_in(value, limit)

    def fits_body(self, body: bytes, limit: float) -> bool:
        """Whether the body contains the expected text, or a match of the /regex/."""
        return self._body.found_in(body.decode("utf-8", "replace"), limit)


def agent_words(answer: Answer) -> Words:
    """The agent words of an answer, from its headers or else from its body."""
    return answer.words if answer.words != (None, False) else agent_line(answer.body)


def agent_line(body: bytes) -> Words:
    """The agent words in the first line of a text: `50%`, `drain`, `50% drain`. Any other text has none."""
    return _words_in_line(body[: _LONGEST_LINE + 1])


@lru_cache(maxsize=64)
def _words_in_line(beginning: bytes) -> Words:
    line = beginning.split(b"\n", 1)[0]
    if not line or len(line) > _LONGEST_LINE:
        return None, False
    return _read_words(line.decode("latin-1"), _SHARE)


def _words_in_fields(fields: bytes) -> Words:
    share: float | None = None
    drain = False
    if b"x-lb-" in fields.lower():
        for value in _values(fields, b"x-lb-weight"):
            share, drain = _read_words(value, _BARE_SHARE)
        drain = drain or any(value.lower() == "drain" for value in _values(fields, b"x-lb-state"))
    return share, drain


def _read_words(text: str, share_word: re.Pattern[str]) -> Words:
    share: float | None = None
    drain = False
    for word in text.lower().replace(",", " ").split():
        match = share_word.fullmatch(word)
        if match is not None:
            share = min(int(match[1]), 100) / 100
        elif word == "drain":
            drain = True
        elif word != "ready":
            return None, False
    return share, drain


def _values(fields: bytes, name: bytes) -> list[str]:
    """The values of all field lines called `name` (lower case)."""
    values = []
    for line in fields.split(b"\r\n"):
        key, colon, value = line.partition(b":")
        if colon and key.lower() == name:
            values.append(value.strip(b" \t").decode("latin-1"))
    return values
