"""Sessions without sockets: any cut of the bytes, the ends, floods, and the two readings of a server name."""

from __future__ import annotations

import contextlib
import random
import ssl
from collections.abc import Iterable

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.net.tls.session import (
    CERTIFICATE_MISSING,
    CERTIFICATE_UNTRUSTED,
    CONTROL_FLOOD,
    CONTROL_RECORDS,
    DISTRUSTED,
    FAILED,
    NAME_MISMATCH,
    NO_SHARED_CIPHER,
    NO_SHARED_VERSION,
    Buffers,
    Session,
    SessionError,
)

AUTHORITY = trustme.CA()
BUFFERS = Buffers()
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def served(**changes: object) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    for name, value in changes.items():
        setattr(context, name, value)
    return context


SERVED = served()


class Client:
    """OpenSSL as a client, without a socket."""

    def __init__(self, name: str = "localhost", **changes: object) -> None:
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        for key, value in changes.items():
            if key == "own":
                assert isinstance(value, trustme.LeafCert)
                value.configure_cert(context)
            elif key == "ciphers":
                context.set_ciphers(str(value))
            else:
                setattr(context, key, value)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    def shake(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def read(self) -> bytes:
        """All that can be read."""
        data = b""
        try:
            while piece := self.tls.read(65536):
                data += piece
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return data


def shaken(client: Client, session: Session, cuts: Iterable[int] = ()) -> None:
    """Do a handshake; what the client sends is cut into pieces of these sizes."""
    sizes = iter(cuts)
    while True:
        client.shake()
        sent = client.outgoing.read()
        assert sent, "the handshake goes on"
        while sent:
            size = next(sizes, len(sent))
            piece, sent = sent[:size], sent[size:]
            done = session.handshake(piece)
            client.incoming.write(session.output)
            if done:
                session.rest += sent
                assert client.shake()
                return


def opened(session: Session, data: bytes) -> tuple[list[bytes], list[bytes]]:
    """The plaintext of all records, and what is sent back."""
    plain, back, at = [], [], 0
    while at < len(data):
        piece = session.open(data, at)
        at = session.position
        if piece:
            plain.append(piece)
        elif piece is not None and session.output:
            back.append(session.output)
    return plain, back


def established(name: str = "localhost", **changes: object) -> tuple[Client, Session]:
    client, session = Client(name, **changes), Session(BUFFERS, SERVED, name)
    shaken(client, session)
    return client, session


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_cut_of_the_stream_gives_the_same_bytes(version: ssl.TLSVersion, data: st.DataObject) -> None:
    rng = random.Random(data.draw(st.integers(0, 10**6)))
    client, session = Client(maximum_version=version), Session(BUFFERS, SERVED, "localhost")
    shaken(client, session, iter(lambda: rng.choice([1, 2, 5, 6, 100, 5000]), 0))
    said = b""
    wire = b""
    for _ in range(rng.randrange(1, 8)):
        piece = rng.randbytes(rng.choice([1, 100, 16384, 16385, 50_000]))
        said += piece
        client.tls.write(piece)
        wire += client.outgoing.read()
    heard, at = b"", 0
    while at < len(wire):
        size = rng.choice([1, 3, 5, 1000, 16406, 65536])
        plain, _ = opened(session, wire[at : at + size])
        heard += b"".join(plain)
        at += size
    assert heard == said
    client.incoming.write(session.seal(said))
    assert client.read() == said


@pytest.mark.parametrize("version", VERSIONS)
def test_many_sessions_share_one_pair_of_buffers(version: ssl.TLSVersion) -> None:
    """Their handshakes and data interleave, cut within records."""
    pairs = [(Client(maximum_version=version), Session(BUFFERS, SERVED, "localhost")) for _ in range(5)]
    open_ones: list[tuple[Client, Session]] = []
    waiting = {client: b"" for client, _ in pairs}
    while len(open_ones) < len(pairs):
        for client, session in pairs:
            if (client, session) in open_ones:
                continue
            client.shake()
            waiting[client] += client.outgoing.read()
            piece, waiting[client] = waiting[client][:40], waiting[client][40:]
            if piece and session.handshake(piece):
                open_ones.append((client, session))
            client.incoming.write(session.output)
            session.output = b""
    wires = {}
    for number, (client, _) in enumerate(pairs):
        client.shake()
        client.tls.write(b"%d" % number * 20_000)
        wires[client] = waiting[client] + client.outgoing.read()
    heard = {client: b"" for client, _ in pairs}
    while any(wires.values()):
        for client, session in pairs:
            piece, wires[client] = wires[client][:777], wires[client][777:]
            heard[client] += b"".join(opened(session, piece)[0])
    assert [heard[client] for client, _ in pairs] == [b"%d" % number * 20_000 for number in range(5)]


def test_what_comes_behind_the_handshake_is_kept() -> None:
    client, session = Client(), Session(BUFFERS, SERVED, "localhost")
    client.shake()
    session.handshake(client.outgoing.read())
    client.incoming.write(session.output)
    assert client.shake()
    client.tls.write(b"GET /")
    assert session.handshake(client.outgoing.read())
    assert opened(session, session.rest) == ([b"GET /"], [])


def test_what_a_handshake_came_to() -> None:
    client, session = established()
    known = session.established()
    assert (known.version, known.cipher, known.resumed) == ("TLSv1.3", client.tls.cipher()[0], False)  # type: ignore[index]
    assert known.server_name == "localhost"


def test_both_sides_can_end_first() -> None:
    client, session = established()
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    assert opened(session, client.outgoing.read()) == ([], [])
    assert session.ended
    client.incoming.write(session.seal(b"still an answer") + session.finish())
    assert client.read() == b"still an answer"

    client, session = established()
    client.incoming.write(session.finish())
    assert client.read() == b""
    client.tls.write(b"still sent")
    assert opened(session, client.outgoing.read()) == ([b"still sent"], [])


def test_a_changed_byte_ends_the_connection_and_no_other_one() -> None:
    other_client, other = established()
    client, session = established()
    client.tls.write(b"secret")
    wire = bytearray(client.outgoing.read())
    wire[-1] ^= 1
    with pytest.raises(SessionError) as caught:
        session.open(bytes(wire), 0)
    assert caught.value.alert, "the peer is told"
    other_client.tls.write(b"fine")
    assert opened(other, other_client.outgoing.read()) == ([b"fine"], [])


def test_a_record_of_an_impossible_size_is_refused_at_its_header() -> None:
    _, session = established()
    with pytest.raises(SessionError, match="impossible size"):
        session.open(b"\x17\x03\x03\xff\xff", 0)


def test_a_flood_of_records_without_data_is_cut_off() -> None:
    _, session = established()
    now = 1000.0
    for _ in range(CONTROL_RECORDS):
        session.count_control(now)
    with pytest.raises(SessionError) as caught:
        session.count_control(now)
    assert caught.value.reason == CONTROL_FLOOD
    _, session = established()
    for turn in range(10 * CONTROL_RECORDS):
        session.count_control(now + 2.0 * turn)


def test_a_name_that_openssl_reads_otherwise_is_refused() -> None:
    client, session = Client("localhost"), Session(BUFFERS, SERVED, "admin.example.org")
    client.shake()
    with pytest.raises(SessionError) as caught:
        session.handshake(client.outgoing.read())
    assert caught.value.reason == NAME_MISMATCH
    assert caught.value.alert[-1] == ssl.ALERT_DESCRIPTION_ILLEGAL_PARAMETER


def failure(client: Client, context: ssl.SSLContext) -> str:
    session = Session(BUFFERS, context, "localhost")
    try:
        for _ in range(5):
            with contextlib.suppress(ssl.SSLError):
                client.shake()
            session.handshake(client.outgoing.read())
            client.incoming.write(session.output)
    except SessionError as error:
        return error.reason
    return "no failure"


def test_failures_have_reasons() -> None:
    asks = served(verify_mode=ssl.CERT_REQUIRED)
    AUTHORITY.configure_trust(asks)
    stranger = trustme.CA().issue_cert("me")
    only_new = served(minimum_version=ssl.TLSVersion.TLSv1_3)
    assert failure(Client(maximum_version=ssl.TLSVersion.TLSv1_2), only_new) == NO_SHARED_VERSION
    assert failure(Client(), asks) == CERTIFICATE_MISSING
    assert failure(Client(own=stranger), asks) == CERTIFICATE_UNTRUSTED
    assert failure(Client(own=AUTHORITY.issue_cert("me")), asks) == "no failure"
    old = {"maximum_version": ssl.TLSVersion.TLSv1_2, "ciphers": "ECDHE-RSA-AES128-GCM-SHA256"}
    assert failure(Client(**old), SERVED) == NO_SHARED_CIPHER
    wrong = Client("localhost")
    other = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(other)
    assert failure(wrong, other) == DISTRUSTED


def test_a_session_that_is_fed_noise_fails_with_a_reason() -> None:
    client, session = Client(), Session(BUFFERS, SERVED, "localhost")
    client.shake()
    session.handshake(client.outgoing.read())
    with pytest.raises(SessionError) as caught:
        session.handshake(b"\x16\x03\x03\x00\x04noise of any kind")
    assert caught.value.reason == FAILED
