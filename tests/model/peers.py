"""The other ends of the wire: targets that answer as a script says, and clients that note what became of a request.

Both are plain protocols on real sockets. A request's number is in its path, so that what a target saw and what a client
asked can be laid side by side. What a target is to do with one request stands in that request (`X-Do: delay=0.3`), what
it does with all of them in `Backend.mood`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import random
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.model.clock import CLOCK

_NUMBER = re.compile(rb"^/(?:[a-z]+/)*r/(\d+)")
_LENGTH = re.compile(rb"(?im)^content-length: *(\d+)")
_DO = re.compile(rb"(?im)^x-do: *([^\r\n]*)")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding: *chunked")
_LOGIN = re.compile(rb"(?im)^authorization: *ntlm ")
#: lb's cookie for a target, in the value of a field.
COOKIE = re.compile(r"lb_target=([\w-]+); Path=/; HttpOnly; SameSite=Lax")
_KEY = re.compile(rb"(?im)^sec-websocket-key: *([^\r\n]*)")
_SENDER = re.compile(rb"(?im)^x-sender: *(\d+)")

#: The fields of a WebSocket's handshake (RFC 6455 section 1.3).
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
#: Moods in which a target answers every request well.
WELL = frozenset({"well"})


def asks(words: str) -> tuple[float, bool]:
    """The share of its weight that a target asks for by a probe's answer, and whether it asks to be drained."""
    share = words.partition("X-LB-Weight: ")[2].partition("%")[0]
    return (float(share) / 100 if share else 1.0), "drain" in words


@dataclass
class Arrival:
    """A request that a target has read the head of."""

    number: int
    method: str
    backend: Backend
    at: float
    stranger: bool = False  # somebody else is logged in on its connection
    over: float = 0.0  # when it was answered, or its connection ended; 0: not yet
    earlier: int = 0  # times that targets had seen the request before
    fails: bool = False  # the target is not to answer it well
    answered: bool = False  # as far as the target knows


class Backend:
    """One address and what answers there."""

    numbers = itertools.count(1)

    def __init__(self, host: str, port: int, on_arrival: Callable[[Arrival], None]) -> None:
        self.host, self.port = host, port
        self.address = f"{host}:{port}"
        self.on_arrival = on_arrival
        self.ready = "pass"  # pass | fail | hang
        self.words = ""  # header lines of a passing probe
        self.bad_paths: set[str] = set()  # paths of checks that it answers with 404
        self.mood = "well"  # well | 500 | reset | close | hang
        self.tls: Any = None
        self.up = False
        self.hurt = -1e9  # when it failed what was under way last
        self.passes = 0  # probes that it has let pass in a row; after a failed one 0
        self.last_pass = 0  # number, among all targets' probes, of the last one that it let pass; 0: none
        self.fails = 0
        self.streams = 100  # of HTTP/2, at one time on one connection
        self.websockets = random.Random(f"{host}/websockets").random() < 0.3  # on streams of HTTP/2 (RFC 8441)
        self.refuses = 0  # so many requests of HTTP/2 to come
        self.refused_at = -1e9  # when it last was to refuse any
        self.on_fault: Callable[[str], None] = lambda text: None
        self.connections: set[Any] = set()
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        return self.address

    @property
    def is_well(self) -> bool:
        return self.up and self.mood in WELL

    async def start(self) -> None:
        """Listen."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(
                lambda: _Conversation(self), self.host, self.port, ssl=self.tls, reuse_address=True, backlog=1000
            )
            self.up = True

    def stop(self) -> None:
        """Refuse connections, and break off those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self.up = False
            for connection in list(self.connections):
                connection.abort()

    def arrive(self, number: int, method: str, do: dict[str, str], stranger: bool = False) -> Arrival:
        """A request has come; what is to be done with it is made what it is this time."""
        arrival = Arrival(number, method, self, CLOCK.now, stranger)
        self.on_arrival(arrival)
        if "first" in do and arrival.earlier == 0:
            do["status"] = do["first"]
        if "once" in do and arrival.earlier:
            do.pop("hints", None)  # only the first target sends interim answers
        arrival.fails = self.mood != "well" or do.get("status", "")[:1] == "5"
        return arrival

    def passes_probe(self, path: str) -> bool | None:
        """Count a probe. None: it gets no answer."""
        if self.ready == "hang":
            return None
        if self.ready != "pass" or path in self.bad_paths:
            self.fails += 1
            self.passes = 0
            return False
        self.passes += 1
        self.last_pass = next(Backend.numbers)
        self.fails = 0
        return True

    def close_idle(self) -> None:
        """Close connections that have no request, as servers do."""
        for connection in list(self.connections):
            if not connection.busy and connection.transport is not None:
                connection.transport.close()


class _Conversation(asyncio.Protocol):
    """A connection to a target."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.transport: Any = None
        self.busy = False
        self.served = 0
        self.tunnel = False  # what comes is sent back, byte for byte
        self._held = b""
        self._body_left = 0
        self._chunked = False
        self._owner = b""  # the client that is logged in on this connection
        self._then: Callable[[], None] | None = None
        self._arrival: Arrival | None = None  # of the request that is being worked on

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.backend.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.backend.connections.discard(self)
        self._then = None
        self._over()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.tunnel:
            self.transport.write(data)
            return
        if not self.served and not self.busy and not self._held and data.startswith(b"PRI "):
            self._become_http2(data)
            return
        self._held += data
        self._go_on()

    def _become_http2(self, data: bytes) -> None:
        from tests.model.h2_target import Http2Conversation

        backend = self.backend
        backend.connections.discard(self)
        conversation = Http2Conversation(backend, self.transport)
        backend.connections.add(conversation)
        self.transport.set_protocol(conversation)
        conversation.data_received(data)

    def _go_on(self) -> None:
        while True:
            if self._body_left:
                taken = min(self._body_left, len(self._held))
                self._body_left -= taken
                self._held = self._held[taken:]
                if self._body_left:
                    return
                self._body_over()
                continue
            if self._chunked:
                _, found, rest = self._held.partition(b"\r\n0\r\n\r\n")
                if not found:
                    return
                self._held, self._chunked = rest, False
                self._body_over()
                continue
            if self.busy:
                return
            head, found, rest = self._held.partition(b"\r\n\r\n")
            if not found:
                return
            self._held = rest
            self._take(head)

    def _body_over(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            then()

    def _take(self, head: bytes) -> None:
        line = head.split(b"\r\n", 1)[0]
        method, path, _ = line.split(b" ", 2)
        length = _LENGTH.search(head)
        self._body_left = int(length[1]) if length else 0
        self._chunked = _CHUNKED.search(head) is not None
        number = _NUMBER.match(path)
        self.busy = True
        if number is None:
            self._probe(path.decode())
            return
        self.served += 1
        sender = _SENDER.search(head)
        who = sender[1] if sender else b""
        stranger = bool(self._owner) and who != self._owner
        if _LOGIN.search(head):
            self._owner = who
        wanted = _DO.search(head)
        do = dict(part.split("=") for part in wanted[1].decode().split(",")) if wanted and wanted[1] else {}
        self._arrival = self.backend.arrive(int(number[1]), method.decode(), do, stranger)

        def answer() -> None:
            if "tunnel" in do and self.backend.mood == "well":
                self._switch(head)
            else:
                self._answer(method, do)

        if self._body_left or self._chunked:
            self._then = answer
        else:
            answer()

    def _over(self) -> None:
        if self._arrival is not None:
            self._arrival.over = CLOCK.now
            self._arrival = None

    def _hints(self, kilobytes: int) -> bytes:
        """Interim answers of so many kilobytes."""
        hint = b"HTTP/1.1 103 Early Hints\r\nLink: " + b"l" * 12_000 + b"\r\n\r\n"
        return hint * (kilobytes // 12)

    def _probe(self, path: str) -> None:
        passes = self.backend.passes_probe(path)
        if passes is None:
            return
        if passes:
            text = f"HTTP/1.1 200 OK\r\n{self.backend.words}Content-Length: 0\r\nConnection: close\r\n\r\n"
        else:
            text = "HTTP/1.1 503 Nope\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        self.transport.write(text.encode())
        self.transport.close()

    def _switch(self, head: bytes) -> None:
        """Take a WebSocket (RFC 6455 section 4.2.2)."""
        self.tunnel = True
        if self._arrival is not None:
            self._arrival.answered = True
        key = _KEY.search(head)
        digest = hashlib.sha1((key[1] if key else b"") + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket"]
        lines += [f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}", f"X-Backend: {self.backend.address}"]
        self.transport.write("\r\n".join([*lines, "", ""]).encode())

    def _answer(self, method: bytes, do: dict[str, str]) -> None:
        mood = self.backend.mood
        if method == b"POST" and mood in ("reset", "close"):
            # A target that reads a request and closes without a word, just when it closes idle connections as a habit,
            # cannot be told from one that has not read it; `lb` goes by the habit (`core.keepalive`).
            mood = "500"
        if mood == "hang":
            return
        if mood == "reset":
            self.abort()
            return
        if mood == "close":
            self.transport.close()
            return
        if "interim" in do:
            asyncio.get_running_loop().call_later(float(do["interim"]), self._go_on_working, method, do, mood)
        elif "delay" in do:
            asyncio.get_running_loop().call_later(float(do["delay"]), self._reply, method, do, mood)
        else:
            self._reply(method, do, mood)

    def _go_on_working(self, method: bytes, do: dict[str, str], mood: str) -> None:
        """Say that the answer takes longer, and take as long once more."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            asyncio.get_running_loop().call_later(float(do["interim"]), self._reply, method, do, mood)

    def _reply(self, method: bytes, do: dict[str, str], mood: str) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        status = int(do.get("status", 200)) if mood == "well" else 500
        size = int(do.get("size", 2))
        close = "close" in do
        extra = "X-Backend: " + self.backend.address + "\r\n" + ("Connection: close\r\n" if close else "")
        body = b"x" * size if method != b"HEAD" else b""
        if "chunked" in do and method != b"HEAD":
            head = f"HTTP/1.1 {status} OK\r\n{extra}Transfer-Encoding: chunked\r\n\r\n".encode()
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
        else:
            head = f"HTTP/1.1 {status} OK\r\n{extra}Content-Length: {size}\r\n\r\n".encode()
        if self._arrival is not None:
            self._arrival.answered = True
        self.transport.write(self._hints(int(do.get("hints", 0))) + head + body)
        self._over()
        self.busy = False
        if close:
            self.transport.close()
        else:
            self._go_on()


@dataclass
class Answer:
    """What a client got; status 0: the connection ended before or within the answer."""

    status: int = 0
    ours: bool = False  # the proxy answered by itself
    text: str = ""
    backend: str = ""
    request_id: str = ""
    cookie: str = ""  # the value of lb's cookie for a target; empty: it gave none
    begun: bool = False
    seconds: float = 0.0


@dataclass
class Wish:
    """What a client asks for."""

    number: int
    method: str = "GET"
    route: str = "/app"
    fields: dict[str, str] = field(default_factory=dict)
    do: dict[str, str] = field(default_factory=dict)
    body: int = 0
    host: str = "model.test"
    minor: int = 1
    chunk: int = 0  # the body goes in chunks of so many bytes
    sender: int = 0  # the client's number

    @property
    def websocket(self) -> bool:
        return "Upgrade" in self.fields

    def encode(self) -> bytes:
        lines = [f"{self.method} {self.route}/r/{self.number} HTTP/1.{self.minor}", f"Host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in self.fields.items()]
        if self.do:
            lines.append("X-Do: " + ",".join(f"{key}={value}" for key, value in self.do.items()))
        if self.sender:
            lines.append(f"X-Sender: {self.sender}")
        if self.chunk:
            lines.append("Transfer-Encoding: chunked")
            piece = b"%x\r\n%b\r\n" % (self.chunk, b"b" * self.chunk)
            return "\r\n".join([*lines, "", ""]).encode() + piece * (self.body // self.chunk) + b"0\r\n\r\n"
        if self.body or self.method == "POST":
            lines.append(f"Content-Length: {self.body}")
        return "\r\n".join([*lines, "", ""]).encode() + b"b" * self.body

    def __str__(self) -> str:
        more = " ".join(f"{name}={value}" for name, value in {**self.fields, **self.do}.items())
        return f"{self.method} {self.route} {more}".strip()


class Client(asyncio.Protocol):
    """A client's connection: one request at a time, or several ahead (`send` more than once)."""

    numbers = itertools.count(1)

    def __init__(self) -> None:
        self.number = next(self.numbers)
        self.transport: Any = None
        self.open = False
        self.last = False  # the answer said that none will follow
        self.tunnel = False  # a WebSocket from here on
        self.came = b""  # …and what came on it
        self._waiting: list[tuple[Wish, asyncio.Future[Answer], float]] = []
        self._held = b""
        self._head: bytes | None = None
        self._left = -1
        self._chunked = False
        self._answer = Answer()

    @classmethod
    async def connect(cls, address: str | tuple[str, int]) -> Client:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        client = cls()
        if isinstance(address, str):
            await loop.create_unix_connection(lambda: client, address)
        else:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, address)
            except BaseException:
                sock.close()
                raise
            await loop.create_connection(lambda: client, sock=sock)
        return client

    def send(self, wish: Wish) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        wish.sender = self.number
        self._waiting.append((wish, future, CLOCK.now))
        if self.open:
            self.transport.write(wish.encode())
        else:
            self._fail()
        return future

    def write(self, data: bytes) -> None:
        """Send on the WebSocket."""
        self.transport.write(data)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return bool(self._waiting)

    @property
    def idle(self) -> bool:
        return self.open and not self.last and not self._waiting and not self.transport.is_closing()

    @property
    def has_room(self) -> bool:
        """Whether the next request may begin at once."""
        return self.idle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._head is not None and self._left == -2 and exc is None:
            self._done()
        self._fail()

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        self._held += data
        if self.tunnel:
            self.came, self._held = self.came + self._held, b""
        while self._waiting:
            if self._head is None:
                head, found, rest = self._held.partition(b"\r\n\r\n")
                if not found:
                    return
                self._held = rest
                if head.split(b" ", 2)[1].startswith(b"1") and not head.startswith(b"HTTP/1.1 101"):
                    continue
                self._begin(head)
                self.tunnel = head.startswith(b"HTTP/1.1 101")
            if self.tunnel:
                self.last = True
            elif self._chunked:
                end = self._held.find(b"0\r\n\r\n")
                if end < 0:
                    return
                self._answer.text = f"{end} bytes in chunks"
                self._held = self._held[end + 5 :]
            elif self._left >= 0:
                if len(self._held) < self._left:
                    return
                self._answer.text = self._held[: min(self._left, 300)].decode("latin-1")
                self._held = self._held[self._left :]
            else:
                return
            self._done()

    def _begin(self, head: bytes) -> None:
        self._head = head
        lowered = head.lower()

        length = _LENGTH.search(head)
        self._chunked = b"transfer-encoding: chunked" in lowered
        self.last = self.last or b"\r\nconnection: close" in lowered
        wish = self._waiting[0][0]
        self.last = self.last or not wish.minor
        status = int(head.split(b" ", 2)[1])
        self._left = int(length[1]) if length else -2
        if wish.method == "HEAD" or status in (204, 304):
            self._left, self._chunked = 0, False
        backend = re.search(rb"(?im)^x-backend: *([^\r\n]*)", head)
        self._answer = Answer(status, b"server: lb" in lowered and backend is None, begun=True)
        self._answer.backend = backend[1].decode() if backend else ""
        found = re.search(rb"(?im)^x-request-id: *([^\r\n]*)", head)
        self._answer.request_id = found[1].decode() if found else ""
        given = COOKIE.search(head.decode("latin-1"))
        self._answer.cookie = given[1] if given else ""

    def _done(self) -> None:
        _, future, since = self._waiting.pop(0)
        answer, self._answer = self._answer, Answer()
        answer.seconds = CLOCK.now - since
        self._head, self._left, self._chunked = None, -1, False
        if not future.done():
            future.set_result(answer)

    def _fail(self) -> None:
        waiting, self._waiting = self._waiting, []
        for number, (_, future, since) in enumerate(waiting):
            if not future.done():
                begun = number == 0 and self._head is not None
                future.set_result(Answer(begun=begun, seconds=CLOCK.now - since))
        self._head = None
