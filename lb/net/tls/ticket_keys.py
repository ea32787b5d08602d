"""Ticket keys: a client resumes its session whichever worker it meets next, and after a reload.

A server that keeps no sessions gives them to its clients, encrypted: a ticket. OpenSSL makes the key for that with each
context, so that a ticket is good for one worker until its next reload. Python's `ssl` has no setter. This module calls
OpenSSL's by ctypes: `SSL_CTX_ctrl` with `SSL_CTRL_SET_TLSEXT_TICKET_KEYS`. The pointer to OpenSSL's context is the
first field of Python's object. Whether that holds is tried once, on a context of its own: the number of tickets is
changed through `ssl` and read back through the pointer. Where it does not hold, or where OpenSSL is linked statically
and its symbols are hidden, nothing is called, and each worker keeps keys of its own.

OpenSSL's setter takes one key. So a ticket from before the last change of keys leads to a full handshake, once a day
for each client. A key encrypts all sessions of a day, and is never written to a disk.

Each policy has keys of its own, derived from one secret. So a session never passes from one policy to another one
(CVE-2025-23419). Contexts that ask for client certificates give no tickets at all (`contexts`).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import hmac
import ssl
import sys
from collections.abc import Callable
from typing import Final

#: Bytes of the secret that all keys come from, and of the keys of one context: name, HMAC key, AES key.
SECRET: Final = 32
KEYS: Final = 80
#: Seconds for which a secret is used (as Go's crypto/tls does).
LIFETIME: Final = 86_400.0

_FIRST_PAGES: Final = 65536  # nothing is mapped there
_SET_KEYS: Final = 59  # SSL_CTRL_SET_TLSEXT_TICKET_KEYS
_CALL: Final = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p)
_COUNT: Final = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)


def derive(secret: bytes, policy: str) -> bytes:
    """The keys for contexts of one policy."""
    label = hashlib.sha256(policy.encode()).digest()
    blocks = (hmac.digest(secret, b"%d" % number + label, "sha256") for number in range(3))
    return b"".join(blocks)[:KEYS]


def install(context: ssl.SSLContext, keys: bytes) -> bool:
    """Have a context use these keys from now on. False: it keeps its own, since OpenSSL cannot be reached."""
    call = _control()
    if call is None:
        return False
    return bool(call(_pointer(context), _SET_KEYS, KEYS, ctypes.create_string_buffer(keys, KEYS)))


def available() -> bool:
    """Whether keys can be installed."""
    return _control() is not None


def reset() -> None:
    """Try again whether OpenSSL can be reached."""
    _control.cache_clear()


def _pointer(context: ssl.SSLContext) -> int | None:
    """OpenSSL's context, the first field behind the head of Python's object."""
    return ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value


@functools.cache
def _control() -> Callable[..., int] | None:
    """OpenSSL's `SSL_CTX_ctrl`; None: it cannot be found, or the pointer is not where it is expected."""
    library = _library() if sys.implementation.name == "cpython" else None
    if library is None:
        return None
    try:
        control = _CALL(("SSL_CTX_ctrl", library))
        count = _COUNT(("SSL_CTX_get_num_tickets", library))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for number in (3, 7):
            context.num_tickets = number
            pointer = _pointer(context) or 0
            if pointer < _FIRST_PAGES or pointer % 8 or count(pointer) != number:
                return None
    except (AttributeError, ValueError, OSError):
        return None
    return control


def _library() -> ctypes.CDLL | None:
    """The OpenSSL that Python's `ssl` uses, and no other one that the system may have."""
    module = sys.modules.get("_ssl")  # it has no file where it is a part of the interpreter
    try:
        library = ctypes.CDLL(getattr(module, "__file__", None))
        version = library.OpenSSL_version
        version.restype = ctypes.c_char_p
        known = version(0).decode()
    except (OSError, AttributeError):
        return None
    return library if known == ssl.OPENSSL_VERSION else None
