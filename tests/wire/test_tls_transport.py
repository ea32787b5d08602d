"""Clients that speak TLS: real ones, and ones that cut, stop, end and pile up in ways that TCP alone cannot."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from lb.core.targets import AccessLog
from lb.issuing.acme.material import ACME_IDENTIFIER, challenge_certificate
from lb.net.tls.contexts import challenge_context
from tests.support.eventually import eventually
from tests.support.front import Front, Origin, read_all, read_answer, read_request, status_of
from tests.wire.peers import server_context, sized, speak_tls

AUTHORITY = trustme.CA()
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with Front(tls=server_context(AUTHORITY)) as front:
        yield front


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


class Wire:
    """A client whose bytes on the wire are the test's: TLS without a socket, beside a socket."""

    def __init__(self, front: Front, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        context.maximum_version = version
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.sock = front.connect()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, cuts: random.Random | None = None) -> None:
        """Send what is due; with `cuts` in random pieces."""
        data = self.outgoing.read()
        while data:
            size = cuts.choice([1, 4, 5, 60, 5000, 20_000]) if cuts else len(data)
            self.sock.sendall(data[:size])
            data = data[size:]

    def shake(self, cuts: random.Random | None = None) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.send(cuts)
                self.incoming.write(self.sock.recv(65536))
            else:
                self.send(cuts)
                return

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                piece = self.tls.read(size - len(data))
            except ssl.SSLWantReadError:
                more = self.sock.recv(65536)
                if not more:
                    return data
                self.incoming.write(more)
            except ssl.SSLZeroReturnError:
                return data
            else:
                if not piece:
                    return data
                data += piece
        return data


async def digests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    """Answers with the digest of the body."""
    while True:
        body = (await read_request(reader)).partition(b"\r\n\r\n")[2]
        origin.requests.append(body)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + hashlib.sha256(body).hexdigest().encode())


def post(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("seed", range(6))
def test_any_cut_of_a_clients_bytes_is_read_alike(front: Front, version: ssl.TLSVersion, seed: int) -> None:
    front.with_script(digests)
    rng = random.Random(seed)
    with Wire(front, version) as wire:
        wire.shake(rng)
        for _ in range(4):
            body = rng.randbytes(rng.choice([1, 3000, 16_384, 70_000]))
            request = post(body)
            at = 0
            while at < len(request):
                size = rng.choice([1, 10, 16_384, 100_000])
                wire.tls.write(request[at : at + size])
                at += size
            wire.send(rng)
            answer = wire.read(9)
            while not answer.endswith(b"\r\n\r\n"):
                answer += wire.read(1)
            assert wire.read(64) == hashlib.sha256(body).hexdigest().encode()


@pytest.mark.parametrize("size", [0, 1, 16_000, 16_384, 16_385, 1_048_576])
def test_curl_gets_answers_of_any_size(front: Front, ca_file: str, size: int) -> None:
    front.with_script(sized(size))
    url = f"https://localhost:{front.port}/"
    command = ["curl", "-sS", "--cacert", ca_file, "--connect-to", f"::127.0.0.1:{front.port}", url, url]
    done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stderr, len(done.stdout)) == (0, b"", 2 * size)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_may_end_its_side_before_the_answer(front: Front, ca_file: str, version: str) -> None:
    front.with_script(sized(300_000))
    command = ["openssl", "s_client", "-quiet", "-ign_eof", version, "-CAfile", ca_file, "-verify_return_error"]
    command += ["-servername", "localhost", "-connect", f"127.0.0.1:{front.port}"]
    request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    done = subprocess.run(command, input=request, capture_output=True, timeout=20, check=False)
    assert len(done.stdout.partition(b"\r\n\r\n")[2]) == 300_000, done.stderr


@pytest.mark.parametrize("end", ["close_notify", "fin", "both"])
def test_a_client_that_has_ended_its_side_gets_its_answer(front: Front, end: str) -> None:
    front.with_script(sized(200_000))
    with Wire(front) as wire:
        wire.shake()
        wire.tls.write(GET)
        if end != "fin":
            with contextlib.suppress(ssl.SSLWantReadError):
                wire.tls.unwrap()
        wire.send()
        if end != "close_notify":
            wire.sock.shutdown(socket.SHUT_WR)
        answer = wire.read(10**6)
    assert status_of(answer) == 200
    assert len(answer.partition(b"\r\n\r\n")[2]) == 200_000


def test_a_bare_fin_behind_an_upload_loses_nothing(front: Front) -> None:
    """uvloop pull request 661: 65,536 of 300,000 bytes arrived while reading was paused."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await asyncio.sleep(0.5)
        origin.requests.append(await read_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    front.with_script(slow)
    body = random.Random(1).randbytes(12_000_000)
    with Wire(front) as wire:
        wire.shake()
        wire.tls.write(post(body))
        wire.sock.settimeout(20)
        wire.send()
        wire.sock.shutdown(socket.SHUT_WR)
        eventually(lambda: bool(front.origin.requests), 10.0)
    assert front.origin.requests[0].partition(b"\r\n\r\n")[2] == body


def test_pipelined_requests_in_one_record_and_in_many(front: Front) -> None:
    front.with_script(sized(100))
    with front.connect() as plain, speak_tls(AUTHORITY, plain) as sock:
        sock.sendall(GET * 20)
        for byte in GET:
            sock.sendall(bytes((byte,)))
        assert read_some(sock, 21) == [200] * 21


def read_some(sock: ssl.SSLSocket, count: int) -> list[int]:
    """The status of so many answers of 100 bytes."""
    data, found = b"", []
    while len(found) < count:
        data += sock.recv(65536)
        while (end := data.find(b"\r\n\r\n")) >= 0 and len(data) >= end + 104:
            found.append(status_of(data[: end + 104]))
            data = data[end + 104 :]
    return found


def test_a_tunnel_over_tls_carries_bytes_both_ways_and_each_end(front: Front) -> None:
    async def echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write(b"bye")
        writer.write_eof()

    front.with_script(echoes)
    with Wire(front) as wire:
        wire.shake()
        wire.tls.write(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
        wire.send()
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += wire.read(1)
        assert status_of(head) == 101
        for size in (1, 500, 16_384, 100_000):
            data = random.Random(size).randbytes(size)
            wire.tls.write(data)
            wire.send()
            assert wire.read(size) == data
        with contextlib.suppress(ssl.SSLWantReadError):
            wire.tls.unwrap()
        wire.send()
        assert wire.read(100) == b"bye", "the other direction lives on"
    eventually(lambda: not front.call(lambda: front.plane.context.tunnels))


def test_a_slow_reader_holds_up_the_target_and_not_the_memory(front: Front) -> None:
    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(500):
                writer.write(bytes(100_000))
                await writer.drain()

    front.with_script(floods)
    with front.connect() as plain, speak_tls(AUTHORITY, plain) as sock:
        sock.sendall(GET)
        eventually(lambda: any(client.blocked for client in front.call(lambda: list(front.plane.clients))))
        time.sleep(0.2)
        waiting = front.call(lambda: sum(client.transport.get_write_buffer_size() for client in front.plane.clients))
        assert waiting < 1_500_000
        assert len(read_all(sock, 5_000_000)) >= 5_000_000


def test_a_client_of_key_updates_alone_is_cut_off_and_a_busy_one_is_not(front: Front, ca_file: str) -> None:
    front.with_script(sized(10))
    command = ["openssl", "s_client", "-tls1_3", "-CAfile", ca_file, "-servername", "localhost"]
    command += ["-connect", f"127.0.0.1:{front.port}"]
    before = front.call(lambda: front.plane.stats.accepted)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as peer:
        assert peer.stdin is not None
        eventually(lambda: front.call(lambda: front.plane.stats.accepted) > before)
        for _ in range(20):
            peer.stdin.write(b"K\n")  # a KeyUpdate that asks for another one
            peer.stdin.flush()
            time.sleep(0.01)
        assert peer.poll() is None
        with contextlib.suppress(BrokenPipeError):
            for _ in range(100):
                peer.stdin.write(b"K\n")
                peer.stdin.flush()
                time.sleep(0.005)
        assert peer.wait(10) is not None
        with contextlib.suppress(BrokenPipeError):
            peer.stdin.close()


def test_renegotiation_is_refused(front: Front, ca_file: str) -> None:
    front.with_script(sized(10))
    command = ["openssl", "s_client", "-tls1_2", "-CAfile", ca_file, "-servername", "localhost"]
    command += ["-connect", f"127.0.0.1:{front.port}"]
    done = subprocess.run(command, input=b"R\n", capture_output=True, timeout=20, check=False)
    assert b"no renegotiation" in done.stderr


def test_nothing_is_left_when_the_clients_are_gone(front: Front) -> None:
    front.with_script(sized(10))
    eventually(lambda: not front.call(lambda: front.plane.clients), 10.0)
    for way in range(60):
        with contextlib.suppress(OSError), front.connect() as plain:
            if way % 3 == 0:
                plain.sendall(b"\x16\x03\x01\x00")
            else:
                sock = speak_tls(AUTHORITY, plain)
                sock.sendall(GET)
                if way % 3 == 1:
                    read_answer(sock)
                sock.close()
    eventually(lambda: not front.call(lambda: front.plane.clients or front.admission), 10.0)
    eventually(front.at_rest)


def test_a_handshake_that_answers_a_challenge_carries_no_request() -> None:
    """Its context asks for no client certificate, whatever the listener demands."""
    pem = challenge_certificate("localhost", "token.thumbprint")
    with Front(tls=challenge_context(pem), serves=False) as front:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["acme-tls/1"])
        with (
            socket.create_connection(("127.0.0.1", front.port), 5) as sock,
            context.wrap_socket(sock, server_hostname="localhost") as tls,
        ):
            assert tls.selected_alpn_protocol() == "acme-tls/1"
            certificate = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
            assert certificate.extensions.get_extension_for_oid(ACME_IDENTIFIER).critical
            with contextlib.suppress(OSError):  # the connection may be closed before this is sent
                tls.sendall(GET)
                assert tls.recv(1000) == b""
        assert front.origin.requests == []


def test_the_access_log_names_version_cipher_name_and_resumption(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with Front(tls=server_context(AUTHORITY), access_log=AccessLog("json", str(path))) as front:
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        session: ssl.SSLSession | None = None
        for _ in range(2):
            with context.wrap_socket(front.connect(), server_hostname="localhost", session=session) as sock:
                sock.sendall(GET)
                assert status_of(read_answer(sock)) == 200
                session = sock.session
        front.call(lambda: front.plane.log.flush())  # type: ignore[union-attr]
        eventually(lambda: path.exists() and path.read_text().count("\n") == 2)
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["tls_version"], first["tls_name"], first["tls_resumed"]) == ("TLSv1.3", "localhost", False)
    assert first["tls_cipher"].startswith("TLS_")
    assert second["tls_resumed"] is True
