"""The certificates that a process serves: a context for every choice, built in a thread, and exchanged in one step.

A worker has one store. It holds each listener's certificates as they are now; a handshake asks for a name's context and
gets it from two dictionaries. New certificates are built beside the ones in use, and only what has changed is built. So
a hundred names cost the loop nothing, and a renewed certificate costs one context.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from lb.core.certificates import OFF, Certificate, CertificateTable, Choice, Policy, TlsServer
from lb.net.threads import threads
from lb.net.tls import ticket_keys
from lb.net.tls.contexts import Contents, server_context

#: What makes a context: the certificates' contents, and what a handshake demands.
_Key = tuple[tuple[Certificate, ...], Policy]
#: Names of a listener whose result is remembered.
REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True)
class Selected:
    """What a handshake gets."""

    context: ssl.SSLContext
    choice: Choice
    policy: Policy


class _Installed:
    """The certificates of one listener."""

    __slots__ = ("contexts", "one_policy", "selected", "table", "tls")

    def __init__(self, tls: TlsServer, table: CertificateTable, contexts: Mapping[_Key, ssl.SSLContext]) -> None:
        self.tls = tls
        self.table = table
        self.contexts = contexts
        self.one_policy = len({policy for _, policy in contexts}) < 2
        self.selected: dict[str | None, Selected | None] = {}  # by server name, as far as it was asked for

    def select(self, server_name: str | None) -> Selected | None:
        """What a name gets: once looked up, and then remembered."""
        if server_name in self.selected:
            return self.selected[server_name]
        choice = self.table.choose(server_name)
        found = None
        if choice is not None:
            found = Selected(self.contexts[choice.certificates, choice.policy], choice, choice.policy)
        if len(self.selected) >= REMEMBERED:  # a client that makes names up
            self.selected.clear()
        self.selected[server_name] = found
        return found


class CertificateStore:
    """The certificates of one process's listeners, by bind."""

    def __init__(
        self,
        build: Callable[[Sequence[Certificate], Policy, Contents | None], ssl.SSLContext] = server_context,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._build = build
        self._wall = wall
        self._installed: dict[str, _Installed] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._ticket_secret = b""  # empty: each context has keys of its own

    def holds(self, bind: str, tls: TlsServer) -> bool:
        """Whether handshakes of a listener go by these settings."""
        installed = self._installed.get(bind)
        return installed is not None and installed.tls == tls

    async def install(self, bind: str, tls: TlsServer, contents: Contents) -> None:
        """Have a listener's handshakes go by these settings, once all contexts are built.

        Raises `OSError` where a file cannot be used; then the former settings stay. Where two calls for one listener
        overlap, the later call's settings are the ones that stay."""
        if self._thread is None:
            self._thread = threads(1, "lb-certificates")
        table = CertificateTable(tls, self._wall())
        built = {key: context for each in self._installed.values() for key, context in each.contexts.items()}
        wanted = list(table.choices())
        loop = asyncio.get_running_loop()
        contexts = await loop.run_in_executor(self._thread, self._all, wanted, built, contents)
        self._use_ticket_keys(contexts)
        self._installed[bind] = _Installed(tls, table, contexts)

    def _all(
        self, wanted: Sequence[_Key], built: Mapping[_Key, ssl.SSLContext], contents: Contents
    ) -> dict[_Key, ssl.SSLContext]:
        """In the thread: the context of each key; contexts that are in use already are shared."""
        return {key: built.get(key) or self._build(*key, contents) for key in wanted}

    def select(self, bind: str, server_name: str | None) -> Selected | None:
        """What a handshake on a listener gets; None: it is refused with the alert `unrecognized_name` (112)."""
        installed = self._installed.get(bind)
        return installed.select(server_name) if installed is not None else None

    def host_check(self, bind: str, policy: Policy) -> Callable[[bytes], bool] | None:
        """Whether a connection of this policy may ask for a host; None: it may ask for any.

        A host of another policy has its own connections: what a handshake has shown says nothing about that policy. A
        host that no certificate covers has none, and is left to the routes."""
        installed = self._installed.get(bind)
        if installed is None or installed.one_policy:
            return None

        def may_ask(host: bytes) -> bool:
            current = self._installed.get(bind)
            choice = current.table.choose(host.decode("latin-1")) if current is not None else None
            return choice is None or choice.policy == policy

        return may_ask

    def use_ticket_secret(self, secret: bytes) -> None:
        """From now on clients resume their sessions with whatever process has the same secret."""
        self._ticket_secret = secret
        for installed in self._installed.values():
            self._use_ticket_keys(installed.contexts)

    def _use_ticket_keys(self, contexts: Mapping[_Key, ssl.SSLContext]) -> None:
        """On the loop's thread: no handshake uses a context meanwhile."""
        if not self._ticket_secret:
            return
        for (_, policy), context in contexts.items():
            if policy.client.mode == OFF:
                ticket_keys.install(context, ticket_keys.derive(self._ticket_secret, repr(policy)))

    def forget(self, bind: str) -> None:
        """The listener is gone."""
        self._installed.pop(bind, None)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
