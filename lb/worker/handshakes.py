"""TLS listeners: a handshake that fails is counted and said, instead of leaving no trace.

A server made by the loop reports no failed handshake. The protocol has no connection yet, and the loop's exception
handler is not called for an OSError. So on a TLS listener lb accepts by itself, and does each handshake in a task,
which gets the error.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from lb.net.tls.contexts import in_words, openssl_reason

if TYPE_CHECKING:
    import socket

    from lb.worker.acceptor import Acceptor

#: Seconds between two lines about the same kind of failure on the same listener.
SAID_EVERY = 10.0
#: Seconds without accepting after the system had no descriptor or memory for a connection.
SHORT_OF = 0.1

# Reasons, as `lb_rejected_total` has them.
PLAIN_HTTP = "tls_plain_http"
FAILED = "tls_handshake"
TOO_SLOW = "tls_timeout"
CLOSED = "tls_closed"


def reason_of(error: OSError) -> str:
    """Why a handshake failed, as one of four labels."""
    if isinstance(error, ssl.SSLError):
        return PLAIN_HTTP if openssl_reason(error) in ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST") else FAILED
    if isinstance(error, (ConnectionAbortedError, TimeoutError)):  # the loop's words for a handshake that took too long
        return TOO_SLOW
    return CLOSED


class HandshakeFailures:
    """Counts the failed handshakes of a worker, and says so at a bounded rate."""

    def __init__(
        self, count: Callable[[str], None], say: Callable[[str], None], clock: Callable[[], float] = monotonic
    ) -> None:
        self._count = count
        self._say = say
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}  # (bind, reason) → when said last, how many since

    def note(self, bind: str, peer: str, error: OSError) -> None:
        """A handshake with `peer` on the listener `bind` has failed."""
        reason = reason_of(error)
        self._count(reason)
        if reason == CLOSED:  # balancers' TCP checks and port scans do it all day
            return
        now = self._clock()
        before, unsaid = self._said.get((bind, reason), (-SAID_EVERY, 0))
        if now - before < SAID_EVERY:
            self._said[bind, reason] = before, unsaid + 1
            return
        self._said[bind, reason] = now, 0
        more = f" ({unsaid} more such failures before this one)" if unsaid else ""
        self._say(f"listener {bind}: {_words(reason, peer, error)}{more}")

    def forget(self, bind: str) -> None:
        """The listener is gone."""
        self._said = {key: value for key, value in self._said.items() if key[0] != bind}


def _words(reason: str, peer: str, error: OSError) -> str:
    if reason == PLAIN_HTTP:
        return f"{peer} sent plain HTTP, but this listener speaks TLS: use https://"
    if reason == TOO_SLOW:
        return f"{peer} did not finish its TLS handshake in time"
    return f"the TLS handshake with {peer} failed: {in_words(openssl_reason(error))}"


class TlsServer:
    """Accepts on one listening socket, as long as it is not closed. It stands where the loop's own server would."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, acceptor: Acceptor, backlog: int) -> None:
        self._loop = loop
        self._sock = sock
        self._acceptor = acceptor
        self._later: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(backlog)
        loop.add_reader(sock, self._on_waiting)

    def _on_waiting(self) -> None:
        if not self._acceptor.let_in_some():
            # Nothing can be accepted now, and the socket would be reported again and again.
            self._loop.remove_reader(self._sock)
            self._later = self._loop.call_later(SHORT_OF, self._resume)

    def _resume(self) -> None:
        self._later = None
        self._loop.add_reader(self._sock, self._on_waiting)

    def close(self) -> None:
        """Accept no more; handshakes under way go on. As of the loop's own server, a second call does nothing."""
        if self._sock.fileno() < 0:
            return
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
