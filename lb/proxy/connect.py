"""Connections to targets: a name's addresses in turn, TLS, and one deadline for all of it.

Each is opened by a task, which is one of the few places of the data plane that make one.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from time import monotonic
from typing import TYPE_CHECKING, cast

from lb.core.retry import CONNECT, REFUSED, RESET, TIMEOUT, UNREACHABLE, Failure
from lb.net.tls.contexts import HTTP1, Contexts
from lb.proxy.connect_pacer import ConnectPacer
from lb.proxy.h1.target import Upstream

if TYPE_CHECKING:
    from lb.proxy.context import Context
    from lb.proxy.lane import Address, Begun, Lane


class Connector:
    """Opens one worker's connections to targets."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pacer = ConnectPacer(context.loop)
        self.contexts = Contexts()  # of TLS
        self.tasks: set[asyncio.Task[None]] = set()

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
        except TimeoutError:
            if not begun.for_copy:
                lane.tally.timeouts += 1
            failure = Failure(CONNECT, TIMEOUT, "did not accept a connection in time", timer="connect")
        except ConnectionRefusedError:
            failure = Failure(CONNECT, REFUSED, "refused the connection")
        except ConnectionResetError:
            failure = Failure(CONNECT, RESET, "reset the connection while it was opened")
        except ssl.SSLError as error:
            failure = Failure(CONNECT, UNREACHABLE, f"failed the TLS handshake: {error.reason or error}")
        except OSError as error:
            failure = Failure(CONNECT, UNREACHABLE, f"cannot be reached: {error.strerror or error}")
        else:
            if upstream.gone:
                upstream.abort()
                failure = Failure(CONNECT, RESET, "closed the connection as soon as it was opened", unprocessed=True)
        if failure is None:
            lane.opened(upstream)
        else:
            lane.not_opened(failure, begun)

    async def _connect(self, lane: Lane, within: float | None) -> Upstream:
        """Open a connection within so many seconds. Raises OSError, which TimeoutError is one of.

        Only the kernel's part may be cancelled: a transport that is being made would leak.
        """
        loop = self._context.loop
        target = lane.target
        until = loop.time() + (within or 0.0)
        addresses, tls = lane.addresses, target.tls
        async with asyncio.timeout(within):
            context = await self.contexts.get(tls, HTTP1) if tls is not None else None
            sock = await self._reach(lane, addresses, within)
        upstream = Upstream(lane, sock)
        # It is a protocol without the base class, which a class to be compiled cannot have.
        protocol = cast("asyncio.Protocol", upstream)
        try:
            if context is None:
                await loop.create_connection(lambda: protocol, sock=sock)
            else:
                name = (tls.server_name if tls else "") or target.host
                remaining = max(0.05, until - loop.time()) if within else None
                await loop.create_connection(
                    lambda: protocol, sock=sock, ssl=context, server_hostname=name, ssl_handshake_timeout=remaining
                )
        except BaseException as error:
            lane.connections.discard(upstream)
            sock.close()
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
