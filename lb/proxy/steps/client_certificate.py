"""Refuses a request whose connection has shown no verified client certificate, where its route asks for one.

The listener verifies certificates and lets clients without one in (`client: {mode: optional}`). So one route of a host
can be for certified clients alone, and the host's other routes are for everybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.h1.replies import Reply
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class ClientCertificate(Step):
    """A verified certificate of the client's."""

    __slots__ = ()

    def before(self, exchange: Exchange) -> Reply | None:
        tls = exchange.client.tls
        if tls is None or not tls.client_certificate:
            return Reply(403, "client_certificate_required", "this needs a client certificate, and none was shown")
        return None
