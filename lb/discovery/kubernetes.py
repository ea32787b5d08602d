"""Targets from Kubernetes: the EndpointSlices of a Service.

A list says what there is, and a watch what changes after that. The watch goes on from the version that it has reached,
which bookmarks keep fresh. Whatever else ends it, the next list has all that was missed: a cut, an event that cannot be
read, a version that the server no longer knows (410), silence. The last answer stays until that list has come.

So the list tells whether the source is up. Where only the watch fails, lists are asked for again and again, and the
answer says why.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from lb import USER_AGENT
from lb.config.model.discovery import Kubernetes
from lb.core.membership import Answer, Debounce
from lb.discovery.answers import DENIED, Refused, noticed_late, read, refusal
from lb.discovery.backoff import backoff
from lb.discovery.failures import in_words
from lb.discovery.kubernetes_access import ACCOUNT, Access, access_of_file, access_of_pod
from lb.discovery.kubernetes_events import (
    GONE,
    MOST_OF_EVENT,
    Garbled,
    Outdated,
    Page,
    Slices,
    read_page,
    read_status,
)
from lb.discovery.lines import Lines, TooLong
from lb.discovery.source import Newest, NoAnswer, Tell
from lb.net.tls import contexts

#: Octets of a list that are read at most, and of the server's word on a failure.
MOST_OCTETS, MOST_OF_STATUS = 64 << 20, 1 << 16
#: Slices of one page of a list. A slice has 100 endpoints, unless the cluster says otherwise.
PAGE = 500


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds."""

    connect: float = 2.0
    #: For a whole list, and for the beginning of a watch's answer.
    answer: float = 10.0
    #: One watch, which the server ends; it is given up `grace` later.
    watch: float = 30.0
    grace: float = 3.0
    #: After so long the list is asked for although the watch has not failed.
    relist: float = 300.0
    #: The first wait after a failure, the longest one when no list is had, and when it is denied or only watches fail.
    first: float = 0.1
    longest: float = 1.5
    longest_denied: float = 10.0


class Silent(NoAnswer):
    """A watch has neither begun nor ended in time."""


class KubernetesSource:
    """One Service."""

    def __init__(
        self,
        settings: Kubernetes,
        pace: Pace | None = None,
        account: Path = ACCOUNT,
        environ: Mapping[str, str] = os.environ,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._pace = pace or Pace()
        self._account = account
        self._environ = environ
        self._dice = dice
        self._access: Access | None = None
        self._context: ssl.SSLContext | None = None

    async def ask(self) -> Answer:
        async with self._session() as session:
            return (await self._list(session)).answer()

    async def watch(self, tell: Tell) -> None:
        newest = Newest(tell)
        failures = missed = 0  # lists and watches that have failed in a row
        trouble, silent = "", False
        async with self._session() as session:
            while True:
                try:
                    slices = await self._list(session)
                except NoAnswer as error:
                    newest(error)
                    failures += 1
                    await asyncio.sleep(self._wait(failures, error))
                    continue
                failures = 0
                newest(noticed_late(slices.answer(), trouble if missed > 1 else ""))
                began = time.monotonic()
                try:
                    await self._follow(session, slices, newest, silent)
                    missed, silent = 0, False
                except Outdated:
                    trouble = "the API server forgets versions sooner than they can be asked for"
                    missed, silent = missed + 1, False
                except NoAnswer as error:
                    trouble, silent = str(error), isinstance(error, Silent)
                    worked = time.monotonic() - began > self._pace.longest_denied and not silent
                    missed = 1 if worked else missed + 1
                await asyncio.sleep(self._wait(missed))

    def _wait(self, failures: int, error: NoAnswer | None = None) -> float:
        """Seconds after so many failures in a row. `error`: why there is no list; None: only watches fail."""
        denied = error is None or (isinstance(error, Refused) and error.status in DENIED)
        longest = self._pace.longest_denied if denied else self._pace.longest
        wait = backoff(failures, self._pace.first, longest, self._dice())
        return max(wait, error.wait if isinstance(error, Refused) else 0.0)

    # --- lists and watches -------------------------------------------------------------------------------------------

    async def _list(self, session: aiohttp.ClientSession) -> Slices:
        """All slices. Raises `NoAnswer`."""
        try:
            async with asyncio.timeout(self._pace.answer):
                try:
                    return await self._pages(session, PAGE)
                except Outdated:  # between two pages; the whole list is of one version
                    return await self._pages(session, 0)
        except TimeoutError:
            raise NoAnswer(f"{self._server()} did not answer within {self._pace.answer:g} s") from None
        except Outdated:
            raise NoAnswer(f"{self._server()} answered {GONE} to a list") from None

    async def _pages(self, session: aiohttp.ClientSession, limit: int) -> Slices:
        slices = Slices(self._settings.service, self._settings.port, self._settings.scheme)
        next, length = "", 0
        while True:
            query = {"limit": str(limit)} if limit else {}
            if next:
                query["continue"] = next
            page, length = await self._page(session, query, length)
            next = slices.add(page)
            if not next:
                return slices

    async def _page(self, session: aiohttp.ClientSession, query: dict[str, str], before: int) -> tuple[Page, int]:
        """A page, and the octets up to its end. `before`: those of the pages before."""
        response = await self._get(session, query)
        try:
            raw = await read(response, self._server(), MOST_OCTETS, before)
            return read_page(raw), before + len(raw)
        except Garbled as error:
            raise NoAnswer(f"{self._server()}: {error}") from None
        finally:
            response.close()

    async def _follow(self, session: aiohttp.ClientSession, slices: Slices, newest: Newest, silent: bool) -> None:
        """Tell what changes, in watch after watch. `silent`: the last one was, so that a begin alone is no good news.
        Raises `NoAnswer` and `Outdated`."""
        until = time.monotonic() + self._pace.relist
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._pace.watch + self._pace.grace):
                    await self._watch(session, slices, newest, silent)
            except TimeoutError:
                raise Silent(f"{self._server()} does not end its watches, or does not begin them") from None
            silent = False
            if time.monotonic() - began < self._pace.first:  # it ends them as they begin
                await asyncio.sleep(self._pace.longest * (1 - self._dice() / 2))

    async def _watch(self, session: aiohttp.ClientSession, slices: Slices, newest: Newest, silent: bool) -> None:
        """One watch, until the server ends it."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": slices.version,
            "timeoutSeconds": f"{max(1.0, self._pace.watch * (1 - self._dice() / 10)):.0f}",
        }
        async with asyncio.timeout(self._pace.answer):
            response = await self._get(session, query)
        try:
            if not silent:
                newest(slices.answer())
            await self._hear(response.content, slices, newest)
        except (Garbled, TooLong) as error:
            raise NoAnswer(f"{self._server()}: {error}") from None
        except (OSError, aiohttp.ClientError) as error:
            raise NoAnswer(f"{self._server()} has broken its watch off: {in_words(error)}") from None
        finally:
            response.close()

    async def _hear(self, stream: aiohttp.StreamReader, slices: Slices, newest: Newest) -> None:
        """Tell what the events of one watch say; those of a burst together."""
        lines, burst = Lines(MOST_OF_EVENT), Debounce(quiet=0.02, longest=0.2)
        while True:
            due = burst.due()
            if due is not None and time.monotonic() >= due:
                burst.taken()
                newest(slices.answer())
                continue
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - time.monotonic())):
                    data = await stream.readany()
            except TimeoutError:
                if due is None:
                    raise
                continue
            whole = lines.add(data) if data else []
            changed = False
            try:
                for line in whole:
                    changed |= slices.apply(line)
            finally:
                if changed:
                    burst.changed(time.monotonic())
            if whole and burst.due() is None:
                newest(slices.answer())  # a bookmark: nothing has changed up to now
            if not data:
                if burst.due() is not None:
                    newest(slices.answer())
                if lines.cut:
                    raise Garbled("it has broken its watch off within an event")
                return

    # --- requests ----------------------------------------------------------------------------------------------------

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=4),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._pace.connect),
            headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def _get(self, session: aiohttp.ClientSession, query: dict[str, str]) -> aiohttp.ClientResponse:
        """An answer with 200 that has begun. Raises `NoAnswer` and `Outdated`."""
        shown = await self._current()
        response = await self._ask(session, shown, query)
        if response.status == 401 and (now := await self._current()) != shown:  # replaced in this moment
            response.close()
            response = await self._ask(session, now, query)
        if response.status == 200:
            return response
        try:
            if response.status == GONE:
                raise Outdated
            raise await self._refusal(response)
        finally:
            response.close()

    async def _ask(
        self, session: aiohttp.ClientSession, access: Access, query: dict[str, str]
    ) -> aiohttp.ClientResponse:
        namespace = self._settings.namespace or access.namespace or "default"
        try:
            return await session.get(
                f"{access.server}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
                params={"labelSelector": f"kubernetes.io/service-name={self._settings.service}", **query},
                headers={"Authorization": f"Bearer {access.token}"} if access.token else None,
                ssl=self._context if self._context is not None else True,
                server_hostname=access.tls.server_name or None if access.tls is not None else None,
                allow_redirects=False,  # the token is for this server
                read_bufsize=MOST_OF_EVENT,
            )
        except (OSError, aiohttp.ClientError, ValueError) as error:
            raise NoAnswer(f"{access.server} cannot be asked: {in_words(error)}") from None

    async def _current(self) -> Access:
        """The server and the credentials as the files say now. Raises `NoAnswer`."""
        access = await asyncio.to_thread(self._read_files)
        if access != self._access:
            self._access, self._context = access, None
        if self._context is None and access.tls is not None:
            try:
                self._context = await asyncio.to_thread(contexts.client_context, access.tls, (), access.contents)
            except OSError as error:
                reason = in_words(error)
                raise NoAnswer(f"certificates for {access.server} cannot be used: {reason}") from None
        return access

    def _read_files(self) -> Access:
        if self._settings.kubeconfig is not None:
            return access_of_file(Path(self._settings.kubeconfig), self._settings.context)
        return access_of_pod(self._environ, self._account)

    def _server(self) -> str:
        return self._access.server if self._access is not None else "the API server"

    async def _refusal(self, response: aiohttp.ClientResponse) -> Refused:
        raw = await read(response, self._server(), MOST_OF_STATUS)
        said = read_status(raw).message.encode()
        hint = "docs/discovery.md has the role that lb needs"
        return refusal(response, self._server(), said, hint, self._pace.longest_denied)
