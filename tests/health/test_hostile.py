"""Targets that do all they can to hold a checker up: none of them delays another one's probe by its interval."""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from lb.core.checks import CheckSpec, Expect
from lb.core.lifecycle import in_rotation
from lb.core.patterns import BadPattern, Pattern, TooCostly
from lb.core.targets import Target
from lb.health.probes.http import ASIDE
from tests.health.conftest import Backend, Watcher, never_late, ok
from tests.support.eventually_async import eventually

HTTP = CheckSpec(protocol="http", path="/health", interval=0.3, timeout=0.8, grace=0.0)
BODY = b"a" * 60000 + b"b"
HARD = "/(a|aa)+$/"


# --- patterns --------------------------------------------------------------------------------------------------------


@pytest.mark.timing
@pytest.mark.parametrize("pattern", ["/(a+)+$/", HARD, "/^(([a-z])+.)+[A-Z]([a-z])+$/", "/(a*)*\\Z(?<=c)/"])
def test_a_pattern_that_would_take_for_ever_is_given_up(pattern):
    began = time.perf_counter()
    with pytest.raises(TooCostly, match="/"):
        Pattern(pattern).found_in(BODY.decode(), 0.02)
    assert time.perf_counter() - began < 2.0


def test_what_is_no_pattern_says_why():
    with pytest.raises(BadPattern, match="missing"):
        Pattern("/(/")
    assert Pattern("//").found_in("a//b", 1.0)


@pytest.mark.timing
async def test_a_costly_pattern_is_a_failure_that_says_so_and_holds_up_nobody(watcher: Watcher, backend):
    """Three targets answer with the body that their pattern is worst at; each of the others is probed on time."""
    spec = replace(HTTP, timeout=20.0, expect=Expect(body=HARD))
    hostile = [await backend(ok(BODY)) for _ in range(3)]
    good = await backend(ok(b"aaaa"))
    pairs = [(each.target(pool=f"p{number}"), spec) for number, each in enumerate(hostile)]
    watcher.watch(*pairs, (good.target(), spec))
    await eventually(lambda: all(len(watcher.texts(target)) >= 2 for target, _ in pairs), within=20.0)
    for target, _ in pairs:
        verdict = watcher.monitor.history(target.id)[-1].verdict
        assert (verdict.ok, verdict.kind) == (False, "body")
        assert (
            verdict.text
            == f"HTTP 200 with a body of 60001 bytes, but to look for {HARD} takes longer than {ASIDE} s: given up"
        )
        assert not in_rotation(watcher.monitor.health(target.id))
    await never_late(good, spec, 6)
    assert in_rotation(watcher.monitor.health(good.target().id))


async def test_a_costly_pattern_ends_with_the_probe(watcher: Watcher, backend):
    server = await backend(ok(BODY))
    spec = replace(HTTP, timeout=0.1, expect=Expect(body=HARD))
    watcher.watch((server.target(), spec))
    await eventually(lambda: len(watcher.texts(server.target())) >= 2)
    found = "HTTP 200 with a body of 60001 bytes, but what is expected was neither found nor ruled out within 0.1 s"
    assert set(watcher.texts(server.target())) == {found}


@pytest.mark.timing
async def test_a_costly_pattern_of_a_header(watcher: Watcher, backend):
    server = await backend(ok(headers=b"X-State: " + b"a" * 5000 + b"b\r\n"))
    spec = replace(HTTP, timeout=2.0, expect=Expect(headers=(("x-state", HARD),)))
    watcher.watch((server.target(), spec))
    await eventually(lambda: watcher.texts(server.target()))
    assert "given up" in watcher.texts(server.target())[0]


# --- all at once -----------------------------------------------------------------------------------------------------


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(-1)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ten GiB, as fast as they are taken."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n")
    while not writer.is_closing():
        writer.write(bytes(65536))
        await writer.drain()


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One byte after the other, and never done."""
    await reader.readuntil(b"\r\n\r\n")
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10000:
        if writer.is_closing():
            break
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


@pytest.mark.timing
async def test_everything_bad_at_once_delays_nobody(watcher: Watcher, backend, tmp_path: Path):
    """Never answers, ten GiB, byte by byte, redirects in a loop, resets, a bad certificate, a handshake that hangs; a
    command that forks, one that ignores SIGTERM, one that prints endlessly: several of each beside one that is well."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.test").configure_cert(context)
    loop = await backend(b"")
    loop.script = ok(b"", b"302 Found", b"Location: http://127.0.0.1:%d/health\r\n" % loop.port)
    https = replace(HTTP, protocol="https")
    bad = [(await backend(script), HTTP, kind) for script, kind in (
        (silent, "timeout"), (endless, "passed"), (dripping, "timeout"), (resetting, "reset"),
    )]  # fmt: skip
    bad += [(loop, HTTP, "status"), (await backend(silent), https, "timeout")]
    bad += [(await backend(silent, ssl=context), https, "tls")]
    nobody = Backend(b"")
    forks = tmp_path / "forks.py"
    forks.write_text("import os, time\nfor _ in range(5): os.fork()\ntime.sleep(60)\n")
    for command in (
        (sys.executable, "-S", str(forks)),
        ("/bin/sh", "-c", "trap '' TERM; while :; do sleep 60; done"),
        ("/bin/sh", "-c", "exec yes endless"),
    ):
        bad.append((nobody, replace(HTTP, protocol="command", command=command), "timeout"))
    good = await backend()
    pairs: list[tuple[Target, CheckSpec]] = []
    kinds: dict[str, str] = {}
    for number, (server, spec, kind) in enumerate(bad):
        for copy in range(5 if spec.protocol != "command" else 2):
            target = replace(server.target(pool=f"p{number}"), id=f"app/p{number}/{copy}")
            pairs.append((target, spec))
            kinds[target.id] = kind
    watcher.watch(*pairs, (good.target(), HTTP))

    def found() -> dict[str, str]:
        """What was found of each, and was to be found: on a busy machine one of them may be too late for once."""
        told = {(target, verdict.kind) for target, _, verdict in watcher.probes}
        return {target: kind for target, kind in kinds.items() if (target, kind) in told}

    await eventually(lambda: found() == kinds, within=30.0)
    await never_late(good, HTTP, 6)
    assert in_rotation(watcher.monitor.health(good.target().id))
