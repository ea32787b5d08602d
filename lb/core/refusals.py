"""Why an operation is refused: a constant for each kind, this time's details, and the obstacles.

The meaning of each kind to a client, and its HTTP status, is in `lb/control/api/problems.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple


class Refusal(Enum):
    """The kinds of refusal of operations."""

    # The named object does not exist, or the order is invalid or incomplete.
    NO_SUCH_SERVICE = auto()
    NO_SUCH_POOL = auto()
    NO_SUCH_TARGET = auto()
    AMBIGUOUS_TARGET = auto()
    NO_SUCH_CERTIFICATE = auto()
    NO_SUCH_ROUTE = auto()
    AMBIGUOUS_ROUTE = auto()
    INVALID_REQUEST = auto()
    FILE_INVALID = auto()
    TOKEN_NEEDED_FOR_COMMANDS = auto()
    # Traffic would suffer.
    NOT_READY = auto()
    TOO_FEW_LEFT = auto()
    NO_TARGET_COULD_SERVE = auto()
    # Something else is under way, or came first.
    ROLLOUT_UNDER_WAY = auto()
    OTHER_ORDER_UNDER_WAY = auto()
    SERVICE_HAS_CHANGED = auto()
    NOT_NOW = auto()
    BASE_OUTDATED = auto()
    FILE_EDITED = auto()
    # It cannot be done, or did not work out.
    PRE_HOOK_FAILED = auto()
    NOTHING_TO_ROLL_BACK_TO = auto()
    NOT_PROBED = auto()
    NO_UPGRADE = auto()
    BACKED_OUT = auto()
    CANNOT_LISTEN = auto()
    FILE_NOT_WRITTEN = auto()
    NOT_CONFIRMED = auto()


class Obstacle(NamedTuple):
    """One thing that is in the way of an operation, and why."""

    reason: str
    target: str = ""  # a target's id, if it is one
    where: str = ""  # a worker, or a place in a request or a file, if it is one


class Refused(Exception):  # noqa: N818 - it says what happened
    """An operation was not carried out; `detail` says what happened this time."""

    def __init__(self, refusal: Refusal, detail: str, obstacles: Iterable[Obstacle] = ()) -> None:
        super().__init__(detail)
        self.refusal = refusal
        self.detail = detail
        self.obstacles = tuple(obstacles)
