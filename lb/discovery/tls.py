"""The TLS context of a source's connections. It is made again when one of its files has changed."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

from lb.config.model.checks import ClientTls
from lb.core.targets import TlsClient
from lb.net.tls import contexts

#: Modification time (ns), size and inode of each file; None: it is not there.
_Stamps = list[tuple[int, int, int] | None]


class TlsFiles:
    """Authorities, and a client's certificate with its key, as files."""

    def __init__(self, settings: ClientTls) -> None:
        self._tls = TlsClient(
            settings.verify,
            settings.server_name,
            settings.ca_file or "",
            settings.cert_file or "",
            settings.key_file or "",
        )
        self._stamps: _Stamps = []
        self._context: ssl.SSLContext | None = None

    @property
    def server_name(self) -> str | None:
        """The name to send and to verify; None: the host's."""
        return self._tls.server_name or None

    async def context(self) -> ssl.SSLContext:
        """The context for the files as they are now. Raises `OSError` where one cannot be used."""
        return await asyncio.to_thread(self._made)

    def _made(self) -> ssl.SSLContext:
        names = filter(None, (self._tls.ca_file, self._tls.cert_file, self._tls.key_file))
        stamps = [_stamp(Path(name)) for name in names]
        if self._context is None or stamps != self._stamps:
            self._context = contexts.client_context(self._tls)
            self._stamps = stamps
        return self._context


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status: os.stat_result = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
