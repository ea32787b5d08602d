"""Passwords against slow hashes: off the loop, a bounded number at once, results kept for a moment."""

from __future__ import annotations

import asyncio
import threading

import argon2
import bcrypt
import pytest

from lb.core.user_file import hash_fault, read_users
from lb.proxy import passwords
from lb.proxy.passwords import AT_ONCE, MOST_OF_ONE, Passwords, matches
from tests.support.eventually_async import eventually

# The same salts in each process: the hashes are in the names of tests.
BCRYPT = bcrypt.hashpw(b"secret", b"$2b$04$" + b"abcdefghijklmnopqrstuu")
ARGON2 = argon2.PasswordHasher(1, 8, 1).hash("secret", salt=b"sixteen bytes ok").encode()


class Asker:
    def __init__(self, peer: bytes = b"192.0.2.1") -> None:
        self.peer = peer
        self.result: bool | None = None

    def decided(self, right: bool) -> None:
        assert self.result is None
        self.result = right


class Slow:
    """Hashes that take until they are let go. The password `right` is right."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked: list[bytes] = []
        self.running = self.most = 0

    def __call__(self, stored: bytes, password: bytes) -> bool:
        self.asked.append(password)
        self.running += 1
        self.most = max(self.most, self.running)
        assert self.go.wait(10)
        self.running -= 1
        if password == b"broken":
            raise ValueError(password)
        return password == b"right"


async def settled(*askers: Asker) -> None:
    await eventually(lambda: all(each.result is not None for each in askers))


def check(each: Passwords, password: bytes, asker: Asker) -> bool:
    return each.check(each.key_of(b"u", password, b"h"), password, b"h", asker)


async def test_one_hash_for_all_who_show_the_same_password_and_the_loop_goes_on() -> None:
    slow = Slow()
    each = Passwords(asyncio.get_running_loop(), slow)
    askers = [Asker() for _ in range(5)]
    assert all(check(each, b"right", asker) for asker in askers)
    await asyncio.sleep(0.02)
    assert [asker.result for asker in askers] == [None] * 5
    slow.go.set()
    await settled(*askers)
    assert [asker.result for asker in askers] == [True] * 5
    assert slow.asked == [b"right"]
    assert each.known(each.key_of(b"u", b"right", b"h")) is True
    for other in (
        (b"v", b"right", b"h"),
        (b"u", b"right2", b"h"),
        (b"u", b"right", b"changed"),
        (b"ur", b"ight", b"h"),
    ):
        assert each.known(each.key_of(*other)) is None
    each.close()


async def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "MOST_WAITING", 10)
    slow = Slow()
    each = Passwords(asyncio.get_running_loop(), slow)
    mine = [Asker() for _ in range(MOST_OF_ONE)]
    assert all(check(each, b"%d" % number, asker) for number, asker in enumerate(mine))
    assert not check(each, b"one more", Asker())  # of one address
    others = [Asker(b"%d" % number) for number in range(4)]
    assert all(check(each, b"other %d" % number, asker) for number, asker in enumerate(others))
    assert not check(each, b"too many", Asker(b"another"))
    slow.go.set()
    await settled(*mine, *others)
    assert slow.most <= AT_ONCE
    asker = Asker()
    assert check(each, b"right", asker)
    await settled(asker)
    assert asker.result is True
    each.close()


async def test_what_nobody_waits_for_is_not_begun() -> None:
    slow = Slow()
    each = Passwords(asyncio.get_running_loop(), slow)
    askers = [Asker() for _ in range(AT_ONCE + 1)]
    for number, asker in enumerate(askers):
        check(each, b"%d" % number, asker)
    gone = askers.pop()
    each.forget(each.key_of(b"u", b"%d" % AT_ONCE, b"h"), gone)
    slow.go.set()
    await settled(*askers)
    await asyncio.sleep(0.02)
    assert len(slow.asked) == AT_ONCE
    assert gone.result is None
    each.close()


async def test_results_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    slow.go.set()
    each = Passwords(asyncio.get_running_loop(), slow)
    monkeypatch.setattr(passwords, "WRONG_FOR", 0.0)
    monkeypatch.setattr(passwords, "MOST_KEPT", 2)
    for password in (b"wrong", b"broken", b"right", b"other"):
        check(each, password, asker := Asker())
        await settled(asker)
        assert asker.result is (password == b"right")
        assert each.known(each.key_of(b"u", password, b"h")) is (True if password == b"right" else None)
    assert each.computed == 4
    assert each.known(each.key_of(b"u", b"right", b"h")) is True
    for password in (b"more", b"and more"):
        check(each, password, asker := Asker())
        await settled(asker)
    assert each.known(each.key_of(b"u", b"right", b"h")) is None
    each.close()


@pytest.mark.parametrize("stored", [BCRYPT, BCRYPT.replace(b"$2b$", b"$2y$"), ARGON2])
def test_hashes(stored: bytes) -> None:
    assert hash_fault(stored) == ""
    assert matches(stored, b"secret")
    assert not matches(stored, b"Secret")
    assert not matches(stored, b"")


def test_bcrypt_reads_72_bytes_as_htpasswd_does() -> None:
    stored = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4))
    assert matches(stored, b"x" * 80)
    assert not matches(stored, b"x" * 71)


def test_a_file_of_users() -> None:
    data = b"# office\n\nanna:" + BCRYPT + b":comment\r\n b.c@x :" + ARGON2 + b"\n"
    assert read_users(data) == ({b"anna": BCRYPT, b"b.c@x ": ARGON2}, [])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"anna", "NAME:HASH"),
        (b":" + BCRYPT, "NAME:HASH"),
        (b"a\x01b:" + BCRYPT, "NAME:HASH"),
        (b"a:$apr1$x$y", "apr1"),
        (b"a:{SHA}x", "SHA-1"),
        (b"a:$6$x$y", "SHA-512 crypt"),
        (b"a:secret", "neither bcrypt nor argon2"),
        (b"a:" + BCRYPT.replace(b"$04$", b"$17$"), "bcrypt's cost is 17"),
        (b"a:" + BCRYPT.replace(b"$2b$", b"$2x$"), "faulty bcrypt"),
        (b"a:" + ARGON2.replace(b"m=8", b"m=4194304"), "argon2's cost"),
        (b"anna:" + BCRYPT + b"\nanna:" + BCRYPT, "listed twice"),
    ],
)
def test_lines_that_are_no_users(line: bytes, reason: str) -> None:
    _, bad = read_users(line)
    assert len(bad) == 1
    assert reason in bad[0].reason
