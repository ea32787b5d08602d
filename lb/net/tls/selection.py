"""What is decided by a ClientHello: the context of its handshake, or the alert that refuses it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from lb.net.tls.client_hello import ClientHello

# Alerts (RFC 8446 section 6).
HANDSHAKE_FAILURE: Final = 40
INTERNAL_ERROR: Final = 80
UNRECOGNIZED_NAME: Final = 112
NO_APPLICATION_PROTOCOL: Final = 120


class Selected(NamedTuple):
    """The handshake goes on with this context."""

    context: ssl.SSLContext
    name: str = ""  # of the certificate, for logs
    policy: Any = None  # the rules for this connection's requests, as whoever selects knows them
    may_ask: Callable[[bytes], bool] | None = None  # whether its requests may be for a host; None: for any
    serves: bool = True  # False: the handshake is all, and the connection ends with it


class Alert(NamedTuple):
    """The handshake is refused with a fatal alert, and nothing else is sent."""

    code: int
    reason: str  # a label, such as `unrecognized_name`


#: Decides for one listener. It is called once for each connection, on the event loop, and does not wait.
Select = Callable[[ClientHello], Selected | Alert]
