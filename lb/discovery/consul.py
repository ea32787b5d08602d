"""Targets from Consul: the instances of a service, by blocking queries to an agent.

A query without an index is answered at once and says whether the source is up. After that, each query waits for a
change since the last index. Whatever ends such a query without an answer, a cut, silence, an agent that goes, the next
one is without an index, and has all that was missed. The last answer stays until then.

Queries are paced by a token bucket, as Consul's documentation asks of clients: two may follow each other at once, and
an agent that answers every query at once is asked once a second.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from yarl import URL

from lb.config.model.discovery import Consul
from lb.core.membership import Answer
from lb.core.rate_limit import TokenBucket
from lb.discovery.answers import DENIED, Refused, noticed_late, read, refusal
from lb.discovery.backoff import backoff
from lb.discovery.consul_query import START, Said, longest_wait, said_of, target_of
from lb.discovery.credentials import read_text
from lb.discovery.failures import in_words
from lb.discovery.server_address import ServerAddress
from lb.discovery.source import Newest, NoAnswer, Tell

#: Octets of an answer that are read at most, and of the agent's words on a failure.
MOST_OCTETS, MOST_OF_WORDS = 32 << 20, 1 << 16


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds."""

    connect: float = 2.0
    #: For a whole answer to a query without an index.
    answer: float = 10.0
    #: A query with an index is given up so long after it should have been answered.
    grace: float = 5.0
    #: One query comes in so long, on average.
    interval: float = 1.0
    #: The first wait after a failure, the longest one, and that while access is denied.
    first: float = 0.1
    longest: float = 1.5
    longest_denied: float = 10.0


#: Queries that may follow each other at once.
BURST = 2


class Silent(NoAnswer):
    """A query with an index was not answered in time."""


class ConsulSource:
    """One service."""

    def __init__(self, settings: Consul, pace: Pace | None = None, dice: Callable[[], float] = random.random) -> None:
        self._settings = settings
        self._pace = pace or Pace()
        self._dice = dice
        self._agent = ServerAddress(settings.address, settings.tls)
        self._bucket = TokenBucket(1, self._pace.interval, BURST)
        self._full_at = 0.0  # of the bucket

    async def ask(self) -> Answer:
        async with self._session() as session:
            return (await self._query(session, START)).answer

    async def watch(self, tell: Tell) -> None:
        newest = Newest(tell)
        failures = missed = 0  # queries without and with an index that have failed in a row
        index, trouble = START, ""
        async with self._session() as session:
            while True:
                await self._turn()
                began = time.monotonic()
                try:
                    said = await self._query(session, index)
                except NoAnswer as error:
                    if index != START:
                        trouble = str(error)
                        worked = time.monotonic() - began > self._pace.longest_denied and not isinstance(error, Silent)
                        missed = 1 if worked else missed + 1
                        index = START
                    else:
                        newest(error)
                        failures += 1
                        await asyncio.sleep(self._wait(failures, error))
                    continue
                failures = 0
                missed = 0 if index != START else missed
                newest(noticed_late(said.answer, trouble if missed > 1 else ""))
                index = said.index

    async def _turn(self) -> None:
        """Wait until a query may be sent."""
        full_at = self._bucket.take(self._full_at, time.monotonic())
        if full_at < 0.0:
            await asyncio.sleep(-full_at)
            full_at = self._full_at + self._bucket.interval  # a token has come, and is taken
        self._full_at = full_at

    def _wait(self, failures: int, error: NoAnswer) -> float:
        """Seconds after so many failures in a row."""
        refused = error if isinstance(error, Refused) else None
        denied = refused is not None and refused.status in DENIED
        longest = self._pace.longest_denied if denied else self._pace.longest
        wait = backoff(failures, self._pace.first, longest, self._dice())
        return max(wait, refused.wait if refused is not None else 0.0)

    # --- queries -----------------------------------------------------------------------------------------------------

    def _session(self) -> aiohttp.ClientSession:
        return self._agent.session(aiohttp.ClientTimeout(total=None, sock_connect=self._pace.connect))

    async def _query(self, session: aiohttp.ClientSession, index: int) -> Said:
        """The answer to one query. Raises `NoAnswer`."""
        waits = index != START
        limit = longest_wait(self._settings) + self._pace.grace if waits else self._pace.answer
        address = self._settings.address
        try:
            async with asyncio.timeout(limit):
                return await self._get(session, index)
        except TimeoutError:
            text = f"{address} did not answer within {limit:g} s"
            raise (Silent if waits else NoAnswer)(text) from None
        except (OSError, aiohttp.ClientError, ValueError) as error:
            raise NoAnswer(f"{address} cannot be asked: {in_words(error)}") from None

    async def _get(self, session: aiohttp.ClientSession, index: int) -> Said:
        settings = self._settings
        token = await self._token()
        async with session.get(
            URL(target_of(settings, index), encoded=True),
            headers={"X-Consul-Token": token} if token else None,
            allow_redirects=False,  # the token is for this agent
            **await self._agent.secured(),
        ) as response:
            if response.status != 200:
                words = bytes(await read(response, settings.address, MOST_OF_WORDS)).strip()
                hint = "docs/discovery.md has the policy that lb needs"
                raise refusal(response, settings.address, words, hint, self._pace.longest_denied)
            raw = await read(response, settings.address, MOST_OCTETS)
        return said_of(settings, index, response.headers, raw, bool(token))

    async def _token(self) -> str:
        """The token as its file is now; empty: none is given. Raises `NoAnswer`."""
        if self._settings.token_file is None:
            return ""
        return await asyncio.to_thread(read_text, Path(self._settings.token_file), "Consul's token")
