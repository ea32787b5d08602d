"""TLS contexts for traffic and probes: built in one way, from one reading of the files, off the event loop.

The supervisor reads the files once per load and sends their contents to the workers. So probes, all workers and a
worker that starts later use the same certificates, whatever is on the disk by then. A digest of the contents is part of
the settings: a file that was renewed in place makes other settings, and so another context.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import ssl
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from lb.core.certificates import OFF, REQUIRED, Certificate, ClientAuth, Policy
from lb.core.targets import TlsClient
from lb.net.threads import threads
from lb.net.tls.resuming import resuming_context

#: Contents of files, by the digest that TLS settings carry.
Contents = Mapping[str, bytes]
#: The protocols that are offered by ALPN, to clients, and to targets by requests and probes alike: a target may refuse
#: anything else.
HTTP1 = ("http/1.1",)
HTTP2 = ("h2",)
#: The protocol by which a certificate authority asks for the answer to a challenge (RFC 8737).
ACME_ALPN = "acme-tls/1"
#: The least version, as the configuration names it.
MINIMUM = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
#: Cipher suites of TLS 1.2: with forward secrecy and authenticated encryption alone, which HTTP/2 demands as well (RFC
#: 9113 section 9.2.2). Those of TLS 1.3 all have both.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
#: Session tickets for each handshake of TLS 1.3, as Go's crypto/tls sends. OpenSSL's default of two costs a full
#: handshake 4 % more, and helps browsers that open several connections at once, with HTTP/1 alone.
TICKETS = 1
#: A context's settings, the protocols that it offers by ALPN, and whether it takes any name.
Key = tuple[TlsClient, tuple[str, ...], bool]


def client_context(tls: TlsClient, alpn: tuple[str, ...] = (), contents: Contents | None = None) -> ssl.SSLContext:
    """The context towards a target. Blocks; raises `OSError` (`ssl.SSLError`) where a file cannot be used."""
    ca, cert, key = _digests(tls.digests)
    context = resuming_context()
    with contextlib.ExitStack() as files:
        if tls.ca_file:
            context.load_verify_locations(files.enter_context(_file(tls.ca_file, ca, contents)))
        elif tls.verify:
            context.load_default_certs()
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.cert_file:
            _enter_pair(context, files, (tls.cert_file, cert), (tls.key_file, key), contents)
    # A name counts where it belongs, in subjectAltName alone (RFC 9525 section 6.3).
    context.hostname_checks_common_name = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def any_name_context(tls: TlsClient, alpn: tuple[str, ...] = (), contents: Contents | None = None) -> ssl.SSLContext:
    """The context that verifies all but the name. It is for a look at a certificate, never for a request."""
    context = client_context(tls, alpn, contents)
    context.check_hostname = False
    return context


def server_name(tls: TlsClient | None, host: str) -> str:
    """The name that a target must show, without the root's dot. SNI tells it to the target unless it is an address (RFC
    6066 section 3)."""
    return ((tls.server_name if tls is not None else "") or host).removesuffix(".")


def server_context(
    certificates: Sequence[Certificate], policy: Policy, contents: Contents | None = None
) -> ssl.SSLContext:
    """The context of handshakes that show one of these certificates: OpenSSL takes the one that the client can verify.

    Each has a key of another algorithm. Blocks; raises `OSError` (`ssl.SSLError`) where a file cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = MINIMUM[policy.min_version]
    context.set_ciphers(CIPHERS)
    for each in certificates:
        cert, key = each.digests or ("", "")
        with contextlib.ExitStack() as files:
            _enter_pair(context, files, (each.cert_file, cert), (each.key_file, key), contents)
    context.num_tickets = TICKETS
    _ask_clients(context, policy.client, contents)
    context.set_alpn_protocols(alpn_of(policy.alpn))
    return context


def alpn_of(protocols: Sequence[str]) -> list[str]:
    """The protocols that a listener agrees to. HTTP/1.1 servers speak HTTP/1.0 as well, and `curl --http1.0` offers it
    alone."""
    return [*protocols, "http/1.0"] if "http/1.1" in protocols else list(protocols)


def _ask_clients(context: ssl.SSLContext, client: ClientAuth, contents: Contents | None) -> None:
    """Have clients show a certificate. Without authorities that can be read, nobody may come in: this raises."""
    if client.mode == OFF:
        return
    context.verify_mode = ssl.CERT_REQUIRED if client.mode == REQUIRED else ssl.CERT_OPTIONAL
    ca, crl = client.digests or ("", "")
    with _file(client.ca_file, ca, contents) as path:
        context.load_verify_locations(path)
    if client.crl_file:
        # Every issuer of a chain needs a list: a missing list refuses its certificates, an empty one none of them.
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        with _file(client.crl_file, crl, contents) as path:
            context.load_verify_locations(path)
    # A resumed session is not verified again, so a client that was revoked meanwhile would stay in.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


def challenge_context(pem: bytes) -> ssl.SSLContext:
    """The context that answers a TLS-ALPN-01 challenge (RFC 8737), from key and certificate. Raises `OSError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with _in_memory() as (descriptor, name):
        with open(descriptor, "wb", closefd=False) as stream:
            stream.write(pem)
        context.load_cert_chain(name)
    context.set_alpn_protocols([ACME_ALPN])
    return context


def pair_error(cert_file: str, key_file: str) -> str:
    """Why OpenSSL cannot use a certificate and its key; empty when it can. `KEY_VALUES_MISMATCH`: not a pair."""
    try:
        _load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert_file, key_file)
    except (OSError, ValueError) as error:
        return openssl_reason(error)
    return ""


def authorities_error(file: str) -> str:
    """Why OpenSSL cannot read authorities from a file; empty when it can."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError as error:
        return openssl_reason(error)
    return ""


def openssl_reason(error: Exception) -> str:
    """OpenSSL's name for what is wrong (`NO_START_LINE`), else the error's text: Python's own errors have no name."""
    return str(getattr(error, "reason", None) or error)


def in_words(reason: str) -> str:
    """OpenSSL's name for what is wrong, as a part of a sentence."""
    return reason.replace("_", " ").lower()


class Contexts:
    """The client contexts of one process: one for all equal settings, built in a thread when first needed."""

    def __init__(self) -> None:
        self._contents: Contents = {}
        self._built: dict[Key, asyncio.Future[ssl.SSLContext]] = {}
        self._thread: ThreadPoolExecutor | None = None

    def use(self, settings: Collection[TlsClient], contents: Contents) -> None:
        """From now on only these settings are needed, with these contents: drop all other contexts."""
        self._contents = contents
        for key in [key for key in self._built if key[0] not in settings]:
            del self._built[key]

    async def get(self, tls: TlsClient, alpn: tuple[str, ...] = (), *, any_name: bool = False) -> ssl.SSLContext:
        """The context for `tls`. Raises `OSError` where a file cannot be used; the next call tries again.

        `any_name`: it verifies all but the name, for a look at a certificate."""
        key = (tls, alpn, any_name)
        building = self._built.get(key)
        if building is None or (building.done() and (building.cancelled() or building.exception() is not None)):
            if self._thread is None:
                self._thread = threads(1, "lb-tls")
            make = any_name_context if any_name else client_context
            building = asyncio.get_running_loop().run_in_executor(self._thread, make, tls, alpn, self._contents)
            building.add_done_callback(_retrieve)
            self._built[key] = building
        elif building.done():
            return building.result()
        return await asyncio.shield(building)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


def _retrieve(building: asyncio.Future[ssl.SSLContext]) -> None:
    """Mark the exception as retrieved: every caller may have given up by now."""
    if not building.cancelled():
        building.exception()


def _digests(digests: tuple[str, ...]) -> tuple[str, str, str]:
    """Of authorities, certificate and key; empty where the contents were not read beforehand."""
    ca, cert, key = digests or ("", "", "")
    return ca, cert, key


def _enter_pair(
    context: ssl.SSLContext,
    files: contextlib.ExitStack,
    cert: tuple[str, str],
    key: tuple[str, str],
    contents: Contents | None,
) -> None:
    cert_path = files.enter_context(_file(*cert, contents))
    key_path = files.enter_context(_file(*key, contents)) if key[0] else None
    _load_pair(context, cert_path, key_path)


def _load_pair(context: ssl.SSLContext, cert_path: str, key_path: str | None) -> None:
    # A passphrase would be asked for on the terminal; an empty one makes it an error instead.
    context.load_cert_chain(cert_path, key_path, password=lambda: b"")


@contextlib.contextmanager
def _file(path: str, digest: str, contents: Contents | None) -> Iterator[str]:
    """A path at which OpenSSL finds the contents: it takes certificates and keys from files alone."""
    if not digest or contents is None:
        yield path
        return
    if (data := contents.get(digest)) is None:  # what is on the disk now may be something else
        raise OSError(errno.ESTALE, f"the contents of {path} that were loaded are not kept any more; reload")
    with _in_memory() as (descriptor, name):
        with open(descriptor, "wb", closefd=False) as stream:
            stream.write(data)
        yield name


@contextlib.contextmanager
def _in_memory() -> Iterator[tuple[int, str]]:
    """A file without a name that only this process can open; a temporary one where the system has no such thing."""
    try:
        descriptor = os.memfd_create("lb-tls")
        name = f"/proc/self/fd/{descriptor}"
        usable = os.access(name, os.R_OK)
    except OSError:
        descriptor, usable = -1, False
    if usable:
        try:
            yield descriptor, name
        finally:
            os.close(descriptor)
        return
    if descriptor >= 0:
        os.close(descriptor)
    with tempfile.NamedTemporaryFile() as file:
        yield file.fileno(), file.name
