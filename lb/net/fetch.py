"""A document from another server: whole, bounded in size and time, or a sentence that says why not."""

from __future__ import annotations

import asyncio

from lb import USER_AGENT
from lb.net.actions import without_secrets


class FetchError(Exception):
    """There is no document; the text says why."""


async def fetch(url: str, timeout: float, most: int) -> bytes:
    """The body of an answer with 200, of at most so many bytes. Redirects are not followed: keys come from where the
    file says. Raises `FetchError`."""
    import aiohttp  # slow to import, and most configurations fetch nothing

    where = without_secrets(url)
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=timeout), headers={"User-Agent": USER_AGENT}
            ) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise FetchError(f"{where} answered {answer.status}")
            data = bytearray()
            async for piece in answer.content.iter_any():
                data += piece
                if len(data) > most:
                    raise FetchError(f"{where} sent more than {most} bytes")
            return bytes(data)
    except TimeoutError:
        raise FetchError(f"{where} did not answer within {timeout:g} s") from None
    except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError, ValueError) as error:
        raise FetchError(f"{where}: {str(error) or type(error).__name__}") from None
