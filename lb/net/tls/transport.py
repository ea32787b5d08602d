"""TlsTransport: a client's TLS connection, between the loop's TCP transport and the protocol that speaks HTTP.

To the TCP transport it is the protocol; to the protocol of the data plane it is the transport, with the same methods.
There is no task and no timer for a connection. A connection begins with a PROXY header where its listener wants one.
Then its ClientHello is read, a context is selected by it, and OpenSSL does the handshake when it is its turn
(`admission`). Only then the data plane gets the connection.

Backpressure passes through, both ways. Nothing is buffered here: records are written to the TCP transport as they are
made, and that one says when it is full. While the reader has paused, the bytes that had been read already are kept
encrypted. They are handed over before the client's end is, however that end comes. (uvloop's own TLS loses them when
the client sends a FIN without close_notify, see its pull request 661.)

A client's FIN without close_notify is an end like any other: HTTP/1 knows by its framing whether something is missing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, cast

from lb.http import proxy_protocol
from lb.http.h1.replies import reply
from lb.net.tls.admission import Admission
from lb.net.tls.client_hello import PLAIN_HTTP, WIRE_LIMIT, ClientHello, HelloError, parse
from lb.net.tls.selection import Alert, Select, Selected
from lb.net.tls.session import Buffers, Established, Session, SessionError, alert

# States.
_PROXY: Final = 0  # the PROXY header is read
_HELLO: Final = 1  # the ClientHello is read
_SHAKING: Final = 2  # OpenSSL has the handshake
_OPEN: Final = 3
_SHUT: Final = 4  # nothing more is written
_CLOSING: Final = 5  # nothing more is read either: the client is to close its side
_CLOSED: Final = 6
_READING: Final = (_OPEN, _SHUT)

# Outcomes of a handshake beside those of `client_hello` and `session`.
OK: Final = "ok"
CLOSED: Final = "closed"
TIMEOUT: Final = "timeout"
OVERLOAD: Final = "overload"
STOPPED: Final = "stopped"
BAD_PROXY_HEADER: Final = "bad_proxy_header"
UNTRUSTED_PROXY: Final = "proxy_protocol_untrusted"

#: Bytes that are encrypted at once. A megabyte in pieces of one record costs a tenth more, and so does one in one
#: piece, which leaves the processor's cache.
PIECE: Final = 65536

_HOST: Final = re.compile(rb"\r\nhost:[ \t]*((?:[0-9a-z._-]+|\[[0-9a-f:.]+\])(?::[0-9]+)?)[ \t]*\r\n", re.IGNORECASE)
_TARGET: Final = re.compile(rb"[^ ]+ (/[!-~]{0,2000}) HTTP/")


class Outcome(NamedTuple):
    """The end of a handshake."""

    peer: str
    result: str  # a label: "ok", or why it failed
    detail: str  # in words; empty where the result says it all
    seconds: float  # since the accept
    established: Established | None = None
    server_name: str = ""


class TlsListener:
    """What all connections of one listener have in common; called by the loop for each that it accepts.

    `proxies` says whether a peer sends a PROXY header: None where the listener wants none. `ended` is called with the
    outcome of each handshake.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        select: Select,
        factory: Callable[[], asyncio.Protocol],
        admission: Admission,
        buffers: Buffers,
        ended: Callable[[Outcome], None],
        proxies: Callable[[bytes], bool] | None = None,
    ) -> None:
        self.loop = loop
        self.select = select
        self.factory = factory
        self.admission = admission
        self.buffers = buffers
        self.ended = ended
        self.proxies = proxies

    def __call__(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", TlsTransport(self))


class TlsTransport:
    """One connection."""

    __slots__ = (
        "_began",
        "_established",
        "_gone",
        "_inner",
        "_kept",
        "_lost_by",
        "_paused",
        "_peername",
        "_raw",
        "_selected",
        "_session",
        "_shared",
        "_state",
        "_told",
        "queued",
    )

    def __init__(self, shared: TlsListener) -> None:
        self._shared = shared
        self._state = _HELLO
        self._raw: Any = None
        self._inner: Any = None
        self._session: Session | None = None
        self._selected: Selected | None = None
        self._established: Established | None = None
        self._peername: Any = None
        self._kept = b""  # bytes of the wire that have come and wait
        self._paused = False
        self._gone = False  # the client sends no more…
        self._told = False  # …and the reader knows
        self._lost_by: Exception | None = None
        self._began = 0.0
        self.queued = False  # the handshake waits for its turn

    # --- from the loop's transport ----------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._raw = transport
        shared = self._shared
        peername = self._peername = transport.get_extra_info("peername")
        self._began = shared.admission.clock()
        if shared.proxies is not None:
            self._state = _PROXY
            if not shared.proxies(_address(peername)):
                self._end(UNTRUSTED_PROXY, "a peer that is no trusted proxy")
                transport.abort()
                return
        if not shared.admission.admit(self):
            self._end(OVERLOAD, "too many TLS handshakes are under way")
            transport.abort()

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state in _READING:
            if self._kept or self._paused:
                self._kept += data
            else:
                self._deliver(data)
        elif state <= _SHAKING:
            self._kept = self._kept + data if self._kept else data
            if self.queued:
                if len(self._kept) > WIRE_LIMIT:
                    self._raw.pause_reading()
                    self._paused = True
            elif state == _PROXY:
                self._read_proxy_header()
            elif self._shared.admission.step(self):
                self.advance()
            else:
                self.queued = True

    def eof_received(self) -> bool:
        self._gone = True
        state = self._state
        if state in _READING:
            if not self._kept:
                self._tell_end()
        elif state <= _SHAKING:
            self.give_up(CLOSED)
        else:
            self._raw.close()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        shared = self._shared
        if self._inner is None:
            if self._state <= _SHAKING:
                self._end(CLOSED, "")
        else:
            self._inner.connection_lost(exc or self._lost_by)
        self._state = _CLOSED
        shared.admission.forget(self)
        self._session = None
        self._kept = b""

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    # --- handshake --------------------------------------------------------------------------------------------------

    def _read_proxy_header(self) -> None:
        data = self._kept
        try:
            header = proxy_protocol.read(data)
        except ValueError as error:
            self._end(BAD_PROXY_HEADER, str(error))
            self._raw.abort()
            return
        if header is None:
            return
        source, length = header
        if source:
            self._peername = (source.decode(), 0)
        self._state = _HELLO
        self._kept = data[length:]
        if self._kept:
            if self._shared.admission.step(self):
                self.advance()
            else:
                self.queued = True

    def _read_hello(self) -> None:
        """Read the ClientHello, as far as it has come. This is a part of the turn: the parser has its cost, too."""
        try:
            hello = parse(self._kept)
        except HelloError as error:
            self._refuse_hello(error)
            return
        if hello is not None:
            self._select(hello)

    def _select(self, hello: ClientHello) -> None:
        shared = self._shared
        selected = shared.select(hello)
        if isinstance(selected, Alert):
            self._end(selected.reason, "", hello.server_name)
            self._farewell(alert(selected.code))
            return
        self._selected = selected
        self._session = Session(shared.buffers, selected.context, hello.server_name)
        self._state = _SHAKING
        self.advance()

    def advance(self) -> None:
        """It is this handshake's turn."""
        state = self._state
        if self.queued:
            self.queued = False
            if state > _SHAKING:
                return
            if self._paused:
                self._paused = False
                self._raw.resume_reading()
        session = self._session
        if session is None:
            self._read_hello()
            return
        data, self._kept = self._kept, b""
        try:
            established = session.handshake(data)
        except SessionError as error:
            self._end(error.reason, str(error), session.name)
            self._farewell(error.alert)
            return
        if session.output:
            self._raw.write(session.output)
            session.output = b""
        if established:
            self._open(session)

    def _open(self, session: Session) -> None:
        """The handshake is over: hand the connection to the data plane."""
        shared = self._shared
        self._state = _OPEN
        shared.admission.leave(self)
        known = self._established = session.established()
        shared.ended(Outcome(self._peer(), OK, "", shared.admission.clock() - self._began, known, session.name))
        if self._selected is not None and not self._selected.serves:
            self._farewell(b"")  # no request may ride on a handshake that asked for no client certificate
            return
        inner = self._inner = shared.factory()
        rest, session.rest = session.rest, b""
        inner.connection_made(cast("asyncio.Transport", self))
        if rest and self._state <= _SHUT:
            if self._paused:
                self._kept = rest
            else:
                self._deliver(rest)

    def _refuse_hello(self, error: HelloError) -> None:
        self._end(error.reason, str(error))
        if error.reason == PLAIN_HTTP:
            self._farewell(_use_https(self._kept))
        elif error.alert:
            self._farewell(alert(error.alert))
        else:
            self._farewell(b"")

    def _farewell(self, last_words: bytes) -> None:
        """Close after some last bytes. Unread input would turn the close into a reset that eats them."""
        self._state = _CLOSING
        self._kept = b""
        if last_words and not self._gone:
            self._raw.write(last_words)
            self._raw.write_eof()
            self._shared.admission.take_leave(self)
        else:
            self._raw.close()

    def give_up(self, reason: str) -> None:
        """End a handshake that is under way, without an answer."""
        if self._state <= _SHAKING:
            self._end(reason, "")
            self._raw.abort()

    def _end(self, result: str, detail: str, name: str = "") -> None:
        """The handshake has failed."""
        shared = self._shared
        self._state = _CLOSING
        shared.admission.leave(self)
        shared.ended(Outcome(self._peer(), result, detail, shared.admission.clock() - self._began, None, name))

    def _peer(self) -> str:
        return _address(self._peername).decode()

    # --- data -------------------------------------------------------------------------------------------------------

    def _deliver(self, data: bytes) -> None:
        """Hand over what the records carry, as far as it is wanted."""
        session = self._session
        if session is None:
            return
        size = len(data)
        at = 0
        while at < size:
            try:
                plain = session.open(data, at)
                if plain == b"" and not session.ended:
                    session.count_control(self._shared.admission.clock())
            except SessionError as error:
                self._break_off(error)
                return
            at = session.position
            if plain:
                self._inner.data_received(plain)
            elif plain is not None:
                if session.output:
                    self._raw.write(session.output)
                    session.output = b""
                if session.ended:
                    self._gone = True
                    self._tell_end()
                    return
            if self._state > _SHUT:
                return
            if self._paused:
                self._kept = data[at:]
                return

    def _go_on(self) -> None:
        """The reader reads on: hand over what was kept, then read from the loop's transport."""
        if self._paused or self._state not in _READING:
            return
        data, self._kept = self._kept, b""
        self._deliver(data)
        if self._paused or self._kept or self._state > _SHUT:
            return
        if self._gone:
            self._tell_end()
        elif not self._raw.is_closing():
            self._raw.resume_reading()

    def _tell_end(self) -> None:
        """The client sends no more."""
        if self._told:
            return
        self._told = True
        if not self._inner.eof_received() and self._state <= _SHUT:
            self.close()

    def _break_off(self, error: SessionError) -> None:
        """The client has broken the rules of TLS."""
        self._lost_by = ConnectionAbortedError(f"TLS: {error}")
        self._state = _CLOSING
        if error.alert:
            self._raw.write(error.alert)
        self._raw.close()

    # --- the transport of the data plane ----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        session = self._session
        if self._state != _OPEN or session is None or not data:
            return
        try:
            if len(data) <= PIECE:
                self._raw.write(session.seal(data))
            else:
                view = memoryview(data)
                self._raw.writelines([session.seal(view[at : at + PIECE]) for at in range(0, len(data), PIECE)])
        except SessionError as error:
            self._break_off(error)

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.write(b"".join(pieces))

    def write_eof(self) -> None:
        """Send close_notify and FIN. What the client sends is read on."""
        session = self._session
        if self._state == _OPEN and session is not None:
            self._state = _SHUT
            if not self._raw.is_closing():
                self._raw.write(session.finish())
                self._raw.write_eof()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        """Close once the client has taken what was written and has closed, too. Whoever closes bounds that."""
        state = self._state
        if state > _SHUT:
            return
        self.write_eof()
        self._state = _CLOSING
        self._kept = b""
        if self._gone or self._raw.is_closing():
            self._raw.close()
            return
        self._shared.admission.shut_down(self)
        if self._paused:
            self._paused = False
            self._raw.resume_reading()

    def abort(self) -> None:
        self._state = max(self._state, _CLOSING)
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._state > _SHUT or bool(self._raw.is_closing())

    def pause_reading(self) -> None:
        if not self._paused and self._state <= _SHUT:
            self._paused = True
            if not self._raw.is_closing():
                self._raw.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and self._state <= _SHUT:
            self._paused = False
            if self._kept:
                self._shared.loop.call_soon(self._go_on)  # the reader may be in the middle of its work
            elif not self._raw.is_closing():
                self._raw.resume_reading()

    def is_reading(self) -> bool:
        return not self._paused and self._state <= _SHUT

    def get_write_buffer_size(self) -> int:
        return int(self._raw.get_write_buffer_size())

    def get_write_buffer_limits(self) -> Any:
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def set_protocol(self, protocol: Any) -> None:
        self._inner = protocol

    def get_protocol(self) -> Any:
        return self._inner

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`tls` is `Established`, `selected` what the context was selected with."""
        if name == "peername":
            return self._peername
        if name == "tls":
            return self._established
        if name == "selected":
            return self._selected
        if name == "ssl_object":
            return self._session.tls if self._session is not None else default
        return self._raw.get_extra_info(name, default)


def _address(peername: Any) -> bytes:
    """The peer's address; a Unix socket's peer has none."""
    if not isinstance(peername, tuple) or not peername:
        return b"unix"
    host: str = peername[0]
    return host.removeprefix("::ffff:").encode() if "." in host else host.encode()


def _use_https(head: bytes) -> bytes:
    """The answer to plain HTTP: where to go instead, as far as the request says."""
    text = "this port speaks HTTPS"
    host, target = _HOST.search(head), _TARGET.match(head)
    if host is not None:
        text += f"; use https://{host[1].decode()}{target[1].decode() if target is not None else '/'}"
    return reply(400, text)
