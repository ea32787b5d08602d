"""How long until a dead target is out? Fifty trials of each protocol, beside what `lb check` promises.

    python -m benchmarks.detection [--trials 50] [--interval 1.0] [--json FILE]

`lb run` probes as many targets of each protocol as there are trials, each in a pool of its own. At a random moment of
the interval each one dies: first so that it refuses (its listener is closed; a command ends with 1), then so that it
hangs (connections are taken and nothing comes; over TCP the backlog is full; a command does not end). What is measured
is the time from that moment to lb's own event "ready → unready". Every trial has to stay within the worst case, and the
mean of those that refuse has to meet the expected time; the two ways together lie between the two figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import fmean

from benchmarks.processes import await_answer, binary, free_port, start, stop

PROTOCOLS = ("http", "https", "tcp", "grpc", "command")
#: grpc.health.v1.HealthCheckResponse: SERVING, in its frame.
SERVING = b"\0\0\0\0\2\x08\x01"


class Trial:
    """A target that dies on request."""

    def __init__(self, protocol: str, folder: Path, context: ssl.SSLContext) -> None:
        self.protocol = protocol
        self.port = free_port() if protocol == "command" else 0
        self.died = 0.0  # Unix time
        self._file = folder / f"{self.port}"  # of a command's target
        self._context = context if protocol == "https" else None
        self._hangs = False
        self._server: asyncio.Server | None = None
        self._socks: list[socket.socket] = []

    async def live(self) -> None:
        """Answer as one that is well."""
        for sock in self._socks:
            sock.close()
        self._socks.clear()
        self._hangs = False
        if self.protocol == "command":
            self._file.write_text("ok")
        while self._server is None and self.protocol != "command":
            try:
                self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._context)
            except OSError:  # somebody's connection has got that port for a moment
                await asyncio.sleep(0.1)
            else:
                self.port = self._server.sockets[0].getsockname()[1]

    def die(self, how: str) -> None:
        """Refuse, or hang, from this moment on."""
        if self.protocol == "command":
            self._file.write_text(how)
        elif how == "hangs" and self.protocol != "tcp":
            self._hangs = True
        elif self._server is not None:
            self._server.close()
            self._server = None
            if how == "hangs":
                self._fill_backlog()
        self.died = time.time()

    def _fill_backlog(self) -> None:
        full = socket.socket()
        full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        full.bind(("127.0.0.1", self.port))
        full.listen(0)
        self._socks.append(full)
        for _ in range(2):
            sock = socket.socket()
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(("127.0.0.1", self.port))
            self._socks.append(sock)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if self._hangs:
                await reader.read(-1)
            elif self.protocol == "grpc":
                await self._serve_grpc(reader, writer)
            elif self.protocol != "tcp":
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
        writer.close()

    async def _serve_grpc(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from h2.config import H2Configuration
        from h2.connection import H2Connection
        from h2.events import StreamEnded

        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        while True:
            writer.write(connection.data_to_send())
            data = await reader.read(65536)
            if not data:
                return
            if self._hangs:
                await reader.read(-1)
            for event in connection.receive_data(data):
                if isinstance(event, StreamEnded):
                    stream = event.stream_id
                    connection.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
                    connection.send_data(stream, SERVING)
                    connection.send_headers(stream, [("grpc-status", "0")], end_stream=True)


class Lb:
    """A running lb, asked over its admin port."""

    def __init__(self, folder: Path, trials: list[Trial], interval: float) -> None:
        self.admin = f"http://127.0.0.1:{free_port()}"
        self.file = folder / "lb.yaml"
        self.file.write_text(self._text(folder, trials, interval))
        command = [sys.executable, "-m", "lb", "run", str(self.file), "--workers", "1"]
        self.process: subprocess.Popen[bytes] = start(command, set(os.sched_getaffinity(0)), folder, "lb")

    def _text(self, folder: Path, trials: list[Trial], interval: float) -> str:
        pace = f"interval: {interval}s, timeout: {interval / 2}s, fall: 3, rise: 1, grace: 0s"
        script = folder / "check.sh"
        script.write_text(f"read state < {folder}/$LB_TARGET_PORT; [ $state = hangs ] && sleep 60; [ $state = ok ]\n")
        checks = {
            "http": "protocol: http",
            "https": f"protocol: https, tls: {{ca_file: {folder}/ca.pem}}",
            "tcp": "protocol: tcp",
            "grpc": "protocol: grpc",
            "command": f"protocol: command, command: [/bin/sh, {script}]",
        }
        lines = [
            f"listeners: [127.0.0.1:{free_port()}]",
            f"admin: {{bind: '{self.admin.removeprefix('http://')}'}}",
            f"state_dir: {folder}/state",
            'access_log: {format: "off"}',
            "services:",
        ]
        for protocol in PROTOCOLS:
            mine = [trial for trial in trials if trial.protocol == protocol]
            pools = ", ".join(f"p{number}: [127.0.0.1:{trial.port}]" for number, trial in enumerate(mine))
            lines += [
                f"  {protocol}:",
                f"    pools: {{{pools}}}",
                "    active: p0",
                f"    readiness: {{{checks[protocol]}, {pace}}}",
            ]
        return "\n".join([*lines, "routes: [{path: /, service: http}]", ""])

    def promised(self) -> dict[str, tuple[float, float]]:
        """What `lb check` prints for each service: expected and worst, seconds."""
        done = subprocess.run([binary("lb"), "check", "--json", str(self.file)], capture_output=True, check=True)
        services = json.loads(done.stdout)["services"]
        return {name: (found["detection"]["expected"], found["detection"]["worst"]) for name, found in services.items()}

    def get(self, path: str) -> list[dict[str, object]]:
        with urllib.request.urlopen(f"{self.admin}/api/v1/{path}", timeout=10) as response:
            found: list[dict[str, object]] = json.load(response)
        return found

    def changes(self, state: str, since: float) -> dict[str, float]:
        """Target → when it first got into `state` after `since`."""
        found: dict[str, float] = {}
        for event in self.get(f"events?kind=transition&since={since:.3f}"):
            if event["after"] == state:
                found.setdefault(str(event["subject"]).rpartition(":")[2], float(str(event["at"])))
        return found


async def until_all(lb: Lb, trials: list[Trial], states: tuple[str, ...], since: float, within: float) -> None:
    """Wait until each has got into one of `states` after `since`."""
    deadline = time.monotonic() + within
    while True:
        there: set[str] = set()
        for state in states:
            there |= (await asyncio.to_thread(lb.changes, state, since)).keys()
        missing = [trial for trial in trials if str(trial.port) not in there]
        if not missing:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{[(trial.protocol, trial.port) for trial in missing]} not {' or '.join(states)}")
        await asyncio.sleep(0.2)


async def measure(count: int, interval: float, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Protocol → way to die → seconds of each trial; and what is promised, as `expected` and `worst`."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trials = [Trial(protocol, folder, context) for protocol in PROTOCOLS for _ in range(count)]
    witness = Trial("http", folder, context)  # stays well: not everything falls silent at once
    for trial in (*trials, witness):
        await trial.live()
    lb = Lb(folder, [*trials, witness], interval)
    took: dict[str, dict[str, list[float]]] = {}
    dice = random.Random(1)
    try:
        await asyncio.to_thread(await_answer, f"{lb.admin}/livez", lb.process)
        promised = await asyncio.to_thread(lb.promised)
        since = 0.0
        for how in ("refuses", "hangs"):
            await until_all(lb, trials, ("ready", "slow_start"), since, 60.0)
            await asyncio.sleep(2 * interval)  # probes have parted
            since = time.time()
            order = sorted((dice.random() * 3 * interval, number) for number in range(len(trials)))
            for moment, number in order:
                await asyncio.sleep(max(0.0, since + moment - time.time()))
                trials[number].die(how)
            await until_all(lb, trials, ("unready",), since, 60.0)
            out = await asyncio.to_thread(lb.changes, "unready", since)
            for trial in trials:
                mine = took.setdefault(trial.protocol, {})
                mine.setdefault(how, []).append(out[str(trial.port)] - trial.died)
            since = time.time()
            for trial in trials:
                await trial.live()
        for protocol, (expected, worst) in promised.items():
            took[protocol]["promised"] = [expected, worst]
    finally:
        stop(lb.process)
    return took


def told(took: dict[str, dict[str, list[float]]]) -> list[str]:
    """The table."""
    lines = [
        "| protocol | expected | mean, refuses | mean, hangs | mean of both | longest | worst case |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for protocol, found in took.items():
        expected, worst = found["promised"]
        every = found["refuses"] + found["hangs"]
        cells = (expected, fmean(found["refuses"]), fmean(found["hangs"]), fmean(every), max(every), worst)
        lines.append(f"| {protocol} | {' | '.join(f'{seconds:.2f} s' for seconds in cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=50, help="of each protocol and way to die")
    parser.add_argument("--interval", type=float, default=1.0, help="of the probes, seconds")
    parser.add_argument("--json", type=Path, help="write each trial's time to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        took = asyncio.run(measure(arguments.trials, arguments.interval, Path(folder)))
    print("\n".join(told(took)))
    if arguments.json:
        arguments.json.write_text(json.dumps(took))
    late = [
        f"{protocol}: {sum(seconds > found['promised'][1] for seconds in found['refuses'] + found['hangs'])}"
        for protocol, found in took.items()
    ]
    print(f"trials beyond the worst case: {', '.join(late)}")


if __name__ == "__main__":
    main()
