"""HTTP probes, with or without TLS: each asks on a new connection and judges the answer.

No HTTP client is used, because a supervisor probes thousands of times a second: a probe costs a fifth of one made with
aiohttp's client. Redirects are not followed, because a redirect says nothing about this target. A 3xx is judged as a
status.

A pattern is matched on the event loop for `AT_ONCE` seconds. When that is not enough, this and all later matches of the
probe run in a thread. So an answer that is costly to match delays only probes that need the thread, too.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import cast

from lb import USER_AGENT
from lb.core.checks import CheckSpec
from lb.core.lifecycle import Verdict
from lb.core.patterns import TooCostly
from lb.core.targets import Target, TlsClient
from lb.health.probes.answer import Answer, Wanted, judge
from lb.health.probes.dial import Dialer, failure, place_of, spell, spell_at, unprepared
from lb.health.probes.inline import InlineProbe, OnVerdict, PendingProbe
from lb.net.resolver import literal
from lb.net.tls.contexts import HTTP1

#: Seconds that a pattern may take on the event loop. Ordinary patterns take microseconds.
AT_ONCE = 0.005
#: Seconds that a pattern may take in a thread. After that the probe has failed.
ASIDE = 0.25


class HttpProbe:
    """`protocol: http` and `https`."""

    def __init__(self, target: Target, spec: CheckSpec, dialer: Dialer) -> None:
        self.spec = spec
        self.dialer = dialer
        self.host, self.port = place_of(target, spec)
        self.tls: TlsClient | None = None
        if spec.protocol == "https":
            self.tls = spec.tls or target.tls or TlsClient()
        #: The address of an inline probe. None: the probe needs TLS, a look-up or a Unix socket.
        self._place = literal(self.host, self.port) if self.tls is None else None
        self._wanted = Wanted(spec.expect)
        self.question = request_bytes(spec, self.host, self.port, self.tls is not None)
        self._conversation: _Conversation | None = None
        self._costly = False  # a pattern has taken longer than `AT_ONCE` on an answer of this target
        self.where = spell(self.host, self.port)

    @property
    def asked(self) -> str:
        lines = self.question.decode("latin-1").strip().replace("\r\n", "\n")
        return f"{'TLS to ' if self.tls else ''}{self.where}\n{lines}"

    @property
    def expected(self) -> str:
        expect = self.spec.expect
        wanted = [f"status {self._wanted.statuses}"]
        wanted += [f"header {name}{f': {value}' if value else ''}" for name, value in expect.headers]
        if expect.body:
            wanted.append(f"body with {expect.body}")
        return ", ".join(wanted) + f", within {self.spec.timeout:g} s"

    def begin(self, timeout: float, on_verdict: OnVerdict, at: str = "") -> PendingProbe | None:
        place = literal(at, self.port) if at and self.tls is None else self._place
        if place is None:
            return None
        question = _Question(self, on_verdict, at)
        question.begin(self.dialer.transport, place, timeout)
        return question

    async def run(self, at: str = "") -> Verdict:
        began = monotonic()
        self._conversation = None
        context = await self.dialer.contexts.get(self.tls, HTTP1) if self.tls is not None else None
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        conversation = self._conversation = _Conversation(self.question, self.answer(), done)
        try:
            await self.dialer.open(lambda: conversation, self.host, self.port, context, self.tls, at)
            await done
            seconds = monotonic() - began
            return self.judge(conversation.answer, seconds) or await self.judge_aside(conversation.answer, seconds)
        finally:
            conversation.close()

    def timed_out(self, seconds: float) -> Verdict:
        conversation = self._conversation
        if conversation is None:
            return unprepared(self.where, self.spec.timeout, seconds)
        return self.too_late(conversation.answer, conversation.transport is not None, seconds)

    def answer(self) -> Answer:
        """An empty answer."""
        return Answer(self.spec.method, self.spec.max_body)

    def judge(self, answer: Answer, seconds: float) -> Verdict | None:
        """The verdict on a complete answer. None when a pattern needs a thread: see `judge_aside`."""
        if self._costly:
            return None
        try:
            return judge(answer, self.spec, seconds, self._wanted, AT_ONCE)
        except TooCostly:
            self._costly = True
            return None

    async def judge_aside(self, answer: Answer, seconds: float) -> Verdict:
        """The verdict on a complete answer, judged in a thread."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self.dialer.aside, judge, answer, self.spec, seconds, self._wanted, ASIDE)
        except TooCostly as pattern:
            text = f"{_summary(answer)}, but to look for {pattern} takes longer than {ASIDE:g} s: given up"
            return Verdict(False, seconds, text, "body", got=answer.sketch(), excerpt=answer.excerpt())

    def too_late(self, answer: Answer, connected: bool, seconds: float) -> Verdict:
        """The verdict on an answer that is incomplete at the timeout."""
        head = answer.head
        interim = head is not None and head.status < 200
        if not connected:
            text = "no connection" if self.tls is None else "no connection with TLS"
        elif head is None:
            text = "connected, but no answer"
        elif answer.done:
            text = f"{_summary(answer)}, but what is expected was neither found nor ruled out"
        elif interim:
            text = f"connected, but nothing came after HTTP {head.status}"
        else:
            text = f"HTTP {head.status}, but its body ({len(answer.body)} bytes so far) did not end"
        text = f"{text} within {self.spec.timeout:g} s"
        ignored = interim and self.spec.ignore_1xx
        got, excerpt = answer.sketch(), answer.excerpt()
        return Verdict(False, seconds, text, "timeout", ignored=ignored, got=got, excerpt=excerpt)


class _Question(InlineProbe):
    """One question and its answer, at an IP address and without TLS."""

    __slots__ = ("_answer", "_aside", "_probe")

    def __init__(self, probe: HttpProbe, on_verdict: OnVerdict, at: str) -> None:
        super().__init__(probe.question, spell_at(probe.where, at), on_verdict)
        self._probe = probe
        self._answer = probe.answer()
        self._aside: asyncio.Task[Verdict] | None = None

    def data_received(self, data: bytes) -> None:
        self._answer.feed(data)
        if self._answer.done:
            self._judge()

    def eof_received(self) -> None:
        self._answer.end()
        self._judge()

    def too_late(self) -> Verdict:
        if self._aside is not None:
            self._aside.cancel()
        return self._probe.too_late(self._answer, self.is_connected, self.seconds)

    def cancel(self) -> None:
        if self._aside is not None:
            self._aside.cancel()
        super().cancel()

    def _judge(self) -> None:
        self.close()
        seconds = self.seconds
        try:
            verdict = self._probe.judge(self._answer, seconds)
        except Exception as error:
            verdict = failure(error, self.where, seconds)
        if verdict is not None:
            self.finish(verdict)
            return
        self._aside = asyncio.get_running_loop().create_task(self._probe.judge_aside(self._answer, seconds))
        self._aside.add_done_callback(self._on_judged)

    def _on_judged(self, aside: asyncio.Task[Verdict]) -> None:
        if not aside.cancelled():
            error = aside.exception()
            wrong = failure(error, self.where, self.seconds) if isinstance(error, Exception) else None
            self.finish(wrong or aside.result())


class _Conversation(asyncio.Protocol):
    """One question and its answer over TLS, or at a name or a Unix socket."""

    __slots__ = ("_done", "_question", "answer", "transport")

    def __init__(self, question: bytes, answer: Answer, done: asyncio.Future[None]) -> None:
        self._question = question
        self._done = done
        self.answer = answer
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._question)

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

    def close(self) -> None:
        """Close the connection. The kernel discards all later bytes."""
        if self.transport is not None:
            self.transport.abort()

    def _end(self, error: Exception | None) -> None:
        if not self._done.done():
            if error is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(error)


def _summary(answer: Answer) -> str:
    """A complete answer, for people."""
    status = answer.head.status if answer.head is not None else 0
    return f"HTTP {status} with a body of {len(answer.body)} bytes"


def request_bytes(spec: CheckSpec, host: str, port: int, tls: bool) -> bytes:
    """The question. The check's headers are sent as written, and replace lb's headers of the same name."""
    own = {name.lower() for name, _ in spec.headers}
    authority = "localhost" if host.startswith("unix:") else spell(host, port)
    if port == (443 if tls else 80):
        authority = authority.rpartition(":")[0]
    lines = [f"{spec.method} {spec.path or '/'} HTTP/1.1"]
    for name, value in (("Host", authority), ("User-Agent", USER_AGENT), ("Accept", "*/*"), ("Connection", "close")):
        if name.lower() not in own:
            lines.append(f"{name}: {value}")
    lines += [f"{name}: {value}" for name, value in spec.headers]
    if spec.method in ("POST", "PUT", "PATCH") and "content-length" not in own:
        lines.append("Content-Length: 0")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
