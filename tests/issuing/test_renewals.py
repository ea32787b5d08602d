"""Ordering and renewing against an authority in the test: windows, faults, crashes, and a disk that takes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from lb.config.certificate_sources import certificate_id
from lb.issuing import renewals
from lb.issuing.acme import client
from lb.issuing.acme.attempt import Proof
from lb.issuing.acme.backoff import MINUTE
from lb.issuing.renewals import Authority, Fate, Renewals, Wanted
from lb.issuing.store import Store
from tests.support.acme_authority import AcmeAuthority, Fault, problem
from tests.support.eventually_async import eventually

NAME = "a.example.org"


class Clock:
    """Wall-clock time that a test can move."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return datetime.now(UTC).timestamp() + self.ahead


class House:
    """The part of lb that orders, with what surrounds it."""

    def __init__(self, folder: Path, authority: AcmeAuthority, **settings: str) -> None:
        self.folder = folder
        self.acme = authority
        self.settings = settings
        self.clock = Clock()
        self.told: list[str] = []
        self.changes = 0
        self.published: dict[str, Sequence[Proof]] = {}
        self.before_publishing: Callable[[], Awaitable[None]] | None = None
        self.renewals = self.new()
        self._task: asyncio.Task[None] | None = None

    def new(self, store: Store | None = None) -> Renewals:
        return Renewals(
            store or Store(self.folder, self.told.append),
            publish=self._publish,
            on_change=self._change,
            tell=lambda text, name: self.told.append(text),
            clock=self.clock,
            dice=lambda: 0.5,
        )

    async def _publish(self, id: str, challenge: str, proofs: Sequence[Proof]) -> None:
        if self.before_publishing is not None and proofs:
            await self.before_publishing()
        self.published[id] = proofs

    def _change(self) -> None:
        self.changes += 1

    def wanted(self, *names: str, **settings: str) -> Wanted:
        names = names or (NAME,)
        authority = Authority("test", self.acme.directory, "ops@example.org", **{**self.settings, **settings})
        return Wanted(certificate_id(names, authority.directory, authority.profile), names, authority)

    def start(self, *wanted: Wanted) -> None:
        self.renewals.want(wanted or [self.wanted()])
        self._task = asyncio.ensure_future(self.renewals.run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def restart(self, *wanted: Wanted) -> None:
        await self.stop()
        self.renewals = self.new()
        self.start(*wanted)

    @property
    def fate(self) -> Fate:
        (fate,) = self.renewals.fates()
        return fate

    async def issued(self) -> None:
        await eventually(lambda: self.fate.not_after and not self.fate.under_way, what=str(self.told))

    async def failed(self, times: int = 1) -> None:
        await eventually(lambda: self.fate.failures >= times and not self.fate.under_way, what=str(self.told))


@pytest.fixture
async def authority() -> AsyncIterator[AcmeAuthority]:
    async with AcmeAuthority() as authority:
        yield authority


@pytest.fixture
async def house(tmp_path: Path, authority: AcmeAuthority) -> AsyncIterator[House]:
    house = House(tmp_path, authority)
    yield house
    await house.stop()


def say(status: int, body: bytes, kind: str = "application/json") -> Fault:
    async def fault(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, content_type=kind)

    return fault


def refuse(kind: str, status: int = 403, **headers: str) -> Fault:
    async def fault(request: web.Request) -> web.Response:
        return problem(kind, "because", status, **headers)

    return fault


# --- orders ----------------------------------------------------------------------------------------------------------


async def test_a_certificate_is_ordered_and_kept_for_the_next_process(house: House, authority: AcmeAuthority) -> None:
    house.start(house.wanted(NAME, "b.example.org"))
    await house.issued()
    (pem,) = house.renewals.pems().values()
    assert pem.count(b"BEGIN CERTIFICATE") == 2
    assert b"PRIVATE KEY" in pem
    assert house.changes == 1
    assert house.told[-1].startswith("certificate for a.example.org and 1 more issued, valid until ")
    assert authority.contacts == [["mailto:ops@example.org"]]
    await house.restart(house.wanted("b.example.org", NAME))  # the order of the names makes no difference
    assert list(house.renewals.pems().values()) == [pem]
    await asyncio.sleep(0.1)
    assert len(authority.orders) == 1
    assert authority.counts["newAccount"] == 1


async def test_what_is_stored_is_closed_to_other_users(house: House, tmp_path: Path) -> None:
    house.start()
    await house.issued()
    await eventually(lambda: not list(tmp_path.rglob("order.json")))
    found = [*(tmp_path / "acme").rglob("*"), tmp_path / "acme"]
    assert {path.name for path in found} >= {"key.pem", "account.json", "certificate.pem", "state.json"}
    for path in found:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


async def test_the_authority_is_told_of_an_answer_when_every_worker_has_it(
    house: House, authority: AcmeAuthority
) -> None:
    seen: list[dict[str, str]] = []

    async def check(name: str, token: str, expected: str) -> bool:
        published = {each.token: each.key_authorization for proofs in house.published.values() for each in proofs}
        seen.append(published)
        return published.get(token) == expected

    authority.check = check
    house.start(house.wanted(NAME, "b.example.org"))
    await house.issued()
    assert [len(each) for each in seen] == [2, 2]
    assert all(not proofs for proofs in house.published.values())  # taken away again


@pytest.mark.parametrize("step", ["newNonce", "newAccount", "newOrder", "authorization", "challenge", "finalize"])
async def test_a_process_that_dies_at_any_step_is_followed_by_one_that_goes_on(
    step: str, house: House, authority: AcmeAuthority
) -> None:
    """The answer never comes, and the process ends while it waits. For `newOrder` see the next test."""
    reached = asyncio.Event()
    if step == "newOrder":  # it dies before the authority has heard of it

        async def hold(request: web.Request) -> web.StreamResponse:
            reached.set()
            await asyncio.sleep(30)
            raise web.HTTPInternalServerError

        authority.faults[step] = [hold]
    else:
        handler = getattr(authority, f"_on_{step}")

        async def late(request: web.Request) -> web.StreamResponse:
            answer: web.StreamResponse = await handler(request)  # it was done, and nobody hears of it
            reached.set()
            await asyncio.sleep(30)
            return answer

        authority.faults[step] = [late]
    house.start()
    await reached.wait()
    await house.restart()
    await house.issued()
    assert len(authority.orders) == 1
    (pem,) = house.renewals.pems().values()
    assert b"PRIVATE KEY" in pem


async def test_a_certificate_that_was_stored_before_its_order_was_removed_is_not_collected_again(
    house: House, authority: AcmeAuthority, tmp_path: Path
) -> None:
    house.start()
    await house.issued()
    id = house.wanted().id
    store = Store(tmp_path)
    stored = store.certificate(id)
    assert stored is not None
    key = stored.pem.decode().partition("-----BEGIN CERTIFICATE")[0]
    order = renewals.OrderRecord((NAME,), authority.directory, key, 0.0, url=authority.orders[0]["url"])
    store.save_order(id, order)
    await house.restart()
    house.renewals.renew(NAME)
    await eventually(lambda: len(authority.orders) == 2 and house.changes == 2)
    assert house.renewals.pems()[id] != stored.pem


async def test_many_names_are_ordered_a_few_at_a_time(house: House, authority: AcmeAuthority) -> None:
    under_way = most = 0

    async def check(name: str, token: str, expected: str) -> bool:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.05)
        under_way -= 1
        return True

    authority.check = check
    house.start(*(house.wanted(f"n{number}.example.org") for number in range(12)))
    await eventually(lambda: len(house.renewals.pems()) == 12, within=30)
    assert 1 < most <= renewals.AT_ONCE
    assert authority.counts["newAccount"] == 1


# --- renewal ---------------------------------------------------------------------------------------------------------


async def test_a_certificate_is_renewed_at_a_moment_of_the_authoritys_window(
    house: House, authority: AcmeAuthority
) -> None:
    start = datetime.now(UTC) + timedelta(days=20)
    authority.window = start, start + timedelta(days=2)
    house.start()
    await eventually(lambda: house.fate.why == "the authority's renewal window")
    assert house.fate.next_attempt == pytest.approx((start + timedelta(days=1)).timestamp(), abs=1)
    (first,) = authority.chains
    house.clock.ahead = timedelta(days=21, minutes=1).total_seconds()
    await house.restart()
    await eventually(lambda: house.changes == 2)
    assert authority.orders[1]["replaces"] == first
    assert "renewed, valid until" in house.told[-1]


async def test_a_window_that_moves_to_now_renews_at_once_and_says_why(
    house: House, authority: AcmeAuthority, tmp_path: Path
) -> None:
    house.start()
    store, id = Store(tmp_path), house.wanted().id
    await eventually(lambda: store.state(id).ari.chosen)
    authority.window = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) - timedelta(hours=1)
    house.clock.ahead = 7 * 3600.0
    await house.restart()
    await eventually(lambda: len(authority.orders) == 2)
    assert any("renewed earlier" in text and "https://ca.example.org/why" in text for text in house.told)


async def test_without_windows_two_thirds_of_the_life_count(tmp_path: Path) -> None:
    async with AcmeAuthority(windows=False, life=timedelta(days=6)) as authority:
        house = House(tmp_path, authority)
        house.start()
        await house.issued()
        expected = house.fate.not_before + 4 * 86400
        assert house.fate.next_attempt == pytest.approx(expected, abs=1)
        assert house.fate.why == "two thirds of its life are over"
        house.clock.ahead = 4.1 * 86400
        await house.restart()
        await eventually(lambda: house.changes == 2)
        assert "replaces" not in authority.orders[1]
        await house.stop()


async def test_an_operator_can_have_a_certificate_renewed_now(house: House, authority: AcmeAuthority) -> None:
    house.start(house.wanted(NAME, "b.example.org"))
    await house.issued()
    assert house.renewals.renew("c.example.org") == []
    assert house.renewals.renew("b.example.org") == [NAME]
    await eventually(lambda: house.changes == 2)
    assert len(authority.orders) == 2


async def test_a_certificate_that_is_due_when_it_comes_is_not_ordered_in_a_loop(
    house: House, authority: AcmeAuthority
) -> None:
    authority.window = datetime.now(UTC) - timedelta(days=2), datetime.now(UTC) - timedelta(days=1)
    house.start()
    await eventually(lambda: house.fate.window[0] > 0)
    await asyncio.sleep(0.3)
    assert len(authority.orders) == 1
    assert house.fate.next_attempt > house.clock() + 3000


# --- trouble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "fault", "said"),
    [
        ("directory", say(200, b"<html>welcome</html>", "text/html"), "the authority's answer is none: no directory"),
        ("directory", say(500, b"<html>oops</html>", "text/html"), "answered with status 500"),
        ("directory", say(200, b'{"newNonce": 1}'), "the authority's answer is none"),
        ("newNonce", say(200, b""), "no nonce"),
        ("newAccount", say(201, b"{}"), "no account address"),
        ("newAccount", refuse("externalAccountRequired"), "externalAccountRequired: because"),
        ("newOrder", say(201, b"[]"), "no order"),
        ("newOrder", refuse("rejectedIdentifier"), "rejectedIdentifier: because"),
        ("newOrder", refuse("serverInternal", 500), "serverInternal: because"),
        ("authorization", say(200, b'{"status": "pending"}'), "no authorization"),
        ("challenge", refuse("unauthorized"), ""),
        ("finalize", refuse("badCSR", 400), "badCSR: because"),
        ("certificate", say(200, b"not a certificate", "text/plain"), "no certificate is in it"),
        ("certificate", say(200, b"x" * (client.LARGEST_ANSWER + 1), "text/plain"), "longer than 1048576 bytes"),
        ("newOrder", refuse("badNonce", 400), "badNonce: because"),
    ],
)
async def test_whatever_an_authority_answers_the_outcome_is_told_and_tried_again(
    what: str, fault: Fault, said: str, house: House, authority: AcmeAuthority
) -> None:
    authority.always[what] = fault
    house.start()
    if not said:  # a challenge that cannot be answered is one that the authority never looks at
        await eventually(lambda: authority.counts[what] >= 1)
        del authority.always[what]
        return
    await house.failed()
    assert said in house.fate.failure
    assert house.fate.next_attempt == pytest.approx(house.clock() + MINUTE, abs=5)
    assert f"no new certificate for {NAME}: " in house.told[-1]
    assert "there is none yet; next attempt in 60 s" in house.told[-1]
    assert house.renewals.results[NAME, "failed"] == 1
    del authority.always[what]
    house.clock.ahead += 61
    await house.restart()
    await house.issued()
    assert house.fate.failures == 0


async def test_rejected_nonces_are_nobodys_business(house: House, authority: AcmeAuthority) -> None:
    for what in ("newAccount", "newOrder", "authorization", "challenge", "order", "finalize", "certificate"):
        authority.faults[what] = [_stale(authority)] * 2
    house.start()
    await house.issued()
    assert house.renewals.results == {(NAME, "ok"): 1}


def _stale(authority: AcmeAuthority) -> Fault:
    async def fault(request: web.Request) -> web.StreamResponse:
        answer = problem("badNonce", "too old", 400)
        answer.headers["Replay-Nonce"] = authority.new_nonce()
        return answer

    return fault


async def test_an_authority_that_never_answers_is_given_up_after_a_bounded_time(
    house: House, authority: AcmeAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "REQUEST_TIME", 0.2)

    async def silence(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise web.HTTPInternalServerError

    authority.always["newOrder"] = silence
    house.start()
    await house.failed()
    assert "no answer within 0.2 s" in house.fate.failure


async def test_an_authority_that_is_away_at_the_start_leaves_what_is_stored(
    house: House, authority: AcmeAuthority
) -> None:
    house.start()
    await house.issued()
    authority.always["directory"] = say(503, b"")
    await house.restart(house.wanted(), house.wanted("new.example.org"))
    stored, new = house.renewals.fates()
    assert stored.not_after
    await eventually(lambda: house.renewals.fates()[1].failures == 1)
    new = house.renewals.fates()[1]
    assert (new.not_after, new.waiting_since > 0) == (0.0, True)
    assert len(house.renewals.pems()) == 1


async def test_a_rate_limit_is_waited_for(house: House, authority: AcmeAuthority) -> None:
    authority.always["newOrder"] = refuse("rateLimited", 429, Retry_After="7200")
    house.start()
    await house.failed()
    assert house.fate.next_attempt == pytest.approx(house.clock() + 7200, abs=5)


async def test_a_failed_name_takes_no_other_one_along(house: House, authority: AcmeAuthority) -> None:
    async def check(name: str, token: str, expected: str) -> bool:
        return name != "bad.example.org"

    authority.check = check
    house.start(house.wanted("bad.example.org"), house.wanted("good.example.org"))
    await eventually(lambda: [bool(each.not_after) for each in house.renewals.fates()] == [False, True])
    await eventually(lambda: house.renewals.fates()[0].failures)
    failure = house.renewals.fates()[0].failure
    assert failure.startswith("bad.example.org: unauthorized: the answer is another one")


async def test_a_refused_order_is_repeated_at_staging_first(tmp_path: Path, authority: AcmeAuthority) -> None:
    met = False

    async def check(name: str, token: str, expected: str) -> bool:
        return met

    async with AcmeAuthority() as staging:
        authority.check = staging.check = check
        house = House(tmp_path, authority, staging=staging.directory)
        house.start()
        await house.failed(1)
        assert (len(authority.orders), len(staging.orders)) == (1, 0)
        house.clock.ahead += 61
        await house.restart()
        await house.failed(2)
        assert (len(authority.orders), len(staging.orders)) == (1, 1)
        assert house.fate.failure.endswith("(at staging)")
        met = True
        house.clock.ahead += 121
        await house.restart()
        await house.issued()  # staging passes, and production follows at once
        assert (len(authority.orders), len(staging.orders)) == (2, 2)
        await house.stop()


async def test_an_account_that_the_authority_has_lost_is_made_again(house: House, authority: AcmeAuthority) -> None:
    house.start()
    await house.issued()
    authority.forget_accounts()
    house.renewals.renew(NAME)
    await eventually(lambda: house.changes == 2)
    assert authority.counts["newAccount"] == 2
    assert (NAME, "failed") not in house.renewals.results


async def test_a_new_address_for_messages_is_told(house: House, authority: AcmeAuthority) -> None:
    house.start()
    await house.issued()
    wanted = house.wanted()
    other = Wanted(wanted.id, wanted.names, Authority("test", authority.directory, "new@example.org"))
    await house.restart(other)
    house.renewals.renew(NAME)
    await eventually(lambda: house.changes == 2)
    assert authority.contacts[-1] == ["mailto:new@example.org"]
    assert authority.counts["newAccount"] == 1


async def test_an_external_account_is_bound(tmp_path: Path) -> None:
    (tmp_path / "eab.key").write_text("c2VjcmV0LXNlY3JldA\n")
    async with AcmeAuthority(binding=b"secret-secret") as authority:
        house = House(tmp_path, authority, key_id="kid-1", key_file=str(tmp_path / "eab.key"))
        house.start()
        await house.issued()
        await house.restart(house.wanted("b.example.org", key_id=""))  # the account is bound already
        await house.issued()
        await house.stop()
        unbound = House(tmp_path / "other", authority)
        unbound.start()
        await unbound.failed()
        assert "give `eab` its key_id and key_file" in unbound.fate.failure
        await unbound.stop()


async def test_an_unreadable_key_of_an_external_account_is_a_failure_of_its_own(
    tmp_path: Path, authority: AcmeAuthority
) -> None:
    house = House(tmp_path, authority, key_id="kid-1", key_file=str(tmp_path / "none.key"))
    house.start()
    await house.failed()
    assert "none.key" in house.fate.failure
    assert authority.orders == []
    await house.stop()


async def test_a_profile_that_is_not_offered_is_named_with_the_ones_that_are(
    tmp_path: Path, authority: AcmeAuthority
) -> None:
    house = House(tmp_path, authority, profile="tiny")
    house.start()
    await house.failed()
    assert "no profile tiny; it offers: classic, short" in house.fate.failure
    await house.restart(house.wanted(profile="short"))
    await house.issued()
    assert authority.orders[0]["profile"] == "short"
    await house.stop()


# --- the disk --------------------------------------------------------------------------------------------------------


class FullStore(Store):
    """A disk without room: every write fails."""

    full = True

    def _write(self, path: Path, data: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super()._write(path, data)


async def test_a_full_disk_leaves_the_certificate_in_memory_without_a_second_order_within_the_hour(
    tmp_path: Path, authority: AcmeAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewals, "WRITE_AGAIN", 0.05)
    house = House(tmp_path, authority)
    store = FullStore(tmp_path)
    house.renewals = house.new(store)
    house.start()
    await house.issued()
    assert house.fate.in_memory
    assert any("no space left on device; certificates and orders are kept in memory alone" in t for t in house.told)
    house.renewals.renew(NAME)
    await house.failed()
    assert "is not an hour old" in house.fate.failure
    assert len(authority.orders) == 1
    store.full = False
    await eventually(lambda: not house.fate.in_memory)
    assert "certificates can be written again, and are" in house.told
    assert Store(tmp_path).certificate(house.wanted().id) is not None
    await house.stop()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write into a folder that is closed")
async def test_a_folder_that_may_not_be_written_is_like_a_full_disk(tmp_path: Path, authority: AcmeAuthority) -> None:
    tmp_path.chmod(0o500)
    house = House(tmp_path, authority)
    house.start()
    await house.issued()
    assert house.fate.in_memory
    tmp_path.chmod(0o700)
    await house.stop()


@pytest.mark.parametrize("name", ["state.json", "certificate.pem", "order.json", "account.json", "key.pem"])
async def test_a_damaged_file_is_told_and_made_anew(
    name: str, house: House, authority: AcmeAuthority, tmp_path: Path
) -> None:
    house.start()
    await house.issued()
    found = list(tmp_path.rglob(name)) or [tmp_path / "acme" / "certificates" / house.wanted().id / name]
    await house.stop()
    found[0].write_bytes(b"{damaged")
    await house.restart()
    house.renewals.renew(NAME)
    await eventually(lambda: house.changes == 2)
    assert house.fate.not_after


async def test_only_one_process_orders_at_a_time(house: House, authority: AcmeAuthority, tmp_path: Path) -> None:
    other = Store(tmp_path)
    other.lock()
    house.start()
    await asyncio.sleep(0.2)
    assert authority.orders == []
    other.unlock()
    await house.issued()


async def test_a_name_that_is_no_longer_wanted_is_no_longer_ordered(house: House, authority: AcmeAuthority) -> None:
    reached = asyncio.Event()

    async def check(name: str, token: str, expected: str) -> bool:
        reached.set()
        await asyncio.sleep(30)
        return True

    authority.check = check
    house.start()
    await reached.wait()
    house.renewals.want([])
    await asyncio.sleep(0.1)
    assert house.renewals.fates() == []
    assert "order" not in authority.asked[-1:]
