"""One attempt to have a certificate issued: carries out what the order's machine says, and keeps the record on disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from lb.issuing.acme import order as steps
from lb.issuing.acme.answers import Nonsense
from lb.issuing.acme.client import Client, Rejected, Unreachable
from lb.issuing.acme.material import Facts, Unusable, facts, signing_request
from lb.issuing.acme.order import OrderMachine, OrderRecord


class Failed(Exception):  # noqa: N818 - it says what happened
    """The attempt has not brought a certificate.

    `keep`: the order can be gone on with. `judged`: the authority has refused, so that staging would tell the same.
    `kind`: the type of its refusal, as `rateLimited`.
    """

    def __init__(self, reason: str, *, keep: bool, judged: bool, retry_after: float = 0.0, kind: str = "") -> None:
        super().__init__(reason)
        self.keep = keep
        self.judged = judged
        self.retry_after = retry_after
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Proof:
    """The answer to one challenge, as the workers need it."""

    name: str
    token: str
    key_authorization: str


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that has come, with its key."""

    chain: bytes  # PEM
    key: str  # PEM
    facts: Facts


#: Has answers at every worker; returns when they are there. Raises where they cannot be.
Publish = Callable[[Sequence[Proof]], Awaitable[None]]


async def attempt(
    client: Client,
    record: OrderRecord,
    challenge: str,
    save: Callable[[OrderRecord], Awaitable[None]],
    publish: Publish,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Issued:
    """Have `record` issued. Raises `Failed`.

    `save` is called before each step that follows from another record; the order is gone on with from what it wrote.
    """
    machine = OrderMachine(record, challenge, clock())
    saved = record
    while True:
        action = machine.next(clock())
        try:
            if isinstance(action, steps.Fail):
                raise Failed(action.reason, keep=action.keep, judged=not action.keep)
            if isinstance(action, steps.Wait):
                await sleep(action.seconds)
            elif isinstance(action, steps.Collect):
                return _checked(await client.certificate(action.url), machine.record)
            else:
                await _take(client, machine, action, publish)
        except Unreachable as error:
            raise Failed(str(error), keep=True, judged=False) from None
        except Nonsense as error:
            raise Failed(f"the authority's answer is none: {error}", keep=True, judged=False) from None
        except Rejected as error:
            refused = machine.on_refused(action, error.problem, error.status)
            if refused is not None:
                raise Failed(
                    refused.reason,
                    keep=refused.keep,
                    judged=is_judgement(error),
                    retry_after=error.retry_after,
                    kind=error.problem.kind,
                ) from None
        if machine.record != saved:
            await save(machine.record)
            saved = machine.record


async def _take(client: Client, machine: OrderMachine, action: steps.Action, publish: Publish) -> None:
    """Carry out one step, and tell the machine."""
    match action:
        case steps.Place():
            record = machine.record
            machine.on_placed(*await client.place(record.names, record.profile, record.replaces))
        case steps.FetchOrder():
            machine.on_order(*await client.order(machine.record.url))
        case steps.FetchAuthorization(url):
            machine.on_authorization(url, *await client.authorization(url))
        case steps.Publish(tokens):
            await publish([Proof(name, token, client.key.key_authorization(token)) for name, token in tokens])
            machine.on_published(_of(tokens))
        case steps.Respond(url):
            await client.respond(url)
            machine.on_responded(url)
        case steps.Finalize(url):
            request = signing_request(machine.record.key, machine.record.names)
            machine.on_order(*await client.finalize(url, request))


def is_judgement(error: Rejected) -> bool:
    """Whether a refusal is about what was asked for, and not about the authority's load or limits."""
    return error.problem.kind != "rateLimited" and error.status < 500


def _of(tokens: Sequence[tuple[str, str]]) -> Collection[str]:
    return [token for _, token in tokens]


def _checked(chain: bytes, record: OrderRecord) -> Issued:
    """What the authority has sent is used only if it is for this key and these names."""
    try:
        found = facts(chain, record.key)
    except Unusable as error:
        text = f"the authority sent a certificate that cannot be used: {error}"
        raise Failed(text, keep=False, judged=False) from None
    missing = set(record.names) - found.names
    if missing:
        text = f"the authority sent a certificate without {', '.join(sorted(missing))}"
        raise Failed(text, keep=False, judged=False)
    return Issued(chain, record.key, found)
