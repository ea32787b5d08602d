"""The certificates that a process serves: a context for every choice, built in a thread, and exchanged in one step.

A worker has one store. It holds each listener's certificates as they are now; a handshake asks for a name's context and
gets it from two dictionaries. New certificates are built beside the ones in use, and only what has changed is built. So
a hundred names cost the loop nothing, and a renewed certificate costs one context.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lb.core.certificates import OFF, Certificate, CertificateTable, Choice, Policy, TlsServer
from lb.net.tls import ticket_keys
from lb.net.tls.contexts import Contents, server_context

#: What makes a context: the certificates' contents, and what a handshake demands.
_Key = tuple[tuple[Certificate, ...], Policy]


@dataclass(frozen=True, slots=True)
class Selected:
    """What a handshake gets."""

    context: ssl.SSLContext
    choice: Choice
    policy: Policy


class _Installed:
    """The certificates of one listener."""

    __slots__ = ("contexts", "policy", "table", "tls")

    def __init__(
        self, tls: TlsServer, policy: Policy, table: CertificateTable, contexts: Mapping[_Key, ssl.SSLContext]
    ) -> None:
        self.tls = tls
        self.policy = policy
        self.table = table
        self.contexts = contexts


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
            self._thread = ThreadPoolExecutor(1, "lb-certificates")
        table, policy = CertificateTable(tls, self._wall()), tls.policy()
        built = {key: context for each in self._installed.values() for key, context in each.contexts.items()}
        wanted = [(chosen, policy) for chosen in table.choices()]
        loop = asyncio.get_running_loop()
        contexts = await loop.run_in_executor(self._thread, self._all, wanted, built, contents)
        self._use_ticket_keys(contexts.values(), policy)
        self._installed[bind] = _Installed(tls, policy, table, contexts)

    def _all(
        self, wanted: Sequence[_Key], built: Mapping[_Key, ssl.SSLContext], contents: Contents
    ) -> dict[_Key, ssl.SSLContext]:
        """In the thread: the context of each key; contexts that are in use already are shared."""
        return {key: built.get(key) or self._build(*key, contents) for key in wanted}

    def select(self, bind: str, server_name: str | None) -> Selected | None:
        """What a handshake on a listener gets; None: it is refused with the alert `unrecognized_name` (112)."""
        installed = self._installed.get(bind)
        choice = installed.table.choose(server_name) if installed is not None else None
        if installed is None or choice is None:
            return None
        context = installed.contexts[choice.certificates, installed.policy]
        return Selected(context, choice, installed.policy)

    def use_ticket_secret(self, secret: bytes) -> None:
        """From now on clients resume their sessions with whatever process has the same secret."""
        self._ticket_secret = secret
        for installed in self._installed.values():
            self._use_ticket_keys(installed.contexts.values(), installed.policy)

    def _use_ticket_keys(self, contexts: Iterable[ssl.SSLContext], policy: Policy) -> None:
        """On the loop's thread: no handshake uses a context meanwhile."""
        if self._ticket_secret and policy.client.mode == OFF:
            keys = ticket_keys.derive(self._ticket_secret, repr(policy))
            for context in contexts:
                ticket_keys.install(context, keys)

    def forget(self, bind: str) -> None:
        """The listener is gone."""
        self._installed.pop(bind, None)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
