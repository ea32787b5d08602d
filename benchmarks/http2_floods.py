"""`python -m benchmarks.http2_floods`: each known flood of HTTP/2, as fast as one core sends it, at a worker of lb.

Beside it other clients go on with small requests. Asked are their p99 (beside a neighbour that only burns as much
processor time as the attacker), the memory that the flood leaves in the worker, and how long the attacker's connections
lived. The attacker opens another one as soon as it is sent away.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import load, origin, report
from benchmarks.processes import LOAD_CPU, Server, stop
from benchmarks.servers import Setup, lb

DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
#: What the issue of these limits asks for: p99 against its neighbour's, bytes, seconds.
MOST_P99, MOST_GROWTH, MOST_LIFE = 2.0, 16 << 20, 1.0
_GET = b"\x82\x86\x84\x01\x05bench"
_POST = b"\x83\x86\x84\x01\x05bench"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


#: A large entry for the dynamic table, and a block of references to it.
_ENTRY = b"\x40\x01x\x7f\xa1\x1e" + b"a" * 4000
_BOMB = _GET + b"\xbe" * 16_000


def _stream(number: int) -> int:
    return 2 * number + 1


FLOODS: dict[str, Callable[[int], bytes]] = {
    "rapid reset": lambda n: frame(HEADERS, 5, _stream(n), _GET) + frame(RST, 0, _stream(n), bytes(3) + b"\x08"),
    "MadeYouReset": lambda n: frame(HEADERS, 4, _stream(n), _POST) + frame(WINDOW, 0, _stream(n), bytes(4)),
    "malformed requests": lambda n: frame(HEADERS, 5, _stream(n), b"\x82"),
    "too many streams": lambda n: frame(HEADERS, 4, _stream(n), _POST),
    "SETTINGS": lambda n: frame(SETTINGS, 0, 0, bytes(6) * 5),
    "PING": lambda n: frame(PING, 0, 0, bytes(8)),
    "empty DATA": lambda n: (frame(HEADERS, 4, 1, _POST) if not n else b"") + frame(DATA, 0, 1),
    "PRIORITY": lambda n: frame(PRIORITY, 0, 3, b"\0\0\0\1\x10"),
    "CONTINUATION": lambda n: frame(HEADERS, 1, 1, _GET) if not n else frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b"),
    "small windows": lambda n: frame(WINDOW, 0, 0, b"\0\0\0\1"),
    "unknown frames": lambda n: frame(0x77, 0, 0),
    "HPACK bomb": lambda n: frame(HEADERS, 5, _stream(n), _GET + _ENTRY if not n else _BOMB),
}
#: As much of a flood as is built before it is sent.
BATCH = 2000


def _bytes_of(name: str) -> bytes:
    build = FLOODS[name]
    return _PREFACE + frame(SETTINGS, 0, 0) + b"".join(build(number) for number in range(BATCH))


def attack(name: str, port: int, seconds: float) -> dict[str, Any]:
    """Be the attacker. Returns the seconds that each of its connections lived."""
    until = time.monotonic() + seconds
    lives: list[float] = []
    sent = 0
    if not name:  # the neighbour that only keeps the processor busy
        while time.monotonic() < until:
            sum(range(1000))
        return {"lives": lives, "sent": sent}
    flood = _bytes_of(name)
    while time.monotonic() < until:
        began = time.monotonic()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.settimeout(5)
            with contextlib.suppress(OSError):
                for piece in _pieces(flood):
                    sock.sendall(piece)
                    sent += len(piece)
                while sock.recv(65536):  # the whole batch is gone: wait for the end
                    pass
        lives.append(time.monotonic() - began)
    return {"lives": lives, "sent": sent}


def _pieces(flood: bytes) -> Iterator[bytes]:
    for at in range(0, len(flood), 65536):
        yield flood[at : at + 65536]


def measure(server: Server, name: str, seconds: float, folder: Path) -> tuple[float, int, dict[str, Any]]:
    """p99 of the other clients, growth of the worker's memory, and what the attacker has seen."""
    before = server.resident()
    command = [sys.executable, "-m", "benchmarks.http2_floods", "--attack", name, "--port", str(server.port)]
    command += ["--seconds", str(seconds + 1.0)]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    attacker = subprocess.Popen(["taskset", "-c", str(LOAD_CPU), *command], stdout=subprocess.PIPE, env=environ)
    try:
        time.sleep(0.5)
        result = load.wrk(server.url, 4, seconds, folder)
        said, _ = attacker.communicate(timeout=30)
    finally:
        attacker.kill()
    if result.errors:
        raise RuntimeError(f"{name}: {result.errors} requests of other clients failed")
    return result.latency["p99"], server.resident() - before, json.loads(said)


def main() -> int:
    options = _options()
    if options.attack is not None:
        print(json.dumps(attack(options.attack, options.port, options.seconds)))
        return 0
    print(" · ".join(f"{key} {value}" for key, value in report.machine().items()), end="\n\n", flush=True)
    bad = 0
    with tempfile.TemporaryDirectory(prefix="lb-bench-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        behind, targets = origin.origin(folder)
        server = lb(Setup(folder, targets, http2=True))
        try:
            measure(server, "", options.seconds, folder)  # to warm up
            print("| flood | p99 of others, beside that of a busy neighbour | growth | connections | longest life | |")
            print("| --- | --- | --- | --- | --- | --- |", flush=True)
            for name in options.only or FLOODS:
                ratios, growths, lives = [], [], list[float]()
                for _ in range(options.rounds):
                    calm, _, _ = measure(server, "", options.seconds, folder)
                    p99, growth, seen = measure(server, name, options.seconds, folder)
                    ratios.append(p99 / calm)
                    growths.append(growth)
                    lives += seen["lives"]
                ratio, growth, longest = median(ratios), sum(growths), max(lives)
                good = ratio <= MOST_P99 and growth <= MOST_GROWTH and longest <= MOST_LIFE
                bad += not good
                print(
                    f"| {name} | {ratio:.2f} [{min(ratios):.2f}–{max(ratios):.2f}] | {growth / 1048576:.1f} MiB "
                    f"| {len(lives):,} | {longest:.2f} s | {'' if good else 'over a limit'} |",
                    flush=True,
                )
        finally:
            stop(server.process)
            stop(behind)
    return 1 if bad else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http2_floods", description=__doc__)
    parser.add_argument("--only", action="append", choices=[*FLOODS], help="again for more; else all")
    parser.add_argument("--rounds", type=int, default=3, help="floods and calm neighbours in turn (3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each flood (5)")
    parser.add_argument("--attack", help="be the attacker (used by the benchmark itself)")
    parser.add_argument("--port", type=int, default=0, help="where the attacker connects")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
