"""Reading the file again: validated whole, compared with what runs, in force on all workers at once or not at all.

One reload follows another. What does not depend on the event loop (parsing, validation, the difference) runs in a
thread, so that a file with a thousand services delays no probe. New listeners are opened before anything changes, so
that an address in use refuses the whole reload.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from lb.config.diff import Plan, diff
from lb.config.load import read_text
from lb.config.model import Config
from lb.config.problems import ConfigError
from lb.config.resolve import World, resolve
from lb.runtime import systemd
from lb.runtime.sockets import CannotListen, open_listener

if TYPE_CHECKING:
    from lb.runtime.supervisor import Supervisor

log = logging.getLogger("lb")


class NotNow(Exception):  # noqa: N818 - it says what happened
    """A reload has to wait for something else; the text says for what."""


class Reloads:
    """The reloads of one supervisor, and how the last one went."""

    def __init__(self, supervisor: Supervisor, config: Config) -> None:
        self._supervisor = supervisor
        self._lock = asyncio.Lock()
        self._at_start = config
        self.ok = True
        self.error = ""
        self.loaded_at = time.time()
        self.counts: Counter[str] = Counter()
        self.needs_restart: list[str] = []  # differences between the file and what was read at the start alone

    async def reload(self, actor: str) -> list[str]:
        """Read the file again and do what it says; returns the changes. Raises `ConfigError`, `CannotListen` or
        `NotNow`; then nothing has changed."""
        supervisor = self._supervisor
        async with self._lock:
            if supervisor.busy:
                raise NotNow(supervisor.busy)
            systemd.notify_reloading()
            supervisor.file_watch.seen()
            try:
                text, config, plan, world, restart = await asyncio.to_thread(self._read)
                opened = self._open_new(world)
            except (ConfigError, CannotListen) as error:
                self.ok, self.error = False, str(error)
                self.counts["failed"] += 1
                lines = str(error).splitlines()
                more = f" (and {len(lines) - 1} more lines; `lb check` shows all)" if len(lines) > 1 else ""
                supervisor.note("reload", f"refused, nothing has changed: {lines[0]}{more}", actor=actor)
                raise
            finally:
                systemd.notify("READY=1")
            await self._apply(config, world, opened)
            supervisor.text = text
            self.needs_restart = restart
            self.ok, self.error = True, ""
            self.loaded_at = time.time()
            self.counts["ok"] += 1
            changes = plan.lines()
            supervisor.note("reload", "; ".join(changes) or "nothing has changed", actor=actor)
            return changes

    async def quietly(self, actor: str) -> None:
        """For those who cannot be answered: a signal, the file's watch. What went wrong has been told."""
        try:
            await self.reload(actor)
        except NotNow as error:
            self._supervisor.note("reload", f"not done: {error}", actor=actor)
        except (ConfigError, CannotListen):
            pass

    def _read(self) -> tuple[str, Config, Plan, World, list[str]]:
        supervisor = self._supervisor
        text = text_of(supervisor.path)
        config = supervisor.read(supervisor.path)
        plan = diff(supervisor.config, config)
        restart = [str(change) for change in diff(self._at_start, config).of("restart")]
        return text, config, plan, resolve(config, 0), restart

    def _open_new(self, world: World) -> dict[str, list[socket.socket]]:
        workers = self._supervisor.workers
        opened: dict[str, list[socket.socket]] = {}
        try:
            for listener in world.snapshot.listeners:
                if listener.bind not in workers.sockets:
                    opened[listener.bind] = open_listener(listener.bind, workers.count)
        except CannotListen:
            for sockets in opened.values():
                for sock in sockets:
                    sock.close()
            raise
        return opened

    async def _apply(self, config: Config, world: World, opened: dict[str, list[socket.socket]]) -> None:
        supervisor, workers = self._supervisor, self._supervisor.workers
        supervisor.take(config, world)
        supervisor.save()
        wanted = {listener.bind for listener in world.snapshot.listeners}
        for bind in set(workers.sockets) - wanted:
            supervisor.close_listener(bind)
        for bind, sockets in opened.items():
            supervisor.open_listener(bind, sockets)
        supervisor.watch_targets()
        workers.apply(supervisor.snapshot())
        workers.retry()
        for counts in (supervisor.transitions, supervisor.probes):
            for key in [key for key in counts if key[0] not in supervisor.targets]:
                del counts[key]
        with contextlib.suppress(TimeoutError):
            await workers.confirm(supervisor.rotations.version)
            supervisor.totals.forget(supervisor.targets)
            return
        supervisor.note("worker", "a worker has not confirmed the new configuration in time; it will, or be replaced")


def text_of(path: Path) -> str:
    """The file's text; one that is just being read can hardly be unreadable, and then there is nothing to show."""
    try:
        return read_text(path)
    except ConfigError:
        return ""
