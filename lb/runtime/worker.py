"""A worker: the data plane on its sockets, told what to do over a channel, and on its own when that is gone.

It is started as `python -m lb.runtime.worker` with one JSON argument: its number, the channel's descriptor, and a
descriptor for each listener. It imports nothing but the data plane, so that it stays small.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import ssl
import sys
import time
from typing import Any

import uvloop

from lb.core.report import Alarm
from lb.core.targets import Listener, Rotation, Snapshot
from lb.proxy.plane import DataPlane
from lb.runtime.channel import VERSION, Applied, Channel, Hello, Message, Order, Poll, Polled

#: Seconds between two reports; one goes even when nothing has changed, as a sign of life.
REPORT_EVERY = 0.25
#: Seconds that a TLS handshake may take.
HANDSHAKE_TIME = 10.0
#: Allocations less frees before a collection of the youngest generation. The hot path makes no cycles: what is
#: collected are leftovers of connections, and rarely (measured: 700, the default, costs 2 % of a request).
GC_THRESHOLD = 20_000
#: Seconds that requests may go on after an order to drain, when nobody orders a stop.
ORPHAN_DRAIN = 60.0


class Worker:
    """One worker process."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop, sockets: dict[str, socket.socket]) -> None:
        self.number = number
        self.loop = loop
        self.sockets = sockets  # listener's bind → its listening socket
        self.plane = DataPlane(worker=number, loop=loop, alarm=self._alarm)
        self.channel: Channel | None = None
        self.done = asyncio.Event()
        self._servers: dict[str, tuple[Listener, asyncio.AbstractServer]] = {}
        self._accepting: set[asyncio.Task[Any]] = set()
        self._changes: asyncio.Queue[Snapshot] = asyncio.Queue()

    async def run(self, sock: socket.socket) -> None:
        """Serve until told to stop."""
        self.channel = await Channel.over(sock, self._on_message, self._on_lost)
        self.channel.send(Hello(VERSION, self.number, os.getpid(), self.plane.incarnation))
        following = self.loop.create_task(self._follow_listeners())
        reporting = self.loop.create_task(self._report())
        await self.done.wait()
        following.cancel()
        reporting.cancel()
        self.plane.close()
        self._send_report()
        self.channel.close()
        await asyncio.sleep(0.05)  # let the last bytes out

    # --- messages ---------------------------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Snapshot):
            # Applied at once, in the order of the messages: a rotation that follows must find its service.
            self.plane.apply(message)
            self._changes.put_nowait(message)
        elif isinstance(message, Rotation):
            self.plane.rotate(message)
            self._send(Applied(self.plane.applied))
        elif isinstance(message, Poll):
            self._send_report()
            self._send(Polled(message.number))
        elif isinstance(message, Order):
            if message.what == "drain":
                self._drain()
            elif message.what == "stop":
                self.done.set()
            elif message.what == "reopen":
                self.plane.reopen_logs()

    def _on_lost(self) -> None:
        """The supervisor is gone. Clients are not to notice: serve on by the last snapshot."""

    def _send(self, message: Message) -> None:
        if self.channel is not None:
            self.channel.send(message)

    def _alarm(self, alarm: Alarm) -> None:
        self._send(alarm)

    # --- serving ----------------------------------------------------------------------------------------------------

    async def _follow_listeners(self) -> None:
        first = True
        while True:
            snapshot = await self._changes.get()
            await self._listen(snapshot.listeners)
            self._send(Applied(self.plane.applied))
            if first:
                first = False
                gc.collect()
                gc.freeze()
                gc.set_threshold(GC_THRESHOLD, 20, 100)

    async def _listen(self, listeners: tuple[Listener, ...]) -> None:
        """Accept on new listeners, with new settings on changed ones, and no more on removed ones."""
        wanted = {listener.bind: listener for listener in listeners}
        for bind, (listener, server) in list(self._servers.items()):
            if wanted.get(bind) != listener:
                server.close()
                del self._servers[bind]
        for bind, listener in wanted.items():
            if bind in self._servers or bind not in self.sockets:
                continue
            options = self._tls_options(listener)
            factory = self.plane.downstream(listener)
            # A duplicate is handed over: the server closes what it is given, and the socket may be wanted again.
            sock = self.sockets[bind].dup()
            if sock.family == socket.AF_UNIX:
                server = await self.loop.create_unix_server(factory, sock=sock, **options)
            else:
                server = await self.loop.create_server(factory, sock=sock, **options)
            self._servers[bind] = (listener, server)

    def _drain(self) -> None:
        if self.plane.draining:
            return
        for bind, (listener, server) in self._servers.items():
            server.close()
            self._accept_the_rest(self.sockets[bind], listener)
        self._servers.clear()
        self.sockets.clear()
        self.plane.drain()
        self._ending = self.loop.create_task(self._stop_when_idle())

    def _accept_the_rest(self, sock: socket.socket, listener: Listener) -> None:
        """Take what waits in the accept queue before the socket is closed: those clients have been let in already.

        If a successor listens on this very socket it would serve them as well; taking them harms nothing.
        """
        while True:
            try:
                connection, _ = sock.accept()
            except OSError:
                break
            connection.setblocking(False)
            options = self._tls_options(listener)
            task = self.loop.create_task(
                self.loop.connect_accepted_socket(self.plane.downstream(listener), connection, **options)
            )
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)
        sock.close()

    @staticmethod
    def _tls_options(listener: Listener) -> dict[str, Any]:
        if listener.tls is None:
            return {}
        return {"ssl": _server_context(listener), "ssl_handshake_timeout": HANDSHAKE_TIME}

    async def _stop_when_idle(self) -> None:
        until = time.monotonic() + ORPHAN_DRAIN
        while time.monotonic() < until and not self.plane.idle():  # noqa: ASYNC110 - the plane tells no events
            await asyncio.sleep(0.05)
        self.done.set()

    # --- reports ----------------------------------------------------------------------------------------------------

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY)
            self._send_report()

    def _send_report(self) -> None:
        if self.channel is not None and self.channel.open:
            self._send(self.plane.report())


def _server_context(listener: Listener) -> ssl.SSLContext:
    assert listener.tls is not None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(listener.tls.cert_file, listener.tls.key_file)
    if listener.tls.client_ca_file:
        context.load_verify_locations(listener.tls.client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    return context


async def serve(number: int, channel_fd: int, listener_fds: dict[str, int]) -> None:
    """Take the descriptors over and serve."""
    loop = asyncio.get_running_loop()
    sockets = {bind: socket.socket(fileno=fd) for bind, fd in listener_fds.items()}
    for sock in sockets.values():
        sock.setblocking(False)
    worker = Worker(number, loop, sockets)
    loop.add_signal_handler(signal.SIGTERM, worker._drain)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the terminal's Ctrl-C is the supervisor's to handle
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    await worker.run(socket.socket(fileno=channel_fd))


def main() -> None:
    """The process's entry."""
    told = json.loads(sys.argv[1])
    uvloop.run(serve(told["number"], told["channel"], told["listeners"]))


if __name__ == "__main__":
    main()
