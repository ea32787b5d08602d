"""HTTP/2 at a real lb: metrics, explain, switches and reloads under streams, and an end that loses none."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
from urllib.parse import urlsplit

import pytest
import trustme

from tests.support.eventually import eventually
from tests.support.h2_client import Client
from tests.support.h2_peer import GET, raw
from tests.support.stage import Lb, Stage

CONFIG = """\
listeners:
  - {{bind: '127.0.0.1:0', protocols: [h2c, http/1.1]}}
admin: {{bind: '127.0.0.1:0'}}
state_dir: ./state
access_log: off
services:
  greeting:
    active: blue
    pools:
      blue: {{targets: ['{blue}']}}
      green: {{targets: ['{green}']}}
"""
GREETING = [GET[0], GET[1], (":path", "/greeting"), GET[3]]


def started(stage: Stage) -> Lb:
    addresses = {pool: stage.backend(pool).address for pool in ("blue", "green")}
    return stage.start(stage.file(CONFIG.format(**addresses)))


def connect(lb: Lb) -> Client:
    address = urlsplit(lb.url)
    return Client(socket.create_connection((address.hostname or "", address.port or 0), 5))


def test_figures_and_explanations_name_the_protocol(stage: Stage) -> None:
    lb = started(stage)
    with connect(lb) as client:
        client.ask(1, GREETING)
        status, fields, _ = client.answer(1)
        assert status == 200
        client.ask(3, [*GREETING, ("connection", "close")])
        client.until(lambda: client.reset(3) is not None)
        said = lb.cli("explain", fields["x-request-id"]).stdout
        assert "GET /greeting from 127.0.0.1 over HTTP/2.0" in said
        metrics = lb.metrics()
        assert metrics['lb_http2_refused_total{reason="malformed"}'] == 1
        assert metrics['lb_downstream_streams{protocol="h2"}'] == 0


def test_switches_and_reloads_lose_no_stream(stage: Stage) -> None:
    lb = started(stage)
    over = threading.Event()
    statuses: list[int] = []

    def load() -> None:
        stream = 1
        with connect(lb) as client:
            while not over.is_set():
                batch = range(stream, stream + 20, 2)
                for each in batch:
                    client.ask(each, GREETING)
                statuses.extend(client.answer(each)[0] for each in batch)
                stream += 20

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for pool in ("green", "blue", "green"):
            assert lb.cli("switch", "greeting", pool, "--force").returncode == 0
            assert lb.cli("reload").returncode == 0
    finally:
        over.set()
        thread.join(20)
    assert len(statuses) > 50
    assert set(statuses) == {200}


def test_an_end_is_told_in_two_steps(stage: Stage) -> None:
    lb = started(stage)
    with connect(lb) as client:
        client.ask(1, GREETING)
        client.answer(1)
        lb.process.send_signal(signal.SIGTERM)
        client.until(lambda: any(frame.type == 6 for frame in client.got), within=10)
        client.ask(3, GREETING)  # it was under way
        ping = next(frame for frame in client.got if frame.type == 6)
        client.send(raw(6, 1, 0, ping.opaque_data))
        assert client.answer(3)[0] == 200
        client.until(lambda: len(client.goaways) == 2)
        assert client.goaways == [((1 << 31) - 1, 0), (3, 0)]
        client.until_closed(within=10)
    eventually(lambda: lb.process.poll() == 0, within=15)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(("protocols", "spoken"), [("", "2"), (", protocols: [http/1.1]", "1.1")])
def test_a_listener_with_tls_speaks_it_unless_the_file_says_otherwise(
    stage: Stage, protocols: str, spoken: str
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(stage.folder / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(stage.folder / "both.pem")
    (stage.folder / "both.pem").chmod(0o600)
    listener = f"{{bind: '127.0.0.1:0', tls: {{cert_file: both.pem, key_file: both.pem}}{protocols}}}"
    lb = stage.start(
        stage.file(
            f"listeners: [{listener}]\nadmin: {{bind: '127.0.0.1:0'}}\nstate_dir: ./state\naccess_log: off\n"
            f"backends: ['{stage.backend().url}']\n"
        )
    )
    url = f"https://localhost:{urlsplit(lb.url).port}/greeting"
    options = ("-s", "--cacert", str(stage.folder / "ca.pem"), "-o", "/dev/null", "-w", "%{http_version} %{http_code}")
    done = subprocess.run(["curl", *options, url], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == f"{spoken} 200"
