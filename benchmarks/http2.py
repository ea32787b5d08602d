"""`python -m benchmarks.http2`: HTTP/2 from clients, beside nginx, HAProxy, Envoy and Caddy, one core each, by h2load.

Many connections with few streams, one connection with many, large answers, plain (prior knowledge) or over TLS (ALPN),
and the memory of idle connections, all interleaved. What counts is the CPU time of the processes that carry traffic,
and requests per second, as ratios of neighbouring rounds; `--before CHECKOUT` adds an earlier lb. From build/compiled
(`make compiled`), lb is the compiled form, and the interpreted one is a peer. A peer that is not installed, or that
cannot do a scenario, is named and left out.
"""

from __future__ import annotations

import argparse
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import origin, report
from benchmarks.load import Result
from benchmarks.processes import LOAD_CPU, MissingError, Server, binary, stop
from benchmarks.rounds import tabulate
from benchmarks.servers import ALL, PEERS, Setup, chosen, lb
from benchmarks.tls import certificate

#: Idle connections whose memory is measured.
IDLE = 5000
#: Peers that speak HTTP/2 themselves.
FRONTS = tuple(peer for peer in ALL if peer != "relay")
#: A client's preface, its settings, and a GET of / with literal fields.
_HEAD = b"\x82\x86\x84\x01\x05bench\x0f\x2b\x0bMozilla/5.0"
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5) + bytes(3) + b"\x04\x01" + bytes(4)
_REQUEST = len(_HEAD).to_bytes(3, "big") + b"\x01\x05\x00\x00\x00\x01" + _HEAD


def h2load(url: str, connections: int, streams: int, seconds: float) -> Result:
    """A closed loop of whole seconds."""
    command = ["taskset", "-c", str(LOAD_CPU), binary("h2load"), "-D", str(max(1, round(seconds)))]
    command += ["-c", str(connections), "-m", str(streams), "-H", "user-agent: Mozilla/5.0", url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if not re.search(r"^Application protocol: h2c?$", out, re.MULTILINE):
        raise RuntimeError("no connection with HTTP/2")
    ended = re.search(r"finished in ([\d.]+)(m?s)", out)
    requests = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", out)
    size = re.search(r"traffic: \S+ \((\d+)\) total", out)
    if ended is None or requests is None or size is None:
        raise RuntimeError(f"h2load said: {out}")
    passed = float(ended[1]) / (1000.0 if ended[2] == "ms" else 1.0)
    good, failed, errored, late = map(int, requests.groups())
    # What is under way when the time is over counts as failed; there is no more of it than of streams.
    return Result(good, passed, float(size[1]), max(0, failed + errored + late - connections * streams))


def _scenario(connections: int, streams: int, path: str = "/") -> Callable[[float, Server], Result]:
    return lambda seconds, server: h2load(f"{server.url}{path}", connections, streams, seconds)


SCENARIOS: dict[str, tuple[str, Callable[[float, Server], Result]]] = {
    "100x10": ("small GET, 100 connections with 10 streams", _scenario(100, 10)),
    "1x100": ("small GET, 1 connection with 100 streams", _scenario(1, 100)),
    "100x1": ("small GET, 100 connections with 1 stream", _scenario(100, 1)),
    "1m": ("1 MiB answers, 10 connections with 4 streams", _scenario(10, 4, "/files/1m")),
}


def idle(server: Server, count: int) -> float:
    """Bytes of resident memory for each plain connection that has made a request and waits."""
    before, socks = server.resident(), list[socket.socket]()
    try:
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", server.port), 10)
            sock.sendall(_HELLO + _REQUEST)
            data = b""
            while b"\x00\x01\x00\x00\x00\x01" not in data:  # DATA that ends stream 1
                more = sock.recv(4096)
                if not more:
                    raise RuntimeError(f"{server.name} takes no more than {len(socks)} connections: {data!r}")
                data += more
            socks.append(sock)
        return (server.resident() - before) / count
    finally:
        for sock in socks:
            sock.close()


def _idle_cell(server: Server, count: int) -> str:
    """KiB for each idle connection, or why there are not so many."""
    try:
        return f"{idle(server, count) / 1024:.1f}"
    except (OSError, RuntimeError) as why:
        if server.name == "lb":
            raise
        return f"left out: {why}"


def start_peers(peers: Iterable[str], setup: Setup, running: dict[str, Server]) -> None:
    """Start all that are installed and take such a setup, into `running`; name the others."""
    for peer in peers:
        if peer == "lb":
            continue
        try:
            running[peer] = PEERS[peer](setup)
        except (MissingError, RuntimeError) as why:
            print(f"{peer} is left out: {why}", flush=True)


def main() -> int:
    options = _options()
    try:
        for program in ("nginx", "h2load"):  # the origin and the load
            binary(program)
    except MissingError as missing:
        print(f"benchmarks: {missing}", file=sys.stderr)
        return 1
    print(" · ".join(f"{key} {value}" for key, value in report.machine().items()), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="lb-bench-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        behind, targets = origin.origin(folder)
        running: dict[str, Server] = {}
        try:
            pem = str(certificate(folder)) if options.tls else ""
            setup = Setup(folder, targets, certificate=pem, http2=True, log=not options.no_log, python=options.python)
            start_peers(options.peers, setup, running)
            if options.before:
                running["before"] = lb(replace(setup, checkout=options.before.resolve()))
            running["lb"] = lb(setup)
            if options.idle and not options.tls:  # first: what a load has freed would be used again
                print("| idle connections | KiB each |\n| --- | --- |")
                for label, server in running.items():
                    print(f"| {label}, {options.idle:,} | {_idle_cell(server, options.idle)} |", flush=True)
                print()
            wanted = {name: SCENARIOS[name] for name in options.only or SCENARIOS}
            scenarios = {name: (text, partial(one, options.seconds)) for name, (text, one) in wanted.items()}
            tabulate(running, scenarios, options.rounds, folder)
        finally:
            for server in running.values():
                stop(server.process)
            stop(behind)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http2", description=__doc__)
    parser.add_argument("--peers", type=_peers, default=FRONTS, help=f"beside lb: some of {','.join(FRONTS)} (all)")
    parser.add_argument("--before", type=Path, help="a checkout of earlier code, to be measured as well")
    parser.add_argument("--python", default=sys.executable, help="lb's interpreter (this one)")
    parser.add_argument("--tls", action="store_true", help="over TLS 1.3; without: prior knowledge")
    parser.add_argument("--no-log", action="store_true", help="no access logs")
    parser.add_argument("--only", action="append", choices=[*SCENARIOS], help="again for more; else all")
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (10), after one that warms up")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round (1)")
    parser.add_argument("--idle", type=int, default=IDLE, help=f"idle connections ({IDLE}); 0: none")
    return parser.parse_args()


def _peers(text: str) -> tuple[str, ...]:
    peers = chosen(text)
    if "relay" in peers:
        raise argparse.ArgumentTypeError("relay passes on what the origin speaks, which is HTTP/1.1")
    return peers


if __name__ == "__main__":
    raise SystemExit(main())
