"""Why a target's certificate was refused, in words: what was expected, and what it showed instead.

OpenSSL does not hand a certificate out that it has refused. So the names in one with the wrong name come from a second
handshake, which verifies everything but the name and sends nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final

from lb.core.targets import TlsClient
from lb.net.tls.contexts import Contexts

#: Opens a connection to a target.
Connect = Callable[[], Awaitable[socket.socket]]

#: OpenSSL's numbers (x509_vfy.h): not valid yet, expired; another name, another address.
_EARLY: Final = 9
_EXPIRED: Final = 10
_DATES: Final = frozenset((_EARLY, _EXPIRED))
_NAMES: Final = frozenset((62, 64))
_REQUIRED: Final = "certificate required"
#: OpenSSL's reason → the alert (RFC 8446 section 6.2) by which a server refuses a client certificate, or its lack.
_ALERTS: Final = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _REQUIRED,
    "SSLV3_ALERT_BAD_CERTIFICATE": "bad certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "unsupported certificate",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "certificate revoked",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "certificate expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "certificate unknown",
    "TLSV1_ALERT_UNKNOWN_CA": "unknown certificate authority",
    "TLSV1_ALERT_ACCESS_DENIED": "access denied",
}
#: Seconds for the second handshake.
WITHIN: Final = 1.0
#: Seconds between two looks at the names in a certificate that was refused.
LOOK_EVERY: Final = 10.0
#: Certificates whose names are remembered.
REMEMBERED: Final = 1000
#: Names that are listed.
LISTED: Final = 5


def is_about_the_name(error: ssl.SSLCertVerificationError) -> bool:
    """Whether the certificate is good, but for another name."""
    return error.verify_code in _NAMES


def is_about_dates(error: ssl.SSLCertVerificationError) -> bool:
    """Whether the certificate, or one of its chain, has expired or is not valid yet."""
    return error.verify_code in _DATES


def described(error: ssl.SSLCertVerificationError, tls: TlsClient, name: str, shown: str = "") -> str:
    """What was expected and what came. `shown` are the names in the certificate, as far as they are known."""
    if is_about_the_name(error):
        return f"expected the name {name}, but the certificate {shown or 'is for another one'}"
    if error.verify_code == _EXPIRED:
        return "expected a valid certificate, but it has expired"
    if error.verify_code == _EARLY:
        return "expected a valid certificate, but it is not valid yet"
    expected = f"an authority in {tls.ca_file}" if tls.ca_file else "an authority of the system's store"
    return f"expected a certificate of {expected}, but got another one: {error.verify_message}"


def own_certificate_refused(error: BaseException | None) -> str:
    """Why a target does not let lb in, in words; empty: the error is another one.

    TLS 1.3 says so after the handshake: the alert comes in place of the first answer (RFC 8446 section 4.4.2.4)."""
    alert = _ALERTS.get(getattr(error, "reason", None) or "") if isinstance(error, ssl.SSLError) else None
    if alert is None or isinstance(error, ssl.SSLCertVerificationError):
        return ""
    if alert == _REQUIRED:
        return "wants a client certificate, and `tls.cert_file` names none"
    return f"refused the client certificate of `tls.cert_file`: {alert}"


class TargetFaults:
    """Describes refused certificates. Looks at the names in one again every few seconds at most."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self._shown: dict[tuple[str, str], tuple[float, str]] = {}  # (target, expected name) → when looked at, names

    async def describe(
        self, error: ssl.SSLCertVerificationError, tls: TlsClient, name: str, where: str, connect: Connect
    ) -> str:
        """What was expected of the target at `where`, and what came. `connect` opens another connection to it."""
        if not is_about_the_name(error):
            return described(error, tls, name)
        now = monotonic()
        looked, shown = self._shown.get((where, name), (-LOOK_EVERY, ""))
        if now - looked >= LOOK_EVERY:
            if len(self._shown) >= REMEMBERED:
                self._shown.clear()
            self._shown[where, name] = now, shown
            with contextlib.suppress(OSError):
                async with asyncio.timeout(WITHIN):
                    context = await self._contexts.get(tls, any_name=True)
                    sock = await connect()
                shown = await _names_shown(context, name, sock)
            self._shown[where, name] = now, shown
        return described(error, tls, name, shown)


async def _names_shown(context: ssl.SSLContext, name: str, sock: socket.socket) -> str:
    """The names in a target's certificate, as a part of a sentence; empty: no certificate came. Closes the socket."""
    loop = asyncio.get_running_loop()
    try:
        transport, _ = await loop.create_connection(
            asyncio.Protocol, sock=sock, ssl=context, server_hostname=name, ssl_handshake_timeout=WITHIN
        )
    except OSError:
        sock.close()
        return ""
    certificate: dict[str, Any] | None = transport.get_extra_info("peercert")
    transport.abort()
    return _names_in(certificate or {})


def _names_in(certificate: dict[str, Any]) -> str:
    names = [str(value) for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    if not names:
        return "has no name in its subjectAltName (a common name does not count, RFC 9525)"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"is for {', '.join(names[:LISTED])}{more}"
