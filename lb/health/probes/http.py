"""Asks an HTTP question on a connection of its own, over TLS or not, and judges the answer.

It is an `asyncio.Protocol` and not an HTTP client because a supervisor asks thousands of times a second: this way a
probe costs a fifth of one made with aiohttp's client, and both schemes share every rule. Redirects are not followed:
a target that sends its checker elsewhere has said nothing about itself; its 3xx is judged as a status.

A pattern is looked for right here, for a moment; if that is not enough, this time and from then on in a thread, so that
a target that feeds a costly pattern what it is worst at waits for nobody but its like.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import cast

from lb import __version__
from lb.core.checks import CheckSpec
from lb.core.lifecycle import Verdict
from lb.core.patterns import TooCostly
from lb.core.targets import Target, TlsClient
from lb.health.names import literal
from lb.health.probes.answer import Answer, Wanted, judge
from lb.health.probes.dial import Dialer, place_of, spell
from lb.health.probes.lines import Line

#: How our probes name themselves, so that targets can tell them from clients in their logs.
AGENT = f"lb-health/{__version__}"
#: Seconds that a pattern may take on the event loop; ordinary ones take microseconds.
AT_ONCE = 0.005
#: Seconds that it may take in a thread: then the probe has failed.
ASIDE = 0.25


class HttpProbe:
    """`protocol: http` and `https`."""

    def __init__(self, target: Target, spec: CheckSpec, dialer: Dialer) -> None:
        self._spec = spec
        self._dialer = dialer
        self._host, self._port = place_of(target, spec)
        self._tls: TlsClient | None = None
        if spec.protocol == "https":
            self._tls = spec.tls or target.tls or TlsClient()
        #: Where a plain question can go without more ado.
        self._place = literal(self._host, self._port) if self._tls is None else None
        self._wanted = Wanted(spec.expect)
        self._request = request_bytes(spec, self._host, self._port, self._tls is not None)
        self._conversation: _Conversation | None = None
        self._costly = False  # a pattern once took longer than `AT_ONCE` on what this target answered
        self.where = spell(self._host, self._port)

    @property
    def asked(self) -> str:
        lines = self._request.decode("latin-1").strip().replace("\r\n", "\n")
        return f"{'TLS to ' if self._tls else ''}{self.where}\n{lines}"

    @property
    def expected(self) -> str:
        expect = self._spec.expect
        wanted = [f"status {self._wanted.statuses}"]
        wanted += [f"header {name}{f': {value}' if value else ''}" for name, value in expect.headers]
        if expect.body:
            wanted.append(f"body with {expect.body}")
        return ", ".join(wanted) + f", within {self._spec.timeout:g} s"

    async def run(self) -> Verdict:
        began = monotonic()
        self._conversation = None
        context = await self._dialer.tls(self._tls) if self._tls is not None else None
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer = Answer(self._spec.method, self._spec.max_body)
        conversation = self._conversation = _Conversation(self._request, answer, done)
        line: Line | None = None
        try:
            if self._place is not None:
                line = self._dialer.lines.open(conversation, self._place)
            else:
                name = self._tls.server_name if self._tls is not None else ""
                await self._dialer.open(lambda: conversation, self._host, self._port, context, name)
            await done
            return await self._judge(answer, monotonic() - began)
        finally:
            if line is not None:
                line.abort()
            else:
                conversation.leave()

    async def _judge(self, answer: Answer, seconds: float) -> Verdict:
        if not self._costly:
            try:
                return judge(answer, self._spec, seconds, self._wanted, AT_ONCE)
            except TooCostly:
                self._costly = True
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._dialer.aside, judge, answer, self._spec, seconds, self._wanted, ASIDE
            )
        except TooCostly as pattern:
            text = f"{_found(answer)}, but to look for {pattern} takes longer than {ASIDE:g} s: given up"
            return Verdict(False, seconds, text, "body", got=answer.sketch())

    def late(self) -> str:
        """How far it had come when its time was over."""
        conversation = self._conversation
        if conversation is None:
            return "before a connection was tried"
        if conversation.transport is None:
            return "no connection" if self._tls is None else "no connection with TLS"
        head = conversation.answer.head
        if head is None:
            return "connected, but no answer"
        if conversation.answer.done:
            return f"{_found(conversation.answer)}, but what is expected was neither found nor ruled out"
        if head.status < 200:
            return f"connected, but nothing came after HTTP {head.status}"
        return f"HTTP {head.status}, but its body ({len(conversation.answer.body)} bytes so far) did not end"

    def timed_out(self, seconds: float) -> Verdict:
        text = f"{self.late()} within {self._spec.timeout:g} s"
        answer = self._conversation.answer if self._conversation is not None else None
        interim = answer is not None and answer.head is not None and answer.head.status < 200
        got = answer.sketch() if answer is not None else ""
        return Verdict(False, seconds, text, "timeout", ignored=interim and self._spec.ignore_1xx, got=got)


class _Conversation(asyncio.Protocol):
    """One question and its answer."""

    __slots__ = ("_done", "answer", "question", "transport")

    def __init__(self, request: bytes, answer: Answer, done: asyncio.Future[None]) -> None:
        self.question = request
        self._done = done
        self.answer = answer
        self.transport: asyncio.Transport | Line | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.question)

    def connected(self, line: Line) -> None:
        self.transport = line

    def data_received(self, data: bytes) -> None:
        self.answer.feed(data)
        if self.answer.done:
            self._end(None)

    def eof_received(self) -> None:
        self.answer.end()
        self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        if error is None:
            self.answer.end()
        self._end(error)

    def leave(self) -> None:
        """Close for good. What still comes is thrown away by the kernel."""
        if self.transport is not None:
            self.transport.abort()

    def _end(self, error: Exception | None) -> None:
        if not self._done.done():
            if error is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(error)


def _found(answer: Answer) -> str:
    """An answer that came whole, for people."""
    status = answer.head.status if answer.head is not None else 0
    return f"HTTP {status} with a body of {len(answer.body)} bytes"


def request_bytes(spec: CheckSpec, host: str, port: int, tls: bool) -> bytes:
    """The question. The check's own headers come as they were written, and replace ours of the same name."""
    own = {name.lower() for name, _ in spec.headers}
    authority = "localhost" if host.startswith("unix:") else spell(host, port)
    if port == (443 if tls else 80):
        authority = authority.rpartition(":")[0]
    lines = [f"{spec.method} {spec.path or '/'} HTTP/1.1"]
    for name, value in (("Host", authority), ("User-Agent", AGENT), ("Accept", "*/*"), ("Connection", "close")):
        if name.lower() not in own:
            lines.append(f"{name}: {value}")
    lines += [f"{name}: {value}" for name, value in spec.headers]
    if spec.method in ("POST", "PUT", "PATCH") and "content-length" not in own:
        lines.append("Content-Length: 0")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
