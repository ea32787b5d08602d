"""The history of probes: every probe ever made, folded into runs, kept over restarts.

A run that has ended is a line of `probes.jsonl`, written with all lines of its second. Runs that go on are in
`probes.open.json`, which is replaced every second (of a thousand targets every few). So a supervisor killed at any
moment loses no more than that. The transitions, ejections, switches and changes of the configuration that go with them
are in the timeline (`control.events`). That has a file of its own: many probes never push its lines out.

Bounded: `core.runs` bounds the lines a check may cause, `JsonLines` the file, and here some runs of each target are in
memory. It costs about a microsecond a probe.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from lb.control.jsonl import JsonLines
from lb.core.lifecycle import Verdict
from lb.core.runs import Run, RunFolder
from lb.net import atomic_file

FILE = "probes.jsonl"
OPEN = "probes.open.json"
#: Ended runs of one target in memory.
RING = 30
#: Targets, removed ones included, of which runs are in memory.
TARGETS = 10_000
#: Runs that go on are written each second, or so many of them a second if there are more.
OPEN_PER_SECOND = 400


class ProbeHistory:
    """All probes of this lb. In memory alone until `open`."""

    def __init__(self) -> None:
        self._folder = RunFolder()
        self._past: dict[str, deque[Run]] = {}
        self._unwritten: list[Run] = []  # ended, and not on the disk yet
        self._file: JsonLines | None = None
        self._open_path = Path()
        self._open_trouble = ""
        self._open_at = 0.0  # monotonic seconds: when open runs are written next
        self._writes = True

    @property
    def trouble(self) -> str:
        """Why nothing can be written; empty: it can."""
        return (self._file.trouble if self._file else "") or self._open_trouble

    def open(self, directory: Path) -> None:
        """Remember what is on the disk, and write from now on."""
        self._open_path = directory / OPEN
        self._file = JsonLines(directory / FILE)
        mine, self._past = self._past, {}
        known: dict[tuple[str, str, float], int] = {}
        for line in self._file.lines():
            with suppress(msgspec.MsgspecError):
                run = msgspec.json.decode(line, type=Run)
                if run.was:
                    self._rename(run.was, run.target)
                    continue
                known[run.target, run.check, run.first] = run.count
                self._remember(run)
        for run in self._read_open():  # they ended with the lb that wrote them
            if known.get((run.target, run.check, run.first), 0) < run.count:
                self._end(run)
        for runs in mine.values():
            for run in runs:
                self._remember(run)
        self._open_at = float("-inf")

    def saw(self, target: str, check: str, at: float, verdict: Verdict, doubt: str = "") -> None:
        """A probe that began at `at`, Unix time."""
        ended = self._folder.saw(target, check, at, verdict, doubt)
        if ended is not None:
            self._end(ended)

    def rename(self, targets: Mapping[str, str]) -> None:
        """Targets have other ids now: new one → old one. The former runs are theirs, also after a restart."""
        for old in dict.fromkeys(targets.values()):
            for run in self._folder.end(old):
                self._end(run)
        now = time.time()
        for new, old in targets.items():
            if self._rename(old, new):
                self._unwritten.append(Run(new, "readiness", "ignored", "", now, now, 0.0, 0.0, was=old))

    def keep(self, targets: Iterable[str]) -> None:
        """The runs of all targets but these have ended; what they were is kept."""
        kept = set(targets)
        for target in {run.target for run in self._folder.open()} - kept:
            for run in self._folder.end(target):
                self._end(run)

    def drop(self, targets: Iterable[str]) -> None:
        """The runs of these targets have ended; what they were is kept."""
        for target in targets:
            for run in self._folder.end(target):
                self._end(run)

    def of(self, target: str) -> list[Run]:
        """The runs of one target, oldest first; open runs are the last."""
        return [*self._past.get(target, ()), *self._folder.open_of(target)]

    def since(self, at: float) -> list[Run]:
        """The runs of all targets that ended, or go on, after `at` (Unix time), in the order in which they began."""
        found = [run for runs in self._past.values() for run in runs if run.last >= at]
        found += [run for run in self._folder.open() if run.last >= at]
        return sorted(found, key=lambda run: run.first)

    def flush(self, *, everything: bool = False) -> None:
        """Write what has ended since the last time; and what goes on, when it is time for that or for `everything`."""
        if self._file is None or not self._writes:
            return
        if self._unwritten:
            encoded = b"".join(msgspec.json.encode(run) + b"\n" for run in self._unwritten)
            if self._file.append(encoded) or len(self._unwritten) > TARGETS:
                self._unwritten.clear()
        now = time.monotonic()
        if everything or now >= self._open_at:
            runs = self._folder.open()
            self._open_at = now + len(runs) / OPEN_PER_SECOND
            self._write_open(runs)

    def pause(self) -> None:
        """Write everything, then nothing more: another lb is about to take the files over."""
        self.flush(everything=True)
        self._writes = False

    def resume(self) -> None:
        """It did not."""
        self._writes = True

    def _end(self, run: Run) -> None:
        self._remember(run)
        self._unwritten.append(run)

    def _rename(self, old: str, new: str) -> bool:
        """The ended runs of `old` become runs of `new`; False: there are none."""
        runs = self._past.pop(old, ())
        for run in runs:
            self._remember(msgspec.structs.replace(run, target=new))
        return bool(runs)

    def _remember(self, run: Run) -> None:
        runs = self._past.get(run.target)
        if runs is None:
            if len(self._past) >= TARGETS:
                del self._past[next(iter(self._past))]
            runs = self._past[run.target] = deque(maxlen=RING)
        runs.append(run)

    def _read_open(self) -> list[Run]:
        try:
            return msgspec.json.decode(self._open_path.read_bytes(), type=list[Run])
        except (OSError, msgspec.MsgspecError):
            return []

    def _write_open(self, runs: list[Run]) -> None:
        try:
            atomic_file.write(self._open_path, msgspec.json.encode(runs))
            self._open_trouble = ""
        except OSError as error:
            self._open_trouble = f"{self._open_path}: {error.strerror or error}"
