"""Session tickets that any process with the same secret takes, and none of another policy."""

from __future__ import annotations

import contextlib
import ssl

import pytest
import trustme

from lb.net.tls import ticket_keys
from lb.net.tls.session import Buffers, Session

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("localhost")
SECRET = bytes(range(ticket_keys.SECRET))

pytestmark = pytest.mark.skipif(not ticket_keys.available(), reason="OpenSSL's symbols are hidden")


def context(secret: bytes = SECRET, policy: str = "a") -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    CERTIFICATE.configure_cert(made)
    assert ticket_keys.install(made, ticket_keys.derive(secret, policy))
    return made


def resumes(first: ssl.SSLContext, second: ssl.SSLContext, version: ssl.TLSVersion) -> bool:
    """Whether a session of the first context is resumed with the second."""
    client = ssl.create_default_context()
    AUTHORITY.configure_trust(client)
    client.maximum_version = version
    session: ssl.SSLSession | None = None
    for served in (first, second):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client.wrap_bio(incoming, outgoing, server_hostname="localhost", session=session)
        ours = Session(Buffers(), served, "localhost")
        done = False
        while not done:
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            done = ours.handshake(outgoing.read())
            incoming.write(ours.output)
        tls.do_handshake()
        incoming.write(ours.seal(b"x"))
        assert tls.read(1) == b"x"  # TLS 1.3 brings tickets with the data
        session = tls.session
    return ours.established().resumed


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_wherever_the_secret_is_the_same(version: ssl.TLSVersion) -> None:
    assert resumes(context(), context(), version)
    assert not resumes(context(), context(bytes(ticket_keys.SECRET)), version), "another secret"
    assert not resumes(context(), context(policy="b"), version), "another policy (CVE-2025-23419)"


def test_new_keys_are_used_at_once_and_the_former_ones_no_more() -> None:
    used, other = context(), context(bytes(ticket_keys.SECRET))
    assert not resumes(other, used, ssl.TLSVersion.TLSv1_3)
    ticket_keys.install(used, ticket_keys.derive(bytes(ticket_keys.SECRET), "a"))
    assert resumes(other, used, ssl.TLSVersion.TLSv1_3)


def test_keys_are_long_enough_and_differ() -> None:
    keys = {ticket_keys.derive(secret, policy) for secret in (SECRET, bytes(32)) for policy in ("a", "b")}
    assert len(keys) == 4
    assert {len(each) for each in keys} == {ticket_keys.KEYS}
    assert ticket_keys.derive(SECRET, "a") == ticket_keys.derive(SECRET, "a")


def test_without_openssls_symbols_nothing_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "OPENSSL_VERSION", "OpenSSL of another build")
    ticket_keys.reset()
    try:
        assert not ticket_keys.available()
        assert not ticket_keys.install(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), bytes(ticket_keys.KEYS))
    finally:
        monkeypatch.undo()
        ticket_keys.reset()
    assert ticket_keys.available()
