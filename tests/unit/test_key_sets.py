"""Keys for tokens from a URL: fetched again and again, kept when they cannot be, stored for a restart."""

from __future__ import annotations

from pathlib import Path

from lb.config.load import load_text
from lb.net.fetch import FetchError
from lb.supervisor.key_sets import KeySets
from tests.support.tokens import ALL, EC, jwk, jwks

URL = "https://id.example/jwks"
CONFIG = load_text(
    "services: {s: {pools: {p: {targets: ['h:1']}}}}\nroutes:\n"
    f"  - {{service: s, steps: [{{jwt: {{jwks: '{URL}', refresh: 100s}}}}]}}\n"
    f"  - {{service: s, path: /a, steps: [{{jwt: {{jwks: '{URL}', refresh: 300s}}}}]}}\n"
)
WITHOUT = load_text("services: {s: {pools: {p: {targets: ['h:1']}}}}\n")


class World:
    """The issuer, the clock, and what the supervisor does with the keys."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.answer: bytes | str = ALL
        self.fetches = 0
        self.taken: list[dict[str, bytes]] = []
        self.said: list[str] = []
        self.free = True
        self.keys = KeySets(folder, self.said.append, lambda: self.now, self.fetch)
        self.keys.configure(CONFIG)

    async def fetch(self, url: str, timeout: float, most: int) -> bytes:
        assert (url, timeout > 0, most > 0) == (URL, True, True)
        self.fetches += 1
        if isinstance(self.answer, str):
            raise FetchError(self.answer)
        return self.answer

    async def take_in(self) -> bool:
        if self.free:
            self.taken.append(dict(self.keys.held()))
        return self.free

    async def pass_time(self, seconds: float) -> int:
        """How many fetches there were within so many seconds."""
        before, until = self.fetches, self.now + seconds
        while self.now < until:
            self.now += 0.5
            await self.keys.look(self.take_in)
        return self.fetches - before


async def test_keys_are_fetched_and_taken_in_when_they_change(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.keys.held() == {}
    assert await world.pass_time(50) == 1
    assert world.taken == [{URL: ALL}]
    assert await world.pass_time(250) == 2
    assert len(world.taken) == 1
    world.answer = jwks(jwk(EC))
    await world.pass_time(100)
    assert world.taken[1:] == [{URL: world.answer}]
    assert world.said == [f"keys for tokens have changed: {URL} has 1 now"]


async def test_keys_stay_while_they_cannot_be_fetched(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.pass_time(1)
    for answer in ("id.example answered 500", b"{}", jwks({"kty": "oct", "k": "AA"}), b"<html>"):
        world.answer = answer
        assert 3 <= await world.pass_time(300) <= 12
        assert world.keys.held() == {URL: ALL}
        world.answer = ALL
        await world.pass_time(100)
    assert len(world.taken) == 1
    assert [text.partition(",")[0] for text in world.said] == [
        "keys for tokens cannot be fetched",
        f"keys for tokens can be fetched again: {URL}",
    ] * 4


async def test_an_unknown_key_has_them_fetched_once_a_minute(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.pass_time(10)
    fetched = 0
    for _ in range(50):
        world.keys.asked([URL, "https://other.example/"])
        fetched += await world.pass_time(1)
    assert fetched == 0
    for _ in range(15):
        world.keys.asked([URL])
        fetched += await world.pass_time(1)
    assert fetched == 1


async def test_the_last_set_is_there_after_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.pass_time(1)
    again = World(tmp_path)
    again.answer = "down"
    assert again.keys.held() == {URL: ALL}
    await again.pass_time(5)
    assert again.keys.held() == {URL: ALL}
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
        file.write_bytes(b"{")
    assert World(tmp_path).keys.held() == {}


async def test_what_has_to_wait_is_taken_in_later(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.free = False
    await world.pass_time(5)
    assert not world.taken
    world.free = True
    await world.pass_time(1)
    assert world.taken == [{URL: ALL}]


async def test_a_reload_may_want_them_no_more(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.pass_time(1)
    world.keys.configure(WITHOUT)
    assert world.keys.held() == {}
    assert await world.pass_time(500) == 0
    world.keys.configure(CONFIG)
    assert world.keys.held() == {URL: ALL}
    world.keys.configure(CONFIG)
    assert await world.pass_time(50) == 1
