"""A server of a source at a URL: on a Unix socket, over TCP, or over TLS."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import aiohttp

from lb import USER_AGENT
from lb.config.model.checks import ClientTls
from lb.discovery.tls import TlsFiles

#: Connections to one server at most.
CONNECTIONS = 4


class ServerAddress:
    """`unix:///PATH`, or `http`, `https` or `tcp` with host and port. `tcp` is over TLS where `tls` is given."""

    def __init__(self, url: str, tls: ClientTls | None) -> None:
        self._url = urlsplit(url)
        self._tls = TlsFiles(tls or ClientTls()) if tls is not None or self._url.scheme == "https" else None

    def session(self, timeout: aiohttp.ClientTimeout | None = None) -> aiohttp.ClientSession:
        """A session whose requests name paths alone. Each request is to be given `secured()` as well."""
        connector: aiohttp.BaseConnector
        if self._url.scheme == "unix":
            connector, base = aiohttp.UnixConnector(self._url.path, limit=CONNECTIONS), "http://localhost/"
        else:
            scheme = "https" if self._tls is not None else "http"
            connector, base = aiohttp.TCPConnector(limit=CONNECTIONS), f"{scheme}://{self._url.netloc}/"
        return aiohttp.ClientSession(
            base,
            connector=connector,
            timeout=timeout or aiohttp.ClientTimeout(),
            headers={"User-Agent": USER_AGENT},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def secured(self) -> dict[str, Any]:
        """What a request is given for TLS, by the files as they are now. Raises `OSError` where one cannot be used."""
        if self._tls is None:
            return {}
        return {"ssl": await self._tls.context(), "server_hostname": self._tls.server_name}
