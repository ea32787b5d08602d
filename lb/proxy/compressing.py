"""CompressingStream: the client's stream of an answer that may get a content coding on its way.

Small pieces are encoded at once. A large one is encoded in a thread, and meanwhile the target is read no more. The end
of the exchange then waits for the last piece, so that nothing overtakes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from lb.http.codings import coded_head, may_be_coded, weakened, with_vary
from lb.http.encoders import Encoder, encoder
from lb.proxy.wrapped_stream import WrappedStream

if TYPE_CHECKING:
    from lb.http.codings import Types
    from lb.http.message import ResponseHead
    from lb.proxy.client_stream import ClientStream
    from lb.proxy.exchange import Exchange
    from lb.proxy.offload import Offload

#: Bytes of a piece from which it is encoded in a thread: about a third of a millisecond.
LARGE: Final = 16384


class CompressingStream(WrappedStream):
    """One answer. `coding` b"": the client takes none, and is told that others may get one."""

    __slots__ = (
        "_busy",
        "_coding",
        "_encoder",
        "_exchange",
        "_flushes",
        "_minimum",
        "_offload",
        "_over",
        "_pending",
        "_types",
        "_whole",
    )

    def __init__(
        self, inner: ClientStream, exchange: Exchange, coding: bytes, types: Types, minimum: int, offload: Offload
    ) -> None:
        super().__init__(inner)
        self._exchange = exchange
        self._coding = coding
        self._types = types
        self._minimum = minimum
        self._offload = offload
        self._encoder: Encoder | None = None  # the answer gets the coding
        self._flushes = False  # its length is unknown: it may come slowly, and each piece is to be seen at once
        self._busy = False  # a piece is in a thread
        self._pending: deque[tuple[bytes, bool]] = deque()  # pieces that wait for that; the second: it is the last one
        self._whole: ResponseHead | None = None  # a head that waits for its whole body, and so for its length
        self._over = -1  # the exchange is over; 1: with a whole answer

    def is_blocked(self) -> bool:
        return self._busy or self._inner.is_blocked()

    def send_head(self, response: ResponseHead, piece: bytes, end: bool, last: bool = False) -> None:
        exchange = self._exchange
        if response.status == 304 and self._coding and not exchange.answered_by_proxy:
            response = weakened(response)
        elif not exchange.answered_by_proxy and may_be_coded(response, self._types, self._minimum):
            head_only = exchange.head.method == b"HEAD"
            if not self._coding or (end and not head_only and len(piece) < self._minimum):
                response = with_vary(response)
            elif head_only:
                response = coded_head(response, self._coding, -1, True)
            else:
                self._begin(response, piece, end, last)
                return
        self._inner.send_head(response, piece, end, last)
        self.blocked = self._inner.blocked

    def _begin(self, response: ResponseHead, piece: bytes, end: bool, last: bool) -> None:
        self._encoder = encoder(self._coding)
        if not end:
            self._flushes = response.fields.length < 0
            self._inner.send_head(coded_head(response, self._coding, -1, False), b"", False, last)
            self.blocked = self._inner.blocked
            if piece:
                self.send_body(piece, False)
        elif len(piece) <= LARGE:
            data = self._encoder.encode(piece, False, True)
            self._inner.send_head(coded_head(response, self._coding, len(data), False), data, True, last)
            self.blocked = self._inner.blocked
        else:
            self._whole = response
            self._in_thread(piece, True)

    def send_body(self, piece: bytes, end: bool) -> None:
        if self._encoder is None:
            self._inner.send_body(piece, end)
            self.blocked = self._inner.blocked
        elif self._busy:
            self._pending.append((piece, end))
            self._exchange.client_blocked()
        elif len(piece) > LARGE:
            self._in_thread(piece, end)
        else:
            self._send(self._encoder.encode(piece, self._flushes, end), end)

    def _send(self, data: bytes, end: bool) -> None:
        if data or end:
            self._inner.send_body(data, end)
            self.blocked = self._inner.blocked

    def _in_thread(self, piece: bytes, end: bool) -> None:
        self._busy = True
        self._exchange.client_blocked()
        made = self._encoder
        assert made is not None
        self._offload.run(_work(made, piece, self._flushes, end), self._then(end))

    def _then(self, end: bool) -> Callable[[bytes | None], None]:
        def then(data: bytes | None) -> None:
            self._encoded(data, end)

        return then

    def _encoded(self, data: bytes | None, end: bool) -> None:
        """A piece comes back from its thread."""
        self._busy = False
        if self._over == 0:
            return
        if data is None:  # there is no such error, but a half answer must not look whole
            self.reset()
            self._end(0)
            return
        if self._whole is not None:
            self._inner.send_head(coded_head(self._whole, self._coding, len(data), False), data, True)
            self._whole = None
        else:
            self._send(data, end)
        while self._pending and not self._busy:
            piece, last = self._pending.popleft()
            self.send_body(piece, last)
        if self._busy:
            return
        if self._over >= 0:
            self._end(self._over)
        elif not self._inner.is_blocked():
            self._exchange.client_unblocked()

    def send_trailers(self, lines: bytes) -> None:
        if self._encoder is None or self._busy:
            # A trailer section is rare, and does without its fields where it would overtake a piece.
            if self._encoder is None:
                self._inner.send_trailers(lines)
            else:
                self._pending.append((b"", True))
            return
        self._send(self._encoder.encode(b"", False, True), False)
        self._inner.send_trailers(lines)

    def reset(self) -> None:
        self._pending.clear()
        self._over = 0
        self._inner.reset()

    def done(self, complete: bool) -> None:
        if self._busy and complete and self._over < 0:
            self._over = 1
            self._exchange.deadline = self._exchange.ends_at = inf  # nothing but the last piece is waited for
            return
        self._end(1 if complete else 0)

    def _end(self, complete: int) -> None:
        self._over = complete
        self._pending.clear()
        self._inner.done(complete == 1)


def _work(made: Encoder, piece: bytes, flushes: bool, end: bool) -> Callable[[], bytes]:
    def work() -> bytes:
        return made.encode(piece, flushes, end)

    return work
