"""The certificates that lb gets by itself: ordered from ACME authorities, or issued by its own internal one.

They are taken in like files: `held` gives their contents by path, and new ones are read as renewed files are, so that
workers get them without a restart. A configuration that asks for none costs nothing, not even the imports.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lb.config.certificate_sources import acme_file, certificate_id, internal_file
from lb.config.model.config import Config
from lb.config.resolve import internal_names
from lb.config.tls_files import Held
from lb.core.challenges import Challenges
from lb.supervisor.events import Events
from lb.supervisor.rotations import Rotations
from lb.supervisor.workers import Workers

if TYPE_CHECKING:
    from lb.issuing.acme.attempt import Proof
    from lb.issuing.internal import InternalAuthority, Root
    from lb.issuing.renewals import Fate, Renewals, Wanted

#: Seconds that workers have to confirm the answers to challenges.
CONFIRM_WITHIN = 5.0
#: Seconds between two looks at the internal authority's certificates.
INTERNAL_EVERY = 600.0
#: Seconds before what could not be taken in is tried again.
TAKE_AGAIN = 1.0


class Issuing:
    """All of one supervisor."""

    def __init__(self, directory: Path, events: Events, channel: Callable[[], tuple[Workers, Rotations]]) -> None:
        self._directory = directory
        self._events = events
        self._channel = channel  # to the workers, which come later than the configuration
        self._renewals: Renewals | None = None
        self._internal: InternalAuthority | None = None
        self._challenges: dict[str, Challenges] = {}  # by the certificate's id, while its order is under way
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()  # some authority is to be asked

    # --- what is there ----------------------------------------------------------------------------------------------

    def held(self, config: Config) -> Held:
        """The contents of the certificates that `config` asks for, by path. Blocks: the internal ones are issued or
        renewed where that is due."""
        found: dict[str, bytes] = {}
        if self._renewals is not None:
            for id, pem in self._renewals.pems().items():
                found[str(acme_file(config.state_dir, id))] = pem
        names = list(_internal_names(config))
        if names:
            for name, pem in self._authority().ensure(names).items():
                found[str(internal_file(config.state_dir, name))] = pem
        return found

    def configure(self, config: Config) -> None:
        """A configuration is in force: want what it asks for."""
        if self._renewals is None and not config.acme:
            return
        self._ordering().want(list(_wanted(config)))
        self._wanted.set()

    def fates(self) -> list[Fate]:
        """How each certificate from ACME authorities fares."""
        return self._renewals.fates() if self._renewals is not None else []

    def results(self) -> dict[tuple[str, str], int]:
        """Orders by the name and the result: `ok` or `failed`."""
        return dict(self._renewals.results) if self._renewals is not None else {}

    @property
    def trouble(self) -> str:
        """Why certificates cannot be written; empty: they can."""
        ordered = self._renewals.trouble if self._renewals is not None else ""
        return ordered or (self._internal.trouble if self._internal is not None else "")

    def root(self) -> tuple[Root, Path] | None:
        """The internal authority's root and its file; None: the configuration does not use it."""
        return (self._internal.root(), self._internal.root_file) if self._internal is not None else None

    def renew(self, name: str, config: Config) -> list[str]:
        """Have the certificates of a name renewed now; what is under way then, in words. Empty: lb gets none for it."""
        started = []
        if self._renewals is not None and self._renewals.renew(name):
            started.append(f"{name} is ordered anew")
        if self._internal is not None and name in _internal_names(config):
            self._internal.renew(name)
            self._changed.set()
            started.append(f"{name} is issued anew by the internal authority")
        return started

    # --- loops ------------------------------------------------------------------------------------------------------

    async def order(self) -> None:
        """Order and renew, once some authority is to be asked."""
        await self._wanted.wait()
        await self._ordering().run()

    async def take_in(self, read: Callable[[], Awaitable[bool]]) -> None:
        """Have new certificates served. `read` reads all of them again; it returns False when that has to wait."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERNAL_EVERY):
                    await self._changed.wait()
            if not self._changed.is_set() and self._internal is None:
                continue
            self._changed.clear()
            if not await read():
                self._changed.set()
                await asyncio.sleep(TAKE_AGAIN)

    # --- parts ------------------------------------------------------------------------------------------------------

    def _ordering(self) -> Renewals:
        if self._renewals is None:
            from lb.issuing.renewals import Renewals
            from lb.issuing.store import Store

            store = Store(self._directory, lambda text: self._events.emit("certificate", text))
            self._renewals = Renewals(
                store,
                publish=self._publish,
                on_change=self._changed.set,
                tell=lambda text, name: self._events.emit("certificate", text),
            )
        return self._renewals

    def _authority(self) -> InternalAuthority:
        if self._internal is None:
            from lb.issuing.internal import InternalAuthority

            self._internal = InternalAuthority(
                str(self._directory), lambda text: self._events.emit("certificate", text)
            )
        return self._internal

    async def _publish(self, id: str, challenge: str, proofs: Sequence[Proof]) -> None:
        """Have the answers to the challenges of one order at every worker; with none, take them away. Raises
        `Unconfirmed` where a worker that serves does not have them in time."""
        former = self._challenges.pop(id, None)
        if not proofs and former is None:
            return
        if challenge == "tls-alpn-01" and proofs:
            from lb.issuing.acme.material import challenge_certificate

            made = [
                (each.name, await asyncio.to_thread(challenge_certificate, each.name, each.key_authorization))
                for each in proofs
            ]
            self._challenges[id] = Challenges(0, certificates=tuple(made))
        elif proofs:
            self._challenges[id] = Challenges(0, tuple((each.token, each.key_authorization) for each in proofs))
        workers, rotations = self._channel()
        version = rotations.next_version()
        workers.challenge(
            Challenges(
                version,
                tuple(each for one in self._challenges.values() for each in one.tokens),
                tuple(each for one in self._challenges.values() for each in one.certificates),
            )
        )
        if proofs:
            await workers.confirm(version, CONFIRM_WITHIN)


def _internal_names(config: Config) -> Iterator[str]:
    for listener in config.listeners:
        for source in listener.tls.sources() if listener.tls is not None else ():
            if source.authority is not None:
                yield from source.names or internal_names(config)


def _wanted(config: Config) -> Iterator[Wanted]:
    """One certificate for each name: one that fails takes no other one along."""
    from lb.issuing.renewals import Authority, Wanted

    seen = set()
    for listener in config.listeners:
        for source in listener.tls.sources() if listener.tls is not None else ():
            if source.acme is None:
                continue
            entry = config.acme[source.acme]
            authority = Authority(
                source.acme,
                entry.directory,
                entry.email,
                entry.ca_file or "",
                entry.eab.key_id if entry.eab is not None else "",
                entry.eab.key_file if entry.eab is not None else "",
                entry.challenge,
                entry.profile,
                entry.staging_directory(),
            )
            for name in source.names:
                id = certificate_id((name,), entry.directory, entry.profile)
                if id not in seen:
                    seen.add(id)
                    yield Wanted(id, (name,), authority)
