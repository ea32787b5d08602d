"""`python -m benchmarks.tls`: lb and nginx with the same ECDSA P-256 certificate, TLS 1.3, one core each, interleaved.

Kept connections, full and resumed handshakes, large answers, and the memory of idle connections. What counts is the
CPU time of the processes that carry traffic, as ratios of neighbouring rounds; `--before CHECKOUT` adds an earlier lb.
"""

from __future__ import annotations

import argparse
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import load, origin, report
from benchmarks.load import CLOSE, Result
from benchmarks.processes import ANY_CERTIFICATE, LOAD_CPU, Server, binary, stop
from benchmarks.rounds import tabulate
from benchmarks.servers import Setup, lb, nginx

#: Clients that open one connection after the other, at one time.
AT_ONCE = 4
#: Idle connections whose memory is measured.
IDLE = 5000
_REQUEST = b"GET / HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n\r\n"


def certificate(folder: Path) -> Path:
    """A file with a key on P-256 and a certificate of its own."""
    path = folder / "own.pem"
    command = [binary("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(path), "-out", str(folder / "c.pem")], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (folder / "c.pem").read_bytes())
    path.chmod(0o644)  # nginx's workers may be somebody else
    return path


def kept(folder: Path, seconds: float, server: Server) -> Result:
    return load.wrk(server.url, 32, seconds, folder)


def large(folder: Path, seconds: float, server: Server) -> Result:
    return load.wrk(f"{server.url}/files/1m", 32, seconds, folder)


def fresh(folder: Path, seconds: float, server: Server) -> Result:
    return _shake(server, seconds, "-new")


def resumed(folder: Path, seconds: float, server: Server) -> Result:
    return _shake(server, seconds, "-reuse")


def closing(folder: Path, seconds: float, server: Server) -> Result:
    return load.wrk(server.url, 32, seconds, folder, script=CLOSE)


def _shake(server: Server, seconds: float, how: str) -> Result:
    """Handshakes without a request, as `openssl s_time` makes them."""
    command = ["taskset", "-c", str(LOAD_CPU), binary("openssl"), "s_time", "-connect", f"127.0.0.1:{server.port}"]
    command += [how, "-time", str(max(1, round(seconds))), "-www", "/"]
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as clients:
        said = list(clients.map(lambda _: subprocess.run(command, capture_output=True, check=False), range(AT_ONCE)))
    passed = time.perf_counter() - began
    counts = [
        int(line.split()[0]) for one in said for line in one.stdout.decode().splitlines() if " real seconds" in line
    ]
    errors = sum(one.returncode != 0 for one in said)
    return Result(sum(counts), passed, 0, errors)


SCENARIOS: dict[str, tuple[str, Callable[[Path, float, Server], Result]]] = {
    "get-32": ("small GET, 32 kept connections", kept),
    "1m": ("1 MiB answers, 32 kept connections", large),
    "full": ("a full handshake and a request for each connection (s_time)", fresh),
    "resumed": ("a resumed handshake and a request for each connection (s_time)", resumed),
    "close": ("a connection per request (wrk)", closing),
}


def idle(server: Server, count: int) -> float:
    """Bytes of resident memory for each connection that has made a request and waits."""
    before, socks = server.resident(), list[ssl.SSLSocket]()
    try:
        for _ in range(count):
            sock = ANY_CERTIFICATE.wrap_socket(socket.create_connection(("127.0.0.1", server.port), 10))
            sock.sendall(_REQUEST)
            if not sock.recv(4096).startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{server.name} takes no more than {len(socks)} connections")
            socks.append(sock)
        return (server.resident() - before) / count
    finally:
        for sock in socks:
            sock.close()


def growth(folder: Path, server: Server, count: int) -> str:
    """Resident memory after each fifth of so many full handshakes."""
    made, said = 0, [f"0: {server.resident() / 2**20:.1f}"]
    for step in range(1, 6):
        while made < count * step / 5:
            made += max(1, fresh(folder, 2.0, server).requests)
        time.sleep(1.0)  # the last connections end
        said.append(f"{made:,}: {server.resident() / 2**20:.1f}")
    return ", ".join(said)


def main() -> int:
    options = _options()
    print(" · ".join(f"{key} {value}" for key, value in report.machine().items()), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="lb-bench-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        behind, targets = origin.origin(folder)
        running: dict[str, Server] = {}
        try:
            setup = Setup(folder, targets, certificate=str(certificate(folder)))
            running["nginx"] = nginx(setup)
            if options.before:
                running["before"] = lb(replace(setup, checkout=options.before.resolve()))
            running["lb"] = lb(replace(setup, python=options.python))
            if not options.no_rounds:
                wanted = {name: SCENARIOS[name] for name in options.only or SCENARIOS}
                scenarios = {
                    name: (text, partial(one, folder, options.seconds)) for name, (text, one) in wanted.items()
                }
                tabulate(running, scenarios, options.rounds, folder)
            if options.idle:
                print("\n| idle connections | KiB each |\n| --- | --- |")
                for label, server in running.items():
                    print(f"| {label}, {options.idle:,} | {idle(server, options.idle) / 1024:.1f} |", flush=True)
            if options.handshakes:
                print("\n| full handshakes so far: resident MiB | |\n| --- | --- |")
                for label, server in running.items():
                    print(f"| {label} | {growth(folder, server, options.handshakes)} |", flush=True)
        finally:
            for server in running.values():
                stop(server.process)
            stop(behind)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tls", description=__doc__)
    parser.add_argument("--before", type=Path, help="a checkout of earlier code, to be measured as well")
    parser.add_argument("--python", default=sys.executable, help="lb's interpreter (this one)")
    parser.add_argument("--only", action="append", choices=[*SCENARIOS], help="again for more; else all")
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (10), after one that warms up")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round (1)")
    parser.add_argument("--idle", type=int, default=IDLE, help=f"idle connections ({IDLE}); 0: none")
    parser.add_argument("--handshakes", type=int, default=0, help="look for growth over so many full handshakes (0)")
    parser.add_argument("--no-rounds", action="store_true", help="memory alone")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
