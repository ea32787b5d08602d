"""Refuses a client by its address: one that is in none of the networks (`allow`), or one that is in any (`deny`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.core.networks import in_networks
from lb.http.h1.replies import Reply
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class ClientNetworks(Step):
    """The client's address is the one that conditions of routes compare: behind trusted proxies, the one they tell."""

    __slots__ = ("_inside", "_networks", "_word")

    def __init__(self, word: str, networks: tuple[str, ...], inside: bool) -> None:
        self._word = word
        self._networks = networks
        self._inside = inside

    def name(self) -> str:
        return self._word

    def before(self, exchange: Exchange) -> Reply | None:
        client = exchange.client
        address = exchange.live.asked(exchange).client() if client.trusted else client.peer
        if in_networks(self._networks, address) is self._inside:
            return None
        return Reply(403, "client_address", "clients of this address are not served here")
