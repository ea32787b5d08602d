"""HTTP checks of targets that speak HTTP/2: the same settings, asked over the protocol that requests use."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from lb.core.checks import CheckSpec, Expect, definition, identity
from lb.core.lifecycle import Verdict
from lb.core.targets import Target, TlsClient
from lb.health.probes import ask, build
from lb.health.probes.dial import Dialer
from tests.support.front import Origin, Script, answers_ok
from tests.support.h2_origin import MAX_STREAMS, Asked, Peer, speaks

CHECK = CheckSpec(protocol="http", path="/health", timeout=2.0, http2=True)
Probe = Callable[..., Awaitable[Verdict]]


@pytest.fixture
async def probe() -> AsyncIterator[Probe]:
    dialer = Dialer(time.monotonic)
    origins: list[Origin] = []

    async def run(script: Script, spec: CheckSpec = CHECK, tls: ssl.SSLContext | None = None) -> Verdict:
        origin = Origin()
        origin.script = script
        origins.append(origin)
        await origin.start(tls=tls)
        target = Target(f"s/p/127.0.0.1:{origin.port}", "s", "p", "127.0.0.1", origin.port, http2=True)
        told: asyncio.Future[Verdict | None] = asyncio.get_running_loop().create_future()
        ask(build(target, spec, dialer), spec.timeout, told.set_result)
        verdict = await told
        assert verdict is not None
        return verdict

    yield run
    dialer.close()
    for origin in origins:
        await origin.stop()


async def test_what_is_asked(probe: Probe) -> None:
    seen: list[Asked] = []

    def keep(peer: Peer, asked: Asked) -> None:
        seen.append(asked)
        peer.answer(asked.stream)

    spec = replace(CHECK, headers=(("Host", "app.example"), ("X-Probe", "yes")))
    verdict = await probe(speaks(keep), spec)
    assert verdict.ok, verdict
    (asked,) = seen
    assert asked.fields[:4] == [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "app.example"),
        (":path", "/health"),
    ]
    assert asked["x-probe"] == "yes"
    assert not {"host", "connection"} & {name for name, _ in asked.fields}


@pytest.mark.parametrize("framing", ["length", "end", "trailers"])
async def test_status_body_and_fields_are_judged_as_over_http1(probe: Probe, framing: str) -> None:
    def tell(peer: Peer, asked: Asked) -> None:
        if framing == "length":
            peer.answer(asked.stream, b"all is well")
            return
        peer.head(asked.stream, ("x-ready", "yes"))
        peer.data(asked.stream, b"all is well", framing == "end")
        if framing == "trailers":
            peer.trailers(asked.stream, ("x-sum", "1"))

    well = replace(CHECK, expect=Expect(body="is well"))
    assert (await probe(speaks(tell), well)).ok
    verdict = await probe(speaks(tell), replace(CHECK, expect=Expect(body="is ill")))
    assert (verdict.ok, verdict.kind) == (False, "body")
    verdict = await probe(speaks(tell), replace(CHECK, expect=Expect(status=((204, 204),))))
    assert (verdict.ok, verdict.kind, verdict.text) == (False, "status", "HTTP 200, expected 204")


async def test_no_answer_in_time_says_how_far_it_came(probe: Probe) -> None:
    def nothing(peer: Peer, asked: Asked) -> None:
        pass

    def half(peer: Peer, asked: Asked) -> None:
        peer.head(asked.stream)
        peer.data(asked.stream, b"abc")

    soon = replace(CHECK, timeout=0.3)
    assert (await probe(speaks(nothing), soon)).text == "connected, but no answer within 0.3 s"
    assert "its body (3 bytes so far) did not end" in (await probe(speaks(half), soon)).text


def reset(peer: Peer, asked: Asked) -> None:
    peer.reset(asked.stream, 2)


def leave(peer: Peer, asked: Asked) -> None:
    peer.goaway(0)


def close(peer: Peer, asked: Asked) -> None:
    peer.writer.close()


def malformed(peer: Peer, asked: Asked) -> None:
    peer.head(asked.stream, ("Upper", "case"), end=True)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (speaks(reset), "reset"),
        (speaks(leave), "reset"),
        (speaks(close), "reset"),
        (speaks(malformed), "garbage"),
        (speaks(settings={MAX_STREAMS: 0}), "garbage"),
        (answers_ok, "garbage"),
    ],
)
async def test_what_is_no_answer(probe: Probe, script: Script, kind: str) -> None:
    verdict = await probe(script)
    assert (verdict.ok, verdict.kind) == (False, kind), verdict


@pytest.mark.parametrize("chosen", ["h2", "http/1.1"])
async def test_over_tls_it_has_to_be_chosen(probe: Probe, chosen: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    trust = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(trust)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols([chosen])
    spec = replace(CHECK, protocol="https", tls=TlsClient(ca_file=str(trust)))
    verdict = await probe(speaks(), spec, context)
    assert verdict.ok == (chosen == "h2")
    if not verdict.ok:
        assert "ALPN" in verdict.text


def test_a_verdict_holds_for_one_protocol_alone() -> None:
    target = Target("s/p/a:1", "s", "p", "a", 1)
    other = replace(CHECK, http2=False)
    assert identity(target, CHECK) != identity(target, other)
    assert definition(CHECK) != definition(other)
