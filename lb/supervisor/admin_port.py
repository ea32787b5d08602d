"""The admin port: opened first, so that a taken address is known before anything has started; served last.

The server and the API are a third of the imports of a start. They are imported when the workers serve already.
"""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from lb.config.model.config import Admin
from lb.control.operations import Operations
from lb.supervisor.sockets import CannotListen, bound_name, listen_once, why

if TYPE_CHECKING:
    from aiohttp import web

#: Seconds that requests under way have when the port closes. Event streams never end by themselves.
GRACE = 1.0


class AdminPort:
    """One admin port. `address` is where it listens, with the port that was chosen for port 0."""

    def __init__(self) -> None:
        self.bind = ""
        self.address = ""
        self.sock: socket.socket | None = None
        self._runner: web.AppRunner | None = None
        self._site: web.SockSite | None = None

    def open(self, admin: Admin, given: socket.socket | None = None) -> None:
        """Bind the port, but accept no connection yet. `given` is used where there is one. Raises `CannotListen`."""
        try:
            self.sock = given or listen_once(admin.bind)
        except OSError as error:
            raise CannotListen(f"cannot listen on {admin.bind} (admin): {why(error)}") from None
        self.bind = admin.bind
        self.address = bound_name(admin.bind, self.sock)

    async def serve(self, operations: Operations, admin: Admin, token: str) -> None:
        """Let requests in."""
        from aiohttp import web

        from lb.control.api import app

        application = app.build(operations, token=token, allowed_hosts=(*admin.allowed_hosts, name_in(admin.bind)))
        # An error in an answer is reported by the API; a request that cannot be read is its client's affair.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=GRACE)
        await self._runner.setup()
        await self.resume()

    async def pause(self) -> None:
        """Accept no connection; new ones wait in the queue, which another process may serve."""
        if self._site is not None:
            await self._site.stop()
            self._site = None

    async def resume(self) -> None:
        """Accept again."""
        assert self._runner is not None
        assert self.sock is not None
        from aiohttp import web

        self._site = web.SockSite(self._runner, self.sock.dup())  # the site closes what it is given
        await self._site.start()

    async def close(self) -> None:
        """Let requests under way end, then nothing listens here any more."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self.sock is not None:
            self.sock.close()
            self.sock = None


def import_server() -> None:
    """Import what `serve` needs. It takes 0.2 s, so a thread does it."""
    import lb.control.api.app  # noqa: F401


def name_in(bind: str) -> str:
    """The host part of a bind, by which the port may be called; `localhost` for a socket in the file system."""
    return "localhost" if bind.startswith("unix:") else bind.rpartition(":")[0].strip("[]")


def read_token(path: Path | None) -> str:
    """The token that requests must carry; empty: none. Raises `CannotListen`: an open port is no stand-in."""
    if path is None:
        return ""
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise CannotListen(f"admin: token_file {path}: {error.strerror or error}") from None
    if not token:
        raise CannotListen(f"admin: token_file {path} is empty; it must hold the token")
    return token
