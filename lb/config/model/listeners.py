"""Where clients and operators come in: listeners and the admin port."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from lb.config.model.fields import Bind, Bounds, Duration, FilePath, Flag, Network, Period, Size, Whole, Word
from lb.config.model.section import Section


class ServerTls(Section):
    """A listener's certificate. TLS 1.2 and 1.3; the files are read at start and at each reload."""

    cert_file: FilePath
    """PEM file with the certificate, followed by the intermediate ones. Relative paths begin at this file's folder."""
    key_file: FilePath
    """PEM file with the private key, without a passphrase."""
    client_ca_file: FilePath | None = None
    """Clients must present a certificate that one of these authorities signed. Left out: clients need none."""


class ListenerTimeouts(Section):
    """How long a client may take. Each refusal says which of these it was."""

    header: Period = 10.0
    """From a request's first byte to the end of its header, so that slow senders cannot hold connections (slowloris).
    A client that is slower gets 408. nginx: 60s; HAProxy `http-request`: none."""
    body: Period = 30.0
    """Between two pieces of a request's body. A client that pauses longer gets 408. nginx: 60s."""
    idle: Period = 75.0
    """A kept-alive connection waits this long for its next request, then it is closed. nginx: 75s; Traefik: 180s."""
    send: Period = 60.0
    """A client that takes nothing of its answer for this long is cut off, in a tunnel too. A client that takes a little
    at a time is served. A connection that is to close waits as long for a client to take the rest. nginx: 60s."""
    half_close: Duration = 1.0
    """A client that has closed its sending side waits at most this long for its answer to begin. Its request may be
    abandoned, and must not keep a target busy. `0s`: it is dropped at once."""


class ListenerLimits(Section):
    """How much a client may ask for. 0 means no limit where the text says so."""

    request_line: Annotated[Size, Bounds(64)] = 8192
    """Bytes of the request line; a longer one gets 414. nginx and Apache: 8 KiB."""
    header_block: Annotated[Size, Bounds(256)] = 32768
    """Bytes of all header lines; more gets 431. nginx: 4 × 8 KiB."""
    header_count: Annotated[Whole, Bounds(1)] = 100
    """Header lines; more gets 431. Apache: 100; HAProxy: 101."""
    connections: Annotated[Whole, Bounds(1)] = 20000
    """Connections open at one time, per worker; the next one gets 503 and is closed. A connection counts until it is
    gone. HAProxy `maxconn`: from `ulimit -n`."""
    connections_per_client: Annotated[Whole, Bounds(0)] = 0
    """Connections from one client address, per worker; 0: no limit. Behind another proxy all clients share its
    address."""
    requests_per_connection: Annotated[Whole, Bounds(0)] = 0
    """Requests until a kept-alive connection is closed; 0: no limit. nginx: 1000."""


class Redirect(Section):
    """Where a listener sends its clients instead of serving them."""

    scheme: Literal["https"] = "https"
    """The scheme of the new URL. The only one is `https`."""
    to_port: Annotated[Whole, Bounds(1, 65535)] | None = None
    """The port of the new URL; 443 stays out of it. Left out: the port of the first listener with `tls`, of one at the
    same address before others. Where clients reach that at another port, as behind a container's port mapping, write
    theirs."""


def redirect_from_text(value: Any) -> Any:
    return {"scheme": value} if isinstance(value, str) else value


class Hsts(Section):
    """HTTP Strict Transport Security (RFC 6797): browsers come to this host by https alone."""

    max_age: Duration = 31536000.0
    """How long browsers keep to it after each answer. `0s`: they forget it at once."""
    include_subdomains: Flag = False
    """For all names below this host, too: each of them must be served by https."""
    preload: Flag = False
    """Say that the host may be put on the list that browsers are shipped with. Leaving that list takes months. It
    wants `include_subdomains` and a `max_age` of 365d or more."""


class Listener(Section):
    """An address that accepts clients."""

    bind: Bind
    """`host:port`, `[IPv6]:port`, `:port` for all IPv4 addresses, or `unix:/path`. Port 0 takes a free one, which is
    printed and shown in status."""
    tls: ServerTls | None = None
    """Speak HTTPS. Left out: plain HTTP."""
    redirect: (
        Annotated[Redirect, BeforeValidator(redirect_from_text, json_schema_input_type=Literal["https"] | Redirect)]
        | None
    ) = None
    """`https`: answer each request with its https URL, and serve none. Status 308: method, path and query stay as they
    are. Left out: serve."""
    hsts: Hsts | None = None
    """Add Strict-Transport-Security to all answers to requests for a host name. Only with `tls`. A target's own field
    stays. Left out: add none."""
    proxy_protocol: list[Network] = Field(default_factory=list)
    """Networks whose connections open with a PROXY protocol header (version 1 or 2), from which the client's address
    is taken. Connections from elsewhere must not send one."""
    timeouts: ListenerTimeouts = Field(default_factory=ListenerTimeouts)
    """How long a client may take."""
    limits: ListenerLimits = Field(default_factory=ListenerLimits)
    """How much a client may ask for."""


def listener_from_text(value: Any) -> Any:
    return {"bind": value} if isinstance(value, str) else value


#: A listener, or its bind address alone.
AnyListener = Annotated[Listener, BeforeValidator(listener_from_text, json_schema_input_type=str | Listener)]


class Admin(Section):
    """The admin port: dashboard, API, metrics. It carries no clients' traffic."""

    bind: Bind = "127.0.0.1:9900"
    """Where it listens. Anything but a loopback address needs `token_file`."""
    token_file: FilePath | None = None
    """File that holds the token (surrounding white space does not count). Requests must then send
    `Authorization: Bearer TOKEN`; the command line takes the same file as `--token-file`. Left out: no token, which
    is possible on loopback only."""
    allowed_hosts: list[Word] = Field(default_factory=list)
    """Names that the Host header may have besides IP addresses, `localhost` and the name in `bind`. A page of another
    site cannot reach the admin port by rebinding its own name (DNS rebinding)."""
