"""The client of `benchmarks.certificates`, against OpenSSL's server: what it accepts has been proved."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.tls_client import Client, Identity, TLSError

NAME = "host-1.test"


class Server:
    """OpenSSL's side in memory, with a certificate for the name; answers one request."""

    def __init__(self, folder: Path) -> None:
        issued = trustme.CA().issue_cert(NAME, key_type=trustme.KeyType.ECDSA)
        issued.private_key_and_cert_chain_pem.write_to_path(folder / "own.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "own.pem")
        self.names: list[str | None] = []
        context.sni_callback = lambda _sock, name, _context: self.names.append(name)
        self.certificate = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.request = b""

    def receive(self, data: bytes) -> bytes:
        self._incoming.write(data)
        try:
            self.tls.do_handshake()
            self.request += self.tls.read(1000)
            self.tls.write(b"HTTP/1.1 200 OK\r\n\r\n")
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        return self._outgoing.read()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_a_full_handshake_and_a_request(server: Server) -> None:
    client = Client(Identity(), NAME, b"GET / HTTP/1.1\r\n\r\n")
    flight = server.receive(client.hello)
    assert client.certificate is None
    answer = server.receive(client.receive(flight))
    assert client.certificate == server.certificate
    for byte in answer:
        assert client.receive(bytes([byte])) == b""
    assert client.answer == b"HTTP/1.1 200 OK\r\n\r\n"
    assert server.request == b"GET / HTTP/1.1\r\n\r\n"
    assert server.names == [NAME]
    assert server.tls.version() == "TLSv1.3"
    assert server.tls.session_reused is False


def test_a_server_without_the_certificates_key(server: Server) -> None:
    identity = Identity()
    der = server.certificate.public_bytes(Encoding.DER)
    identity.certificate(der)
    identity.keys[der] = ec.generate_private_key(ec.SECP256R1()).public_key()
    client = Client(identity, NAME, b"")
    with pytest.raises(TLSError, match="the signature does not fit the certificate"):
        client.receive(server.receive(client.hello))
    assert client.certificate is None


def test_a_record_that_was_changed_on_its_way(server: Server) -> None:
    client = Client(Identity(), NAME, b"")
    flight = bytearray(server.receive(client.hello))
    flight[-1] ^= 1
    with pytest.raises(TLSError, match="a record cannot be decrypted"):
        client.receive(bytes(flight))
    assert client.certificate is None


def test_an_alert_instead_of_a_handshake() -> None:
    client = Client(Identity(), NAME, b"")
    with pytest.raises(TLSError, match="alert 112"):
        client.receive(b"\x15\x03\x03\x00\x02\x02\x70")
