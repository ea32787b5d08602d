"""HTTP/2 to real servers: gRPC's own, nginx, Node; with prior knowledge and over TLS."""

from __future__ import annotations

import os
import queue
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import trustme

from lb.core.targets import TlsClient
from tests.support.eventually import eventually
from tests.support.front import Front, status_of, with_listener
from tests.support.grpc_target import ANY_SIZE, Talk, started
from tests.wire.messages import get

H2C = with_listener(http2=True)


@pytest.fixture
def calls() -> Iterator[tuple[Talk, grpc.Channel, Front]]:
    talk = Talk()
    server, port = started(talk)
    with (
        Front(listener=H2C, http2=True, ports=(port,)) as front,
        grpc.insecure_channel(f"127.0.0.1:{front.port}", ANY_SIZE) as channel,
    ):
        yield talk, channel, front
    server.stop(0).wait()


class TestGrpc:
    def test_a_unary_call_with_its_trailers(self, calls: tuple[Talk, grpc.Channel, Front]) -> None:
        answer, call = calls[1].unary_unary("/t/one").with_call(b"abc", timeout=10)
        assert answer == b"cba"
        assert ("x-after", "yes") in call.trailing_metadata()

    @pytest.mark.parametrize("size", [0, 5, 4 << 20])
    def test_messages_of_all_sizes(self, calls: tuple[Talk, grpc.Channel, Front], size: int) -> None:
        message = bytes(range(256)) * (size // 256) + bytes(size % 256)
        assert calls[1].unary_unary("/t/one")(message, timeout=30) == message[::-1]

    def test_streaming_down_and_up(self, calls: tuple[Talk, grpc.Channel, Front]) -> None:
        _, channel, front = calls
        assert list(channel.unary_stream("/t/down")(b"500", timeout=30)) == [b"%d" % n for n in range(500)]
        many = [b"%d" % number for number in range(500)]
        assert channel.stream_unary("/t/up")(iter(many), timeout=30) == b",".join(many)
        eventually(front.at_rest)

    def test_each_message_is_passed_on_when_it_comes(self, calls: tuple[Talk, grpc.Channel, Front]) -> None:
        """[36] The next one is sent only after the answer to the one before."""
        heard: list[bytes] = []

        def ask() -> Iterator[bytes]:
            for number in range(20):
                yield b"m%d" % number
                while len(heard) <= number:
                    time.sleep(0.001)

        for answer in calls[1].stream_stream("/t/both")(ask(), timeout=30):
            heard.append(answer)
        assert heard == [b"M%d" % number for number in range(20)]

    def test_many_small_messages_are_no_flood(self, calls: tuple[Talk, grpc.Channel, Front]) -> None:
        """Its client widens two windows for each of them: what follows the messages that it was sent is no abuse."""
        _, channel, front = calls
        heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()

        def ask() -> Iterator[bytes]:
            for number in range(2500):
                yield b"%d" % number
                heard.get(timeout=10)

        count = 0
        for answer in channel.stream_stream("/t/both")(ask(), timeout=60):
            count += 1
            heard.put(answer)
        assert count == 2500
        assert front.call(lambda: dict(front.plane.context.stats.http2_refused)) == {}

    def test_a_status_and_its_message(self, calls: tuple[Talk, grpc.Channel, Front]) -> None:
        with pytest.raises(grpc.RpcError) as failed:
            calls[1].unary_unary("/t/fail")(b"", timeout=10)
        assert failed.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert failed.value.details() == "not today: é"

    def test_a_method_that_is_not_there(self, calls: tuple[Talk, grpc.Channel, Front]) -> None:
        with pytest.raises(grpc.RpcError) as failed:
            calls[1].unary_unary("/t/none")(b"", timeout=10)
        assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED

    def test_a_deadline_cancels_the_targets_work(self, calls: tuple[Talk, grpc.Channel, Front]) -> None:
        talk, channel, front = calls
        with pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary("/t/wait")(b"", timeout=0.3)
        assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(lambda: talk.cancelled)
        eventually(front.at_rest)

    def test_a_call_that_is_cancelled(self, calls: tuple[Talk, grpc.Channel, Front]) -> None:
        talk, channel, front = calls
        call = channel.unary_unary("/t/wait").future(b"", timeout=30)
        eventually(lambda: talk.waits)
        call.cancel()
        eventually(lambda: talk.cancelled)
        eventually(front.at_rest)

    def test_many_calls_share_few_connections(self, calls: tuple[Talk, grpc.Channel, Front]) -> None:
        _, channel, front = calls
        ask = channel.unary_unary("/t/one")
        waiting = [ask.future(b"%d" % number, timeout=60) for number in range(500)]
        assert [call.result() for call in waiting] == [(b"%d" % number)[::-1] for number in range(500)]
        opened = front.call(lambda: sum(lane.tally.opened for lane in front.plane.lanes.values()))
        assert opened <= 2
        eventually(front.at_rest)


NGINX = """
{user} daemon off; pid {dir}/pid; error_log {dir}/error.log; worker_processes 1; events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s; client_max_body_size 0; keepalive_requests 20;
  server {{
    listen 127.0.0.1:{port} {how}; {tls} root {dir};
    location /ok {{ return 200 "ok"; }}
    location /file {{ }}
  }}
}}
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(params=["h2c", "h2"])
def nginx(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, TlsClient | None, Path]]:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    port, tls, client = free_port(), "", None
    how = "http2"
    user = "user root;" if os.geteuid() == 0 else ""  # its workers have to read the folder
    if request.param == "h2":
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "pair.pem")
        tls = f"ssl_certificate {tmp_path}/pair.pem; ssl_certificate_key {tmp_path}/pair.pem;"
        how = "ssl http2"
        client = TlsClient(ca_file=str(tmp_path / "ca.pem"))
    (tmp_path / "file").write_bytes(bytes(range(256)) * 8192)
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(dir=tmp_path, port=port, how=how, tls=tls, user=user))
    process = subprocess.Popen(["nginx", "-c", str(config), "-p", str(tmp_path)], stderr=subprocess.DEVNULL)

    def listens() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(listens)
        yield port, client, tmp_path
    finally:
        process.terminate()
        process.wait(10)


def test_nginx_ends_connections_with_goaway_and_no_request_is_lost(nginx: tuple[int, TlsClient | None, Path]) -> None:
    """[31] `keepalive_requests 20`: after every 20 requests nginx sends GOAWAY."""
    port, tls, folder = nginx
    with Front(listener=H2C, http2=True, ports=(port,), target_tls=tls) as front:
        for _ in range(100):
            assert status_of(front.send(b"POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")) == 200
        opened = front.call(lambda: sum(lane.tally.opened for lane in front.plane.lanes.values()))
        assert 5 <= opened <= 12
        large = front.send(get(b"/file"), wait=20)
        assert large.partition(b"\r\n\r\n")[2] == (folder / "file").read_bytes()
        eventually(front.at_rest)


NODE = """
const http2 = require('http2');
const server = http2.createServer({settings: {maxConcurrentStreams: 4}});
server.on('stream', (stream, headers) => {
  const parts = [];
  stream.on('data', (part) => parts.push(part));
  stream.on('end', () => {
    const body = Buffer.concat(parts);
    stream.respond({':status': 200, 'x-method': headers[':method']}, {waitForTrailers: true});
    stream.on('wantTrailers', () => stream.sendTrailers({'x-length': String(body.length)}));
    setTimeout(() => stream.end(body), 5);
  });
  stream.on('error', () => {});
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""


def test_node_with_a_small_limit_of_streams(tmp_path: Path) -> None:
    """[30]"""
    if shutil.which("node") is None:
        pytest.skip("Node is not installed")
    script = tmp_path / "server.js"
    script.write_text(NODE)
    process = subprocess.Popen(["node", str(script)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with Front(listener=H2C, http2=True, ports=(port,), trailers="pass") as front:
            body = bytes(100_000)
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
            with futures.ThreadPoolExecutor(12) as pool:
                answers = list(pool.map(lambda _: front.send(head + body, wait=20), range(48)))
            assert [answer for answer in answers if status_of(answer) != 200] == []
            assert all(b"x-length: 100000\r\n" in answer[-60:] for answer in answers)
            eventually(front.at_rest)
    finally:
        process.kill()
        process.wait(10)


CADDY = """
{{
    admin off
    auto_https off
    servers {{
        protocols h1 h2c
    }}
}}
http://:{port} {{
    bind 127.0.0.1
    route {{
        respond /no 404
        root * {dir}
        file_server
    }}
}}
"""


def test_caddy(tmp_path: Path) -> None:
    """Go's server, which compresses its heads with a dynamic table."""
    if shutil.which("caddy") is None:
        pytest.skip("Caddy is not installed")
    port = free_port()
    (tmp_path / "site").mkdir()
    large = bytes(range(256)) * 4096
    (tmp_path / "site" / "large").write_bytes(large)
    config = tmp_path / "Caddyfile"
    config.write_text(CADDY.format(port=port, dir=tmp_path / "site"))
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    process = subprocess.Popen(
        ["caddy", "run", "--config", str(config)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def listens() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(listens)
        with Front(listener=H2C, http2=True, ports=(port,)) as front:
            with futures.ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: front.send(get(b"/large"), wait=20), range(24)))
            assert all(answer.partition(b"\r\n\r\n")[2] == large for answer in answers)
            assert status_of(front.send(b"HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n")) == 200
            assert status_of(front.send(get(b"/no"))) == 404
            upload = b"PUT /large HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000000)
            # It answers with the file, and does not wait for the end of the upload.
            assert front.send(upload, wait=20).partition(b"\r\n\r\n")[2] == large
            eventually(front.at_rest)
    finally:
        process.terminate()
        process.wait(10)
