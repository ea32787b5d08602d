"""What could not be taken of listeners' certificates, since when; each change of it is an event.

It is told each world that is in force. Certificates that are served although clients refuse them are events as well.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path

from lb.config.resolve import UnusablePair, World
from lb.core.certificates import Certificate
from lb.supervisor.events import Events


class Certificates:
    """The faults of one supervisor's certificates."""

    def __init__(self, events: Events, wall: Callable[[], float] = time.time) -> None:
        self._events = events
        self._wall = wall
        self.broken: dict[str, tuple[UnusablePair, float]] = {}  # by file: since when
        self.last: dict[str, tuple[UnusablePair, float]] = {}  # by file: the last fault, over or not
        self._warned: set[Certificate] = set()

    def told(self, world: World) -> None:
        """A world is in force: note what is broken, and what no longer is."""
        now, broken = self._wall(), {each.cert_file: each for each in world.unusable}
        for file, each in broken.items():
            known = self.broken.get(file)
            if known is None or known[0] != each:
                self.broken[file] = self.last[file] = (each, now)
                self._events.emit("certificate", str(each))
        settings = [listener.tls for listener in world.snapshot.listeners if listener.tls is not None]
        served = {each for tls in settings for each in tls.certificates if each.not_after}
        for file in [file for file in self.broken if file not in broken]:
            del self.broken[file]
            gone = not Path(file).exists()
            self._events.emit("certificate", f"{file} {'is gone' if gone else 'can be used again, and is'}")
        self.last = {file: found for file, found in self.last.items() if file in broken or _has(served, file)}
        for certificate in served - self._warned:
            if not certificate.is_valid(now):
                ended = certificate.not_after <= now
                moment = _moment(certificate.not_after if ended else certificate.not_before)
                text = f"{certificate.cert_file} {'ended at' if ended else 'is not valid before'} {moment}"
                self._events.emit("certificate", f"{text}: it is served, and clients refuse it")
        self._warned = served


def _has(served: set[Certificate], file: str) -> bool:
    return any(each.cert_file == file for each in served)


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
