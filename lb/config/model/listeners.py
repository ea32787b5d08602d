"""Where clients and operators come in: listeners and the admin port."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from lb.config.model.fields import (
    Bind,
    Bounds,
    Duration,
    FilePath,
    Flag,
    HeaderName,
    Name,
    Network,
    Period,
    Reference,
    RouteHost,
    Size,
    Whole,
    Word,
)
from lb.config.model.hsts import Hsts
from lb.config.model.section import Section

#: What a field may tell of a client's certificate.
Identity = Literal["certificate", "chain", "subject", "issuer", "serial", "fingerprint", "names", "verified"]


def _rfc_9440() -> dict[str, Identity]:
    return {"Client-Cert": "certificate", "Client-Cert-Chain": "chain"}


class ClientAuth(Section):
    """Certificates of clients (mutual TLS). A client whose certificate is wrong gets no connection."""

    mode: Literal["off", "optional", "required"] = "required"
    """`required`: a client must show a certificate. `optional`: it may; a wrong one is refused as well. `off`: it is
    not asked."""
    ca_file: FilePath | None = None
    """PEM file with the authorities whose certificates are accepted. A file that cannot be read accepts nobody."""
    crl_file: FilePath | None = None
    """PEM file with revocation lists, one for each authority of a chain. A chain without its list is refused."""
    fields: dict[HeaderName, Identity] = Field(default_factory=_rfc_9440)
    """Fields by which targets are told who the client is. Values: `certificate` and `chain` as RFC 9440 writes them,
    `subject`, `issuer`, `serial`, `fingerprint` (SHA-256), `names`, or `verified` (`success`, or `none` without a
    certificate). lb removes these fields from all requests, in every spelling, before it sets them."""


class CertificateSource(Section):
    """Where certificates come from: one of `cert_file` with `key_file`, `directory`, `acme` and `authority`."""

    cert_file: FilePath | None = None
    """PEM file with a certificate, followed by the intermediate ones."""
    key_file: FilePath | None = None
    """PEM file with its private key, without a passphrase."""
    directory: FilePath | None = None
    """Directory of pairs: each `NAME.pem` or `NAME.crt` with its `NAME.key`, in the order of their names. Hidden files
    do not count; a file without its partner is a finding of `lb check`."""
    acme: Reference | None = None
    """Certificates for `names` from an ACME server: the name of an entry of `acme`."""
    authority: Literal["internal"] | None = None
    """`internal`: certificates for `names` from lb's own local authority, which is kept in `state_dir`. The word alone
    may stand here: `certificates: [internal]`."""
    names: list[RouteHost] = Field(default_factory=list)
    """Host names that certificates are asked for. With `internal`, left out: every host that a route names, and
    `localhost`."""
    min_version: Literal["1.2", "1.3"] | None = None
    """Least version of TLS for the names of these certificates. Left out: the listener's."""
    client: ClientAuth | None = None
    """Certificates of clients that ask for these names. Left out: the listener's. A name has one rule: two that differ
    are an error, also where one is for a wildcard that covers the name. A request for a host of another rule than its
    connection's gets 421."""


def source_from_text(value: Any) -> Any:
    return {"authority": value} if isinstance(value, str) else value


#: A source, or the word for the local authority alone.
AnySource = Annotated[
    CertificateSource, BeforeValidator(source_from_text, json_schema_input_type=Literal["internal"] | CertificateSource)
]


class ServerTls(Section):
    """How a listener speaks TLS 1.2 and 1.3. Its certificates are chosen by the host that a client names (SNI)."""

    cert_file: FilePath | None = None
    """PEM file with the certificate, followed by the intermediate ones. Relative paths begin at this file's folder. A
    shorthand for one entry of `certificates`."""
    key_file: FilePath | None = None
    """PEM file with the private key, without a passphrase."""
    certificates: list[AnySource] = Field(default_factory=list)
    """Any number of certificates. One that names the host exactly comes before a wildcard, which stands for one label.
    RSA and ECDSA certificates of one name are both used. Of two that are otherwise alike, the one that ends last is
    used. Changed files are taken in by themselves, `lb reload` does it at once."""
    default: RouteHost = ""
    """The name whose certificate clients get that name no host, or one without a certificate. Left out: the first
    certificate."""
    strict_sni: Flag = False
    """Refuse clients that name a host without a certificate (alert 112, `unrecognized_name`). Without `default`,
    clients that name no host are refused as well."""
    min_version: Literal["1.2", "1.3"] = "1.2"
    """Least version of TLS."""
    client: ClientAuth | None = None
    """Certificates of clients. Left out: clients are not asked."""
    client_ca_file: FilePath | None = None
    """Shorthand for `client: {mode: required, ca_file: FILE}`."""

    def sources(self) -> list[CertificateSource]:
        """The sources of certificates, with the pair that stands beside them first."""
        if self.cert_file is None and self.key_file is None:
            return self.certificates
        return [CertificateSource(cert_file=self.cert_file, key_file=self.key_file), *self.certificates]

    def source_path(self, position: int) -> tuple[str | int, ...]:
        """Where a source of `sources` stands."""
        if self.cert_file is None and self.key_file is None:
            return ("certificates", position)
        return ("certificates", position - 1) if position else ()

    def client_auths(self) -> list[ClientAuth]:
        """How clients are asked: as the listener says, and as its sources do."""
        return [self.client_auth(), *(source.client for source in self.sources() if source.client is not None)]

    def client_auth(self) -> ClientAuth:
        """How clients are asked, defaults and shorthand filled in."""
        if self.client_ca_file is not None:
            return ClientAuth(mode="required", ca_file=self.client_ca_file)
        return self.client or ClientAuth(mode="off")


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


Protocol = Literal["h2", "h2c", "http/1.1"]


class Listener(Section):
    """An address that accepts clients."""

    bind: Bind
    """`host:port`, `[IPv6]:port`, `:port` for all IPv4 addresses, or `unix:/path`. Port 0 takes a free one, which is
    printed and shown in status."""
    tls: ServerTls | None = None
    """Speak HTTPS. Left out: plain HTTP."""
    protocols: list[Protocol] | None = None
    """The protocols that clients may speak; where a client's TLS handshake lets lb choose (ALPN), the first one that
    both have. `h2` is HTTP/2 with `tls`. `h2c` is HTTP/2 without, for clients that begin with it; there is no upgrade
    from HTTP/1. Without `http/1.1` a client of HTTP/1 is refused. Left out: `[h2, http/1.1]` with `tls`,
    `[http/1.1]` without."""

    def spoken(self) -> tuple[Protocol, ...]:
        """The protocols, each once, with the default filled in."""
        if self.protocols is None:
            return ("http/1.1",) if self.tls is None else ("h2", "http/1.1")
        return tuple(dict.fromkeys(self.protocols))

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
    timeouts: ListenerTimeouts = Field(default_factory=ListenerTimeouts.defaults)
    """How long a client may take."""
    limits: ListenerLimits = Field(default_factory=ListenerLimits.defaults)
    """How much a client may ask for."""


def listener_from_text(value: Any) -> Any:
    return {"bind": value} if isinstance(value, str) else value


#: A listener, or its bind address alone.
AnyListener = Annotated[Listener, BeforeValidator(listener_from_text, json_schema_input_type=str | Listener)]


Role = Literal["read", "drain", "operate", "configure"]


def roles_from_text(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Token(Section):
    """A token of the admin port, with a name for the events and the roles that its holder needs."""

    name: Name
    """What events call its holder."""
    roles: Annotated[
        list[Role], BeforeValidator(roles_from_text, json_schema_input_type=Role | list[Role]), Field(min_length=1)
    ]
    """`read`: status, explanations, events, probes, metrics, and previews of orders. `drain`: drain and undrain
    targets, and `prestop`. `operate`: switches, rollbacks, weights, drains, probes at once. `configure`: the text of
    the configuration, reloads and upgrades. None includes another one."""
    token_file: FilePath
    """File that holds the token, as `admin: token_file:` is. No other token may have the same content."""


class AdminTls(Section):
    """The admin port's certificate. A reload takes one that was renewed in place."""

    cert_file: FilePath
    """PEM file with the certificate, followed by the intermediate ones. Relative paths begin at this file's folder."""
    key_file: FilePath
    """PEM file with the private key, without a passphrase."""


class Admin(Section):
    """The admin port: dashboard, API, metrics. It carries no clients' traffic."""

    bind: Bind = "127.0.0.1:9900"
    """Where it listens. Anything but a loopback address needs `token_file` or `tokens`."""
    tls: AdminTls | None = None
    """Speak HTTPS. Left out: plain HTTP."""
    token_file: FilePath | None = None
    """File that holds a token which allows everything (surrounding white space does not count). Requests must then send
    `Authorization: Bearer TOKEN`; the command line takes the same file as `--token-file`. Without it, and without
    `tokens`, no token is needed, which is possible on loopback only."""
    tokens: list[Token] = Field(default_factory=list)
    """Tokens that allow less: for Prometheus, for a container's preStop hook, for a deployment."""
    allowed_hosts: list[Word] = Field(default_factory=list)
    """Names that the Host header may have besides IP addresses, `localhost` and the name in `bind`. A page of another
    site cannot reach the admin port by rebinding its own name (DNS rebinding)."""

    @property
    def secured(self) -> bool:
        """Whether requests need a token."""
        return self.token_file is not None or bool(self.tokens)

    def token_files(self) -> list[tuple[tuple[str | int, ...], str]]:
        """The files with tokens, and where each is named."""
        named: list[tuple[tuple[str | int, ...], str]] = []
        if self.token_file is not None:
            named.append((("token_file",), self.token_file))
        named += [(("tokens", index, "token_file"), token.token_file) for index, token in enumerate(self.tokens)]
        return named
