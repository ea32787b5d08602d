"""Connections to targets that a test opens, or refuses, instead of the network."""

from __future__ import annotations

from lb.proxy.connect import Connector
from lb.proxy.context import Context
from lb.proxy.lane import Begun, Lane


class FakeConnector(Connector):
    """Takes down which lanes want a connection opened, in order. How many a turn begins is lb's own business."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.opening: list[tuple[Lane, Begun]] = []

    def open(self, lane: Lane, begun: Begun) -> None:
        self.opening.append((lane, begun))
