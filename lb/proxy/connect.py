"""Connections to targets: a name's addresses in turn, TLS, and one deadline for all of it.

Each is opened by a task, which is one of the few places of the data plane that make one.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from time import monotonic
from typing import TYPE_CHECKING, cast

from lb.core.retry import (
    CONNECT,
    GARBAGE,
    REFUSED,
    RESET,
    TIMEOUT,
    TLS,
    TLS_CLIENT_CERTIFICATE,
    TLS_EXPIRED,
    TLS_VERIFY,
    UNREACHABLE,
    Failure,
)
from lb.core.targets import TlsClient
from lb.net.tls.contexts import HTTP1, HTTP2, Contexts, in_words, openssl_reason, server_name
from lb.net.tls.resuming import ResumingContext, keep_session
from lb.net.tls.target_faults import WITHIN, TargetFaults, is_about_dates, own_certificate_refused
from lb.proxy.connect_pacer import ConnectPacer
from lb.proxy.h1.target import Upstream
from lb.proxy.h2.lane import Http2Lane
from lb.proxy.h2.target import Http2Upstream

if TYPE_CHECKING:
    from lb.proxy.context import Context
    from lb.proxy.lane import Address, Begun, Lane


class _NoContext(Exception):  # noqa: N818
    """The files of a target's TLS settings cannot be used. It is asked without TLS, or unverified, in no case."""


class _NotSpoken(Exception):  # noqa: N818
    """The target does not speak HTTP/2, or has ended the connection at once."""


class Connector:
    """Opens one worker's connections to targets."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pacer = ConnectPacer(context.loop)
        self.contexts = Contexts()  # of TLS
        self.tasks: set[asyncio.Task[None]] = set()
        self._faults = TargetFaults(self.contexts)

    def ask(self, lane: Lane) -> None:
        """Begin a connection to `lane`'s target, now or, if it is needed still, in one of the loop's next turns."""
        self._pacer.ask(lane)

    def open(self, lane: Lane, begun: Begun) -> None:
        """Open a connection now. The result is a call of `Lane.opened` or `Lane.not_opened`."""
        task = self._context.loop.create_task(self._open(lane, begun))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _open(self, lane: Lane, begun: Begun) -> None:
        failure: Failure | None = None
        try:
            upstream = await self._connect(lane, lane.service.timeouts.connect or None)
        except _NotSpoken as error:
            failure = Failure(CONNECT, GARBAGE, str(error))
        except TimeoutError:
            if not begun.for_copy:
                lane.tally.timeouts += 1
            failure = Failure(CONNECT, TIMEOUT, "did not accept a connection in time", timer="connect")
        except ConnectionRefusedError:
            failure = Failure(CONNECT, REFUSED, "refused the connection")
        except ConnectionResetError:
            failure = Failure(CONNECT, RESET, "reset the connection while it was opened")
        except _NoContext as error:
            failure = Failure(CONNECT, TLS, f"was not asked, as its TLS files cannot be used: {error}")
        except ssl.SSLCertVerificationError as error:
            failure = await self._unverified(lane, error)
        except ssl.SSLError as error:
            if refusal := own_certificate_refused(error):
                failure = Failure(CONNECT, TLS_CLIENT_CERTIFICATE, refusal)
            else:
                failure = Failure(CONNECT, TLS, f"failed the TLS handshake: {in_words(openssl_reason(error))}")
        except OSError as error:
            failure = Failure(CONNECT, UNREACHABLE, f"cannot be reached: {error.strerror or error}")
        else:
            if upstream.gone:
                upstream.abort()
                if upstream.refusal:
                    failure = Failure(CONNECT, TLS_CLIENT_CERTIFICATE, upstream.refusal)
                elif lane.target.tls is not None:
                    # TLS 1.3 tells a client that its certificate is missing, or refused, after the handshake. Not
                    # every server sends the alert that says so.
                    text = "closed the connection after the TLS handshake, as for want of a client certificate"
                    failure = Failure(CONNECT, TLS, text)
                else:
                    failure = Failure(
                        CONNECT, RESET, "closed the connection as soon as it was opened", unprocessed=True
                    )
        if failure is not None:
            lane.not_opened(failure, begun)
        elif isinstance(upstream, Upstream):
            lane.opened(upstream)
        else:
            upstream.lane.linked(upstream)

    async def _connect(self, lane: Lane, within: float | None) -> Upstream | Http2Upstream:
        """Open a connection within so many seconds. Raises OSError, which TimeoutError is one of.

        Only the kernel's part may be cancelled: a transport that is being made would leak.
        """
        loop = self._context.loop
        target = lane.target
        until = loop.time() + (within or 0.0)
        addresses, tls = lane.addresses, target.tls
        async with asyncio.timeout(within):
            context = await self._context_of(tls, lane.target.http2) if tls is not None else None
            sock = await self._reach(lane, addresses, within)
        upstream = Http2Upstream(lane, sock, self._context.now) if isinstance(lane, Http2Lane) else Upstream(lane, sock)
        # It is a protocol without the base class, which a class to be compiled cannot have.
        protocol = cast("asyncio.Protocol", upstream)
        try:
            if context is None:
                await loop.create_connection(lambda: protocol, sock=sock)
            else:
                name = server_name(tls, target.host)
                remaining = max(0.05, until - loop.time()) if within else None
                for other in lane.links if isinstance(lane, Http2Lane) else lane.connections:
                    if other is not upstream and other.transport is not None:
                        keep_session(other.transport)
                        break
                await loop.create_connection(
                    lambda: protocol,
                    sock=sock,
                    ssl=context,
                    server_hostname=name,
                    ssl_handshake_timeout=remaining,
                )
            if isinstance(upstream, Http2Upstream):
                await _greeting(upstream, until - loop.time() if within else None)
        except BaseException as error:
            if isinstance(upstream, Upstream):
                lane.connections.discard(upstream)
            if isinstance(upstream, Http2Upstream) and upstream.transport is not None:
                upstream.abort()
            else:
                sock.close()
            if isinstance(context, ResumingContext):
                context.forget(server_name(tls, target.host))
            if isinstance(error, ConnectionAbortedError):  # the loop's word for a TLS handshake that took too long
                raise TimeoutError from None
            raise
        if addresses is not lane.addresses or tls != lane.target.tls:  # changed meanwhile: for no more requests
            upstream.abort()
            return await self._connect(lane, max(0.05, until - loop.time()) if within else None)
        lane.tally.opened += 1
        lifetime = lane.service.timeouts.lifetime
        if lifetime:
            upstream.expires_at = monotonic() + lifetime * (1 - 0.1 * self._context.rng.random())
            lane.expires_at = min(lane.expires_at, upstream.expires_at)
        return upstream

    async def _context_of(self, tls: TlsClient, http2: bool) -> ssl.SSLContext:
        try:
            return await self.contexts.get(tls, HTTP2 if http2 else HTTP1)
        except (OSError, ValueError) as error:
            raise _NoContext(in_words(openssl_reason(error))) from None

    async def _unverified(self, lane: Lane, error: ssl.SSLCertVerificationError) -> Failure:
        """The failure of a target whose certificate was refused."""
        tls = lane.target.tls or TlsClient()
        text = await self._faults.describe(
            error, tls, server_name(tls, lane.target.host), lane.id, lambda: self._reach(lane, lane.addresses, WITHIN)
        )
        cause = TLS_EXPIRED if is_about_dates(error) else TLS_VERIFY
        return Failure(CONNECT, cause, f"showed a certificate that is refused: {text}")

    async def _reach(self, lane: Lane, addresses: tuple[Address, ...], within: float | None) -> socket.socket:
        """A socket connected to the first of `addresses` that accepts. Each has an equal part of the time left."""
        if not addresses:
            raise OSError(f"the name {lane.target.host} is not resolved yet")
        loop = self._context.loop
        until = loop.time() + (within or 0.0)
        for others in range(len(addresses) - 1, -1, -1):
            family, address = addresses[-1 - others]
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                if family != socket.AF_UNIX:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if others and within:
                    async with asyncio.timeout((until - loop.time()) / (others + 1)):
                        await loop.sock_connect(sock, address)
                else:
                    await loop.sock_connect(sock, address)
            except BaseException as error:
                sock.close()
                if not others or not isinstance(error, OSError):
                    raise
            else:
                return sock
        raise AssertionError("the last address is connected or raises")


async def _greeting(upstream: Http2Upstream, within: float | None) -> None:
    """Wait for the settings of a target that speaks HTTP/2: they say how many streams it takes.

    So a target that speaks something else fails no request that must not be sent twice.
    """
    handshake = upstream.transport.get_extra_info("ssl_object")
    if handshake is not None and handshake.selected_alpn_protocol() != "h2":
        raise _NotSpoken("did not choose HTTP/2 in the TLS handshake (ALPN)")
    wire = upstream.wire
    if not wire.greeted and wire.failed is None:
        greeting = upstream.on_greeting = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(within if within is None else max(0.05, within)):
                await greeting
        except TimeoutError:
            raise _NotSpoken("accepted the connection, but sent no settings of HTTP/2 in time") from None
    if wire.failed is not None:
        raise _NotSpoken(wire.failed.text)
