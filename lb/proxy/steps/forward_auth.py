"""Asks a service whether a request may pass (nginx: `auth_request`; Traefik: `forwardAuth`; Envoy: `ext_authz`).

The question is a GET without a body, with the request's fields. 2xx lets the request pass, with fields of the answer
for the target. 401, 403 and redirects go to the client as they are. Everything else, and no answer in time, is 503:
nothing passes that nobody has let pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lb.core.guards import ForwardAuth
from lb.http.h1.replies import Reply
from lb.http.identity_fields import IdentityFields, usual
from lb.proxy.auth_call import Questioner, question
from lb.proxy.hold import Hold
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange

#: Fields about the body, conditions and parts, which are the target's affair, and fields that lb sets in a question.
_LEFT_OUT: Final = frozenset(
    b"""content-encoding content-language content-length content-location content-range content-type if-match
    if-modified-since if-none-match if-range if-unmodified-since range sec-websocket-accept sec-websocket-extensions
    sec-websocket-key sec-websocket-protocol sec-websocket-version x-forwarded-method x-forwarded-uri""".split()
)
#: Fields of an answer that lb writes by itself.
_OWN: Final = frozenset(
    b"connection content-length content-type date keep-alive server trailer transfer-encoding x-request-id".split()
)
_UNAVAILABLE: Final = Reply(503, "auth_unavailable", "the service that would let this request pass does not answer")
_LATE: Final = Reply(503, "auth_timeout", "the service that would let this request pass has not answered in time")


class ForwardAuthStep(Step):
    """One service and one question."""

    __slots__ = ("_fields", "_left_out", "_names", "_rule", "_target")

    def __init__(self, rule: ForwardAuth) -> None:
        self._rule = rule
        self._target = rule.target.encode()
        self._names = frozenset([name.lower().encode() for name in rule.copied])
        self._left_out = _LEFT_OUT | {usual(name) for name in self._names}
        self._fields = IdentityFields([name.encode() for name in rule.copied])

    def name(self) -> str:
        return "forward_auth"

    def before(self, exchange: Exchange) -> Reply | None:
        return exchange.hold(AuthHold(self, exchange), self._rule.timeout)

    def ask(self, exchange: Exchange, questioner: Questioner) -> bool:
        """Send the question. False: there is no such service."""
        service = exchange.live.services.get(self._rule.service)
        if service is None:
            return False
        asked = exchange.received
        left_out = self._left_out  # with the fields of its answer, which a client could have sent
        lines = [
            line for line in exchange.head.fields.forwarded_lines if usual(line[: line.find(b":")]) not in left_out
        ]
        lines.append(b"X-Forwarded-Method: " + asked.method + b"\r\n")
        lines.append(b"X-Forwarded-Uri: " + asked.target + b"\r\n")
        questioner.ask(exchange.live, question(asked, self._target, lines), exchange.request_id, service)
        return True

    @property
    def service(self) -> str:
        """The name of the service that is asked."""
        return self._rule.service

    def passed(self, exchange: Exchange, lines: list[bytes]) -> None:
        """The request may pass. `lines` are of the answer."""
        new = [line for line in lines if line[: line.find(b":")].lower() in self._names]
        exchange.head = self._fields.head_with(exchange.head, new)
        exchange.omits_trailers = True

    def verdict(self, exchange: Exchange, questioner: Questioner) -> Reply | None:
        """What a whole answer says: None lets the request pass."""
        answer = questioner.answer
        assert answer is not None
        lines = [line + b"\r\n" for line in answer.fields.forwarded_lines.split(b"\r\n") if line]
        status = answer.status
        if 200 <= status < 300:
            self.passed(exchange, lines)
            return None
        if status not in (401, 403) and not 300 <= status < 400:
            return _UNAVAILABLE
        exchange.context.stats.reject("forward_auth")
        kind = b""
        kept: list[bytes] = []
        for line in lines:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-type":
                kind = value.strip()
            elif name.lower() not in _OWN:
                kept.append(line)
        body = b"".join(questioner.body)
        return Reply(status, "forward_auth", "", b"".join(kept), payload=body, content_type=kind, done=True)


class AuthHold(Hold):
    """A request about which a service is asked."""

    __slots__ = ("_exchange", "_questioner", "_step")

    def __init__(self, step: ForwardAuthStep, exchange: Exchange) -> None:
        super().__init__(_LATE)
        self._step = step
        self._exchange = exchange
        self._questioner = _Questioner(self)

    @property
    def exchange(self) -> Exchange:
        """The request."""
        return self._exchange

    def begin(self) -> None:
        if not self._step.ask(self._exchange, self._questioner):
            self._exchange.go_on(self, _UNAVAILABLE)

    def asks(self) -> str:
        return self._step.service

    def assume(self) -> None:
        """Take it that the service lets the request pass."""
        self._step.passed(self._exchange, [])
        self._exchange.go_on(self, None)

    def answered(self, whole: bool) -> None:
        """The question is over."""
        reply = self._step.verdict(self._exchange, self._questioner) if whole else _UNAVAILABLE
        self._exchange.go_on(self, reply)

    def cancel(self) -> None:
        self._questioner.give_up()


class _Questioner(Questioner):
    __slots__ = ("_hold",)

    def __init__(self, hold: AuthHold) -> None:
        super().__init__(hold.exchange.client)
        self._hold = hold

    def answered(self, whole: bool) -> None:
        self._hold.answered(whole)
