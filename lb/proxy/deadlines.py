"""Sweeper: one periodic pass over numbers, instead of a timer per request or connection.

Ten times a second it takes the time, closes what is over its deadline, retires idle connections, ends drains and hands
the log on. A pass over 10,000 connections costs about a millisecond. Where there are many targets, a pass looks at a
part of them, and at each once a second. A request never relies on it (`Lane.lease` looks for itself).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lb.proxy.front import Front
    from lb.proxy.lane import Lane
    from lb.proxy.services import LiveConfig, LivePool

#: Seconds between two passes: how late a timeout may fire.
TICK: Final = 0.1
#: Targets that one pass looks at; with more of them each has its turn every few passes…
AT_ONCE: Final = 100
#: …but no more of these than that.
LONGEST_ROUND: Final = 10


class Sweeper:
    """The data plane's only timer. `end_drains` is called in each pass with the lanes and pools that it looks at."""

    def __init__(
        self, live: LiveConfig, front: Front, end_drains: Callable[[float, list[Lane], list[LivePool]], None]
    ) -> None:
        self._live = live
        self._front = front
        self._end_drains = end_drains
        self._stopped = False
        self._ticks = 0
        live.context.loop.call_later(TICK, self._tick)

    def stop(self) -> None:
        """No more passes."""
        self._stopped = True

    def _tick(self) -> None:
        if self._stopped:
            return
        live, context = self._live, self._live.context
        now = context.now = monotonic()
        context.loop.call_later(TICK, self._tick)
        self._ticks += 1
        for client in list(self._front.clients):
            try:
                if client.deadline <= now:
                    client.on_deadline()
                exchange = client.exchange
                if exchange is not None and (exchange.deadline <= now or exchange.ends_at <= now):
                    exchange.on_deadline(now)
            except Exception as error:  # one client must not keep other clients' deadlines from passing
                context.loop.call_exception_handler({"message": "a client's deadline failed", "exception": error})
                client.transport.abort()
        for connection in list(self._front.multiplexed):
            try:
                connection.on_tick(now)
            except Exception as error:
                context.loop.call_exception_handler({"message": "a client's deadline failed", "exception": error})
                connection.transport.abort()
        for copy in list(live.copies):
            if copy.deadline <= now or copy.ends_at <= now:
                copy.on_deadline(now)
        for tunnel in list(context.tunnels):
            tunnel.on_tick(now)
        if context.sending:
            for sender, sending in list(context.sending.items()):
                if sending.due <= now and sending.is_stalled(now):
                    sender.on_stalled()
        stride = min(LONGEST_ROUND, 1 + len(live.lanes) // AT_ONCE)
        turn = self._ticks % stride
        pools = [
            pool for service in islice(live.services.values(), turn, None, stride) for pool in service.pools.values()
        ]
        for pool in pools:
            if pool.cooling:
                pool.end_cooldown(now)
        lanes = list(islice(live.lanes.values(), turn, None, stride))
        for lane in lanes:
            if lane.freshest is not None:
                lane.retire(now)
            if lane.expires_at <= now:
                lane.expire(now)
        self._end_drains(now, lanes, pools)
        context.refresh(now)
        if context.log is not None:
            context.log.flush()
