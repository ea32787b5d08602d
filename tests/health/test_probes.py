"""Every kind of probe against real servers, and against everything that servers do to a checker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
import sys
import time
from concurrent import futures
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import trustme

from lb.core.checks import CheckSpec, Expect
from lb.core.lifecycle import Verdict
from lb.core.targets import Target, TlsClient
from lb.health.probes import Probe, ask, build
from lb.health.probes.dial import Dialer
from lb.health.probes.inline import PendingProbe
from tests.health.conftest import Backend, ok
from tests.support.alerting_server import refusing_server
from tests.support.eventually_async import eventually
from tests.support.listeners import full_listener
from tests.support.processes import alive

HTTP = CheckSpec(protocol="http", path="/health", timeout=2.0)


@pytest.fixture
async def dialer():
    made = Dialer(time.monotonic)
    yield made
    made.close()


@pytest.fixture
def probe(dialer):
    async def run(target: Target | Backend, spec: CheckSpec) -> Verdict:
        if isinstance(target, Backend):
            target = target.target()
        verdict = await put(build(target, spec, dialer), spec.timeout)[1]
        assert verdict is not None
        return verdict

    return run


def put(probe: Probe, timeout: float) -> tuple[PendingProbe, asyncio.Future[Verdict | None]]:
    """A question under way, and what will be told of it."""
    told: asyncio.Future[Verdict | None] = asyncio.get_running_loop().create_future()
    return ask(probe, timeout, told.set_result), told


def at(port: int, host: str = "127.0.0.1") -> Target:
    return Target(f"app/blue/{host}:{port}", "app", "blue", host, port)


# --- what is sent ----------------------------------------------------------------------------------------------------


async def test_the_request_is_as_configured(backend, probe):
    """HAProxy http-check-send: headers sent verbatim, `Connection: close`, nothing from another pool's check."""
    server, other = await backend(), await backend()
    spec = replace(HTTP, method="HEAD", path="/ready?deep=1", headers=(("Host", "app.example"), ("X-Probe", "yes")))
    assert (await probe(server, spec)).ok
    lines = server.asked[0].decode().split("\r\n")
    assert lines[0] == "HEAD /ready?deep=1 HTTP/1.1"
    assert "Host: app.example" in lines and "X-Probe: yes" in lines and "Connection: close" in lines
    assert sum(line.lower().startswith("host:") for line in lines) == 1
    await probe(other, HTTP)
    lines = other.asked[0].decode().split("\r\n")
    assert lines[:2] == ["GET /health HTTP/1.1", f"Host: 127.0.0.1:{other.port}"]
    assert any(line.startswith("User-Agent: lb-health/") for line in lines)
    assert not any("x-probe" in line.lower() for line in lines)


async def test_another_port_is_probed_than_serves(backend, probe):
    """Caddy health_port, HAProxy `check port`."""
    serves, answers = await backend(), await backend()
    assert (await probe(serves, replace(HTTP, port=answers.port))).ok
    assert (serves.connections, answers.connections) == (0, 1)
    await answers.stop()
    verdict = await probe(serves, replace(HTTP, port=answers.port))
    assert verdict.text == f"connection refused by 127.0.0.1:{answers.port}"


async def test_each_probe_has_its_own_connection(backend, probe):
    """Envoy's DontReuseConnectionBetweenChecks, and RemoteCloseBetweenChecks cannot happen then."""
    server = await backend()
    for _ in range(3):
        assert (await probe(server, HTTP)).ok
    assert server.connections == 3


async def test_unix_socket_targets_are_probed(probe, tmp_path: Path):
    async def serve(reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        writer.write(ok() if b"Host: localhost\r\n" in request else b"")
        writer.close()

    server = await asyncio.start_unix_server(serve, str(tmp_path / "s"))
    target = Target("app/blue/unix:s", "app", "blue", f"unix:{tmp_path}/s", 0)
    assert (await probe(target, HTTP)).ok
    assert (await probe(target, CheckSpec(protocol="tcp"))).ok
    server.close()
    await server.wait_closed()
    assert (await probe(replace(target, host=f"unix:{tmp_path}/none"), HTTP)).kind == "refused"


async def test_a_name_is_looked_up_and_its_addresses_tried_in_turn(backend, probe):
    server = await backend()
    assert (await probe(at(server.port, "localhost"), HTTP)).ok


async def test_a_name_that_does_not_exist_is_its_own_reason(probe):
    verdict = await probe(at(80, "no-such-host.invalid"), HTTP)
    assert verdict.kind == "dns"
    assert verdict.text.startswith("cannot look up no-such-host.invalid:80: ")


# --- what counts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "ranges", "passes"),
    [
        (b"200 OK", ((200, 299),), True),
        (b"204 No Content", ((200, 299),), True),
        (b"302 Found", ((200, 299),), False),
        (b"308 Permanent Redirect", ((200, 399),), True),
        (b"503 Service Unavailable", ((200, 299),), False),
        (b"201 Created", ((201, 201),), True),
        (b"200 OK", ((201, 204), (301, 301)), False),
        (b"404 Not Found", ((404, 404),), True),
    ],
)
async def test_expected_statuses(backend, probe, status, ranges, passes):
    body = b"" if status.startswith(b"204") else b"x"
    server = await backend(ok(body, status) if body else b"HTTP/1.1 204 No Content\r\n\r\n")
    verdict = await probe(server, replace(HTTP, expect=Expect(status=ranges)))
    assert verdict.ok == passes
    assert verdict.text.startswith(f"HTTP {status[:3].decode()}")


async def test_a_failure_keeps_how_the_body_begins_and_no_header(backend, probe):
    """Bounded and printable, whatever comes; a pass keeps nothing."""
    answer = ok(b"database:\x1b[2J no connection" + b"x" * 500, b"503 Busy", b"X-Secret: hunter2\r\n")
    refused = await probe(await backend(answer), HTTP)
    assert refused.excerpt.startswith("database:\\x1b[2J no connectionxxx")
    assert len(refused.excerpt) == 201
    assert len((await probe(await backend(ok(b"\0" * 500, b"503 Busy")), HTTP)).excerpt) == 201
    assert "hunter2" not in f"{refused}"
    other = await probe(
        await backend(ok(b"starting", headers=b"X-Secret: hunter2\r\n")), replace(HTTP, expect=Expect(body="up"))
    )
    assert (other.excerpt, "hunter2" in f"{other}") == ("starting", False)

    async def half(reader, writer):
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 99\r\nX-Secret: hunter2\r\n\r\nno disk")
        await reader.read()
        await asyncio.sleep(10)

    late = await probe(await backend(half), replace(HTTP, timeout=0.2))
    assert (late.kind, late.excerpt, "hunter2" in f"{late}") == ("timeout", "no disk", False)
    assert (await probe(await backend(ok(b"fine")), HTTP)).excerpt == ""


async def test_redirects_are_not_followed(backend, probe):
    """Traefik follows by default; a loop, or another host's health, is not this target's."""
    elsewhere = await backend()
    location = f"Location: http://127.0.0.1:{elsewhere.port}/\r\n".encode()
    server = await backend(ok(b"", b"302 Found", location))
    assert (await probe(server, HTTP)).text == "HTTP 302, expected 200-299"
    assert (await probe(server, replace(HTTP, expect=Expect(((200, 399),))))).ok
    assert elsewhere.connections == 0


@pytest.mark.parametrize(
    ("expected", "body", "passes"),
    [
        ("ready", b'{"state": "ready"}', True),
        ("ready", b"starting", False),
        ("/^ok$/", b"ok", True),
        ("/^ok$/", b"not ok", False),
        (r"/db: \w+, queue: [0-9]/", b"db: up, queue: 7", True),
        ("é", "café".encode(), True),
        ("/", b"a/b", True),
    ],
)
async def test_expected_body(backend, probe, expected, body, passes):
    server = await backend(ok(body))
    verdict = await probe(server, replace(HTTP, expect=Expect(body=expected)))
    assert verdict.ok == passes
    if not passes:
        assert verdict.kind == "body"
        assert verdict.text == f"HTTP 200, but its body ({len(body)} bytes) has no {expected}"


async def test_expected_headers(backend, probe):
    server = await backend(ok(headers=b"X-State: Ready\r\nX-Tag: a\r\nX-Tag: b\r\n"))

    async def with_headers(*headers: tuple[str, str]) -> Verdict:
        return await probe(server, replace(HTTP, expect=Expect(headers=headers)))

    assert (await with_headers(("x-state", "Ready"))).ok
    assert (await with_headers(("X-State", "/^R/"), ("X-Tag", "b"))).ok
    assert (await with_headers(("X-Tag", ""))).ok
    assert (await with_headers(("X-State", "ready"))).text == "HTTP 200, but X-State: Ready; expected ready"
    missing = await with_headers(("X-Other", ""))
    assert (missing.kind, missing.text) == ("header", "HTTP 200, but no X-Other; expected it to be there")


async def test_interim_answers(backend, probe):
    """Marathon's ignoreHttp1xx, and what it leaves open."""
    server = await backend(b"HTTP/1.1 100 Continue\r\n\r\n" + ok())
    assert (await probe(server, HTTP)).text == "HTTP 200"
    server.script = b"HTTP/1.1 100 Continue\r\n\r\n"
    only = await probe(server, HTTP)
    assert (only.ok, only.text) == (False, "HTTP 100, expected 200-299")
    ignored = await probe(server, replace(HTTP, ignore_1xx=True))
    assert (ignored.ok, ignored.ignored) == (False, True)
    assert (await probe(server, replace(HTTP, expect=Expect(((100, 299),))))).ok

    async def hold(reader, writer):
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        await reader.read()
        await asyncio.sleep(5)

    server.script = hold
    held = await probe(server, replace(HTTP, ignore_1xx=True, timeout=0.1))
    assert held.ignored
    assert held.text == "connected, but nothing came after HTTP 102 within 0.1 s"


@pytest.mark.parametrize(
    ("headers", "body", "weight", "drain"),
    [
        (b"X-LB-Weight: 50%\r\n", b"", 0.5, False),
        (b"x-lb-weight: 30\r\n", b"", 0.3, False),
        (b"X-LB-Weight: 250%\r\n", b"", 1.0, False),
        (b"X-LB-State: drain\r\n", b"", None, True),
        (b"X-LB-Weight: 20%, drain\r\n", b"", 0.2, True),
        (b"", b"75%\n", 0.75, False),
        (b"", b"drain", None, True),
        (b"", b"ready 40%\r\nmore", 0.4, False),
        (b"", b"ok", None, False),
        (b"", b"disk 50% full", None, False),
        (b"", b'{"drain": true}', None, False),
        (b"", b"50", None, False),
        (b"X-LB-Weight: lots\r\n", b"", None, False),
    ],
)
async def test_agent_words(backend, probe, headers, body, weight, drain):
    server = await backend(ok(body, headers=headers))
    verdict = await probe(server, HTTP)
    assert (verdict.ok, verdict.weight_hint, verdict.drain_hint) == (True, weight, drain)


# --- how servers fail ------------------------------------------------------------------------------------------------


async def silent(reader, writer):
    await reader.read()
    await asyncio.sleep(10)


async def trickle(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def trickled_head(reader, writer):
    for byte in ok():
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)


async def flood(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def endless_header(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 8000 + b"\r\n")
        await writer.drain()


async def reset(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        (silent, "timeout", "connected, but no answer within 0.2 s"),
        (trickle, "timeout", "did not end within 0.2 s"),
        (trickled_head, "timeout", "connected, but no answer within 0.2 s"),
        (endless_header, "garbage", "not a valid answer: the head is longer than 65536 bytes"),
        (reset, "reset", "connection reset by 127.0.0.1:"),
        (b" ", "garbage", "not a valid answer: the answer does not begin with HTTP/1."),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "garbage", "not a valid answer: the answer does not begin with HTTP/1."),
        (b"HTTP/1.1 999 Odd\r\n\r\n", "status", "HTTP 999, expected 200-299"),
        (b"HTTP/1.1 099 Odd\r\n\r\n", "garbage", "not a valid answer: "),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "reset", "in the middle of its answer's head"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "reset", "in the middle of its answer's body"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "garbage", "more than one Content-L"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "garbage", "not a valid answer: "),
    ],
)  # fmt: skip
async def test_each_way_to_fail_has_its_own_reason(backend, probe, script, kind, text):
    """HAProxy tells L4 from L7 and a time-out from a refusal; so do we."""
    server = await backend(script)
    verdict = await probe(server, replace(HTTP, timeout=0.2))
    assert (verdict.ok, verdict.kind) == (False, kind)
    assert text in verdict.text


async def test_closing_without_an_answer(backend, probe):
    async def close(reader, writer):
        await reader.readuntil(b"\r\n\r\n")

    verdict = await probe(await backend(close), HTTP)
    assert (verdict.kind, verdict.text) == ("reset", "closed the connection without an answer")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\nwhole body until close",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nProxy-Connection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 \r\nConnection: close\r\nContent-Length: 2\r\n\r\nok and more than it announced",
    ],
)
async def test_answers_of_every_shape_pass(backend, probe, answer):
    """Envoy: bodies of any size, trailers, `Connection: close` and `Proxy-Connection: close` do not break a check."""
    assert (await probe(await backend(answer), HTTP)).ok


@pytest.mark.timing
async def test_ten_gigabytes_are_read_up_to_the_bound(backend, probe):
    server = await backend(flood)
    began = time.monotonic()
    verdict = await probe(server, replace(HTTP, max_body=100_000, timeout=5.0))
    assert verdict.ok
    assert time.monotonic() - began < 2.0
    await eventually(lambda: server.open_now == 0, 5.0)


async def test_answers_cut_anywhere_never_pass_and_never_hang(backend, probe):
    whole = b"HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nready\r\n0\r\n\r\n"
    server = await backend(b"-")
    for length in range(len(whole)):
        server.script = whole[:length] or silent_close
        verdict = await probe(server, HTTP)
        assert not verdict.ok and not verdict.ignored, whole[:length]
    server.script = whole
    assert (await probe(server, HTTP)).ok


async def silent_close(reader, writer):
    await reader.readuntil(b"\r\n\r\n")


async def test_random_bytes_are_failures_with_a_reason(backend, probe):
    dice = random.Random(3)
    server = await backend(b"-")
    for _ in range(150):
        noise = bytes(dice.choice(b"HTTP/1.0 2\r\n:;x\0\xff") for _ in range(dice.randrange(1, 60)))
        server.script = dice.choice([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"]) + noise
        verdict = await probe(server, replace(HTTP, timeout=1.0))
        assert verdict.text
        assert all(c.isprintable() or c == "\n" for c in verdict.got)


async def test_unreachable_is_not_refused(probe):
    verdict = await probe(at(9, "255.255.255.255"), CheckSpec(protocol="tcp", timeout=0.5))
    assert verdict.kind in ("unreachable", "local")
    assert verdict.kind != "refused"


async def test_a_full_backlog_is_a_time_out_and_says_that_it_never_connected(probe):
    with full_listener() as listener:
        for spec in (CheckSpec(protocol="tcp", timeout=0.2), replace(HTTP, timeout=0.2)):
            verdict = await probe(at(listener.getsockname()[1]), spec)
            assert (verdict.kind, verdict.text) == ("timeout", "no connection within 0.2 s")


@pytest.mark.parametrize("spec", [CheckSpec(protocol="tcp", timeout=10.0), replace(HTTP, timeout=10.0)])
async def test_a_connection_that_takes_a_while(probe, spec: CheckSpec):
    """The kernel has to ask again, a second later."""
    loop = asyncio.get_running_loop()
    with full_listener() as listener, contextlib.ExitStack() as accepted:
        asking = asyncio.ensure_future(probe(at(listener.getsockname()[1]), spec))
        await asyncio.sleep(0.1)
        while not asking.done():
            accepting = asyncio.ensure_future(loop.sock_accept(listener))
            await asyncio.wait((accepting, asking), return_when=asyncio.FIRST_COMPLETED)
            if accepting.done():
                accepted.enter_context(accepting.result()[0]).send(ok())
            else:
                accepting.cancel()
        verdict = await asking
        assert verdict.ok and verdict.seconds > 0.5


async def test_our_own_shortage_is_called_so(probe, monkeypatch):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3, hard))
    opened = []
    try:
        while True:
            try:
                opened.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        verdict = await probe(at(1), HTTP)
    finally:
        for each in opened:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert verdict.kind == "local"
    assert "for a reason of our own" in verdict.text


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trust(authority, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def server_context(authority: trustme.CA, *names: str, client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    return context


HTTPS = replace(HTTP, protocol="https")


async def test_https_with_and_without_verification(backend, probe, authority, trust):
    server = await backend(ssl=server_context(authority, "127.0.0.1"))
    assert (await probe(server, replace(HTTPS, tls=TlsClient(ca_file=trust)))).ok
    assert (await probe(server, replace(HTTPS, tls=TlsClient(verify=False)))).ok
    verdict = await probe(server, HTTPS)  # the system's trust store does not know our authority
    assert verdict.kind == "tls"
    assert verdict.text.startswith(f"certificate of 127.0.0.1:{server.port} refused: ")


async def test_https_takes_the_targets_tls_where_the_check_has_none(backend, probe, authority, trust):
    server = await backend(ssl=server_context(authority, "127.0.0.1"))
    assert (await probe(replace(server.target(), tls=TlsClient(ca_file=trust)), HTTPS)).ok


async def test_server_name_is_sent_and_verified(backend, probe, authority, trust):
    names: list[str] = []
    context = server_context(authority, "app.example")
    context.sni_callback = lambda connection, name, _: names.append(name)
    server = await backend(ssl=context)
    assert (await probe(server, replace(HTTPS, tls=TlsClient(ca_file=trust, server_name="app.example")))).ok
    assert names == ["app.example"]
    verdict = await probe(server, replace(HTTPS, tls=TlsClient(ca_file=trust)))
    assert verdict.kind == "tls"
    assert verdict.text.endswith("refused: expected the name 127.0.0.1, but the certificate is for app.example"), (
        verdict.text
    )


async def test_client_certificate(backend, probe, authority, trust, tmp_path: Path):
    server = await backend(ssl=server_context(authority, "127.0.0.1", client=True))
    issued = authority.issue_cert("probe.example")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    own = TlsClient(ca_file=trust, cert_file=str(tmp_path / "both.pem"))
    assert (await probe(server, replace(HTTPS, tls=own))).ok
    assert not (await probe(server, replace(HTTPS, tls=TlsClient(ca_file=trust)))).ok


async def test_a_target_that_wants_another_client_certificate_says_so(probe, authority, trust, tmp_path: Path):
    """TLS 1.3 tells it after the handshake, by an alert in place of the answer."""
    issued = authority.issue_cert("probe.example")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    with refusing_server(server_context(authority, "127.0.0.1"), trustme.CA()) as port:
        target = Target("t", "web", "blue", "127.0.0.1", port)
        verdict = await probe(target, replace(HTTPS, tls=TlsClient(ca_file=trust)))
        assert (verdict.ok, verdict.kind) == (False, "tls")
        assert "wants a client certificate" in verdict.text
        own = TlsClient(ca_file=trust, cert_file=str(tmp_path / "both.pem"))
        verdict = await probe(target, replace(HTTPS, tls=own))
        assert verdict.text.endswith("refused the client certificate of `tls.cert_file`: unknown certificate authority")


@pytest.mark.parametrize("protocol", ["https", "grpc"])
async def test_certificates_that_are_not_read_in_time_are_no_fault_of_the_target(backend, dialer, probe, protocol: str):
    """After a reload they are read anew; a slow disk must not take a thousand targets out."""
    target = replace((await backend()).target(), tls=TlsClient(verify=False))
    never: asyncio.Future[ssl.SSLContext] = asyncio.get_running_loop().create_future()
    dialer.contexts.get = lambda tls, alpn: never
    verdict = await probe(target, CheckSpec(protocol=protocol, timeout=0.1))
    assert verdict.kind == "local"
    where = f"127.0.0.1:{target.port}"
    assert verdict.text == f"cannot probe {where}, for a reason of our own: its certificates were not read within 0.1 s"


async def test_a_server_that_hangs_in_the_handshake(backend, probe, dialer):
    await dialer.contexts.get(TlsClient(verify=False), ("http/1.1",))
    verdict = await probe(await backend(silent), replace(HTTPS, tls=TlsClient(verify=False), timeout=0.2))
    assert (verdict.kind, verdict.text) == ("timeout", "no connection with TLS within 0.2 s")


async def test_a_server_without_tls(backend, probe):
    async def plain(reader, writer):
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    verdict = await probe(await backend(plain), replace(HTTPS, tls=TlsClient(verify=False)))
    assert (verdict.ok, verdict.kind) == (False, "tls")


async def test_a_trust_store_that_cannot_be_read(backend, probe):
    verdict = await probe(await backend(), replace(HTTPS, tls=TlsClient(ca_file="/does/not/exist.pem")))
    assert not verdict.ok
    assert verdict.text


# --- commands --------------------------------------------------------------------------------------------------------


def command(*words: str, timeout: float = 5.0) -> CheckSpec:
    return CheckSpec(protocol="command", command=words, timeout=timeout)


def shell(text: str, timeout: float = 5.0) -> CheckSpec:
    return command("/bin/sh", "-c", text, timeout=timeout)


async def test_exit_status_is_the_verdict(probe):
    assert (await probe(at(7), shell("exit 0"))).text == "exit status 0"
    verdict = await probe(at(7), shell("echo trying; echo no database >&2; exit 3"))
    assert (verdict.ok, verdict.kind, verdict.text) == (False, "exit", "exit status 3: no database")
    assert verdict.got == "trying\nno database"
    assert (await probe(at(7), shell("kill -SEGV $$"))).text == "ended by SIGSEGV"


async def test_the_target_is_in_the_environment(probe):
    verdict = await probe(at(7), shell('echo "$LB_TARGET_HOST $LB_TARGET_PORT $LB_TARGET"; cat; exit 1'))
    assert verdict.got == "127.0.0.1 7 app/blue/127.0.0.1:7"  # and its input is empty


async def test_agent_words_of_a_command(probe):
    assert (await probe(at(7), shell("echo 25% drain")))[4:6] == (0.25, True)


async def test_a_program_that_is_not_there(probe):
    verdict = await probe(at(7), command("/no/such/program"))
    assert "cannot run /no/such/program: No such file or directory" in verdict.text


async def test_the_whole_process_group_is_killed_on_time_out(probe, tmp_path: Path):
    """It forks, its child ignores SIGTERM and keeps the output open."""
    pids = tmp_path / "pids"
    text = (
        f"trap '' TERM; (trap '' TERM; echo $$ >> {pids}; sh -c 'echo $PPID >> {pids}; sleep 60'; sleep 60) & sleep 60"
    )
    verdict = await probe(at(7), shell(f"echo begun; {text}", timeout=0.4))
    assert (verdict.kind, verdict.got) == ("timeout", "begun")
    assert verdict.text == "still running after 0.4 s; killed with all its processes"
    found = [int(pid) for pid in pids.read_text().split()]
    assert len(found) == 2
    await eventually(lambda: not any(alive(pid) for pid in found))


@pytest.mark.timing
async def test_what_a_command_leaves_behind_is_killed_and_does_not_hold_up_its_verdict(probe, tmp_path: Path):
    pid = tmp_path / "pid"
    began = time.monotonic()
    verdict = await probe(at(7), shell(f"sleep 60 & echo $! > {pid}; echo done"))
    assert verdict.ok and verdict.got == "done"
    assert time.monotonic() - began < 2.0
    await eventually(lambda: not alive(int(pid.read_text())))


@pytest.mark.timing
async def test_a_command_that_prints_endlessly_is_bounded(probe):
    loop_time = time.process_time()
    verdict = await probe(at(7), shell("echo first; exec yes", timeout=0.5))
    assert verdict.kind == "timeout"
    assert verdict.got.startswith("first\ny\n")
    assert len(verdict.got) < 5000
    assert time.process_time() - loop_time < 0.4


async def test_a_command_that_prints_much_and_ends_passes(probe):
    verdict = await probe(at(7), command(sys.executable, "-c", "print('a' * 300000); print('end')"))
    assert verdict.ok
    assert verdict.got.startswith("aaaa") and verdict.got.endswith("aaa\nend") and " bytes …" in verdict.got


async def test_a_cancelled_command_is_killed(dialer, tmp_path: Path):
    pid = tmp_path / "pid"
    asking, told = put(build(at(7), shell(f"echo $$ > {pid}; sleep 60", 30.0), dialer), 30.0)
    await eventually(lambda: pid.exists() and pid.read_text().strip())
    asking.cancel()
    assert await told is None
    await eventually(lambda: not alive(int(pid.read_text())))


# --- gRPC ------------------------------------------------------------------------------------------------------------


class HealthService(grpc.GenericRpcHandler):
    """`grpc.health.v1` by hand: raw bytes in and out, as the protocol buffer definition has them."""

    def __init__(self) -> None:
        self.statuses = {b"": 1, b"greeting": 1}
        self.deadline = 0.0

    def service(self, details):
        if details.method != "/grpc.health.v1.Health/Check":
            return None
        return grpc.unary_unary_rpc_method_handler(self.check)

    def check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.deadline = context.time_remaining()
        name = request[2:]
        if name == b"slow":
            time.sleep(1.0)
        if name not in self.statuses:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service: café")
        status = self.statuses[name]
        return b"\x08" + bytes([status]) if status else b""


@pytest.fixture(scope="module")
def grpc_server():
    service = HealthService()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service, port
    server.stop(0).wait()


GRPC = CheckSpec(protocol="grpc", timeout=5.0)


async def test_grpc_serving_and_not(probe, grpc_server):
    service, port = grpc_server
    assert (await probe(at(port), GRPC)).text == "SERVING"
    assert 3.0 < service.deadline <= 5.0
    service.statuses[b"greeting"] = 2
    asked = replace(GRPC, grpc_service="greeting")
    verdict = await probe(at(port), asked)
    assert (verdict.ok, verdict.kind, verdict.text) == (False, "grpc", "NOT_SERVING")
    service.statuses[b"greeting"] = 0
    assert (await probe(at(port), asked)).text == "UNKNOWN"
    service.statuses[b"greeting"] = 1
    assert (await probe(at(port), asked)).ok


async def test_grpc_unknown_service(probe, grpc_server):
    verdict = await probe(at(grpc_server[1]), replace(GRPC, grpc_service="other"))
    assert (verdict.kind, verdict.text) == ("grpc", "gRPC NOT_FOUND: unknown service: cafÃ©".replace("Ã©", "é"))


async def test_grpc_too_slow(probe, grpc_server):
    grpc_server[0].statuses[b"slow"] = 1
    verdict = await probe(at(grpc_server[1]), replace(GRPC, grpc_service="slow", timeout=0.2))
    assert not verdict.ok


async def test_grpc_without_the_health_service(probe):
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    verdict = await probe(at(port), GRPC)
    server.stop(0).wait()
    assert verdict.text.startswith("gRPC UNIMPLEMENTED")


async def test_grpc_over_tls(probe, authority, trust):
    issued = authority.issue_cert("127.0.0.1")
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((HealthService(),))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        assert (await probe(at(port), replace(GRPC, tls=TlsClient(ca_file=trust)))).ok
        assert (await probe(at(port), replace(GRPC, tls=TlsClient()))).kind == "tls"
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize(
    ("script", "kind"),
    [(ok(), "garbage"), (silent, "timeout"), (silent_close, "reset"), (b"\0\0\0\4\0\0\0\0\0" * 4, "reset")],
)
async def test_grpc_asked_of_something_else(backend, probe, script, kind):
    async def raw(reader, writer):
        await reader.read(100)
        if callable(script):
            await script(reader, writer) if script is silent else None
        else:
            writer.write(script)

    verdict = await probe(await backend(raw), replace(GRPC, timeout=0.3))
    assert (verdict.ok, verdict.kind) == (False, kind)
    assert verdict.text


# --- clocks and signals ----------------------------------------------------------------------------------------------


async def test_the_wall_clock_does_not_matter(backend, probe, monkeypatch):
    """Clock jumps: everything here is measured on the monotonic clock."""
    monkeypatch.setattr(time, "time", lambda: 1e9 * random.random())
    assert 0 <= (await probe(await backend(), HTTP)).seconds < 100.0


async def test_cancelling_is_no_verdict(backend, dialer):
    server = await backend(silent)
    asking, told = put(build(server.target(), HTTP, dialer), 30.0)
    await eventually(lambda: server.connections == 1)
    asking.cancel()
    assert await told is None
    asking.cancel()  # once more is no harm
    assert dialer.transport.open_now == 0
