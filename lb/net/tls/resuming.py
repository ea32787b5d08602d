"""The context of connections to targets: each new connection offers the session of an earlier one to the same name.

A resumed handshake needs no signature of the target, and shows no certificate. What it resumes was verified by the same
settings, since a context is of one set of settings alone. Probes resume nothing: they see each certificate.
"""

from __future__ import annotations

import os
import ssl
import sys
from typing import Any, Final

#: Names whose session is kept, per context.
KEPT: Final = 1000


class ResumingContext(ssl.SSLContext):
    """A client's context that keeps the newest session of each server name."""

    sessions: dict[str, ssl.SSLSession]

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """The loop's own layer calls this for each connection, and knows of no session."""
        if session is None and isinstance(server_hostname, str):
            session = self.sessions.get(server_hostname)
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def forget(self, name: str) -> None:
        """A handshake with this name has failed: the next one begins without a session."""
        self.sessions.pop(name, None)


def resuming_context() -> ResumingContext:
    """A context with the settings of `ssl.create_default_context`, without any authority."""
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sessions = {}
    if sys.version_info >= (3, 13):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    if keys := os.environ.get("SSLKEYLOGFILE"):
        context.keylog_filename = keys
    return context


def keep_session(transport: Any) -> None:
    """Keep the session of a connection to a target, if it has one, for the next connection to the same name."""
    handshake: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if handshake is None or handshake.server_hostname is None:
        return
    context, session = handshake.context, handshake.session
    if session is None or not isinstance(context, ResumingContext):
        return
    if len(context.sessions) >= KEPT:
        context.sessions.clear()
    context.sessions[handshake.server_hostname] = session
