"""TLS files that are renewed in place: at a reload, probes and requests take them alike, in every worker."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.support.eventually import eventually
from tests.support.stage import Lb, Load, Stage, ask


class TlsTarget:
    """A target over TLS whose certificate can be renewed while it runs; it keeps connections open.

    `asks`: the authority that a client's certificate must be of.
    """

    def __init__(self, authority: trustme.CA, asks: trustme.CA | None = None) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if asks is not None:
            asks.configure_trust(self.context)
            self.context.verify_mode = ssl.CERT_REQUIRED
        self.renew(authority)
        self.port = 0
        self.requests = 0
        self.handshakes = 0
        self._loop = asyncio.new_event_loop()
        up = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(up,), daemon=True)
        self._thread.start()
        assert up.wait(10)

    def renew(self, authority: trustme.CA) -> None:
        """From now on new connections see a certificate of this authority."""
        authority.issue_cert("127.0.0.1").configure_cert(self.context)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _end(self) -> None:
        """Take no more connections, and wait for every task: a handshake under way is one of the loop's own."""
        self._server.close()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self, up: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)
        self._server = self._loop.run_until_complete(starting)
        self.port = self._server.sockets[0].getsockname()[1]
        up.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handshakes += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests += b" /ready " not in head
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
                if b"connection: close" in head.lower():
                    return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


@pytest.fixture
def authorities() -> tuple[trustme.CA, trustme.CA]:
    return trustme.CA(), trustme.CA()


@pytest.fixture
def target(authorities: tuple[trustme.CA, trustme.CA]) -> Iterator[TlsTarget]:
    made = TlsTarget(authorities[0])
    yield made
    made.stop()


def start(stage: Stage, port: int, tls: str = "{ca_file: ca.pem}", more: str = "") -> Lb:
    text = (
        f"listeners: [127.0.0.1:0]\nadmin: {{bind: 127.0.0.1:0}}\nstate_dir: ./state\naccess_log: off\n{more}"
        f"services:\n  s:\n    pools: {{main: ['https://127.0.0.1:{port}']}}\n    tls: {tls}\n"
        "    retries: {attempts: 0}\n"
        "    readiness: {path: /ready, interval: 200ms, timeout: 1s, fall: 2}\n"
    )
    return stage.start(stage.file(text))


def put(stage: Stage, authority: trustme.CA, name: str = "ca.pem") -> None:
    """Replace the file as a tool would: by a rename."""
    new = stage.folder / f".{name}"
    authority.cert_pem.write_to_path(new)
    new.replace(stage.folder / name)


def flat(text: str) -> str:
    """The text without its line breaks and indents."""
    return " ".join(text.split())


def statuses(lb: Lb, requests: int = 20) -> set[int]:
    return {ask(f"{lb.url}/").status for _ in range(requests)}


def test_renewed_authorities_are_taken_by_requests_and_probes(
    stage: Stage, target: TlsTarget, authorities: tuple[trustme.CA, trustme.CA]
) -> None:
    put(stage, authorities[0])
    lb = start(stage, target.port)
    assert statuses(lb) == {200}
    target.renew(authorities[1])
    put(stage, authorities[1])
    answer = lb.cli("reload")
    assert answer.returncode == 0 and "ca.pem renewed" in flat(answer.stdout)
    eventually(lambda: statuses(lb) == {200}, what="requests trust the new authority")
    assert lb.state(f":{target.port}") == "ready"
    before = target.handshakes
    for pid in lb.status()["workers"]:  # and so do workers that start later
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: target.handshakes > before and statuses(lb) == {200}, 20.0)


def test_connections_that_were_opened_with_the_former_certificate_are_not_kept(
    stage: Stage, authorities: tuple[trustme.CA, trustme.CA]
) -> None:
    """A client certificate is renewed, and no request fails meanwhile."""
    target = TlsTarget(authorities[0], asks=authorities[0])
    own = authorities[0].issue_cert("lb")
    own.private_key_and_cert_chain_pem.write_to_path(stage.folder / "own.pem")
    put(stage, authorities[0])
    lb = start(stage, target.port, "{ca_file: ca.pem, cert_file: own.pem, key_file: own.pem}")
    with Load(lb.url, 4, "/") as load:
        eventually(lambda: load.count > 50)
        before = target.handshakes
        authorities[0].issue_cert("lb").private_key_and_cert_chain_pem.write_to_path(stage.folder / "own.pem")
        assert "renewed" in lb.cli("reload").stdout
        eventually(lambda: lb.metrics() and target.handshakes > before + 4, what="new connections for requests")
    assert not load.failed, load.failed
    target.stop()


def test_the_wrong_authority_takes_no_target_out(
    stage: Stage, target: TlsTarget, authorities: tuple[trustme.CA, trustme.CA]
) -> None:
    put(stage, authorities[0])
    lb = start(stage, target.port)
    put(stage, authorities[1])
    with Load(lb.url, 2, "/") as load:
        lb.cli("reload")
        eventually(lambda: b"the former one decides on" in ask(f"{lb.admin}/api/v1/events").body, 30.0)
        for pid in lb.status()["workers"]:  # a worker that starts now trusts the former authority as well
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(lb.status()["workers"]) == 2)
    assert statuses(lb) == {200} and not [text for text in load.failed if "502" in text]
    target.renew(authorities[1])
    eventually(
        lambda: statuses(lb) == {200} and "not passed here yet" not in flat(lb.cli("explain", f":{target.port}").stdout)
    )


def test_a_broken_file_is_refused_and_what_ran_goes_on_in_new_workers_too(
    stage: Stage, target: TlsTarget, authorities: tuple[trustme.CA, trustme.CA]
) -> None:
    put(stage, authorities[0])
    lb = start(stage, target.port)
    (stage.folder / "ca.pem").write_text("half a cert")
    answer = lb.cli("reload")
    assert answer.returncode == 1 and "ca.pem" in answer.stderr
    for pid in lb.status()["workers"]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: lb.metrics().get("lb_worker_restarts_total") == 2 and statuses(lb) == {200}, 20.0)


def test_without_a_renewal_nothing_is_to_change(
    stage: Stage, target: TlsTarget, authorities: tuple[trustme.CA, trustme.CA]
) -> None:
    put(stage, authorities[0])
    lb = start(stage, target.port)
    put(stage, authorities[0])  # another file, of the same contents
    assert "renewed" not in lb.cli("reload").stdout


def test_renewed_files_are_noticed_where_the_configuration_is_watched(
    stage: Stage, target: TlsTarget, authorities: tuple[trustme.CA, trustme.CA]
) -> None:
    put(stage, authorities[0])
    lb = start(stage, target.port, more="watch: true\n")
    target.renew(authorities[1])
    put(stage, authorities[1])
    eventually(lambda: b"ca.pem renewed" in ask(f"{lb.admin}/api/v1/events").body, 30.0)
    eventually(lambda: statuses(lb) == {200}, 30.0)


def test_a_renewed_certificate_of_a_listener_is_said(stage: Stage, tmp_path: Path) -> None:
    authority = trustme.CA()

    def issue() -> None:
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(stage.folder / "own.pem")

    issue()
    backend = stage.backend()
    path = stage.config({"blue": [backend]})
    text = path.read_text().replace(
        "[127.0.0.1:0]", "[127.0.0.1:0, {bind: '127.0.0.1:1', tls: {cert_file: own.pem, key_file: own.pem}}]", 1
    )
    port = backend.port + 1 if backend.port < 65535 else backend.port - 1
    path.write_text(text.replace("'127.0.0.1:1'", f"'127.0.0.2:{port}'"))
    lb = stage.start(path)

    def served() -> str:
        return ssl.get_server_certificate(("127.0.0.2", port), timeout=5)

    before = served()
    issue()
    assert "own.pem renewed, for new connections" in flat(lb.cli("reload").stdout)
    eventually(lambda: all(served() != before for _ in range(8)), what="every worker has the new certificate")
