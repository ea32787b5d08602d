"""Answers the requests of a route in maintenance with 503, Retry-After and a page, but for networks that may pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lb.core.networks import in_networks
from lb.core.targets import Maintenance
from lb.http.error_answers import takes_html
from lb.http.h1.replies import Reply
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Maintenance</title></head>
<body><h1>Maintenance</h1><p>This service is being worked on. Please come back later.</p></body>
</html>
"""


class MaintenanceStep(Step):
    """A page for clients that take HTML, a text for all others. It comes before what checks clients.

    `has_page`: the route has an error page for it, which counts where the order names none.
    """

    __slots__ = ("_allow", "_page", "_text")

    def __init__(self, rules: Maintenance, has_page: bool = False) -> None:
        self._allow = rules.allow
        text = "the service is in maintenance"
        self._text = Reply(503, "maintenance", text, retry_after=rules.retry_after)
        page = (rules.page or _PAGE).encode()
        kind = b"text/html; charset=utf-8"
        self._page = Reply(503, "maintenance", text, payload=page, content_type=kind, retry_after=rules.retry_after)
        if has_page and not rules.page:
            self._page = self._text  # the exchange finds it

    def name(self) -> str:
        return "maintenance"

    def before(self, exchange: Exchange) -> Reply | None:
        if self._allow and in_networks(self._allow, exchange.live.asked(exchange).client()):
            return None
        if takes_html(exchange.received.fields.value(b"accept")):
            return self._page
        return self._text
