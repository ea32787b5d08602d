"""What every policy takes and offers: the two protocols, and the balancer of a pool with nobody in rotation."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Generic, Protocol, TypeVar

from lb.core.balance.peak_ewma import PeakEwma


class Member(Protocol):
    """What a policy reads of a lane. Read-only here: the data plane counts."""

    @property
    def id(self) -> str: ...  # the target's id: hashing places a target by its name, the same in every worker

    @property
    def in_flight(self) -> int: ...

    @property
    def ewma(self) -> PeakEwma: ...


L = TypeVar("L", bound=Member)


class Balancer(Protocol[L]):
    """One policy over one set of lanes."""

    #: True when `pick` wants a `key` (`hash_key` of what the service hashes); else computing one is wasted.
    needs_key: ClassVar[bool]

    def pick(self, key: int = 0, avoid: Collection[L] = (), now: float = 0.0) -> L | None:
        """The lane for the next request; None only when nobody is in rotation.

        Never one of `avoid` (the lanes that a retry has tried) while another one is there; when all are to be
        avoided, one of them, since a second try beats a certain 503.
        """
        ...


class NoMember(Generic[L]):
    """Nobody is in rotation."""

    needs_key: ClassVar[bool] = False

    def pick(self, key: int = 0, avoid: Collection[L] = (), now: float = 0.0) -> L | None:
        return None
