"""How a probe gets its connection: a new one each time, to the target's address or the one its check names.

Connections are not kept between probes by default: a probe that rides an old connection proves that an old connection
works, and clients come on new ones. (Envoy's `reuse_connection` is the other choice; its users met the closed idle
connection that then counts as a failure.)
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lb.core.checks import CheckSpec
from lb.core.lifecycle import Verdict
from lb.core.targets import Target
from lb.health.probes.lines import Lines
from lb.net.resolver import Resolver, is_name
from lb.net.tls import Contexts

P = TypeVar("P", bound=asyncio.Protocol)

#: Errors that are our own machine's, whatever the target does.
_LOCAL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EACCES})
_UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})


class Dialer:
    """Opens connections for probes; holds what is dear to make: looked-up names and TLS contexts."""

    def __init__(self, clock: Callable[[], float], resolver: Resolver | None = None) -> None:
        self.clock = clock
        self.resolver = resolver or Resolver(clock)
        self.lines = Lines()
        self.contexts = Contexts()
        #: For what would hold up the loop. Two threads: those who need them wait for one another, not others for them.
        self.aside = ThreadPoolExecutor(2, "probe-aside")

    def close(self) -> None:
        self.resolver.close()
        self.lines.close()
        self.contexts.close()
        self.aside.shutdown(wait=False, cancel_futures=True)

    async def open(
        self,
        factory: Callable[[], P],
        host: str,
        port: int,
        context: ssl.SSLContext | None = None,
        name: str = "",
        at: str = "",
    ) -> P:
        """Connect a protocol to `host`, at the IP address `at` where it is given.

        Without `at`, the addresses of a name are tried in turn until one accepts the connection.
        """
        loop = asyncio.get_running_loop()
        server_name = (name or host) if context is not None else None
        if host.startswith("unix:"):
            server_name = (name or "localhost") if context is not None else None
            _, unix = await loop.create_unix_connection(
                factory, host.removeprefix("unix:"), ssl=context, server_hostname=server_name
            )
            return unix
        addresses: tuple[str, ...] = (at or host,)
        if is_name(addresses[0]):
            addresses = await self.resolver.resolve(host)
        for last, address in enumerate(addresses, 1 - len(addresses)):
            try:
                _, protocol = await loop.create_connection(
                    factory, address, port, ssl=context, server_hostname=server_name
                )
            except OSError:
                if last == 0:
                    raise
            else:
                return protocol
        raise OSError(errno.EADDRNOTAVAIL, f"{host} has no address")


def place_of(target: Target, spec: CheckSpec) -> tuple[str, int]:
    """Where the check goes: its own host and port, or else the target's."""
    host = spec.host or target.host
    return host, spec.port or (0 if host.startswith("unix:") else target.port)


def spell(host: str, port: int) -> str:
    """As people write it: `host:port`, `[v6]:port`, `unix:/path`."""
    if host.startswith("unix:"):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def spell_at(where: str, address: str) -> str:
    """`where` with the IP address that stands for its name, if it has one."""
    return f"{where} at {address}" if address else where


def failure(error: Exception, where: str, seconds: float) -> Verdict:
    """What an error on the way to the target means. Anything unforeseen is a failed probe with its text."""
    match error:
        case ConnectionRefusedError() | FileNotFoundError():
            return Verdict(False, seconds, f"connection refused by {where}", "refused")
        case ConnectionError():
            return Verdict(False, seconds, f"connection reset by {where}", "reset")
        case ssl.SSLCertVerificationError():
            return Verdict(False, seconds, f"certificate of {where} refused: {error.verify_message}", "tls")
        case ssl.SSLError():
            return Verdict(False, seconds, f"TLS with {where} failed: {error.reason or error}", "tls")
        case OSError() if type(error).__name__ == "gaierror":
            return Verdict(False, seconds, f"cannot look up {where}: {error.strerror}", "dns")
        case TimeoutError():
            return Verdict(False, seconds, f"no answer from {where}: the kernel gave up connecting", "timeout")
        case OSError() if error.errno in _UNREACHABLE:
            return Verdict(False, seconds, f"{where} is unreachable: {error.strerror}", "unreachable")
        case OSError() if error.errno in _LOCAL:
            return Verdict(False, seconds, f"cannot probe {where}, for a reason of our own: {error.strerror}", "local")
        case _:
            return Verdict(False, seconds, f"the probe of {where} failed: {error or type(error).__name__}", "error")


def unprepared(where: str, timeout: float, seconds: float) -> Verdict:
    """The verdict when the time was over before the target was asked anything: certificates are read from the disk."""
    text = f"cannot probe {where}, for a reason of our own: its certificates were not read within {timeout:g} s"
    return Verdict(False, seconds, text, "local")
