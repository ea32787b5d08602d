"""What holds for every test, wherever and however pytest was started."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A deadline of Hypothesis measures time: beside busy processes a test of microseconds takes 200 ms now and then.
settings.register_profile("lb", deadline=None)
settings.load_profile("lb")

pytest.register_assert_rewrite("tests.support")

#: Ignored by Python itself; `subprocess` gives them their default effect in a child.
PYTHONS_OWN = {signal.SIGPIPE, signal.SIGXFSZ}


@pytest.fixture(scope="session", autouse=True)
def children_start_with_default_signals() -> Iterator[None]:
    """Give children the default effect of every signal, whatever pytest was started with.

    A shell's `&` has SIGINT and SIGQUIT ignored, `nohup` SIGHUP, and children inherit that: a test that interrupts
    one would wait for ever. A handler is not inherited, so one that does nothing takes the place of ignoring. The
    process of the tests itself goes on ignoring them. Signals may be blocked as well, which children also inherit.
    """
    ignored = [n for n in signal.valid_signals() - PYTHONS_OWN if signal.getsignal(n) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda _number, _frame: None)
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
