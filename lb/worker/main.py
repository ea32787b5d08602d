"""A worker: the data plane on its sockets, commanded over a channel, and on its own when the channel is lost.

It is started as `python -m lb.worker.main` with one JSON argument. That holds its number, the descriptors of its
channel and of the socket that brings listening sockets, and the state directory. It imports nothing but the data plane,
so that it stays small.

When its supervisor is gone, it serves on by the last snapshot. A new `lb run` connects to its handover socket, takes
its sockets over, and lets it end when the new workers serve. Without a new supervisor it ends by itself after a bounded
time (`core.orphan`). A worker whose supervisor has not sent `settle` ends with its supervisor.
"""

from __future__ import annotations

import gc

from lb import early_signals

if __name__ == "__main__":
    early_signals.hold()  # before anything large is imported: a log rotation may signal every process at any time
    gc.disable()  # until it serves: imports make what stays

import asyncio
import contextlib
import faulthandler
import json
import os
import select
import signal
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import uvloop

from lb.core import orphan
from lb.core.certificates import digests_of, folded
from lb.core.challenges import Challenges
from lb.core.networks import in_networks
from lb.core.report import Alarm, Report
from lb.core.targets import Listener, Rotation, RotationChange, Snapshot, Targets
from lb.net.tls.admission import Admission
from lb.net.tls.client_hello import ClientHello
from lb.net.tls.contexts import ACME_ALPN, alpn_of, challenge_context
from lb.net.tls.selection import NO_APPLICATION_PROTOCOL, UNRECOGNIZED_NAME, Alert, Select, Selected
from lb.net.tls.session import NO_SHARED_PROTOCOL, Buffers
from lb.net.tls.store import CertificateStore
from lb.net.tls.transport import TlsListener
from lb.process import descriptors, fd_handover
from lb.process.channel import (
    VERSION,
    Applied,
    Behind,
    Channel,
    Command,
    Hello,
    Message,
    Poll,
    Polled,
    TicketSecret,
    WorkerError,
)
from lb.process.fd_handover import HandoverSocket, ListenerKey
from lb.process.guard import Guard
from lb.proxy.crash_counters import cells as crash_counters_of
from lb.proxy.in_flight_table import InFlightTable
from lb.proxy.plane import DataPlane
from lb.proxy.rate_table import RateTable
from lb.worker.acceptor import Acceptor
from lb.worker.handshakes import Handshakes

#: Seconds between two reports; one goes even when nothing has changed, as a sign of life.
REPORT_EVERY = 0.25
#: A report on more targets than this would keep requests waiting: it goes in parts…
AT_ONCE = 50
#: …so many seconds apart, and a target has its turn less often: by this factor at most, and one more for each so many.
PART_EVERY = 0.05
MOST_PATIENT = 4
PATIENCE = 200
#: Connections that wait to be accepted (the kernel caps it at net.core.somaxconn). The loop sets it anew on a socket.
BACKLOG = 4096
#: Allocations less frees before a collection of the youngest generation. The hot path makes no cycles: leftovers of
#: connections are collected, and rarely (measured: 700, the default, costs 2 % of a request).
GC_THRESHOLD = 20_000
#: Seconds at most that a worker that ends waits for its supervisor to take the last report.
LAST_REPORT = 5.0
#: The whole of the protocols that a certificate authority offers when it asks for the answer to a challenge.
_CHALLENGE = (ACME_ALPN,)
#: Seconds that requests may go on when a worker ends by itself, as no supervisor gives it a time.
OWN_DRAIN = 60.0


class _Open:
    """One socket that is listened on, by which rules."""

    def __init__(self, listener: Listener, server: asyncio.AbstractServer, acceptor: Acceptor) -> None:
        self.listener = listener
        self.server = server
        self.acceptor = acceptor


def _turned(former: Listener, new: Listener) -> bool:
    """Whether a listener serves requests no more, but redirects them, or the other way round."""
    return bool(former.redirect) != bool(new.redirect)


class Worker:
    """One worker process."""

    def __init__(
        self,
        number: int,
        loop: asyncio.AbstractEventLoop,
        directory: Path | None,
        crash_counters: int = -1,
        certificates: CertificateStore | None = None,
        rates: int = -1,
        in_flight: tuple[int, int] = (-1, -1),
    ) -> None:
        self.number = number
        self.loop = loop
        self.plane = DataPlane(
            worker=number,
            loop=loop,
            alarm=self._send,
            crash_counters=crash_counters_of(crash_counters),
            rates=RateTable(rates, max(in_flight[1], 0)),
            in_flight=InFlightTable(*in_flight) if in_flight[1] >= 0 else None,
        )
        self._handshakes = Handshakes(self.plane.stats, lambda text: say(f"worker {number}: {text}"))
        self._admission = Admission(loop)
        self._tls_buffers = Buffers()
        self._crash_counters = crash_counters
        self._guard = Guard(self._tell)
        self.sockets: dict[ListenerKey, socket.socket] = {}
        self.spares: dict[ListenerKey, socket.socket] = {}  # a neighbour's: its queue outlives it and the supervisor
        self.done = asyncio.Event()
        self._directory = directory
        self._channel: Channel | None = None
        self._fd_channel: socket.socket | None = None
        self._handover_socket: HandoverSocket | None = None
        self._settled = False
        self._visitors: set[Channel] = set()  # supervisors that start, and have not taken over yet
        self._orphan_bound = Snapshot(0).orphan
        self._orphaned: asyncio.Task[None] | None = None  # runs while there is no supervisor
        self._listeners: dict[str, Listener] = {}  # as the newest snapshot has them
        self._tls_files: dict[str, bytes] = {}  # their contents, by digest
        self._certificates = certificates or CertificateStore()
        self._open: dict[ListenerKey, _Open] = {}
        self._accepted: set[socket.socket] = set()  # connections that the loop has yet to take over
        self._challenges: dict[str, ssl.SSLContext] = {}  # by name, for handshakes of certificate authorities
        self._changed = asyncio.Event()
        self._opening = False  # a snapshot's listeners are yet to be opened
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, channel: socket.socket, sockets: socket.socket) -> None:
        """Serve until told to stop."""
        self.loop.set_exception_handler(self._guard.on_error)
        self._fd_channel = sockets
        self.loop.add_reader(sockets, self._take_sockets)
        self._open_handover_socket()
        await self._speak(channel, first=True)
        self._keep_running("worker_listeners", self._follow)
        self._keep_running("worker_reports", self._report)
        await self.done.wait()
        self._admission.close()
        self.plane.close()
        self._certificates.close()
        self._send_report()
        if self._handover_socket is not None:
            self.loop.remove_reader(self._handover_socket.sock)
            self._handover_socket.close()
        if self._channel is not None:
            await self._channel.finish(LAST_REPORT)
        for task in list(self._tasks):
            task.cancel()

    def _go(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _keep_running(self, label: str, body: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return self._go(self._guard.keep_running(label, body))

    # --- supervisors ------------------------------------------------------------------------------------------------

    def _open_handover_socket(self) -> None:
        if self._directory is None:
            return
        try:
            self._handover_socket = HandoverSocket(self._directory, self._who, lambda: {**self.spares, **self.sockets})
        except OSError as error:
            say(f"worker {self.number}: no later lb will find it: {self._directory}: {error.strerror or error}")
            return
        self.loop.add_reader(self._handover_socket.sock, self._on_successor)

    def _who(self) -> dict[str, int]:
        return {
            "version": VERSION,
            "number": self.number,
            "incarnation": self.plane.incarnation,
            "applied": self.plane.applied,
            "last_words": self._crash_counters,
        }

    def _on_successor(self) -> None:
        assert self._handover_socket is not None
        visitor = self._handover_socket.admit()
        if visitor is not None:
            self._go(self._speak(visitor, first=False))

    async def _speak(self, sock: socket.socket, first: bool) -> None:
        """Talk over a socket. A visitor becomes the supervisor with its first message."""

        def on_message(message: Message) -> None:
            if channel is not self._channel:
                if not channel.open:
                    return  # it was the supervisor once
                self._obey(channel)
            self._on_message(message)

        def on_lost() -> None:
            self._visitors.discard(channel)
            if channel is self._channel:
                self._on_lost()

        channel = Channel(on_message, on_lost)
        if not first:
            self._visitors.add(channel)
        await channel.attach(sock)
        if first and self._channel is None:
            if channel.open:
                self._obey(channel)
            else:  # the supervisor ended while this process started
                self._on_lost()

    def _obey(self, channel: Channel) -> None:
        """Take this channel as the supervisor's: it gets all messages, and the former channel is closed."""
        former, self._channel = self._channel, channel
        self._visitors.discard(channel)
        if self._orphaned is not None:
            self._orphaned.cancel()
            self._orphaned = None
        if former is not None:
            former.close()
        self._send(Hello(VERSION, self.number, os.getpid(), self.plane.incarnation))
        self._send(self._report_now(full=True))

    def _on_lost(self) -> None:
        """The supervisor has ended: serve on by the last snapshot, so that clients do not notice."""
        if self.done.is_set() or self.plane.front.draining:
            return
        if self._settled and self._handover_socket is not None:
            self._orphaned = self._keep_running("worker_orphan", partial(self._outlive, time.monotonic()))
            self._use_spares()
        else:
            self._drain(OWN_DRAIN)

    async def _outlive(self, since: float) -> None:
        """Serve on without a supervisor for a bounded time, and say so."""
        last_message: float | None = None
        while not self.plane.front.draining:
            now = time.monotonic()
            look = orphan.look(since, last_message, self._orphan_bound, now, bool(self._visitors))
            if look.text:
                last_message = now
                say(f"worker {self.number} (process {os.getpid()}): {look.text}")
            if look.ends:
                self._drain(OWN_DRAIN)
                return
            await asyncio.sleep(look.again)

    # --- messages ---------------------------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        try:
            self._act(message)
        except Exception as error:  # one bad message must not end a worker, and its supervisor has to hear of it
            if isinstance(message, Snapshot | Rotation | RotationChange | Targets):
                self._fall_behind(message.version, error)
                return
            what = message.what if isinstance(message, Command) else type(message).__name__
            self._tell(f"{what}: {type(error).__name__}: {error}")

    def _act(self, message: Message) -> None:
        if isinstance(message, Snapshot):
            self._apply(message)
        elif isinstance(message, Rotation | RotationChange | Targets | Challenges):
            if isinstance(message, Rotation):
                self.plane.rotate(message)
            elif isinstance(message, RotationChange):
                self.plane.change_rotation(message)
            elif isinstance(message, Challenges):
                self._challenges = {folded(name): challenge_context(pem) for name, pem in message.certificates}
                self.plane.challenge(message)
            else:
                self.plane.change(message)
                self._take_certificates(message)
                self._try_again_to_listen()
            if not self._opening:
                self._confirm()
        elif isinstance(message, TicketSecret):
            self._certificates.use_ticket_secret(message.secret)
        elif isinstance(message, Poll):
            self._send_report()
            self._send(Polled(message.number))
        elif isinstance(message, Command):
            if message.what == "settle":
                self._settled = True
            elif message.what == "drain":
                self._drain(message.within)
            elif message.what == "stop":
                self.done.set()
            elif message.what == "reopen":
                self.plane.reopen_logs()
            elif message.what == "recall":
                self.plane.recall(message.subject)

    def _send(self, message: Message | Alarm) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def _tell(self, text: str) -> None:
        """To the supervisor, for its log and events; on stderr when there is none."""
        text = f"worker {self.number}: {text}"
        if self._channel is None or not self._channel.send(WorkerError(text)):
            say(text)

    def _confirm(self) -> None:
        """Confirm the version that new requests are served by. A worker that is behind confirms nothing."""
        if not self.plane.behind:
            self._send(Applied(self.plane.applied))

    def _fall_behind(self, version: int, error: Exception) -> None:
        """A snapshot, rotation or change of targets could not be installed: its parts may be in force, or not."""
        self.plane.behind = version
        self._send(Behind(version, f"{type(error).__name__}: {error}"))

    def _apply(self, snapshot: Snapshot) -> None:
        # At once, in the order of the messages: a rotation that follows must find its service.
        self.plane.apply(snapshot)
        if self.plane.front.draining:
            self._confirm()
            return
        self._opening = True
        self._take_sockets()  # messages sent before the snapshot have arrived before it
        wanted = {listener.bind: listener for listener in snapshot.listeners}
        gone = self._listeners.keys() - wanted.keys()
        turned = {bind for bind, known in self._listeners.items() if bind in wanted and _turned(known, wanted[bind])}
        self._listeners, self._tls_files = wanted, dict(snapshot.files)
        self._orphan_bound = snapshot.orphan
        self.plane.front.removed_binds = frozenset((self.plane.front.removed_binds | gone) - wanted.keys())
        self._drop_spares(gone)
        for key in [key for key in self.sockets if key[0] in gone]:
            self._leave(key)
        for bind in gone:
            self._handshakes.forget(bind)
            self._certificates.forget(bind)
        for client in list(self.plane.clients):
            if client.listener.bind in gone or client.listener.bind in turned:
                client.close_after_next()
        self._changed.set()

    # --- listening --------------------------------------------------------------------------------------------------

    def _take_sockets(self) -> None:
        """Take the sockets that the supervisor has sent, and close the sockets that it names."""
        if self._fd_channel is None:
            return
        items, more = fd_handover.receive(self._fd_channel)
        if not more:  # the supervisor is gone
            self.loop.remove_reader(self._fd_channel)
            self._fd_channel.close()
            self._fd_channel = None
        for key, sock, spare in items:
            kept = self.spares if spare else self.sockets
            if sock is None:
                self._forget(key)
            elif self.plane.front.draining or key in kept:
                sock.close()
            else:
                kept[key] = sock
            self._changed.set()

    def _take_certificates(self, message: Targets) -> None:
        """Listeners have other certificates: they are in force when their contexts are built."""
        if not message.listeners:
            return
        self._listeners |= {each.bind: each for each in message.listeners if each.bind in self._listeners}
        used = set().union(*(digests_of(each.tls) for each in self._listeners.values() if each.tls is not None))
        files = {**self._tls_files, **dict(message.files)}
        self._tls_files = {digest: data for digest, data in files.items() if digest in used}

    def _try_again_to_listen(self) -> None:
        """Have listeners opened that could not be, as a snapshot has. The contents that their files lacked may be there
        now."""
        if not self.plane.front.draining and not all(map(self._is_open, self.sockets)):
            self._opening = True
            self._changed.set()

    def _is_open(self, key: ListenerKey) -> bool:
        """Whether a socket is served with the settings of its listener, or has none."""
        listener, opened = self._listeners.get(key[0]), self._open.get(key)
        return listener is None or (opened is not None and opened.listener == listener)

    def _forget(self, key: ListenerKey) -> None:
        """Stop listening: another worker listens there."""
        opened = self._open.pop(key, None)
        if opened is not None:
            opened.server.close()
        sock = self.sockets.pop(key, None)
        if sock is not None:
            sock.close()

    def _leave(self, key: ListenerKey) -> None:
        """Stop listening, after the connections of the queue have been accepted.

        A worker that replaces this one may listen on the same socket. It would serve these connections as well.
        """
        opened = self._open.get(key)
        if opened is not None:
            opened.server.close()
            opened.acceptor.let_in(inf)
        self._forget(key)

    def _use_spares(self) -> None:
        """Listen on a neighbour's sockets as well, because the neighbour may have died with the supervisor."""
        for key, sock in self.spares.items():
            if self.sockets.setdefault(key, sock) is not sock:
                sock.close()
        self.spares.clear()
        self._changed.set()

    def _drop_spares(self, binds: Collection[str]) -> None:
        """Close a neighbour's sockets, after the connections of their queues have been accepted."""
        for key in [key for key in self.spares if key[0] in binds]:
            sock = self.spares.pop(key)
            acceptor = next((opened.acceptor for own, opened in self._open.items() if own[0] == key[0]), None)
            if acceptor is not None:
                acceptor.let_in(inf, sock)
            sock.close()

    async def _follow(self) -> None:
        """Open and close listeners as snapshots and sockets come."""
        first = True
        self._changed.set()  # a loop that is started again has missed a change, perhaps
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not self.plane.applied:
                continue
            version = self.plane.applied
            if not self.plane.front.draining:  # else it listens no more: it was told so since the snapshot came
                try:
                    await self._listen()
                except Exception as error:
                    self._fall_behind(version, error)
            if self._changed.is_set():
                continue  # a newer snapshot came meanwhile, whose listeners are not open
            self._opening = False
            self._confirm()
            if first:
                first = False
                gc.freeze()
                gc.set_threshold(GC_THRESHOLD, 20, 100)
                gc.enable()

    async def _listen(self) -> None:
        """Accept on new sockets, and with new settings where the settings, or a certificate's file, have changed."""
        bound = descriptors.connections()
        for key, sock in list(self.sockets.items()):
            listener = self._listeners.get(key[0])
            if listener is None:
                continue
            if self._is_open(key):
                continue
            former = self._open.get(key)
            try:
                await self._install_certificates(listener)
                if former is not None and _served_alike(former.listener, listener):
                    former.listener = listener  # its handshakes ask the store
                    continue
                select = self._select_for(listener)
            except (OSError, ssl.SSLError) as error:
                kept = "the former certificate stays in use" if former is not None else "it is not served"
                self._send(WorkerError(f"worker {self.number}: listener {listener.bind}: {error}; {kept}"))
                continue
            if self._listeners.get(key[0]) != listener or key not in self.sockets:
                continue  # another snapshot came meanwhile: `_follow` comes here again
            if former is not None:
                former.server.close()
                del self._open[key]
            rules = replace(listener, connections=min(listener.connections, bound), redirect=self._redirect(listener))
            acceptor = Acceptor(self.loop, sock, self._factory(rules, select), self._go, self._accepted)
            # A duplicate is handed over: the server closes what it is given, and the socket may be wanted again.
            copy = sock.dup()
            server: asyncio.AbstractServer
            if sock.family == socket.AF_UNIX:
                server = await self.loop.create_unix_server(acceptor, sock=copy, backlog=BACKLOG)
            else:
                server = await self.loop.create_server(acceptor, sock=copy, backlog=BACKLOG)
            if key in self.sockets:
                self._open[key] = _Open(listener, server, acceptor)
            else:  # it was closed meanwhile
                server.close()

    def _redirect(self, listener: Listener) -> str:
        """The listener's redirect, with the port that the system chose where the file has port 0."""
        if not listener.redirect.endswith(":0"):
            return listener.redirect
        sock = next((sock for key, sock in self.sockets.items() if key[0] == listener.redirect), None)
        return f":{sock.getsockname()[1]}" if sock is not None else ":443"

    async def _install_certificates(self, listener: Listener) -> None:
        if listener.tls is not None and not self._certificates.holds(listener.bind, listener.tls):
            await self._certificates.install(listener.bind, listener.tls, self._tls_files)

    def _select_for(self, listener: Listener) -> Select | None:
        """The decision by a ClientHello; None: the listener has no TLS."""
        if listener.tls is None:
            return None
        store, bind = self._certificates, listener.bind
        accepted = frozenset(alpn_of(listener.tls.alpn))

        def select(hello: ClientHello) -> Selected | Alert:
            if hello.alpn == _CHALLENGE and (challenge := self._challenges.get(hello.server_name)) is not None:
                return Selected(challenge, hello.server_name, serves=False)
            selected = store.select(bind, hello.server_name)
            if selected is None:
                return Alert(UNRECOGNIZED_NAME, "unrecognized_name")
            if hello.alpn and accepted.isdisjoint(hello.alpn):
                return Alert(NO_APPLICATION_PROTOCOL, NO_SHARED_PROTOCOL)
            may_ask = store.host_check(bind, selected.policy)
            return Selected(selected.context, selected.choice.matched, selected.policy, may_ask)

        return select

    def _factory(self, listener: Listener, select: Select | None) -> Callable[[], asyncio.Protocol]:
        if select is None:
            return self.plane.downstream(listener)
        networks = listener.proxy_protocol
        return TlsListener(
            self.loop,
            select,
            self.plane.downstream(replace(listener, proxy_protocol=())),  # it comes before the ClientHello
            self._admission,
            self._tls_buffers,
            partial(self._handshakes.ended, listener.bind),
            partial(in_networks, networks) if networks else None,
        )

    # --- the end ----------------------------------------------------------------------------------------------------

    def _drain(self, within: float) -> None:
        if self.plane.front.draining:
            return
        self._drop_spares({bind for bind, _ in self.spares})
        for key in list(self.sockets):
            self._leave(key)
        self.plane.drain(within)
        self._keep_running("worker_drain", partial(self._stop_when_idle, time.monotonic() + within))

    async def _stop_when_idle(self, until: float) -> None:
        await asyncio.sleep(0)  # clients accepted last
        while time.monotonic() < until and (self._accepted or self._admission or not self.plane.idle()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        self.done.set()

    def on_signal(self) -> None:
        """SIGTERM: an operator ends an orphaned worker."""
        self._drain(OWN_DRAIN)

    def reopen(self) -> None:
        """SIGUSR1: log rotation that knows no supervisor."""
        self.plane.reopen_logs()

    # --- reports ----------------------------------------------------------------------------------------------------

    async def _report(self) -> None:
        part = 0
        while True:
            targets = len(self.plane.lanes)
            if targets <= AT_ONCE:
                await asyncio.sleep(REPORT_EVERY)
                self._send_report()
                continue
            await asyncio.sleep(PART_EVERY)
            parts = round(REPORT_EVERY / PART_EVERY) * min(MOST_PATIENT, 1 + targets // PATIENCE)
            part = (part + 1) % parts
            self._send_report(part, parts)

    def _send_report(self, part: int = 0, parts: int = 1) -> None:
        if self._channel is not None and self._channel.open:
            self._send(self._report_now(part=part, parts=parts))

    def _report_now(self, full: bool = False, part: int = 0, parts: int = 1) -> Report:
        report = self.plane.report(full, part, parts)
        report.restarts, report.errors = dict(self._guard.restarts), self._guard.errors
        return report


def _served_alike(former: Listener, listener: Listener) -> bool:
    """Whether two versions of a listener differ by their certificates alone."""
    if former.tls is None or listener.tls is None or former.tls.policy() != listener.tls.policy():
        return former == listener
    return replace(former, tls=None) == replace(listener, tls=None)


def say(text: str) -> None:
    """Print a line on stderr, unless its pipe is full: that must not stop the worker."""
    with contextlib.suppress(OSError, ValueError):
        if not select.select([], [2], [], 0.0)[1]:
            return
        print(f"lb: {text}", file=sys.stderr, flush=True)


async def serve(given: dict[str, Any]) -> None:
    """Take the descriptors over and serve. (An lb of before has no tables of limits to give.)"""
    loop = asyncio.get_running_loop()
    worker = Worker(
        given["number"],
        loop,
        Path(given["directory"]) if given["directory"] else None,
        given["crash_counters"],
        rates=given.get("rates", -1),
        in_flight=(given.get("in_flight", -1), given.get("region", -1)),
    )
    loop.add_signal_handler(signal.SIGTERM, worker.on_signal)
    loop.add_signal_handler(signal.SIGUSR1, worker.reopen)
    for quiet in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR2):  # the supervisor's to handle
        loop.add_signal_handler(quiet, lambda: None)
    if signal.SIGTERM in early_signals.taken():  # (no log is open yet that SIGUSR1 could mean)
        worker.on_signal()
    taken = socket.socket(fileno=given["sockets"])
    taken.setblocking(False)
    await worker.run(socket.socket(fileno=given["channel"]), taken)


def main() -> None:
    """The process's entry."""
    faulthandler.enable()  # a worker that hangs is ended by SIGABRT, and leaves a trace of where it hung
    given = json.loads(sys.argv[1])
    uvloop.run(serve(given))


if __name__ == "__main__":
    main()
