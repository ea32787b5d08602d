"""The admin port: opened first, so that a taken address is known before anything has started; served last.

The server and the API are a third of the imports of a start. They are imported when the workers serve already.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lb.config.changes import Change
from lb.config.model.config import Admin
from lb.control.access import EVERYTHING, Access, Holder
from lb.control.operations import Operations
from lb.core.certificates import Certificate, Policy
from lb.net.tls import contexts
from lb.supervisor.sockets import CannotListen, bound_name, listen_once, why

if TYPE_CHECKING:
    from aiohttp import web

#: Seconds that requests under way have when the port closes. Event streams never end by themselves.
GRACE = 1.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the files of the admin port hold: tokens with their holders, and the TLS context. `mark` differs where the
    certificate or its key does."""

    tokens: tuple[tuple[Holder, str], ...] = field(default=(), repr=False)
    names: tuple[str, ...] = ()
    context: ssl.SSLContext | None = None
    mark: str = ""


def read_credentials(admin: Admin, folder: Path) -> Credentials:
    """The contents of the files as they are now; relative paths begin at `folder`. Blocks. Raises `CannotListen`: an
    open port is no stand-in for one with tokens."""
    tokens = [(EVERYTHING, _token("token_file", folder / admin.token_file))] if admin.token_file is not None else []
    for token in admin.tokens:
        holder = Holder(token.name, frozenset(token.roles))
        tokens.append((holder, _token(f"token {token.name}", folder / token.token_file)))
    if len({token for _, token in tokens}) < len(tokens):
        raise CannotListen("admin: two of the token files hold the same token; each must have its own")
    context, mark = None, ""
    if admin.tls is not None:
        pair = folder / admin.tls.cert_file, folder / admin.tls.key_file
        try:
            mark = hashlib.sha256(b"\0".join(path.read_bytes() for path in pair)).hexdigest()
            context = contexts.server_context([Certificate(str(pair[0]), str(pair[1]))], Policy())
        except (OSError, ValueError) as error:
            reason = contexts.in_words(contexts.openssl_reason(error))
            raise CannotListen(f"admin: tls: {pair[0]} and {pair[1]} cannot be used: {reason}") from None
    return Credentials(tuple(tokens), tuple(admin.allowed_hosts), context, mark)


class AdminPort:
    """One admin port. `address` is where it listens, with the port that was chosen for port 0."""

    def __init__(self) -> None:
        self.bind = ""
        self.address = ""
        self.sock: socket.socket | None = None
        self._access = Access()
        self._credentials = Credentials()
        self._runner: web.AppRunner | None = None
        self._site: web.SockSite | None = None

    @property
    def tls(self) -> bool:
        """Whether it speaks HTTPS."""
        return self._credentials.context is not None

    def open(self, admin: Admin, given: socket.socket | None = None) -> None:
        """Bind the port, but accept no connection yet. `given` is used where there is one. Raises `CannotListen`."""
        try:
            self.sock = given or listen_once(admin.bind)
        except OSError as error:
            raise CannotListen(f"cannot listen on {admin.bind} (admin): {why(error)}") from None
        self.bind = admin.bind
        self.address = bound_name(admin.bind, self.sock)

    async def prepare(self, operations: Operations, credentials: Credentials) -> None:
        """Make the server; `resume` lets the first request in."""
        from aiohttp import web

        from lb.control.api import app

        self._take(credentials)
        application = app.build(operations, self._access)
        # An error in an answer is reported by the API; a request that cannot be read is its client's affair.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=GRACE)
        await self._runner.setup()

    def renewed(self, credentials: Credentials) -> Iterator[Change]:
        """The files whose contents differ from what is in use."""
        former = self._credentials
        if credentials.mark and former.mark and credentials.mark != former.mark:
            yield Change("change", "admin.tls", "the certificate was renewed, for new connections", field="admin.tls")
        old = {holder.name: token for holder, token in former.tokens}
        for holder, token in credentials.tokens:
            if old.get(holder.name, token) != token:
                name = f"admin.tokens.{holder.name}" if holder.name else "admin.token_file"
                yield Change("change", name, "another token counts now, and the former one no more", field=name)

    async def use(self, credentials: Credentials) -> None:
        """From now on these tokens count, and new connections get this certificate.

        Without any token, the former ones stay: a file that lacks them by mistake must not open the port to everybody.
        With or without TLS is for a restart to change, as clients have it in the port's address."""
        former = self._credentials
        if not credentials.tokens:
            credentials = replace(credentials, tokens=former.tokens)
        if (credentials.context is None) != (former.context is None):
            credentials = replace(credentials, context=former.context, mark=former.mark)
        renewed = credentials.mark != former.mark
        self._take(credentials)
        if renewed and self._site is not None:
            await self.pause()
            await self.resume()

    def _take(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._access.use(credentials.tokens, (*credentials.names, name_in(self.bind)))

    async def pause(self) -> None:
        """Accept no connection; new ones wait in the queue, which another process may serve."""
        if self._site is not None:
            await self._site.stop()
            self._site = None

    async def resume(self) -> None:
        """Accept connections, again or for the first time."""
        if self._site is not None:
            return
        assert self._runner is not None
        assert self.sock is not None
        from aiohttp import web

        # The site closes what it is given.
        self._site = web.SockSite(self._runner, self.sock.dup(), ssl_context=self._credentials.context)
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


def _token(what: str, path: Path) -> str:
    """The token in a file. Raises `CannotListen`."""
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CannotListen(f"admin: {what}: {path}: {why or error}") from None
    if not token:
        raise CannotListen(f"admin: {what}: {path} is empty; it must hold the token")
    return token
