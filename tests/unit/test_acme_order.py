"""The order's machine: every step against a model of an authority (RFC 8555 section 7.1.6), with crashes in between."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.issuing.acme import order as steps
from lb.issuing.acme.answers import Authorization, Challenge, Identifier, Order, Problem
from lb.issuing.acme.order import ATTEMPT_TIME, OrderMachine, OrderRecord

NAMES = ("a.example.org", "b.example.org")
DIRECTORY = "https://ca.example.org/directory"


def record(**changes: object) -> OrderRecord:
    return OrderRecord(NAMES, DIRECTORY, "KEY", begun=0.0, **changes)  # type: ignore[arg-type]


class Authority:
    """A model of an authority. `slow`: how often each thing it works on is asked for before it is done."""

    def __init__(self, slow: int = 0, refuses: str = "") -> None:
        self.orders: dict[str, Order] = {}
        self.authorizations: dict[str, Authorization] = {}
        self.slow = slow
        self.refuses = refuses  # the name whose challenge fails
        self.left: dict[str, int] = {}
        self.responded_without_answer: list[str] = []
        self.certificates = 0
        self.tokens_at_workers: set[str] = set()

    def place(self) -> tuple[str, Order]:
        number = len(self.orders)
        urls = []
        for name in NAMES:
            url = f"https://ca.example.org/authz/{number}/{name}"
            challenges = [
                Challenge("dns-01", f"{url}/dns", token="dns"),
                Challenge("http-01", f"{url}/http", token=f"t{number}{name[0]}"),
            ]
            self.authorizations[url] = Authorization("pending", Identifier(name), challenges)
            urls.append(url)
        url = f"https://ca.example.org/order/{number}"
        self.orders[url] = Order("pending", f"{url}/finalize", urls, [Identifier(name) for name in NAMES])
        return url, self.orders[url]

    def order(self, url: str) -> Order:
        order = self.orders[url]
        found = [self.authorizations[each].status for each in order.authorizations]
        if "invalid" in found:
            order = msgspec.structs.replace(order, status="invalid")
        elif order.status == "pending" and set(found) == {"valid"}:
            order = msgspec.structs.replace(order, status="ready")
        elif order.status == "processing" and self._done(url):
            self.certificates += 1
            order = msgspec.structs.replace(order, status="valid", certificate=f"{url}/certificate")
        self.orders[url] = order
        return order

    def _done(self, url: str) -> bool:
        self.left[url] = self.left.get(url, self.slow) - 1
        return self.left[url] < 0

    def authorization(self, url: str) -> Authorization:
        found = self.authorizations[url]
        http = found.challenges[1]
        if http.status == "processing" and self._done(url):
            bad = found.identifier.value == self.refuses
            status = "invalid" if bad else "valid"
            error = Problem("urn:ietf:params:acme:error:unauthorized", "nothing there") if bad else None
            done = msgspec.structs.replace(http, status=status, error=error)
            found = msgspec.structs.replace(found, status=status, challenges=[found.challenges[0], done])
            self.authorizations[url] = found
        return found

    def respond(self, challenge: str) -> None:
        url = challenge.removesuffix("/http")
        found = self.authorizations[url]
        http = found.challenges[1]
        if http.token not in self.tokens_at_workers:
            self.responded_without_answer.append(http.token)
        if http.status == "pending":
            done = msgspec.structs.replace(http, status="processing")
            self.authorizations[url] = msgspec.structs.replace(found, challenges=[found.challenges[0], done])

    def finalize(self, url: str) -> Order:
        order_url = url.removesuffix("/finalize")
        assert self.orders[order_url].status == "ready", "finalized too early"
        self.orders[order_url] = msgspec.structs.replace(self.orders[order_url], status="processing")
        return self.orders[order_url]


class Disk:
    """The record as the last write left it."""

    def __init__(self) -> None:
        self.data = msgspec.json.encode(record())

    def save(self, record: OrderRecord) -> None:
        self.data = msgspec.json.encode(record)

    def load(self) -> OrderRecord:
        return msgspec.json.decode(self.data, type=OrderRecord)


def step(machine: OrderMachine, authority: Authority, clock: list[float]) -> steps.Action:
    """Carry out the next action."""
    action = machine.next(clock[0])
    match action:
        case steps.Place():
            machine.on_placed(*authority.place())
        case steps.FetchOrder():
            machine.on_order(authority.order(machine.record.url))
        case steps.FetchAuthorization(url):
            machine.on_authorization(url, authority.authorization(url))
        case steps.Publish(tokens):
            authority.tokens_at_workers = {token for _, token in tokens}
            machine.on_published([token for _, token in tokens])
        case steps.Respond(url):
            authority.respond(url)
            machine.on_responded(url)
        case steps.Finalize(url):
            machine.on_order(authority.finalize(url))
        case steps.Wait(seconds):
            clock[0] += seconds
    return action


def run(authority: Authority, crashes: set[int], limit: int = 400) -> tuple[steps.Action, int]:
    """Drive an order to its end. A crash at a step: the step is done, its record is on the disk, and the process dies
    with all else that it knew."""
    disk, clock = Disk(), [0.0]
    machine = OrderMachine(disk.load(), "http-01", clock[0])
    for number in range(limit):
        action = step(machine, authority, clock)
        disk.save(machine.record)
        if isinstance(action, steps.Collect | steps.Fail):
            return action, number
        if number in crashes:
            authority.tokens_at_workers.clear()
            machine = OrderMachine(disk.load(), "http-01", clock[0])
    raise AssertionError("the order does not come to an end")


def test_an_order_goes_from_its_placing_to_the_certificate() -> None:
    authority = Authority(slow=2)
    action, _ = run(authority, set())
    assert action == steps.Collect("https://ca.example.org/order/0/certificate")
    assert authority.responded_without_answer == []


def test_a_crash_after_any_one_step_places_no_second_order() -> None:
    _, length = run(Authority(slow=1), set())
    for crash in range(length):
        authority = Authority(slow=1)
        action, _ = run(authority, {crash})
        assert isinstance(action, steps.Collect), crash
        assert len(authority.orders) == 1, crash
        assert authority.responded_without_answer == [], crash


@given(st.sets(st.integers(0, 60)), st.integers(0, 4), st.sampled_from(["", *NAMES]))
@settings(max_examples=150, deadline=None)
def test_whatever_crashes_the_order_ends_and_is_the_only_one(crashes: set[int], slow: int, refuses: str) -> None:
    authority = Authority(slow, refuses)
    action, _ = run(authority, crashes)
    assert len(authority.orders) == 1
    assert authority.certificates <= 1
    assert authority.responded_without_answer == []
    if refuses:
        assert isinstance(action, steps.Fail)
        assert action.reason.startswith(f"{refuses}: unauthorized: nothing there")
        assert not action.keep
    else:
        assert isinstance(action, steps.Collect)


def test_the_phase_on_the_disk_says_what_the_order_waits_for() -> None:
    authority, clock = Authority(slow=1), [0.0]
    machine = OrderMachine(record(), "http-01", 0.0)
    phases = []
    while True:
        action = step(machine, authority, clock)
        if not phases or phases[-1] != machine.record.phase:
            phases.append(machine.record.phase)
        if isinstance(action, steps.Collect):
            break
    assert phases == ["authorize", "finalize", "collect"]


def test_a_challenge_that_is_not_offered_is_named_with_the_ones_that_are() -> None:
    machine = OrderMachine(record(), "tls-alpn-01", 0.0)
    action, clock = step(machine, authority := Authority(), [0.0]), [0.0]
    while not isinstance(action, steps.Fail):
        action = step(machine, authority, clock)
    assert "no tls-alpn-01 challenge, only: dns-01, http-01" in action.reason


def test_an_authority_that_never_finishes_keeps_its_order_for_the_next_attempt() -> None:
    authority, clock = Authority(slow=10_000), [0.0]
    machine = OrderMachine(record(), "http-01", 0.0)
    while not isinstance(action := step(machine, authority, clock), steps.Fail):
        pass
    assert action.keep
    assert ATTEMPT_TIME <= clock[0] < ATTEMPT_TIME + 60
    assert machine.record.url


def test_an_order_that_stays_pending_though_all_names_are_shown_is_not_asked_for_without_a_pause() -> None:
    machine = OrderMachine(record(url="https://ca/order"), "http-01", 0.0)
    clock, asked = 0.0, 0
    while not isinstance(action := machine.next(clock), steps.Fail):
        asked += 1
        if isinstance(action, steps.FetchOrder):
            machine.on_order(Order("pending", "https://ca/f", ["https://ca/1"]))
        elif isinstance(action, steps.FetchAuthorization):
            machine.on_authorization(action.url, Authorization("valid", Identifier("a.example.org")))
        elif isinstance(action, steps.Wait):
            clock += action.seconds
    assert action.keep
    assert asked < 300


@pytest.mark.parametrize(
    ("action", "kind", "status", "outcome"),
    [
        (steps.Place(), "rateLimited", 429, "over"),
        (steps.FetchOrder(), "rateLimited", 429, "kept"),
        (steps.FetchOrder(), "serverInternal", 500, "kept"),
        (steps.FetchOrder(), "malformed", 404, "over"),
        (steps.FetchOrder(), "unauthorized", 403, "over"),
        (steps.FetchAuthorization("https://ca/1"), "accountDoesNotExist", 400, "kept"),
        (steps.Respond("https://ca/1"), "malformed", 400, "goes on"),
        (steps.Finalize("https://ca/1"), "orderNotReady", 403, "goes on"),
        (steps.Finalize("https://ca/1"), "badCSR", 400, "over"),
        (steps.Collect("https://ca/1"), "malformed", 404, "over"),
    ],
)
def test_a_refusal_ends_the_order_only_where_it_cannot_be_gone_on_with(
    action: steps.Action, kind: str, status: int, outcome: str
) -> None:
    machine = OrderMachine(record(url="https://ca.example.org/order/0"), "http-01", 0.0)
    machine.on_order(Order("pending", "https://ca.example.org/f"))
    failed = machine.on_refused(action, Problem(f"urn:ietf:params:acme:error:{kind}", "because"), status)
    if outcome == "goes on":
        assert failed is None
    else:
        assert failed is not None
        assert failed.keep == (outcome == "kept")


def test_an_order_that_was_replaced_already_is_placed_again_as_one_of_its_own() -> None:
    machine = OrderMachine(record(replaces="abc.def"), "http-01", 0.0)
    problem = Problem("urn:ietf:params:acme:error:alreadyReplaced", "it has a successor")
    assert machine.on_refused(steps.Place(), problem, 409) is None
    assert machine.record.replaces == ""
    assert machine.next(0.0) == steps.Place()


def test_an_authority_that_asks_to_wait_is_given_the_time_within_bounds() -> None:
    machine = OrderMachine(record(url="https://ca.example.org/order/0"), "http-01", 0.0)
    assert machine.next(0.0) == steps.FetchOrder()
    machine.on_order(Order("processing", "https://ca.example.org/f"), retry_after=7.0)
    assert machine.next(0.0) == steps.Wait(7.0)
    assert machine.next(0.0) == steps.FetchOrder()
    machine.on_order(Order("processing", "https://ca.example.org/f"), retry_after=1e6)
    assert machine.next(0.0) == steps.Wait(60.0)
