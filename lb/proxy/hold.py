"""Hold: what a step waits for before it decides on a request, such as a slow hash or another server's verdict.

A step that cannot decide at once returns `exchange.hold(work, within)`. The exchange then waits, as in a queue: its
client's body is held up to a bound, and its deadline is a number that the sweeper looks at. `work` begins when the
exchange knows which steps follow, and calls `Exchange.go_on` from the loop. A request that no step holds knows nothing
of this.
"""

from __future__ import annotations

from typing import Final

from lb.core.native import mypyc_attr
from lb.http.h1.replies import Reply

#: What `Step.before` returns of a request that it holds. It is compared by identity, and never sent.
WAIT: Final = Reply(0, "wait", "")


@mypyc_attr(allow_interpreted_subclasses=True)
class Hold:
    """One request's wait at one step. `late` answers it when the time is over."""

    __slots__ = ("late",)

    def __init__(self, late: Reply) -> None:
        self.late = late

    def begin(self) -> None:
        """Begin the work. It may end at once."""
        raise NotImplementedError

    def cancel(self) -> None:
        """The request is over: its decision is needed no more."""
        raise NotImplementedError
