"""A terminal as one picture that is repainted in place: `lb status --watch`.

The picture lives on the terminal's other screen, so that what was there before comes back at the end, however it ends:
q, Ctrl-C, SIGTERM. A new size is painted at once; Ctrl-Z gives the terminal back until `fg`. Each picture is one write
between the marks of a synchronized update, without erasing first: nothing flickers. Lines beyond the height are
scrolled to; lines beyond the width are cut by the terminal.

While a terminal is stopped (Ctrl-S) a write to it would wait: no picture is painted then, so that keys and signals
work. The end starts it again, or the terminal would stay as the pictures need it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import FrameType, TracebackType

from lb.cli.terminal import Ink

#: The other screen, no cursor, no wrapping; and back.
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
#: Begin and end of a synchronized update; terminals that do not know it ignore it.
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"
KEYS = {
    b"q": "quit", b"Q": "quit", b"\x1b": "quit", b"\x04": "quit",
    b"\x1b[A": "up", b"k": "up", b"\x1b[B": "down", b"j": "down",
    b"\x1b[5~": "page up", b"b": "page up", b"\x1b[6~": "page down", b" ": "page down",
    b"\x1b[H": "top", b"g": "top", b"\x1b[F": "end", b"G": "end",
}  # fmt: skip


class Screen:
    """The terminal that stdout is, as long as the `with` block lasts."""

    def __init__(self, ink: Ink) -> None:
        self._ink = ink
        self._first = 0  # the line at the top
        self._lines: Sequence[str] = ()
        self._keyboard = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before: list[object] | None = None
        self._screen = sys.stdout.fileno()
        self._writable = select.poll()
        self._writable.register(self._screen, select.POLLOUT)
        self._signals: dict[int, object] = {}
        self._wake_out, self._wake_in = os.pipe()
        self._entered = False  # the other screen is shown

    def __enter__(self) -> Screen:
        for number, act in (
            (signal.SIGWINCH, self._wake),
            (signal.SIGTERM, self._end),
            (signal.SIGHUP, self._end),
            (signal.SIGTSTP, self._pause),
        ):
            self._signals[number] = signal.signal(number, act)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()
        for number, before in self._signals.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        os.close(self._wake_out)
        os.close(self._wake_in)

    def show(self, lines: Sequence[str]) -> None:
        """Paint a new picture."""
        self._lines = lines
        self._paint()

    def wait(self, seconds: float) -> bool:
        """Let time pass, scroll and repaint meanwhile as the keys say; false when the reader has had enough."""
        watched = [self._wake_out] + ([self._keyboard] if self._keyboard is not None else [])
        ready, _, _ = select.select(watched, [], [], max(0.0, seconds))
        if self._wake_out in ready:
            os.read(self._wake_out, 64)
            self._paint()
        if self._keyboard is not None and self._keyboard in ready:
            typed = os.read(self._keyboard, 32)
            key = KEYS.get(typed, "" if typed else "quit")
            if key == "quit":
                return False
            self._scroll(key)
        return True

    def _room(self) -> int:
        """Lines of the picture that fit above the last one, which says how to go on."""
        try:
            # Asked of the terminal itself: LINES in the environment, which readline leaves there, is of the start.
            lines = os.get_terminal_size(sys.stdout.fileno()).lines
        except OSError:
            lines = 0
        return max(1, (lines or 24) - 1)

    def _scroll(self, key: str) -> None:
        room = self._room()
        steps = {"up": -1, "down": 1, "page up": 1 - room, "page down": room - 1}
        whole = len(self._lines)
        self._first = {"top": 0, "end": whole}.get(key, self._first + steps.get(key, 0))
        self._paint()

    def _paint(self) -> None:
        room, whole = self._room(), len(self._lines)
        self._first = max(0, min(self._first, whole - room))
        seen = self._lines[self._first : self._first + room]
        foot = "q: quit"
        if whole > room:
            foot += f" · ↑ ↓ page: lines {self._first + 1} to {self._first + len(seen)} of {whole}"
        rows = [*seen, *[""] * (room - len(seen)), self._ink(foot, "dim")]
        entering = "" if self._entered else ENTER
        self._entered |= self._write(f"{entering}{BEGIN}\x1b[H" + "\r\n".join(f"{row}\x1b[K" for row in rows) + END)

    def _write(self, text: str) -> bool:
        """Write to the terminal if it takes anything now; whether it did.

        It goes around `sys.stdout`: what that keeps would be written when the process exits, and wait then.
        """
        if not self._writable.poll(0):
            return False
        rest = text.encode(sys.stdout.encoding, "replace")
        while rest:
            rest = rest[os.write(self._screen, rest) :]
        return True

    def _take(self) -> None:
        if self._keyboard is not None:
            self._before = termios.tcgetattr(self._keyboard)
            tty.setcbreak(self._keyboard)
        self._entered = False

    def _give_back(self) -> None:
        with contextlib.suppress(OSError):  # (a terminal that does not control this process)
            if os.tcgetpgrp(self._screen) != os.getpgrp():
                return  # after Ctrl-Z it is the shell's already
        for action in (termios.TCOOFF, termios.TCOON):  # Linux starts again only what was stopped by the first one
            termios.tcflow(self._screen, action)
        self._write(LEAVE)
        if self._keyboard is not None and self._before is not None:
            # (not after what was written is out, as usual: that may never be)
            termios.tcsetattr(self._keyboard, termios.TCSANOW, self._before)  # type: ignore[arg-type]

    # --- signals --------------------------------------------------------------------------------------------------

    def _wake(self, _number: int, _frame: FrameType | None) -> None:
        os.write(self._wake_in, b"x")

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def _pause(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z: the shell gets its terminal back; after `fg` the picture is there again."""
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._pause)
        self._take()
        os.write(self._wake_in, b"x")
