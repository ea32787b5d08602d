"""The certificates that are wanted from ACME authorities: which one is due, ordering it, and how each of them fares.

The loop sleeps until something is due, and does a few orders at a time. A failure concerns its own certificate alone:
it is counted, told, and tried again after a wait that grows. What is stored serves meanwhile, also when an authority
cannot be reached at the start.

A disk that takes nothing does not stop an order: the certificate is used from memory, and written as soon as it can be.
But the next process would know nothing of such an order, so that one an hour is the most (`MEMORY_WAIT`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from lb.issuing.acme import jose
from lb.issuing.acme.answers import Nonsense
from lb.issuing.acme.attempt import Failed, Issued, Proof, attempt, is_judgement
from lb.issuing.acme.backoff import asks_staging, wait
from lb.issuing.acme.client import Binding, Client, Rejected, Unreachable
from lb.issuing.acme.jose import AccountKey
from lb.issuing.acme.material import new_key, readable
from lb.issuing.acme.order import OrderRecord
from lb.issuing.acme.renewal import ASK_AGAIN, ASK_AT_MOST, Ari, asked, renew_at, unanswered
from lb.issuing.store import Account, Busy, NameState, Store, Stored

log = logging.getLogger("lb")

#: Orders at a time. A thousand names are ordered within an hour, and no authority takes it for an attack.
AT_ONCE = 4
#: Seconds between two looks when nothing is due, so that a clock that was set is noticed.
LOOK_EVERY = 60.0
#: Seconds between two orders of one certificate while the disk takes nothing.
MEMORY_WAIT = 3600.0
#: Seconds for which a certificate is kept at least, whatever is said about its renewal.
LEAST_LIFE = 3600.0
#: Seconds between two tries to write what could not be written, and to become the one that orders.
WRITE_AGAIN, LOCK_AGAIN = 30.0, 1.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Authority:
    """An ACME authority, and how it is spoken to."""

    name: str
    directory: str
    contact: str = ""  # an e-mail address
    ca_file: str = ""  # empty: the system's trust store
    key_id: str = ""  # of the external account; empty: none
    key_file: str = ""
    challenge: str = "http-01"  # http-01 | tls-alpn-01
    profile: str = ""
    staging: str = ""  # directory of the authority at which failed orders are repeated; empty: none


@dataclass(frozen=True, slots=True)
class Wanted:
    """A certificate that the configuration asks for."""

    id: str  # its folder, see `config.certificate_sources`
    names: tuple[str, ...]
    authority: Authority


@dataclass(frozen=True, slots=True)
class Fate:
    """How a wanted certificate fares. Times are Unix times; 0: none."""

    wanted: Wanted
    not_before: float
    not_after: float  # 0: there is no certificate
    issuer: str
    next_attempt: float
    why: str  # what the next attempt is for
    under_way: str  # the step of the order that is under way; empty: none is
    failures: int
    failed_at: float
    failure: str
    waiting_since: float
    in_memory: bool  # the disk has not taken it
    window: tuple[float, float]  # the authority's; (0, 0): it names none


class _Certificate:
    """One wanted certificate, live."""

    def __init__(self, wanted: Wanted, stored: Stored | None, state: NameState) -> None:
        self.wanted = wanted
        self.stored = stored
        self.state = state
        self.records: dict[bool, OrderRecord | None] = {}  # by whether at staging: orders that the disk has not taken
        self.unwritten = False  # the certificate or its state is in memory alone
        self.asked = False  # an operator wants it renewed now
        self.task: asyncio.Task[None] | None = None
        self.phase = ""

    def due_at(self, now: float) -> float:
        """When the next order is due."""
        if self.asked:
            return now
        if self.state.failures:
            return self.state.next_attempt
        if self.stored is None:
            return now
        facts = self.stored.facts
        due = renew_at(facts.not_before, facts.not_after, self.ari)
        # A clock that is wrong, or a certificate that is due when it comes, must not become a stream of orders.
        return max(due, self.state.ordered_at + min(LEAST_LIFE, (facts.not_after - facts.not_before) / 3))

    @property
    def ari(self) -> Ari:
        """The window of the certificate that is stored, and of no other one."""
        known = self.state.ari
        return known if self.stored is not None and known.certificate == self.stored.facts.ari_id else Ari()


class Renewals:
    """All wanted certificates.

    `publish(id, challenge, proofs)` has the answers to challenges at every worker when it returns; an empty sequence
    takes them away. `on_change` is called after a certificate has come. `tell` gets events for people: text, and the
    names it is about.
    """

    def __init__(
        self,
        store: Store,
        *,
        publish: Callable[[str, str, Sequence[Proof]], Awaitable[None]],
        on_change: Callable[[], None],
        tell: Callable[[str, str], None],
        clock: Callable[[], float] = time.time,
        dice: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.results: Counter[tuple[str, str]] = Counter()  # by (first name, result)
        self._store = store
        self._publish = publish
        self._on_change = on_change
        self._tell = tell
        self._clock = clock
        self._dice = dice
        self._sleep = sleep
        self._certificates: dict[str, _Certificate] = {}
        self._keys: dict[str, AccountKey] = {}  # by directory, of accounts that the disk has not taken
        self._accounts: dict[str, Account] = {}  # likewise
        self._registering: dict[str, asyncio.Lock] = {}  # by directory
        self._again = asyncio.Event()
        self._disk_trouble = ""

    # --- what is wanted ---------------------------------------------------------------------------------------------

    def want(self, wanted: Sequence[Wanted]) -> None:
        """From now on these certificates are wanted and no others. Blocks: reads what is stored of new ones."""
        now = self._clock()
        before, certificates = dict(self._certificates), {}
        for each in wanted:
            known = before.pop(each.id, None)
            if known is None:
                known = _Certificate(each, self._read_certificate(each.id), self._read_state(each.id))
                if known.stored is None and not known.state.waiting_since:
                    known.state = msgspec.structs.replace(known.state, waiting_since=now)
            known.wanted = each
            certificates[each.id] = known
        self._certificates = certificates  # in one step: `pems` is called from a thread
        for gone in before.values():
            if gone.task is not None:
                gone.task.cancel()
        self._again.set()

    def _read_certificate(self, id: str) -> Stored | None:
        try:
            stored = self._store.certificate(id)
            order = self._store.order(id) if stored is not None else None
            if stored is not None and order is not None and _is_of(order, stored):
                with contextlib.suppress(OSError):
                    self._store.drop_order(id)
        except OSError as error:
            self._on_disk(error)
            return None
        return stored

    def _read_state(self, id: str) -> NameState:
        try:
            return self._store.state(id)
        except OSError as error:
            self._on_disk(error)
            return NameState()

    def pems(self) -> dict[str, bytes]:
        """Key and chain of each certificate there is, by id."""
        return {id: each.stored.pem for id, each in list(self._certificates.items()) if each.stored is not None}

    def fates(self) -> list[Fate]:
        """How each wanted certificate fares."""
        now = self._clock()
        return [self._fate(each, now) for each in self._certificates.values()]

    def _fate(self, each: _Certificate, now: float) -> Fate:
        state, facts = each.state, each.stored.facts if each.stored is not None else None
        if each.asked:
            why = "an operator has asked for it"
        elif state.failures:
            why = "the last attempt failed"
        elif facts is None:
            why = "there is no certificate yet"
        else:
            why = "the authority's renewal window" if each.ari.chosen else "two thirds of its life are over"
        return Fate(
            each.wanted,
            facts.not_before if facts else 0.0,
            facts.not_after if facts else 0.0,
            facts.issuer if facts else "",
            each.due_at(now),
            why,
            each.phase if each.task is not None else "",
            state.failures,
            state.failed_at,
            state.failure,
            state.waiting_since if facts is None else 0.0,
            each.unwritten,
            (each.ari.start, each.ari.end),
        )

    def renew(self, name: str) -> list[str]:
        """Order the certificates for a host name (or of an id) now; returns their first names. Empty: there is none."""
        found = [each for each in self._certificates.values() if name in (each.wanted.id, *each.wanted.names)]
        for each in found:
            each.asked = True
        self._again.set()
        return [each.wanted.names[0] for each in found]

    @property
    def trouble(self) -> str:
        """Why the disk takes nothing; empty: it does."""
        return self._disk_trouble

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Order and renew for as long as lb runs."""
        await self._become_the_one()
        await asyncio.to_thread(self._store.tidy)
        try:
            while True:
                self._again.clear()
                for each in self._due():
                    each.task = asyncio.ensure_future(self._look_after(each))
                    each.task.add_done_callback(partial(self._over, each))
                await self._write_again()
                await self._pause()
        finally:
            tasks = [each.task for each in self._certificates.values() if each.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._store.unlock()

    async def _become_the_one(self) -> None:
        """Wait until no other process orders: during an upgrade the supervisor before may still be at it."""
        while True:
            try:
                await asyncio.to_thread(self._store.lock)
            except Busy:
                await self._sleep(LOCK_AGAIN)
            except OSError as error:  # a read-only disk has no other process that orders, either
                self._on_disk(error)
                return
            else:
                return

    def _due(self) -> list[_Certificate]:
        now = self._clock()
        busy = sum(each.task is not None for each in self._certificates.values())
        idle = (each for each in self._certificates.values() if each.task is None)
        waiting = [each for each in idle if self._wakes_at(each, now) <= now]
        waiting.sort(key=lambda each: each.due_at(now))
        return waiting[: max(0, AT_ONCE - busy)]

    def _wakes_at(self, each: _Certificate, now: float) -> float:
        due = each.due_at(now)
        if each.stored is not None and each.stored.facts.ari_id:
            due = min(due, each.ari.ask_at)
        return due

    async def _pause(self) -> None:
        now = self._clock()
        moments = [self._wakes_at(each, now) for each in self._certificates.values() if each.task is None]
        if any(each.unwritten for each in self._certificates.values()):
            moments.append(now + WRITE_AGAIN)
        seconds = min(max(min(moments, default=now + LOOK_EVERY) - now, 0.0), LOOK_EVERY)
        busy = sum(each.task is not None for each in self._certificates.values())
        if busy >= AT_ONCE:
            seconds = LOOK_EVERY  # the end of an order wakes this up
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._again.wait()

    def _over(self, each: _Certificate, task: asyncio.Task[None]) -> None:
        each.task, each.phase = None, ""
        self._again.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the order of %s has failed", each.wanted.names[0], exc_info=error)
            text = f"an error in lb: {type(error).__name__}: {error}"
            self._on_failure(each, Failed(text, keep=True, judged=False), at_staging=False)

    async def _look_after(self, each: _Certificate) -> None:
        if each.stored is not None and each.stored.facts.ari_id and each.ari.ask_at <= self._clock():
            await self._ask_for_window(each)
        if each.due_at(self._clock()) <= self._clock():
            await self._order(each)

    # --- one order --------------------------------------------------------------------------------------------------

    async def _order(self, each: _Certificate) -> None:
        authority, state = each.wanted.authority, each.state
        at_staging = asks_staging(state.failures, bool(authority.staging), state.staging_passed, state.judged)
        directory = authority.staging if at_staging else authority.directory
        each.phase = "begin"
        try:
            try:
                issued = await self._attempt(each, directory, at_staging)
            except Failed as error:
                if error.kind != "accountDoesNotExist":
                    raise
                # An authority that was set up anew knows neither the account nor its orders.
                await self._forget_account(directory)
                await self._drop_order(each, at_staging)
                issued = await self._attempt(each, directory, at_staging)
        except Failed as error:
            if not error.keep:
                await self._drop_order(each, at_staging)
            self._on_failure(each, error, at_staging)
            await self._save_state(each)
            return
        finally:
            await self._publish(each.wanted.id, authority.challenge, ())
        if at_staging:
            await self._drop_order(each, at_staging=True)
            each.state = msgspec.structs.replace(each.state, staging_passed=True, next_attempt=self._clock())
            await self._save_state(each)
            return
        await self._take(each, issued)

    async def _attempt(self, each: _Certificate, directory: str, at_staging: bool) -> Issued:
        authority, id = each.wanted.authority, each.wanted.id
        record = await self._record(each, directory, at_staging)
        try:
            trust = await asyncio.to_thread(_trust, authority.ca_file)
            binding = await asyncio.to_thread(_binding, authority)
        except (OSError, ValueError) as error:
            raise Failed(f"acme {authority.name}: {error}", keep=True, judged=False) from None

        async def save(record: OrderRecord) -> None:
            each.phase = record.phase
            each.records[at_staging] = record
            if await self._written(partial(self._store.save_order, id, record, at_staging)):
                each.records.pop(at_staging)

        async def publish(proofs: Sequence[Proof]) -> None:
            try:
                await self._publish(id, authority.challenge, proofs)
            except Exception as error:  # a worker has not confirmed: the authority may reach it
                text = f"the answers to challenges are not at every worker: {error}"
                raise Failed(text, keep=True, judged=False) from None

        key = await self._account_key(directory)
        async with Client(directory, key, trust) as client:
            await self._sign_in(client, directory, authority, binding)
            await save(record)
            each.state = msgspec.structs.replace(each.state, ordered_at=self._clock())
            return await attempt(
                client, record, authority.challenge, save, publish, clock=self._clock, sleep=self._sleep
            )

    async def _record(self, each: _Certificate, directory: str, at_staging: bool) -> OrderRecord:
        """The order to go on with, or a new one."""
        record = each.records.get(at_staging)
        if record is None:
            try:
                record = await asyncio.to_thread(self._store.order, each.wanted.id, at_staging)
            except OSError as error:
                self._on_disk(error)
        names = each.wanted.names
        if record is not None and record.directory == directory and set(record.names) == set(names):
            if each.stored is None or not _is_of(record, each.stored):
                return record
            await self._drop_order(each, at_staging)
        since = self._clock() - each.state.ordered_at
        if self._disk_trouble and since < MEMORY_WAIT:
            text = f"the disk takes nothing ({self._disk_trouble}), and an order that it lacks is not an hour old"
            raise Failed(text, keep=True, judged=False, retry_after=MEMORY_WAIT - since)
        key = await asyncio.to_thread(new_key)
        replaces = each.stored.facts.ari_id if each.stored is not None and not at_staging else ""
        profile = "" if at_staging else each.wanted.authority.profile
        return OrderRecord(names, directory, key, self._clock(), profile, replaces)

    async def _take(self, each: _Certificate, issued: Issued) -> None:
        """A certificate has come: it is served from now on."""
        renewed = each.stored is not None
        pem = issued.key.encode() + issued.chain
        each.stored = Stored(pem, issued.facts)
        each.asked, each.state = False, NameState(ordered_at=each.state.ordered_at)
        name = each.wanted.names[0]
        self.results[name, "ok"] += 1
        each.unwritten = not await self._written(partial(self._store.save_certificate, each.wanted.id, pem))
        if not each.unwritten:
            await self._drop_order(each, at_staging=False)
        await self._save_state(each)
        until = readable(issued.facts.not_after)
        what = "renewed" if renewed else "issued"
        self._tell(f"certificate for {_named(each.wanted.names)} {what}, valid until {until}", name)
        self._on_change()

    def _on_failure(self, each: _Certificate, error: Failed, at_staging: bool) -> None:
        now, state = self._clock(), each.state
        failures, since = state.failures + 1, state.failing_since or now
        seconds = wait(failures, now - since, error.retry_after)
        where = " (at staging)" if at_staging else ""
        each.asked = False
        each.state = msgspec.structs.replace(
            state,
            failures=failures,
            failing_since=since,
            failed_at=now,
            failure=f"{error}{where}",
            # Staging's own trouble leaves open what production would say.
            judged=error.judged or (at_staging and state.judged),
            staging_passed=False,
            next_attempt=now + seconds,
        )
        name = each.wanted.names[0]
        self.results[name, "failed"] += 1
        until = readable(each.stored.facts.not_after) if each.stored is not None else ""
        have = f"the one before is valid until {until}" if until else "there is none yet"
        what = f"no new certificate for {_named(each.wanted.names)}{where}"
        self._tell(f"{what}: {error}; {have}; next attempt in {_span(seconds)}", name)

    # --- accounts ---------------------------------------------------------------------------------------------------

    async def _account_key(self, directory: str) -> AccountKey:
        async with self._registering.setdefault(directory, asyncio.Lock()):
            known = self._keys.get(directory)
            if known is not None:
                return known
            try:
                pem = await asyncio.to_thread(self._store.account_key, directory)
                if pem is not None:
                    return AccountKey.from_pem(pem)
            except OSError as error:
                self._on_disk(error)
            except ValueError as error:
                self._tell(f"the key of the account at {directory} cannot be used, a new one is made: {error}", "")
            key = await asyncio.to_thread(AccountKey.new)
            await self._forget_account(directory)  # an account whose key is lost cannot be used
            self._keys[directory] = key
            if await self._written(partial(self._store.save_account_key, directory, key.pem())):
                del self._keys[directory]
            return key

    async def _sign_in(self, client: Client, directory: str, authority: Authority, binding: Binding | None) -> None:
        """Have an account, registered once however many orders are under way. Raises `Failed`."""
        async with self._registering[directory]:
            known = self._accounts.get(directory) or await self._stored_account(directory)
            try:
                if known is None:
                    url = await client.register(authority.contact, binding)
                elif known.contact != authority.contact:
                    client.account = url = known.url
                    await client.set_contact(authority.contact)
                else:
                    client.account = known.url
                    return
            except Unreachable as error:
                raise Failed(str(error), keep=True, judged=False) from None
            except Nonsense as error:
                raise Failed(f"the authority's answer is none: {error}", keep=True, judged=False) from None
            except Rejected as error:
                raise Failed(
                    f"no account at {directory}: {error}",
                    keep=True,
                    judged=is_judgement(error),
                    retry_after=error.retry_after,
                    kind=error.problem.kind,
                ) from None
            account = Account(directory, url, authority.contact)
            self._accounts[directory] = account
            if await self._written(partial(self._store.save_account, account)):
                del self._accounts[directory]

    async def _stored_account(self, directory: str) -> Account | None:
        try:
            return await asyncio.to_thread(self._store.account, directory)
        except OSError as error:
            self._on_disk(error)
            return None

    async def _forget_account(self, directory: str) -> None:
        self._accounts.pop(directory, None)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._store.drop_account, directory)

    # --- renewal windows --------------------------------------------------------------------------------------------

    async def _ask_for_window(self, each: _Certificate) -> None:
        assert each.stored is not None
        id, authority, known = each.stored.facts.ari_id, each.wanted.authority, each.ari
        again = ASK_AT_MOST  # of an authority that knows no windows
        try:
            trust = await asyncio.to_thread(_trust, authority.ca_file)
            async with Client(authority.directory, AccountKey.new(), trust) as client:
                answer = await client.renewal_info(id)
        except (Unreachable, Nonsense, Rejected, OSError) as error:
            log.info("no renewal window for %s: %s", each.wanted.names[0], error)
            answer, again = None, ASK_AGAIN
        now = self._clock()
        if answer is None:
            ari = unanswered(known, id, now, again)
        else:
            info, retry_after = answer
            ari = asked(known, id, info, retry_after, now, self._dice())
        if (ari.start, ari.end) != (known.start, known.end) and known.chosen and ari.start < known.start:
            why = f" (see {ari.explanation})" if ari.explanation else ""
            self._tell(
                f"the authority wants the certificate for {each.wanted.names[0]} renewed earlier, from "
                f"{readable(ari.start)} on{why}",
                each.wanted.names[0],
            )
        each.state = msgspec.structs.replace(each.state, ari=ari)
        await self._save_state(each)

    # --- the disk ---------------------------------------------------------------------------------------------------

    async def _written(self, write: Callable[[], None]) -> bool:
        """Whether the disk has taken it."""
        try:
            await asyncio.to_thread(write)
        except OSError as error:
            self._on_disk(error)
            return False
        if self._disk_trouble:
            self._disk_trouble = ""
            self._tell("certificates can be written again, and are", "")
        return True

    def _on_disk(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        if reason != self._disk_trouble:
            text = f"{self._store.folder}: {reason.lower()}; certificates and orders are kept in memory alone"
            self._tell(text, "")
        self._disk_trouble = reason

    async def _save_state(self, each: _Certificate) -> None:
        if not await self._written(partial(self._store.save_state, each.wanted.id, each.state)):
            each.unwritten = True

    async def _drop_order(self, each: _Certificate, at_staging: bool) -> None:
        """Forget an order. Where the disk does not, the key that it is for tells (`_record`)."""
        each.records.pop(at_staging, None)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._store.drop_order, each.wanted.id, at_staging)

    async def _write_again(self) -> None:
        """Write what the disk has not taken."""
        for each in list(self._certificates.values()):
            if not each.unwritten or each.task is not None:
                continue
            if each.stored is not None:
                write = partial(self._store.save_certificate, each.wanted.id, each.stored.pem)
                if not await self._written(write):
                    return
            if not await self._written(partial(self._store.save_state, each.wanted.id, each.state)):
                return
            each.unwritten = False
            await self._drop_order(each, at_staging=False)


def _is_of(order: OrderRecord, stored: Stored) -> bool:
    """Whether it is the order of the certificate that is stored. A process that dies between the last two writes leaves
    it; gone on with, it would bring the same certificate once more."""
    return order.key.encode() in stored.pem


def _trust(ca_file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file or None)


def _binding(authority: Authority) -> Binding | None:
    """The external account. Raises `OSError` or `ValueError`."""
    if not authority.key_id:
        return None
    text = Path(authority.key_file).read_text().strip()
    return Binding(authority.key_id, jose.decode(text))


def _named(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"
