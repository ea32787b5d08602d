"""Real clients of HTTP/2 against a real listener: curl, nghttp, h2load, python-hyper's h2. One that is not installed is
skipped."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import h2.connection
import h2.events
import pytest
import trustme

from tests.support.eventually import eventually
from tests.support.front import Front
from tests.wire.http2 import H2C
from tests.wire.peers import server_context, sized


def run(program: str, *arguments: str) -> str:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_curl_with_prior_knowledge(front: Front) -> None:
    url = f"http://127.0.0.1:{front.port}/"
    out = run("curl", "-s", "--http2-prior-knowledge", "-w", " %{http_version} %{http_code}", url, "-d", "a=b")
    assert out == "ok 2 200"
    assert front.origin.requests[0].endswith(b"\r\n\r\na=b")


def test_curl_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = server_context(authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with Front(listener=H2C, tls=context) as front:
        options = ("-s", "--cacert", str(tmp_path / "ca.pem"), "-w", " %{http_version}")
        url = f"https://localhost:{front.port}/"
        assert run("curl", *options, "--http2", url) == "ok 2"
        assert run("curl", *options, "--http1.1", url) == "ok 1.1"


def test_nghttp_gets_a_large_answer_over_many_streams(front: Front) -> None:
    front.with_script(sized(1_000_000))
    url = f"http://127.0.0.1:{front.port}/"
    out = run("nghttp", "-nsv", "-m", "20", url)
    assert out.count(":status: 200") == 20
    assert "PROTOCOL_ERROR" not in out
    eventually(front.at_rest, within=5)


@pytest.mark.parametrize(("connections", "streams"), [(1, 100), (20, 10)])
def test_h2load(front: Front, connections: int, streams: int) -> None:
    url = f"http://127.0.0.1:{front.port}/"
    out = run("h2load", "-n", "2000", "-c", str(connections), "-m", str(streams), url)
    assert re.search(r"2000 succeeded, 0 failed, 0 errored", out), out
    assert len(front.origin.requests) == 2000
    eventually(front.at_rest, within=5)


NODE = """
const http2 = require('http2');
const fs = require('fs');
const [url, ca] = process.argv.slice(1);
const session = http2.connect(url, ca ? {ca: fs.readFileSync(ca)} : {});
session.on('goaway', (code) => { if (code) throw new Error('GOAWAY ' + code); });
const ask = (headers, body) => new Promise((resolve, reject) => {
  const stream = session.request({':path': '/', ...headers}, {endStream: body === undefined});
  let status = 0, size = 0;
  stream.on('response', (fields) => { status = fields[':status']; });
  stream.on('data', (part) => { size += part.length; });
  stream.on('end', () => resolve(status + ' ' + size));
  stream.on('error', reject);
  if (body !== undefined) stream.end(body);
});
(async () => {
  const many = await Promise.all(Array.from({length: 250}, () => ask({})));
  console.log('GET', [...new Set(many)].join());
  console.log('POST', await ask({':method': 'POST'}, Buffer.alloc(500000)));
  console.log('HEAD', await ask({':method': 'HEAD'}));
  await new Promise((resolve, reject) => session.ping((error) => error ? reject(error) : resolve()));
  const left = session.request({':path': '/'});
  left.close(http2.constants.NGHTTP2_CANCEL);
  console.log('WebSocket', session.remoteSettings.enableConnectProtocol);
  session.close();
})();
"""


@pytest.mark.parametrize("tls", [False, True])
def test_node(tls: bool, tmp_path: Path) -> None:
    """More requests at a time than lb takes, an upload, HEAD, PING, and one that is left."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = server_context(authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with Front(listener=H2C, tls=context if tls else None) as front:
        front.with_script(sized(100_000))
        url = f"https://localhost:{front.port}" if tls else f"http://127.0.0.1:{front.port}"
        out = run("node", "-e", NODE, url, *([str(tmp_path / "ca.pem")] if tls else []))
        assert out.splitlines() == ["GET 200 100000", "POST 200 100000", "HEAD 200 0", "WebSocket true"]
        eventually(front.at_rest, within=5)


@pytest.mark.slow
def test_java(tmp_path: Path) -> None:
    """Many requests at a time on one connection, uploads with a length and in pieces, and one that is left."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = server_context(authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with Front(listener=H2C, tls=context) as front:
        front.with_script(sized(100_000))
        url = f"https://localhost:{front.port}/"
        out = run("java", str(Path(__file__).parent / "java/Streams.java"), url, str(tmp_path / "ca.pem"))
        assert out.splitlines() == ["GET HTTP_2 200 100000", "POST HTTP_2 200 100000", "pieces HTTP_2 200 100000"]
        eventually(front.at_rest, within=5)


@pytest.mark.parametrize("tls", [False, True])
def test_python_h2(tls: bool) -> None:
    """It checks strictly what lb sends: pseudo-header fields, lower-case names, lengths, windows."""
    authority = trustme.CA()
    context = server_context(authority)
    context.set_alpn_protocols(["h2"])
    with Front(listener=H2C, tls=context if tls else None) as front:
        front.with_script(sized(300_000, "chunked"))
        sock: socket.socket = front.connect()
        if tls:
            ours = ssl.create_default_context()
            authority.configure_trust(ours)
            ours.set_alpn_protocols(["h2"])
            sock = ours.wrap_socket(sock, server_hostname="localhost")
        with sock:
            client = h2.connection.H2Connection()
            client.initiate_connection()
            for stream in (1, 3, 5):
                fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")]
                client.send_headers(stream, fields, end_stream=True)
            got = dict.fromkeys((1, 3, 5), 0)
            ended = set()
            while len(ended) < 3:
                sock.sendall(client.data_to_send())
                data = sock.recv(65536)
                assert data
                for event in client.receive_data(data):
                    assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated)
                    if isinstance(event, h2.events.DataReceived):
                        got[event.stream_id] += len(event.data)
                        client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, h2.events.StreamEnded):
                        ended.add(event.stream_id)
        assert got == dict.fromkeys((1, 3, 5), 300_000)
