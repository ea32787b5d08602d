"""Answers of lb's own in the words of a route's error pages. Only an answer that is such an error comes here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lb.http.error_answers import DEFAULT_PAGE, HtmlPage, problem_document, takes_html
from lb.http.h1.replies import Reply
from lb.proxy.page_set import PageSet
from lb.proxy.request_values import RequestValues
from lb.proxy.services import ErrorWords

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange

_DEFAULT: Final = HtmlPage(DEFAULT_PAGE)
#: An answer in either form depends on Accept.
_VARY: Final = b"Vary: Accept\r\n"


class PageWords(ErrorWords):
    """The nearest pages count: of the route, then of the service, then of the file."""

    __slots__ = ()

    def reply(self, exchange: Exchange, reply: Reply) -> Reply:
        live = exchange.live
        if exchange.head.fields.grpc or exchange.received.fields.grpc:
            return reply  # a call is answered by its status
        route = live.route_of(exchange)
        levels: list[PageSet] = []
        for level in (route.error_pages if route is not None else None, exchange.service.error_pages, live.error_pages):
            if level is not None:
                levels.append(level)
        if not levels:
            return reply
        if takes_html(exchange.received.fields.value(b"accept")):
            kind, payload = b"text/html; charset=utf-8", _page(levels, reply).expand(reply, RequestValues(exchange))
        else:
            kind, payload = b"application/problem+json", problem_document(reply, exchange.request_id)
        extra = reply.extra + _VARY
        return Reply(reply.status, reply.reason, reply.text, extra, reply.last, payload, kind, False, reply.retry_after)


def _page(levels: list[PageSet], reply: Reply) -> HtmlPage:
    for level in levels:
        page = level.find(reply.status)
        if page is not None:
            return page
    return _DEFAULT
