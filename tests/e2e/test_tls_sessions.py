"""TLS sessions are resumed whichever worker a client meets next, and after a reload that changed nothing."""

from __future__ import annotations

import socket
import ssl

import pytest
import trustme

from lb.net.tls import ticket_keys
from tests.support.eventually import eventually
from tests.support.stage import Lb, Stage

AUTHORITY = trustme.CA()

pytestmark = pytest.mark.skipif(not ticket_keys.available(), reason="OpenSSL's symbols are hidden")


def connect(lb: Lb, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSocket:
    host, _, port = lb.url.removeprefix("https://").rpartition(":")
    sock = context.wrap_socket(socket.socket(), server_hostname="localhost", session=session)
    sock.connect((host, int(port)))
    sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    return sock


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed_by_every_worker_and_after_a_reload(stage: Stage, version: ssl.TLSVersion) -> None:
    issued = AUTHORITY.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(stage.folder / "own.pem")
    path = stage.config({"blue": stage.pool("blue", 1)})
    text = path.read_text()
    bound = "[{bind: '127.0.0.1:0', tls: {cert_file: own.pem, key_file: own.pem}}]"
    path.write_text(text.replace("[127.0.0.1:0]", bound))
    lb = stage.start(path, workers=2)
    client = ssl.create_default_context()
    AUTHORITY.configure_trust(client)
    client.maximum_version = version

    def reused(times: int) -> int:
        count = 0
        for _ in range(times):
            with connect(lb, client, session) as sock:
                count += bool(sock.session_reused)
        return count

    with connect(lb, client, None) as sock:
        assert not sock.session_reused
        session = sock.session
    assert reused(40) == 40
    path.write_text(path.read_text() + "# nothing\n")
    assert lb.cli("reload").returncode == 0
    assert reused(20) == 20
    eventually(lambda: sum(n for name, n in lb.metrics().items() if name.startswith("lb_tls_resumptions")) == 60)
