"""Why a request of a source has failed, in words for people, without the library's own."""

from __future__ import annotations

import os
import ssl

import aiohttp


def in_words(error: Exception) -> str:
    """The reason of a failed request: of the system, of TLS, or of the library."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return in_words(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return in_words(error.os_error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be verified: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, OSError) and (error.strerror or "").startswith(("Connect call failed", "Multiple exceptions")):
        return os.strerror(error.errno).lower() if error.errno else "connection refused"  # asyncio's words
    text = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
    return text.rstrip(".").lower()
