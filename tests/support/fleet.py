"""Many clients in one thread, each on a kept connection, that write down every answer they get.

`Load` of `stage` counts; a `Fleet` remembers: which version answered, when the request was sent and when its answer had
come. That is what claims about switches are checked against.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Self


class Seen(NamedTuple):
    """One request as its client saw it; times are monotonic."""

    client: int
    sent: float
    done: float
    status: int  # 0: no answer
    version: str  # the pool that answered; empty: none said so


class Fleet:
    """`clients` connections that ask again and again; `rps` is for all together, 0: as fast as it goes."""

    def __init__(
        self,
        url: str,
        clients: int = 8,
        rps: float = 0.0,
        headers: Callable[[int], str] = lambda client: "",
        body: bytes = b"",
        names: int = 0,
    ) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._address = (host, int(port))
        self._clients = clients
        self._pause = clients / rps if rps else 0.0
        self._headers = headers
        self._body = body
        self._names = itertools.cycle(range(names)) if names else None  # clients take turns with so many identities
        self.seen: list[Seen] = []
        self.limit = 0  # stop by itself after so many requests; 0: go on
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> list[Seen]:
        """End the clients after the answers that they wait for."""
        self._stop.set()
        self._thread.join(20)
        return self.seen

    def versions(self, since: float = 0.0) -> Counter[str]:
        """Answers by version, of requests sent after `since`."""
        return Counter(seen.version for seen in self.seen if seen.sent >= since)

    @property
    def failed(self) -> list[Seen]:
        """What a client would call an error."""
        return [seen for seen in self.seen if not 200 <= seen.status < 400]

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self._clients)))

    async def _client(self, number: int) -> None:
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        due = time.monotonic() + number * self._pause / self._clients
        while not self._stop.is_set() and not (self.limit and len(self.seen) >= self.limit):
            if self._pause:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due += self._pause
            name = next(self._names) if self._names else number
            sent, status, version = time.monotonic(), 0, ""
            try:
                if reader is None or writer is None:
                    reader, writer = await asyncio.open_connection(*self._address)
                writer.write(self._request(name))
                async with asyncio.timeout(15):
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = re.search(rb"(?i)content-length: *([0-9]+)", head)
                    text = await reader.readexactly(int(length[1]) if length else 0)
                status = int(head[9:12])
                found = re.search(rb'"version": *"([^"]+)"', text)
                version = found[1].decode() if found else ""
                if b"connection: close" in head.lower():
                    writer.close()
                    reader = writer = None
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                if writer is not None:
                    writer.close()
                reader = writer = None
                await asyncio.sleep(0.01)
            self.seen.append(Seen(name, sent, time.monotonic(), status, version))
        if writer is not None:
            writer.close()

    def _request(self, name: int) -> bytes:
        method = b"POST" if self._body else b"GET"
        length = b"Content-Length: %d\r\n" % len(self._body) if self._body else b""
        return b"%b /greeting HTTP/1.1\r\nHost: t\r\n%b%b\r\n%b" % (
            method,
            self._headers(name).encode(),
            length,
            self._body,
        )
