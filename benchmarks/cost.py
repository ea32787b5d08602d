"""`python -m benchmarks.cost`: what one request costs, counted and not timed, so that no quiet machine is needed.

The data plane runs in this process over real sockets; the target and the clients are threads, or another process when
machine instructions are counted. For each kind of request it says how many Python functions of ours are called, how
many C functions they call, how many bytecodes they execute, and (`--instructions`, under valgrind's callgrind) how many
machine instructions the whole process needs outside the kernel.

The first two are exact; tests/unit/test_calls_per_request.py holds the small GET to a bound. It does not see the
kernel's part, and nothing of waiting: the rounds of `python -m benchmarks` do.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvloop

import lb
from lb.core.targets import AccessLog, Listener, Pool, Rotation, Route, Service, Snapshot, Target
from lb.proxy.plane import DataPlane

#: Client connections; each sends a request, then each is answered: the loop finds several events at a time, as it
#: does under load.
CONNECTIONS = 8
#: Requests that are not counted: connections are opened, field names are remembered.
WARM_UP = 10 * CONNECTIONS
_OURS = str(Path(lb.__file__).parent) + os.sep
_AGENT = b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"


@dataclass(frozen=True)
class Kind:
    """One kind of request: what the client sends as its `n`th, and what the target answers."""

    text: str
    request: Callable[[int], bytes]
    answer: bytes


def _get(path: bytes = b"/", fields: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: www.example.org\r\n%b%bAccept: */*\r\n\r\n" % (path, _AGENT, fields)


def _answer(body: bytes, fields: bytes = b"") -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sat, 21 Nov 2026 06:00:00 GMT\r\nContent-Type: text/plain\r\n%b"
        b"Content-Length: %d\r\nConnection: keep-alive\r\n\r\n%b" % (fields, len(body), body)
    )


_SMALL = _answer(b"x" * 65)
_FILLERS = b"".join(b"X-Filler-%d: value-of-filler-%d\r\n" % (i, i) for i in range(26))
_POST = b"POST /form HTTP/1.1\r\nHost: www.example.org\r\n%bContent-Length: 1024\r\n\r\n%b" % (_AGENT, b"x" * 1024)
_CHUNKED = (
    b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sat, 21 Nov 2026 06:00:00 GMT\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"41\r\n" + b"x" * 65 + b"\r\n0\r\n\r\n"
)

KINDS = {
    "get": Kind("the same small GET again and again", lambda n: _get(), _SMALL),
    "path": Kind("each GET for another path", lambda n: _get(b"/items/%d?page=%d" % (n, n % 7)), _SMALL),
    "cookie": Kind(
        "each GET for another path with another cookie",
        lambda n: _get(b"/items/%d" % n, b"Cookie: session=%032x\r\n" % n),
        _SMALL,
    ),
    "post": Kind("POST of 1 KiB", lambda n: _POST, _SMALL),
    "headers": Kind("30 header fields each way", lambda n: _get(fields=_FILLERS), _answer(b"x" * 65, _FILLERS)),
    "chunked": Kind("an answer in chunks", lambda n: _get(), _CHUNKED),
}


@dataclass(frozen=True)
class Cost:
    """Per request."""

    calls: float  # of our Python functions
    c_calls: float  # of C functions, by ours
    bytecodes: float  # executed in ours
    garbage: float  # objects that only the cycle collector can free
    functions: dict[str, float]  # calls by function: "module.function" → calls


def cost(kind: Kind, requests: int = 25 * CONNECTIONS) -> Cost:
    """Count `requests` requests of one kind."""
    calls: Counter[str] = Counter()
    c_calls = bytecodes = 0

    def on_call(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal c_calls
        code = frame.f_code
        if code.co_filename.startswith(_OURS):
            if event == "call":
                module = code.co_filename[len(_OURS) :].removesuffix(".py").replace(os.sep, ".")
                calls[f"{module}.{code.co_name}"] += 1
            elif event == "c_call":
                c_calls += 1

    def on_line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal bytecodes
        if event == "call":
            if not frame.f_code.co_filename.startswith(_OURS):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif event == "opcode":
            bytecodes += 1
        return on_line

    _exercise(kind, requests, lambda: sys.setprofile(on_call), lambda: sys.setprofile(None))
    _exercise(kind, requests, lambda: sys.settrace(on_line), lambda: sys.settrace(None))
    collected = 0

    def look() -> None:
        nonlocal collected
        collected = gc.collect()
        gc.enable()

    def hold() -> None:
        gc.collect()
        gc.disable()

    _exercise(kind, requests, hold, look)
    functions = {name: count / requests for name, count in calls.most_common() if count >= requests / 2}
    return Cost(
        sum(calls.values()) / requests, c_calls / requests, bytecodes / requests, collected / requests, functions
    )


# --- the data plane, its target and its clients ----------------------------------------------------------------------


def _exercise(kind: Kind, requests: int, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Serve `requests` requests in this thread; `begin` is called after the warm-up, `end` after the last one."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as origin:
        threading.Thread(target=_answer_all, args=(origin, kind), daemon=True).start()
        uvloop.run(_serve(kind, requests, origin.getsockname()[1], begin, end))


async def _serve(kind: Kind, requests: int, target: int, begin: Callable[[], None], end: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    with tempfile.TemporaryDirectory() as folder:
        plane = _plane(loop, target, Path(folder, "access.log"))
        server = await loop.create_server(plane.downstream(Listener("bench")), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        def clients() -> None:
            with_begin = threading.Event()

            def on_loop(call: Callable[[], None]) -> None:
                with_begin.clear()
                loop.call_soon_threadsafe(lambda: (call(), with_begin.set()))
                with_begin.wait()

            socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
            _ask(socks, kind, 0, WARM_UP)
            on_loop(begin)
            _ask(socks, kind, WARM_UP, requests)
            on_loop(end)
            for sock in socks:
                sock.close()
            loop.call_soon_threadsafe(done.set)

        thread = threading.Thread(target=clients, daemon=True)
        thread.start()
        await done.wait()
        thread.join()
        server.close()
        plane.close()


def _plane(loop: asyncio.AbstractEventLoop, port: int, log: Path) -> DataPlane:
    """A data plane with one target, and a JSON log."""
    plane = DataPlane(worker=0, loop=loop, alarm=lambda alarm: None)
    target = Target(f"bench/all/127.0.0.1:{port}", "bench", "all", "127.0.0.1", port)
    rotation = Rotation("bench", 1, (("all", 100),), (("all", ((target.id, 1.0),)),))
    services = (Service("bench", (Pool("all", (target,)),)),)
    log_to = AccessLog("json", str(log))
    plane.apply(Snapshot(1, (), services, (Route("bench"),), (rotation,), access_log=log_to))
    return plane


def _ask(socks: list[socket.socket], kind: Kind, first: int, count: int) -> None:
    """Send `count` requests, one on each connection, then read one answer from each, and so on."""
    for number in range(first, first + count, len(socks)):
        for offset, sock in enumerate(socks):
            sock.sendall(kind.request(number + offset))
        for sock in socks:
            answer = sock.recv(65536)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"not answered with 200: {answer[:100]!r}")


def _answer_all(listening: socket.socket, kind: Kind) -> None:
    while True:
        try:
            sock, _ = listening.accept()
        except OSError:
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_answer_one, args=(sock, kind), daemon=True).start()


def _answer_one(sock: socket.socket, kind: Kind) -> None:
    """Requests come in one piece each: none is larger than a socket's buffer."""
    with sock:
        while sock.recv(65536):
            sock.sendall(kind.answer)


# --- machine instructions --------------------------------------------------------------------------------------------


def instructions(name: str, requests: int = 2000) -> float:
    """Machine instructions per request outside the kernel: a run of callgrind less a shorter one."""
    short, long = (_callgrind(name, count) for count in (requests // 4, requests + requests // 4))
    return (long - short) / requests


def _callgrind(name: str, requests: int) -> int:
    kind = KINDS[name]
    with socket.create_server(("127.0.0.1", 0), backlog=128) as origin:
        threading.Thread(target=_answer_all, args=(origin, kind), daemon=True).start()
        with tempfile.TemporaryDirectory() as folder:
            command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", sys.executable, "-m"]
            command += ["benchmarks.cost", "--serve", str(origin.getsockname()[1])]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                port = int(process.stdout.readline())
                socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
                _ask(socks, kind, 0, WARM_UP + requests)
                for sock in socks:
                    sock.close()
                _, said = process.communicate()
            found = re.search(r"Collected : (\d+)", said)
            if found is None:
                raise RuntimeError(f"valgrind said: {said}")
            return int(found[1])


async def _serve_others(target: int) -> None:
    """Serve the clients of another process, until they have gone."""
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as folder:
        plane = _plane(loop, target, Path(folder, "access.log"))
        server = await loop.create_server(plane.downstream(Listener("bench")), "127.0.0.1", 0)
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 100)
        print(server.sockets[0].getsockname()[1], flush=True)
        while not plane.stats.accepted or plane.clients:  # noqa: ASYNC110 - the plane tells no events
            await asyncio.sleep(0.2)
        server.close()
        plane.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="kinds of request (all): " + ", ".join(KINDS))
    parser.add_argument("--instructions", action="store_true", help="machine instructions as well (needs valgrind)")
    parser.add_argument("--functions", action="store_true", help="say which functions are called")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(_serve_others(options.serve))
        return 0
    if options.instructions and not shutil.which("valgrind"):
        parser.error("valgrind is needed for --instructions (Debian: apt-get install valgrind)")
    print("| request | Python calls | C calls | bytecodes | cyclic garbage | instructions outside the kernel |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in options.kinds or KINDS:
        one = cost(KINDS[name])
        machine = f"{instructions(name):,.0f}" if options.instructions else "–"
        print(
            f"| {KINDS[name].text} | {one.calls:.1f} | {one.c_calls:.1f} | {one.bytecodes:.0f} | {one.garbage:.2f} "
            f"| {machine} |",
            flush=True,
        )
        if options.functions:
            print("".join(f"  {count:5.1f} {function}\n" for function, count in one.functions.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
