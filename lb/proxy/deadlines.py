"""Sweeper: one periodic pass over numbers, instead of a timer per request or connection.

Ten times a second it takes the time, closes what is over its deadline, retires idle connections, ends drains and hands
the log on. A pass over 10,000 connections costs about a millisecond. Where there are many targets, a pass looks at a
part of them, and at each once a second: a request never relies on it (`Lane.take_idle` looks for itself).
"""

from __future__ import annotations

from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lb.proxy.plane import DataPlane

#: Seconds between two passes: how late a timeout may fire.
TICK = 0.1
#: Targets that one pass looks at; with more of them each has its turn every few passes…
AT_ONCE = 100
#: …but no more of these than that.
LONGEST_ROUND = 10


class Sweeper:
    """The data plane's only timer."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._stopped = False
        self._ticks = 0
        plane.loop.call_later(TICK, self._tick)

    def stop(self) -> None:
        """No more passes."""
        self._stopped = True

    def _tick(self) -> None:
        if self._stopped:
            return
        plane = self._plane
        now = plane.now = monotonic()
        plane.loop.call_later(TICK, self._tick)
        self._ticks += 1
        for client in list(plane.clients):
            try:
                if client.deadline <= now:
                    client.on_deadline()
                exchange = client.exchange
                if exchange is not None and (exchange.deadline <= now or exchange.ends_at <= now):
                    exchange.on_deadline(now)
            except Exception as error:  # one client must not keep the others' deadlines from passing
                plane.loop.call_exception_handler({"message": "a client's deadline failed", "exception": error})
                client.transport.abort()
        for shadow in list(plane.shadows):
            if shadow.deadline <= now or shadow.ends_at <= now:
                shadow.on_deadline(now)
        for tunnel in list(plane.tunnels):
            tunnel.on_tick(now)
        if plane.sending:
            for sender, sending in list(plane.sending.items()):
                if sending.due <= now and sending.is_stalled(now):
                    sender.on_stalled()
        stride = min(LONGEST_ROUND, 1 + len(plane.lanes) // AT_ONCE)
        turn = self._ticks % stride
        pools = [
            pool for service in islice(plane.services.values(), turn, None, stride) for pool in service.pools.values()
        ]
        for pool in pools:
            if pool.shunned:
                pool.forgive(now)
        lanes = list(islice(plane.lanes.values(), turn, None, stride))
        for lane in lanes:
            if lane.freshest is not None:
                lane.retire(now)
            if lane.expires_at <= now:
                lane.expire(now)
        plane.end_drains(now, lanes, pools)
        plane.refresh(now)
        if plane.log is not None:
            plane.log.flush()
