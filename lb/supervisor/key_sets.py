"""The sets of keys that verify tokens (JWKS) and come from a URL: fetched here, once for all workers.

A set is taken in like a file: `held` gives its contents, which become part of the world, so that workers get them as
they get certificates. A set that cannot be fetched, or has no key that can verify, changes nothing: the former one
stays, also over a restart, as the last one is on the disk. A configuration without a URL costs nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from lb.config.model.config import Config
from lb.config.tls_files import Held
from lb.net.atomic_file import write
from lb.net.fetch import FetchError, fetch
from lb.net.jwks import LARGEST, BadKeys, read_keys

#: Seconds between two looks at what is due.
LOOK_EVERY = 0.25
#: Seconds of one fetch.
WITHIN = 10.0
#: Seconds between two fetches because of a token's unknown key.
ASKED_EVERY = 60.0
#: Seconds before a fetch that failed is tried again: the first time, doubled each time, up to the longest.
AGAIN, LONGEST = 1.0, 60.0

Fetch = Callable[[str, float, int], Awaitable[bytes]]


class _Source:
    """One URL."""

    def __init__(self, refresh: float) -> None:
        self.refresh = refresh
        self.data = b""
        self.due = 0.0
        self.fetched = float("-inf")  # when it was last asked
        self.failures = 0  # in a row


class KeySets:
    """All of one supervisor. `tell` gets what people should know."""

    def __init__(
        self,
        directory: Path,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        fetch: Fetch = fetch,
    ) -> None:
        self._directory = directory
        self._tell = tell
        self._clock = clock
        self._fetch = fetch
        self._sources: dict[str, _Source] = {}  # by URL
        self._changed = False

    def configure(self, config: Config) -> None:
        """A configuration is in force: want its URLs. Reads what is stored."""
        wanted: dict[str, float] = {}
        for route in config.routes:
            for step in route.steps:
                if step.jwt is not None and step.jwt.jwks is not None:
                    url, refresh = step.jwt.jwks, step.jwt.refresh
                    wanted[url] = min(refresh, wanted.get(url, refresh))
        for url, refresh in wanted.items():
            source = self._sources.get(url)
            if source is None:
                source = self._sources[url] = _Source(refresh)
                source.data = self._stored(url)
            source.refresh = refresh
            source.due = min(source.due, self._clock() + refresh)
        for url in self._sources.keys() - wanted.keys():
            del self._sources[url]

    def held(self) -> Held:
        """The sets that are there, by their URLs."""
        return {url: source.data for url, source in list(self._sources.items()) if source.data}

    def asked(self, urls: Iterable[str]) -> None:
        """A token has named a key that is in none of these sets."""
        for url in urls:
            source = self._sources.get(url)
            if source is not None and not source.failures:
                source.due = min(source.due, source.fetched + ASKED_EVERY)

    async def run(self, take_in: Callable[[], Awaitable[bool]]) -> None:
        """Fetch what is due, for as long as lb runs. `take_in` has new sets served; False: that has to wait."""
        while True:
            await self.look(take_in)
            await asyncio.sleep(LOOK_EVERY)

    async def look(self, take_in: Callable[[], Awaitable[bool]]) -> None:
        """One look."""
        due = [url for url, source in self._sources.items() if source.due <= self._clock()]
        if due:
            await asyncio.gather(*(self._refresh(url, self._sources[url]) for url in due))
        if self._changed and await take_in():
            self._changed = False

    async def _refresh(self, url: str, source: _Source) -> None:
        source.fetched = self._clock()
        try:
            data = await self._fetch(url, WITHIN, LARGEST)
            keys = await asyncio.to_thread(read_keys, data)
        except (FetchError, BadKeys) as error:
            if not source.failures:
                kept = "the former ones stay" if source.data else "its routes let nobody in until they come"
                reason = str(error) if isinstance(error, FetchError) else f"{url}: {error}"
                self._tell(f"keys for tokens cannot be fetched, {kept}: {reason}")
            wait = min(AGAIN * 2.0 ** min(source.failures, 10), LONGEST)
            source.failures += 1
            source.due = self._clock() + (min(wait, source.refresh) if source.data else wait)
            return
        if source.failures:
            self._tell(f"keys for tokens can be fetched again: {url}")
        source.failures = 0
        source.due = self._clock() + source.refresh
        if data == source.data or self._sources.get(url) is not source:
            return
        if source.data:
            self._tell(f"keys for tokens have changed: {url} has {len(keys)} now")
        source.data = data
        self._changed = True
        try:
            await asyncio.to_thread(write, self._file(url), data)
        except OSError as error:
            self._tell(f"keys for tokens cannot be stored: {error.strerror or error}")

    def _file(self, url: str) -> Path:
        return self._directory / f"jwks-{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"

    def _stored(self, url: str) -> bytes:
        try:
            data = self._file(url).read_bytes()
            read_keys(data)
        except (OSError, BadKeys):
            return b""
        return data
