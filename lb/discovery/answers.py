"""What sources over HTTP have in common: bounded bodies, refusals, and what is said of an answer that comes late."""

from __future__ import annotations

from dataclasses import replace

import aiohttp

from lb.core.membership import Answer
from lb.core.printable import printable
from lb.discovery.failures import in_words
from lb.discovery.source import NoAnswer

#: Statuses that stay for a while: what lb shows the server, or what that allows, has to change.
DENIED = (401, 403)
#: Characters of a server's own words that are shown.
MOST_WORDS = 300


class Refused(NoAnswer):
    """The server has answered with a failure. `wait`: seconds at least until it may be asked again."""

    def __init__(self, text: str, status: int, wait: float = 0.0) -> None:
        super().__init__(text)
        self.status = status
        self.wait = wait


async def read(response: aiohttp.ClientResponse, server: str, most: int, read_before: int = 0) -> bytearray:
    """A body, which has at most `most` octets together with pages that were read before. Raises `NoAnswer`.

    `server`: its name, for people.
    """
    raw = bytearray()
    try:
        async for piece in response.content.iter_chunked(65536):
            raw += piece
            if read_before + len(raw) > most:
                size = f"{most >> 20} MiB" if most >= 1 << 20 else f"{most >> 10} KiB"
                raise NoAnswer(f"{server} answered more than {size}")
    except (OSError, aiohttp.ClientError) as error:
        raise NoAnswer(f"{server} has broken off its answer: {in_words(error)}") from None
    return raw


def refusal(response: aiohttp.ClientResponse, server: str, said: bytes, hint: str, longest: float) -> Refused:
    """A failed request as an exception.

    `said`: the server's own words. `hint`: what helps where access is forbidden (403). `longest`: seconds for which the
    server may put lb off (`Retry-After`).
    """
    words = printable(said, MOST_WORDS)
    after = response.headers.get("Retry-After", "")
    wait = min(float(after), longest) if after.isascii() and after.isdecimal() else 0.0
    more = f"{f': {words}' if words else ''}{f'; {hint}' if response.status == 403 else ''}"
    return Refused(f"{server} answered {response.status}{more}", response.status, wait)


def noticed_late(answer: Answer, trouble: str) -> Answer:
    """The answer, with why its changes are not noticed at once; no trouble: as it is."""
    if not trouble:
        return answer
    return replace(answer, problems=(f"changes are noticed late: {trouble}", *answer.problems))
