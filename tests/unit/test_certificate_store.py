"""The store of a worker's certificates: real handshakes by name, contexts that are shared, exchanged in one step."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lb.config.check import certificates as contents_of
from lb.core.certificates import Certificate, ClientAuth, Policy, Source, TlsServer
from lb.net.tls.contexts import server_context
from lb.net.tls.store import CertificateStore
from tests.support.certificates import Authority, Issued

BIND = "127.0.0.1:443"
AUTHORITY = Authority()


class Files:
    """Contents by digest."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()[:32]
        self.contents[digest] = data
        return digest

    def certificate(self, issued: Issued) -> Certificate:
        leaf = contents_of.parse(issued.cert_pem)
        assert leaf is not None
        digests = (self.put(issued.cert_pem), self.put(issued.key_pem))
        name = leaf.names[0] if leaf.names else ""
        return Certificate(
            f"{name}.pem", f"{name}.key", 0, leaf.names, leaf.algorithm, leaf.not_before, leaf.not_after, digests
        )


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.fixture
async def store() -> AsyncIterator[CertificateStore]:
    made = CertificateStore()
    yield made
    made.close()


def shake(
    server: ssl.SSLContext, name: str | None, change: Callable[[ssl.SSLContext], object] = lambda context: None
) -> tuple[bytes, ssl.SSLObject]:
    """A handshake in memory: the certificate that the client got. Raises `ssl.SSLError`, the client's or the
    server's."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    change(client)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    open_sides = [asking, answering]
    for _ in range(10):
        for side in list(open_sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            open_sides.remove(side)
    assert not open_sides
    answering.write(b"x")
    assert asking.read(1) == b"x"
    certificate = asking.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate, answering


def names_of(der: bytes) -> list[str]:
    certificate = x509.load_der_x509_certificate(der)
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    )


async def test_each_name_gets_its_certificate(store: CertificateStore, files: Files) -> None:
    issued = [AUTHORITY.issue(name) for name in ("*.example.org", "a.example.org", "other.test")]
    tls = TlsServer(certificates=tuple(map(files.certificate, issued)), default="other.test")
    await store.install(BIND, tls, files.contents)
    for asked, served in (
        ("a.example.org", "a.example.org"),
        ("A.EXAMPLE.org", "a.example.org"),
        ("b.example.org", "*.example.org"),
        ("unknown.test", "other.test"),
        (None, "other.test"),
    ):
        selected = store.select(BIND, asked)
        assert selected is not None
        got, _ = shake(selected.context, asked)
        assert names_of(got) == [served], asked


async def test_a_client_gets_the_key_that_it_can_verify(store: CertificateStore, files: Files) -> None:
    ecdsa, rsa = AUTHORITY.issue("a.test"), AUTHORITY.issue("a.test", algorithm="rsa")
    tls = TlsServer(certificates=(files.certificate(rsa), files.certificate(ecdsa)))
    await store.install(BIND, tls, files.contents)
    selected = store.select(BIND, "a.test")
    assert selected is not None

    def only(ciphers: str) -> Callable[[ssl.SSLContext], object]:
        def change(client: ssl.SSLContext) -> None:
            client.maximum_version = ssl.TLSVersion.TLSv1_2
            client.set_ciphers(ciphers)

        return change

    for ciphers, issued in (("ECDHE+ECDSA", ecdsa), ("ECDHE+aRSA", rsa)):
        got, _ = shake(selected.context, "a.test", only(ciphers))
        assert got == issued.certificate.public_bytes(Encoding.DER)
    got, _ = shake(selected.context, "a.test")
    assert got == ecdsa.certificate.public_bytes(Encoding.DER), "cheaper, and every client of TLS 1.3 can verify it"


async def test_contexts_are_built_once_and_shared(files: Files) -> None:
    built: list[Sequence[Certificate]] = []

    def build(certificates: Sequence[Certificate], policy: Policy, contents: object) -> ssl.SSLContext:
        built.append(certificates)
        return server_context(certificates, policy, files.contents)

    store = CertificateStore(build)
    certificates = [files.certificate(AUTHORITY.issue(f"{number}.test")) for number in range(5)]
    tls = TlsServer(certificates=tuple(certificates))
    await store.install(BIND, tls, files.contents)
    await store.install("127.0.0.1:444", tls, files.contents)
    assert len(built) == 5
    before = store.select(BIND, "1.test")
    renewed = files.certificate(AUTHORITY.issue("2.test"))
    await store.install(
        BIND, replace(tls, certificates=(*certificates[:2], renewed, *certificates[3:])), files.contents
    )
    assert built[5:] == [(renewed,)]
    after = store.select(BIND, "1.test")
    assert before is not None and after is not None and before.context is after.context
    store.close()


async def test_what_cannot_be_built_leaves_the_former_certificates(store: CertificateStore, files: Files) -> None:
    tls = TlsServer(certificates=(files.certificate(AUTHORITY.issue("a.test")),))
    await store.install(BIND, tls, files.contents)
    broken = replace(tls.certificates[0], digests=(tls.certificates[0].digests[0], files.put(b"noise")))
    with pytest.raises(OSError, match="PEM"):
        await store.install(BIND, replace(tls, certificates=(broken,)), files.contents)
    assert store.holds(BIND, tls)
    selected = store.select(BIND, "a.test")
    assert selected is not None
    shake(selected.context, "a.test")
    store.forget(BIND)
    assert store.select(BIND, "a.test") is None


async def test_the_loop_goes_on_while_contexts_are_built(files: Files) -> None:
    import threading

    go = threading.Event()

    def slow(certificates: Sequence[Certificate], policy: Policy, contents: object) -> ssl.SSLContext:
        assert go.wait(10)
        return server_context(certificates, policy, files.contents)

    store = CertificateStore(slow)
    tls = TlsServer(certificates=(files.certificate(AUTHORITY.issue("a.test")),))
    installing = asyncio.ensure_future(store.install(BIND, tls, files.contents))
    await asyncio.sleep(0.01)
    assert not installing.done() and store.select(BIND, "a.test") is None
    go.set()
    await installing
    assert store.select(BIND, "a.test") is not None
    store.close()


async def test_the_least_version_is_kept(files: Files, store: CertificateStore) -> None:
    tls = TlsServer(certificates=(files.certificate(AUTHORITY.issue("a.test")),), min_version="1.3")
    await store.install(BIND, tls, files.contents)
    selected = store.select(BIND, "a.test")
    assert selected is not None
    _, server = shake(selected.context, "a.test")
    assert server.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        shake(selected.context, "a.test", lambda client: setattr(client, "maximum_version", ssl.TLSVersion.TLSv1_2))


@pytest.mark.parametrize("mode", ["required", "optional"])
async def test_clients_are_verified(
    mode: str, store: CertificateStore, files: Files, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("clients")
    stranger, good = Authority("Stranger").issue(client=True, subject="stranger"), AUTHORITY.issue(client=True)
    revoked, expired = AUTHORITY.issue(client=True), AUTHORITY.issue(client=True, ends=-60.0)
    named = {"stranger": stranger, "good": good, "revoked": revoked, "expired": expired}
    for name, issued in named.items():
        issued.write(folder, name)
    lists = AUTHORITY.revocations(revoked)
    client = ClientAuth(mode, "ca.pem", "crl.pem", (files.put(AUTHORITY.pem), files.put(lists)))
    tls = TlsServer(certificates=(files.certificate(AUTHORITY.issue("a.test")),), client=client)
    await store.install(BIND, tls, files.contents)
    selected = store.select(BIND, "a.test")
    assert selected is not None

    def showing(name: str) -> Callable[[ssl.SSLContext], object]:
        return lambda context: context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")

    _, server = shake(selected.context, "a.test", showing("good"))
    assert server.getpeercert(binary_form=True) == good.certificate.public_bytes(Encoding.DER)
    reasons = {}
    for name in ("stranger", "revoked", "expired"):
        with pytest.raises(ssl.SSLCertVerificationError) as refused:
            shake(selected.context, "a.test", showing(name))
        reasons[name] = refused.value.verify_message
    assert len(set(reasons.values())) == 3, reasons
    if mode == "optional":
        _, server = shake(selected.context, "a.test")
        assert server.getpeercert(binary_form=True) is None
    else:
        with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
            shake(selected.context, "a.test")


@pytest.mark.parametrize("broken", ["ca", "crl", "no list of the authority"])
async def test_authorities_that_cannot_be_read_accept_nobody(
    broken: str, store: CertificateStore, files: Files, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("clients")
    AUTHORITY.issue(client=True).write(folder, "good")
    lists = Authority("Another").revocations() if broken == "no list of the authority" else AUTHORITY.revocations()
    ca, crl = files.put(AUTHORITY.pem), files.put(lists)
    if broken == "ca":
        ca = files.put(b"noise")
    elif broken == "crl":
        crl = files.put(b"noise")
    client = ClientAuth("required", "ca.pem", "crl.pem", (ca, crl))
    tls = TlsServer(certificates=(files.certificate(AUTHORITY.issue("a.test")),), client=client)
    if broken != "no list of the authority":
        with pytest.raises(OSError, match=r"NO_CERTIFICATE|PEM|NO_START"):
            await store.install(BIND, tls, files.contents)
        assert store.select(BIND, "a.test") is None
        return
    await store.install(BIND, tls, files.contents)
    selected = store.select(BIND, "a.test")
    assert selected is not None
    with pytest.raises(ssl.SSLCertVerificationError, match="CRL"):
        shake(
            selected.context,
            "a.test",
            lambda context: context.load_cert_chain(folder / "good.pem", folder / "good.key"),
        )


async def test_an_empty_list_revokes_nobody(
    store: CertificateStore, files: Files, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("clients")
    AUTHORITY.issue(client=True).write(folder, "good")
    digests = files.put(AUTHORITY.pem), files.put(AUTHORITY.revocations())
    client = ClientAuth("required", "ca.pem", "crl.pem", digests)
    tls = TlsServer(certificates=(files.certificate(AUTHORITY.issue("a.test")),), client=client)
    await store.install(BIND, tls, files.contents)
    selected = store.select(BIND, "a.test")
    assert selected is not None
    shake(selected.context, "a.test", lambda context: context.load_cert_chain(folder / "good.pem", folder / "good.key"))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("mode", ["off", "optional", "required"])
async def test_no_session_of_a_name_that_verifies_clients_is_resumed(
    mode: str, version: ssl.TLSVersion, files: Files, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """CVE-2025-23419: neither at its own name nor at another one, nor where only the worker is another one."""
    folder = tmp_path_factory.mktemp("clients")
    AUTHORITY.issue(client=True).write(folder, "good")
    client = ClientAuth(mode, "ca.pem", "", (files.put(AUTHORITY.pem), "")) if mode != "off" else ClientAuth()
    tls = TlsServer(
        sources=(Source(cert_file="a"), Source(cert_file="b", client=client)),
        certificates=(
            files.certificate(AUTHORITY.issue("a.test")),
            replace(files.certificate(AUTHORITY.issue("b.test")), source=1),
        ),
    )
    workers = [CertificateStore(), CertificateStore()]
    for each in workers:
        each.use_ticket_secret(b"secret" * 8)
        await each.install(BIND, tls, files.contents)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(folder / "good.pem", folder / "good.key")

    def meet(worker: CertificateStore, name: str, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
        selected = worker.select(BIND, name)
        assert selected is not None
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        asking = context.wrap_bio(to_client, to_server, server_hostname=name, session=session)
        answering = selected.context.wrap_bio(to_server, to_client, server_side=True)
        for _ in range(10):
            for side in (asking, answering):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        answering.write(b"x")
        assert asking.read(1) == b"x"
        return bool(answering.session_reused), asking.session

    _, of_b = meet(workers[0], "b.test", None)
    _, of_a = meet(workers[0], "a.test", None)
    for worker in workers:
        for name, session in (("b.test", of_b), ("b.test", of_a)):
            resumed, _ = meet(worker, name, session)
            assert not resumed or mode == "off"
        if mode != "off":
            assert not meet(worker, "a.test", of_b)[0]
    assert meet(workers[1], "a.test", of_a)[0], "names without clients' certificates resume theirs, anywhere"
    for each in workers:
        each.close()
