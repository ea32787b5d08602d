"""Connections of probes: a new one for each, to the target's address or the address that its check names.

No connection is kept between probes: a probe on an old connection proves that old connections work, but clients need
new ones. (Envoy's `reuse_connection` is the other choice. With it a closed idle connection counts as a failure.)
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from lb.core.checks import CheckSpec
from lb.core.lifecycle import Verdict
from lb.core.targets import Target, TlsClient
from lb.health.probes.connection import ProbeTransport
from lb.net.resolver import Resolver, is_name
from lb.net.threads import threads
from lb.net.tls.contexts import Contexts, server_name
from lb.net.tls.target_faults import TargetFaults, own_certificate_refused

P = TypeVar("P", bound=asyncio.Protocol)

#: Errors of this machine, which no target can cause.
_LOCAL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EACCES})
_UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})


class Dialer:
    """Opens connections for probes. Caches looked-up names and TLS contexts, which are costly to make."""

    def __init__(self, clock: Callable[[], float], resolver: Resolver | None = None) -> None:
        self.clock = clock
        self.resolver = resolver or Resolver(clock)
        self.transport = ProbeTransport()
        self.contexts = Contexts()
        self._faults = TargetFaults(self.contexts)
        #: For patterns that would block the loop. With two threads, only probes that need one wait for one another.
        self.aside = threads(2, "probe-aside")

    def close(self) -> None:
        self.resolver.close()
        self.transport.close()
        self.contexts.close()
        self.aside.shutdown(wait=False, cancel_futures=True)

    async def open(
        self,
        factory: Callable[[], P],
        host: str,
        port: int,
        context: ssl.SSLContext | None = None,
        tls: TlsClient | None = None,
        at: str = "",
    ) -> P:
        """Connect a protocol to `host`, at the IP address `at` if given. Raises `OSError`. `tls`: what `context` is of.

        Without `at`, the addresses of a name are tried in turn until one accepts the connection.
        """
        loop = asyncio.get_running_loop()
        name = server_name(tls, host) if context is not None else None
        if host.startswith("unix:"):
            name = server_name(tls, "localhost") if context is not None else None
            _, unix = await loop.create_unix_connection(
                factory, host.removeprefix("unix:"), ssl=context, server_hostname=name
            )
            return unix
        addresses: tuple[str, ...] = (at or host,)
        if is_name(addresses[0]):
            addresses = await self.resolver.resolve(host)
        for last, address in enumerate(addresses, 1 - len(addresses)):
            try:
                _, protocol = await loop.create_connection(factory, address, port, ssl=context, server_hostname=name)
            except ssl.SSLCertVerificationError as error:
                # Another address of the name would be no way around it.
                raise CertificateRefused(await self._describe(error, tls, name or "", address, port)) from None
            except OSError:
                if last == 0:
                    raise
            else:
                return protocol
        raise OSError(errno.EADDRNOTAVAIL, f"{host} has no address")

    async def _describe(
        self, error: ssl.SSLCertVerificationError, tls: TlsClient | None, name: str, address: str, port: int
    ) -> str:
        loop = asyncio.get_running_loop()

        async def connect() -> socket.socket:
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, (address, port))
            except BaseException:
                sock.close()
                raise
            return sock

        return await self._faults.describe(error, tls or TlsClient(), name, spell(address, port), connect)


class CertificateRefused(OSError):  # noqa: N818 - it says what happened
    """A target's certificate is not what was expected; the text says both."""


def place_of(target: Target, spec: CheckSpec) -> tuple[str, int]:
    """Host and port of a check: its own, or else the target's."""
    host = spec.host or target.host
    return host, spec.port or (0 if host.startswith("unix:") else target.port)


def spell(host: str, port: int) -> str:
    """An address for people: `host:port`, `[v6]:port`, `unix:/path`."""
    if host.startswith("unix:"):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def spell_at(where: str, address: str) -> str:
    """`where` with the IP address of its name, if it is a name."""
    return f"{where} at {address}" if address else where


def failure(error: Exception, where: str, seconds: float) -> Verdict:
    """The verdict for an error during a probe. An unexpected error is a failed probe with the error's text."""
    match error:
        case ConnectionRefusedError() | FileNotFoundError():
            return Verdict(False, seconds, f"connection refused by {where}", "refused")
        case ConnectionError():
            return Verdict(False, seconds, f"connection reset by {where}", "reset")
        case CertificateRefused():
            return Verdict(False, seconds, f"certificate of {where} refused: {error}", "tls")
        case ssl.SSLCertVerificationError():
            return Verdict(False, seconds, f"certificate of {where} refused: {error.verify_message}", "tls")
        case ssl.SSLError() if refusal := own_certificate_refused(error):
            return Verdict(False, seconds, f"{where} {refusal}", "tls")
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
    """The verdict when the timeout passes while certificates are still read from the disk: the target was not asked."""
    text = f"cannot probe {where}, for a reason of our own: its certificates were not read within {timeout:g} s"
    return Verdict(False, seconds, text, "local")
