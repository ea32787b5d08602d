"""Gives a client the cookie of the target that has answered, and says whether its own cookie has led there.

The choice of the target is `core.balance.by_cookie`'s. The cookie ends with the browser's session, scripts cannot read
it, and other sites' forms do not send it (`SameSite=Lax`). With https it is sent over https alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.core.balance.by_cookie import BITS
from lb.http.h1.replies import Reply
from lb.http.message import ResponseHead
from lb.proxy.services import AnswerStep

if TYPE_CHECKING:
    from lb.core.affinity import TargetCookie
    from lb.proxy.exchange import Exchange
    from lb.proxy.lane import Lane


class AffinityStep(AnswerStep):
    """It comes after all other steps, so that none changes the cookie. lb's own answers have none."""

    __slots__ = ()

    def name(self) -> str:
        return "affinity"

    def before(self, exchange: Exchange) -> Reply | None:
        exchange.answer_steps = [*exchange.answer_steps, self]
        return None

    def on_answer(self, exchange: Exchange, head: ResponseHead) -> ResponseHead:
        cookie, lane = exchange.service.cookie, exchange.lane
        if cookie is None or lane is None or exchange.answered_by_proxy:
            return head
        fields, key = exchange.received.fields, exchange.key
        meant = key >> BITS if key else cookie.meant_by(fields.cookies(cookie.name))  # 0: a reload came meanwhile
        kept = meant == cookie.number(lane.id)
        if kept:
            exchange.remark_late(f"affinity: kept to {lane.id}")
            if not cookie.several:
                return head
        sent = list(fields.cookies(cookie.name))
        if kept:
            if cookie.value(lane.id) in sent:
                return head
        elif exchange.asset_tried:  # a file of another version: the next request is for this one
            return head
        else:
            exchange.remark_late(f"affinity: {_reason(exchange, cookie, meant, sent)} {lane.id}")
        value = cookie.value(lane.id)
        secure = b"; Secure" if exchange.live.asked(exchange).scheme() == b"https" else b""
        line = b"Set-Cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax%b\r\n" % (cookie.name, value, secure)
        return head.with_lines(head.fields.forwarded_lines + line)


def _reason(exchange: Exchange, cookie: TargetCookie, meant: int, sent: list[bytes]) -> str:
    """Why the cookie of a request has not led to the target that has answered."""
    if not meant:
        return "the cookie stands for no target, new one for" if sent else "no cookie yet, new one for"
    tried = next((lane for lane in exchange.tried if cookie.number(lane.id) == meant), None)
    if tried is not None:
        return f"{tried.id} has failed this request, fell over to"
    pool = exchange.pool
    former = next((lane for lane in pool.lanes.values() if cookie.number(lane.id) == meant), None)
    if former is None:
        return f"its target is not in pool {pool.name}, fell over to"
    return f"{former.id} {_state(exchange, former)}, fell over to"


def _state(exchange: Exchange, lane: Lane) -> str:
    """Why a target of the chosen pool is not asked."""
    pool = exchange.pool
    if lane.draining:
        return "is draining"
    if lane in pool.cooling:
        return "has just refused a connection"
    if lane in pool.members:
        return "has no room"
    if any(lane is member for member, _ in pool.weights):
        return "has weight 0"
    return "is not in rotation"
