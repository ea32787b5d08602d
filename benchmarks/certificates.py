"""Certificates under way: many names, new connections all the time, a reload every second, now and then a broken pair.

python -m benchmarks.certificates [--seconds 60] [--names 100] [--rate 1000] [--renew 10]

Every connection is a full handshake with one of the names. Afterwards each one is judged: it must have succeeded, and
have been shown the newest good certificate of its name. While a reload is under way, the one before counts as well. Who
had the processors is said as well: at a rate that is not reached it shows whether lb or the clients were the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass
from functools import partial
from math import inf
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks import origin
from benchmarks.processes import children, cpu_seconds, free_port, stop
from benchmarks.tls_client import Client, Identity, TLSError

#: Every so many-th reload has a broken pair.
BROKEN_EVERY = 10
#: Processes of clients, and connections that each has under way at most.
CLIENTS, AT_ONCE = 2, 32


@dataclass
class Generation:
    """One certificate of a name. Times are of the monotonic clock, which all processes share."""

    serial: int
    written: float
    confirmed: float = inf  # infinite: it is broken, or not in force yet


class Folder:
    """The directory of certificates, and what has ever been in it."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self.path = path
        self.history: dict[str, list[Generation]] = {name: [] for name in names}
        self._authority = ec.generate_private_key(ec.SECP256R1())
        path.mkdir()

    def renew(self, name: str, broken: bool = False) -> Generation:
        """A new certificate; a broken one comes with the key of another."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        serial = x509.random_serial_number()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Benchmark CA")]))
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=90))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(self._authority, hashes.SHA256())
        )
        if broken:
            key = ec.generate_private_key(ec.SECP256R1())
        form = serialization.PrivateFormat.PKCS8
        made = Generation(serial, time.monotonic())
        self.history[name].append(made)
        key_pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        self._put(f"{name}.key", key_pem)
        self._put(f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM))
        return made

    def _put(self, file: str, data: bytes) -> None:
        new = self.path / f".{file}"
        new.write_bytes(data)
        new.replace(self.path / file)

    def is_right(self, name: str, serial: int, began: float, ended: float) -> bool:
        """Whether a handshake of this time was shown a certificate that it may have been shown."""
        generations = self.history[name]
        newest = max(at for at, each in enumerate(generations) if each.confirmed <= began)
        return any(each.serial == serial and each.written <= ended for each in generations[newest:])


@dataclass
class Seen:
    """What one connection was shown. Times are of the monotonic clock."""

    name: str
    serial: int  # 0: it failed
    began: float
    ended: float  # of the handshake
    failure: str = ""


class Visit(asyncio.Protocol):
    """One connection: a full handshake, a request, and the first line of its answer."""

    def __init__(self, identity: Identity, name: str) -> None:
        self.tls = Client(identity, name, f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        self.shaken = 0.0
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.tls.hello)

    def data_received(self, data: bytes) -> None:
        try:
            out = self.tls.receive(data)
        except TLSError as error:
            self._end(f"TLSError: {error}")
            return
        if out:
            self.shaken = time.monotonic()
            self.transport.write(out)
        line, end, _ = self.tls.answer.partition(b"\r\n")
        if end:
            self._end("" if b" 200 " in line else line.decode())

    def connection_lost(self, error: Exception | None) -> None:
        self._end(f"ended: {error}")

    def _end(self, failure: str) -> None:
        if not self.over.done():
            self.over.set_result(failure)
            self.transport.close()


def client(port: int, names: list[str], rate: float, until: float, told: Connection) -> None:
    """A process that opens connections at a rate, and tells what it has seen and its own CPU seconds."""
    identity = Identity()
    found: list[Seen] = []

    async def one(name: str, room: asyncio.Semaphore) -> None:
        seen = Seen(name, 0, time.monotonic(), 0.0)
        try:
            async with asyncio.timeout(10):
                make = partial(Visit, identity, name)
                _, visit = await asyncio.get_running_loop().create_connection(make, "127.0.0.1", port)
                seen.failure = await visit.over
                seen.ended = visit.shaken
            if not seen.failure and visit.tls.certificate is not None:
                seen.serial = visit.tls.certificate.serial_number
        except (OSError, TimeoutError) as error:
            seen.failure = f"{type(error).__name__}: {error}"
        finally:
            room.release()
        seen.ended = seen.ended or time.monotonic()
        found.append(seen)

    async def run() -> None:
        room, tasks = asyncio.Semaphore(AT_ONCE), set[asyncio.Task[None]]()
        due = time.monotonic()
        while time.monotonic() < until:
            await room.acquire()
            task = asyncio.ensure_future(one(random.choice(names), room))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due = max(due + 1 / rate, time.monotonic() - 1.0)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*tasks)

    before = time.process_time()
    uvloop.run(run())
    told.send((found, time.process_time() - before))


def reload(admin: int) -> dict[str, object]:
    """Order a reload; the answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{admin}/api/v1/reload", b"{}", {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: dict[str, object] = json.loads(response.read())
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--names", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1000.0, help="new connections a second, in all")
    parser.add_argument("--renew", type=int, default=10, help="certificates that each reload renews")
    asked = parser.parse_args()
    names = [f"host-{number}.test" for number in range(asked.names)]
    with tempfile.TemporaryDirectory() as directory:
        folder = Folder(Path(directory) / "certs", names)
        for name in names:
            folder.renew(name)
        Path(directory).chmod(0o755)  # nginx's workers may be somebody else
        backend, (target,) = origin.origin(Path(directory))
        port, admin = free_port(), free_port()
        file = Path(directory) / "lb.yaml"
        file.write_text(
            f"listeners: [{{bind: '127.0.0.1:{port}', tls: {{certificates: [{{directory: certs}}]}}}}]\n"
            f"admin: {{bind: '127.0.0.1:{admin}'}}\naccess_log: off\nworkers: 2\nbackends: ['{target}']\n"
        )
        lb = subprocess.Popen([sys.executable, "-m", "lb", "run", str(file)], stderr=subprocess.DEVNULL)
        try:
            wait_until_ready(admin)
            for generations in folder.history.values():
                generations[0].confirmed = time.monotonic()
            about = run(folder, names, port, admin, asked.seconds, asked.rate, asked.renew)
            serving = sum(map(cpu_seconds, (lb.pid, *children(lb.pid))))
            print(
                f"CPU time of each, µs: {about.each(serving)} of lb, {about.each(about.cpu)} of the clients,", end=" "
            )
            print(f"{about.each(cpu_seconds(backend.pid))} of the origin")
        finally:
            stop(lb)
            stop(backend)
    raise SystemExit(0 if about.good else 1)


def wait_until_ready(admin: int) -> None:
    """Return when lb serves."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise SystemExit("lb did not get ready")


@dataclass
class About:
    """What came of a run."""

    connections: int
    cpu: float  # of the clients, seconds
    good: bool

    def each(self, seconds: float) -> str:
        """CPU time for each connection, µs."""
        return f"{seconds / max(1, self.connections) * 1e6:.0f}"


def run(folder: Folder, names: list[str], port: int, admin: int, seconds: float, rate: float, renew: int) -> About:
    """Clients and reloads beside each other, and the verdict."""
    until = time.monotonic() + seconds
    ends: list[Connection] = []
    clients = []
    for _ in range(CLIENTS):
        ours, theirs = multiprocessing.Pipe(duplex=False)
        ends.append(ours)
        arguments = (port, names, rate / CLIENTS, until, theirs)
        clients.append(multiprocessing.Process(target=client, args=arguments, daemon=True))
        clients[-1].start()
    took: list[float] = []
    partial = wrong_answers = number = 0
    broken: list[str] = []
    while time.monotonic() < until - 2.0:
        number += 1
        due = time.monotonic() + 1.0
        chosen = random.sample(names, renew)
        breaks = number % BROKEN_EVERY == 0
        made = [folder.renew(name) for name in dict.fromkeys((*broken, *(chosen[1:] if breaks else chosen)))]
        broken = chosen[:1] if breaks else []
        for name in broken:
            folder.renew(name, broken=True)
        began = time.monotonic()
        answer = reload(admin)
        took.append(time.monotonic() - began)
        for each in made:
            each.confirmed = time.monotonic()
        partial += bool(answer.get("unusable"))
        wrong_answers += bool(answer.get("unusable")) != breaks
        time.sleep(max(0.0, due - time.monotonic()))
    told = [end.recv() for end in ends]
    found: list[Seen] = [each for seen, _ in told for each in seen]
    for each in clients:
        each.join()
    failed = Counter(each.failure for each in found if each.failure)
    stale = sum(
        not folder.is_right(each.name, each.serial, each.began, each.ended) for each in found if not each.failure
    )
    times = sorted(each.ended - each.began for each in found)
    print(f"{len(names)} names, {len(found)} full handshakes in {seconds:g} s ({len(found) / seconds:.0f} a second)")
    print(f"handshake p50 {times[len(times) // 2] * 1e3:.1f} ms, p99 {times[len(times) * 99 // 100] * 1e3:.1f} ms")
    print(f"{number} reloads, {partial} of them partial; the longest took {max(took) * 1e3:.0f} ms")
    print(f"failed: {sum(failed.values())} {dict(failed) or ''}")
    print(f"shown another certificate than the newest good one: {stale}")
    print(f"reloads with another result than expected: {wrong_answers}")
    return About(len(found), sum(cpu for _, cpu in told), not failed and not stale and not wrong_answers)


if __name__ == "__main__":
    main()
