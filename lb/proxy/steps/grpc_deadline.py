"""Ends a call of gRPC at the deadline that its client has set (`grpc-timeout`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.grpc import DEADLINE
from lb.http.h1.replies import Reply
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class GrpcDeadline(Step):
    """The deadline is a bound for the whole call, as `timeouts.total` is; the earlier one holds."""

    __slots__ = ()

    def before(self, exchange: Exchange) -> Reply | None:
        timeout = exchange.head.fields.grpc_timeout
        if timeout < 0.0:
            return None
        if not timeout:
            return Reply(504, DEADLINE, "the client's deadline (grpc-timeout) has passed")
        exchange.ends_at = exchange.started + timeout
        return None
