"""The interface of every policy, and the balancer of a pool without a lane in rotation."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from lb.core.native import mypyc_attr

if TYPE_CHECKING:
    from lb.core.balance.peak_ewma import PeakEwma


class Member(Protocol):
    """The part of a lane that a policy reads. The data plane writes it."""

    @property
    def id(self) -> str: ...  # the target's id: hashing places a target by its name, the same in every worker

    @property
    def in_flight(self) -> int: ...

    @property
    def ewma(self) -> PeakEwma: ...


L = TypeVar("L", bound=Member)


@mypyc_attr(allow_interpreted_subclasses=True)
class Balancer(Generic[L]):
    """One policy over one set of lanes. (A base class and no protocol: `pick` is called on the way of each request,
    and a compiled call of a protocol's method looks it up by its name.)"""

    __slots__ = ()

    #: True when `pick` wants a `key` (`hash_key` of what the service hashes); else computing one is wasted.
    needs_key = False

    def pick(self, key: int = 0, avoid: Collection[L] = (), now: float = 0.0) -> L | None:
        """The lane for the next request; None only when no lane is in rotation.

        Never a lane of `avoid` (the lanes that a retry has tried) while another one is in rotation. When all are to be
        avoided, one of them is picked, since a second try beats a certain 503.
        """
        raise NotImplementedError


class NoMember(Balancer[L]):
    """The balancer without lanes."""

    __slots__ = ()

    def pick(self, key: int = 0, avoid: Collection[L] = (), now: float = 0.0) -> L | None:
        return None
