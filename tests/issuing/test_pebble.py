"""Orders at Pebble, a real ACME server that validates: both challenges, its absence, and SIGKILL at every write."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509

from lb.config.certificate_sources import certificate_id
from lb.issuing.acme.attempt import Proof
from lb.issuing.acme.material import challenge_certificate
from lb.issuing.renewals import Authority, Renewals, Wanted
from lb.issuing.store import Store
from tests.support.eventually_async import eventually
from tests.support.pebble import Pebble, needs_pebble
from tests.support.ports import free_ports

pytestmark = needs_pebble

NAMES = ("a.example.org", "b.example.org")
#: Writes of an order that goes well: account key, account, and the record's and the certificate's files.
MOST_WRITES = 14


class Place:
    """Ports at which Pebble looks for answers, and the server that gives them."""

    def __init__(self, folder: Path, http_port: int = 0, tls_port: int = 0, **environment: str) -> None:
        self.folder = folder
        ports = free_ports(2)
        self.http_port, self.tls_port = http_port or ports[0], tls_port or ports[1]
        self.pebble = Pebble(folder / "pebble", http_port=self.http_port, tls_port=self.tls_port, **environment)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("place"))
    yield place
    place.pebble.close()


class Answers:
    """Answers to both kinds of challenges, as workers give them."""

    def __init__(self) -> None:
        self.proofs: dict[str, str] = {}
        self.certificates: dict[str, ssl.SSLContext] = {}
        self.asked: list[str] = []

    async def publish(self, id: str, challenge: str, proofs: Sequence[Proof]) -> None:
        self.proofs = {each.token: each.key_authorization for each in proofs}
        self.certificates = {each.name: _context(each) for each in proofs} if challenge == "tls-alpn-01" else {}

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.match_info["token"])
        text = self.proofs.get(request.match_info["token"])
        return web.Response(text=text) if text is not None else web.Response(status=404)


def _context(proof: Proof) -> ssl.SSLContext:
    import tempfile

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(challenge_certificate(proof.name, proof.key_authorization))
        file.flush()
        context.load_cert_chain(file.name)
    context.set_alpn_protocols(["acme-tls/1"])
    return context


@pytest.fixture
async def answers(place: Place) -> AsyncIterator[Answers]:
    answers = Answers()
    app = web.Application()
    app.router.add_get("/.well-known/acme-challenge/{token}", answers.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", place.http_port).start()
    front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def choose(sock: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        sock.context = answers.certificates[name or ""]

    front.sni_callback = choose  # type: ignore[assignment]
    front.set_alpn_protocols(["acme-tls/1"])
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", place.tls_port, ssl=front)
    yield answers
    server.close()
    await runner.cleanup()


@contextlib.asynccontextmanager
async def ordering(
    place: Place, folder: Path, answers: Answers, told: list[str], names: Sequence[str] = NAMES, **settings: str
) -> AsyncIterator[Renewals]:
    pebble = place.pebble
    authority = Authority("pebble", pebble.directory, "ops@example.org", str(pebble.ca_file), **settings)
    renewals = Renewals(
        Store(folder),
        publish=answers.publish,
        on_change=lambda: None,
        tell=lambda text, name: told.append(text),
    )
    renewals.want([Wanted(certificate_id(names, authority.directory), tuple(names), authority)])
    task = asyncio.ensure_future(renewals.run())
    try:
        yield renewals
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01"])
async def test_pebble_issues_a_certificate_that_its_root_vouches_for(
    challenge: str, place: Place, tmp_path: Path, answers: Answers
) -> None:
    told: list[str] = []
    async with ordering(place, tmp_path, answers, told, challenge=challenge) as renewals:
        await eventually(renewals.pems, within=60, what=str(told))
        (pem,) = renewals.pems().values()
        assert bool(answers.asked) == (challenge == "http-01")
        chain = x509.load_pem_x509_certificates(pem)
        root = x509.load_pem_x509_certificate(place.pebble.root().encode())
        assert len(chain) == 2
        chain[0].verify_directly_issued_by(chain[1])
        chain[1].verify_directly_issued_by(root)
        renewals.renew(NAMES[0])
        await eventually(lambda: [*renewals.pems().values()] != [pem], within=60, what=str(told))


async def test_an_answer_that_pebble_does_not_find_is_told_with_its_reason(
    place: Place, tmp_path: Path, answers: Answers
) -> None:
    told: list[str] = []

    async def lost(id: str, challenge: str, proofs: Sequence[Proof]) -> None:
        answers.proofs.clear()

    answers.publish = lost  # type: ignore[method-assign]
    async with ordering(place, tmp_path, answers, told, NAMES[:1]) as renewals:
        await eventually(lambda: renewals.fates()[0].failures, within=60, what=str(told))
        assert renewals.fates()[0].failure.startswith("a.example.org: unauthorized: ")


async def test_an_authority_that_comes_back_without_its_accounts_is_registered_with_again(
    place: Place, tmp_path: Path, answers: Answers
) -> None:
    told: list[str] = []
    async with ordering(place, tmp_path, answers, told) as renewals:
        await eventually(lambda: any("issued" in each for each in told), within=60, what="a certificate, on disk")
    before = next(iter(renewals.pems().values()))
    place.pebble.stop()
    async with ordering(place, tmp_path, answers, told) as renewals:
        assert list(renewals.pems().values()) == [before]  # what is stored is served
        renewals.renew(NAMES[0])
        await eventually(lambda: renewals.fates()[0].failures == 1, within=60, what=str(told))
        assert "Cannot connect to host" in renewals.fates()[0].failure
        place.pebble.start()
        renewals.renew(NAMES[0])
        await eventually(lambda: [*renewals.pems().values()] != [before], within=60, what=str(told))


async def test_an_authority_that_takes_its_time_is_waited_for(tmp_path: Path, place: Place, answers: Answers) -> None:
    """Pebble waits up to three seconds before it looks at an answer."""
    told: list[str] = []
    settings = {"PEBBLE_VA_NOSLEEP": "0", "PEBBLE_VA_SLEEPTIME": "3"}
    slow = Place(tmp_path / "slow", place.http_port, place.tls_port, **settings)
    try:
        async with ordering(slow, tmp_path / "state", answers, told) as renewals:
            await eventually(renewals.pems, within=60, what=str(told))
            assert renewals.results == {(NAMES[0], "ok"): 1}
    finally:
        slow.pebble.close()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["after", "before"])
def test_a_kill_at_any_write_places_no_second_order(when: str, place: Place, tmp_path: Path) -> None:
    """SIGKILL before or after each write in turn; the next process goes on, and the certificate comes.

    Before the write of the order's address there is no trace of the order: that is the one kill after which Pebble gets
    a second one.
    """
    second = []
    for number in range(1, MOST_WRITES + 1):
        folder = tmp_path / f"{number}"
        names = [f"n{number}-{when}.example.org"]
        settings = {
            "folder": str(folder),
            "directory": place.pebble.directory,
            "ca_file": str(place.pebble.ca_file),
            "names": names,
            "http_port": place.http_port,
        }
        before = orders(place)
        killed = _run({**settings, "kill_at": number, "when": when})
        if killed.returncode == 0:  # it has fewer writes than that
            break
        assert killed.returncode == -9, killed.stdout
        done = _run(settings)
        assert done.returncode == 0, done.stdout
        assert list(folder.rglob("order.json")) == []
        placed = orders(place) - before
        if placed > 1:
            second.append((number, placed, killed.stdout.split("\n")[-2:]))
    else:
        raise AssertionError("more writes than expected")
    assert number > 6
    assert len(second) == (1 if when == "before" else 0), second


def _run(settings: dict[str, object]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.issuing.orderer", json.dumps(settings)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=90)


def orders(place: Place) -> int:
    """Orders that Pebble has accepted."""
    return len(re.findall(r"Added order", place.pebble.log()))
