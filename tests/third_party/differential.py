"""What reaches a target through lb, beside what reaches it through nginx and HAProxy, and beside what h11 reads.

    python -m tests.third_party.differential [--spiced 3000] [--seed 1] [--corpus FOLDER]

Needs `nginx` and `haproxy`. Sends raw requests through all three: the rows of tests/wire/request_table.py, every
control byte in and around the fields that frame a message, rows with a few bytes changed by chance, and the files of
FOLDER (one raw request each, whatever its name). Where lb passes a message on, it must be the same message that each
of the others passes on in that place, if it passes one on at all. Differences are listed; so is what lb passes
on and another refuses, for a person to judge. Then the same with targets' answers: what a client gets whole through lb
must be what it gets through each of the others, if they pass it on whole.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import h11

from benchmarks.processes import binary
from lb.core.targets import Retries
from tests.support.front import Front
from tests.support.spice import spiced
from tests.wire import request_table, response_table

LANES = 32
PEERS = ("nginx", "haproxy")


class Message(NamedTuple):
    method: bytes
    target: bytes
    body: bytes


class Verdict(NamedTuple):
    """What came through, and what the client was told."""

    messages: tuple[Message, ...]
    statuses: tuple[int, ...]
    broken: bool  # the target was sent something that is not HTTP


def strict(raw: bytes) -> tuple[list[Message], bool]:
    """The messages that h11 reads, and whether it stopped at something that is none."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    found: list[Message] = []
    method = target = body = b""
    try:
        parser.receive_data(raw)
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Request):
                method, target, body = event.method, event.target, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.append(Message(method, target, body))
                if method == b"CONNECT":
                    return found, False
                parser.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                parser.send(h11.EndOfMessage())
                if parser.our_state is not h11.DONE or parser.their_state is not h11.DONE:
                    return found, False
                parser.start_next_cycle()
            else:
                return found, False
    except h11.RemoteProtocolError:
        return found, True


class Target:
    """Notes all bytes of each connection and answers whole requests."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self.server.getsockname()[1]
        self.connections: list[bytearray] = []
        self.open = 0
        self.answer = b""  # what to answer the first request of a connection with, before it is closed; b"": 200
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.server.accept()
            except OSError:
                return
            self.open += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        seen = bytearray()
        self.connections.append(seen)
        answered = 0
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                seen += data
                whole, _ = strict(bytes(seen))
                if whole and self.answer and whole[0].target != b"/sentinel":
                    sock.sendall(self.answer)
                    break
                while answered < len(whole):
                    answered += 1
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.open -= 1

    def take(self) -> tuple[list[Message], bool]:
        """What has come since the last time; the client has gone, so its connections to here end soon."""
        until = time.monotonic() + 5.0
        while self.open and time.monotonic() < until:
            time.sleep(0.005)
        found: list[Message] = []
        broken = False
        for seen in self.connections:
            messages, bad = strict(bytes(seen))
            found += [message for message in messages if message.target != b"/sentinel"]
            broken |= bad
        self.connections = []
        return found, broken


def quiet_port() -> int:
    """A port below those that outgoing connections are given, so that nobody takes it before the proxy does."""
    while True:
        port = random.randrange(11000, 16000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def nginx(folder: Path, ports: list[tuple[int, int]]) -> subprocess.Popen[bytes]:
    """Each port leads to its target; connections to targets are not kept, so that each case begins anew."""
    servers = "\n".join(
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{target};"
        " proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_request_buffering off; } }"
        for port, target in ports
    )
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err crit; worker_processes 1;\n"
        f"events {{}} http {{ access_log off; {temporary}\n{servers}\n}}"
    )
    return subprocess.Popen([binary("nginx"), "-c", str(folder / "nginx.conf"), "-p", str(folder)])


def haproxy(folder: Path, ports: list[tuple[int, int]]) -> subprocess.Popen[bytes]:
    """The same with HAProxy."""
    parts = ["defaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\n http-reuse never\n"]
    for port, target in ports:
        parts.append(f"listen l{port}\n bind 127.0.0.1:{port}\n server s 127.0.0.1:{target}\n")
    (folder / "haproxy.cfg").write_text("\n".join(parts))
    return subprocess.Popen(["haproxy", "-q", "-db", "-f", str(folder / "haproxy.cfg")], stderr=subprocess.DEVNULL)


def await_port(port: int) -> None:
    """Wait until somebody listens."""
    until = time.monotonic() + 20.0
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def send(port: int, raw: bytes) -> bytes:
    """All that comes back until nothing has come for a moment, and another client has been served meanwhile.

    Each proxy is one event loop: what it had read before that client came, it has dealt with.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", port), 20) as sock, contextlib.suppress(OSError):
        sock.sendall(raw)
        sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while data := sock.recv(65536):
                answer += data
                sock.settimeout(0.1)
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), 20) as other:
                other.sendall(SENTINEL)
                while other.recv(65536):
                    pass
        sock.setblocking(False)
        while data := sock.recv(65536):
            answer += data
    return answer


def statuses(answer: bytes) -> tuple[int, ...]:
    return tuple(int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit())


class Lane:
    """One port of each proxy, each with a target of its own."""

    def __init__(self) -> None:
        self.targets = {name: Target() for name in ("lb", *PEERS)}
        self.ports = {name: quiet_port() for name in PEERS}
        self.front: Any = None

    def play(self, raw: bytes) -> dict[str, Verdict]:
        """One case through all."""
        found = {}
        for name, target in self.targets.items():
            answer = send(self.front.port if name == "lb" else self.ports[name], raw)
            if name == "lb":  # it keeps what may be kept
                self.front.call(lambda: [lane.close_idle() for lane in self.front.plane.lanes.values()])
            messages, broken = target.take()
            found[name] = Verdict(tuple(messages), statuses(answer), broken)
        return found


class Answer(NamedTuple):
    """An answer as a strict parser at the client reads it."""

    status: int
    body: bytes
    whole: bool


def read_answer(raw: bytes) -> Answer:
    """What h11 makes of the bytes that a client got, which end with the connection."""
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    parser.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    parser.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        parser.receive_data(raw)
        parser.receive_data(b"")
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return Answer(status, body, True)
            elif not isinstance(event, h11.InformationalResponse):
                return Answer(status, body, False)
    except h11.RemoteProtocolError:
        return Answer(status, body, False)


def compare_answers(cases: dict[str, bytes], lanes: list[Lane]) -> int:
    """The same the other way round: what a client gets of a target's bytes."""
    free = list(lanes)
    differ, passed = 0, 0

    def play(item: tuple[str, bytes]) -> tuple[str, bytes, dict[str, Answer]]:
        name, raw = item
        lane = free.pop()
        found = {"h11": read_answer(raw)}
        try:
            for peer, target in lane.targets.items():
                target.answer = raw
                port = lane.front.port if peer == "lb" else lane.ports[peer]
                with socket.create_connection(("127.0.0.1", port), 20) as sock:
                    sock.settimeout(20)
                    data = b""
                    with contextlib.suppress(OSError):
                        sock.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                        while more := sock.recv(65536):
                            data += more
                found[peer] = read_answer(data)
                target.answer = b""
                target.take()
        finally:
            free.append(lane)
        return name, raw, found

    with ThreadPoolExecutor(len(lanes)) as pool:
        for name, raw, found in pool.map(play, cases.items()):
            ours = found.pop("lb")
            if not ours.whole or ours.status == 502:
                continue
            passed += 1
            for peer, other in found.items():
                if other.whole and other.status != 502 and ours != other:
                    differ += 1
                    print(f"! {name}: {raw!r}\n    lb {ours}\n    {peer} {other}")
    print(f"{len(cases)} answers, {passed} of them passed on whole; {differ} differences")
    return int(differ > 0)


def generated() -> dict[str, bytes]:
    """Every control byte, and every byte above ASCII that some parser strips, in and around the fields that frame."""
    cases: dict[str, bytes] = {}
    odd = [bytes((byte,)) for byte in (*range(0x21), 0x7F, 0x85, 0xA0, 0xFF)] + [b"\r\n ", b"\r\n\t", b"\r ", b"\n "]
    tail = b"\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    for value in odd:
        for name, line in {
            "before the name": value + b"Transfer-Encoding: chunked",
            "within the name": b"Transfer" + value + b"-Encoding: chunked",
            "behind the name": b"Transfer-Encoding" + value + b": chunked",
            "before the value": b"Transfer-Encoding:" + value + b"chunked",
            "within the value": b"Transfer-Encoding: chun" + value + b"ked",
            "behind the value": b"Transfer-Encoding: chunked" + value,
            "a field behind": b"X: y" + value + b"Transfer-Encoding: chunked",
        }.items():
            for length in (b"", b"\r\nContent-Length: 5"):
                head = b"POST / HTTP/1.1\r\nHost: a\r\n" + line + length + b"\r\n"
                cases[f"{value!r} {name}{' with length' if length else ''}"] = head + tail
        for name, line in {
            "before a length": b"Content-Length:" + value + b"5",
            "within a length": b"Content-Length: 0" + value + b"5",
            "behind a length": b"Content-Length: 5" + value,
            "behind its name": b"Content-Length" + value + b": 5",
            "before its name": value + b"Content-Length: 5",
        }.items():
            cases[f"{value!r} {name}"] = b"POST / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n" + tail
        chunk = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        for name, body in {
            "before a size": value + b"3\r\nabc\r\n0\r\n\r\n",
            "behind a size": b"3" + value + b"\r\nabc\r\n0\r\n\r\n",
            "in an extension": b"3;a" + value + b"b\r\nabc\r\n0\r\n\r\n",
            "behind an extension": b"3;a" + value + b"\r\nabc\r\n0\r\n\r\n",
            "behind the data": b"3\r\nabc" + value + b"\r\n0\r\n\r\n",
            "for the CRLF of the data": b"3\r\nabc" + value + b"0\r\n\r\n",
            "for the CRLF of a size": b"3" + value + b"abc\r\n0\r\n\r\n",
            "in the last chunk": b"3\r\nabc\r\n0" + value + b"\r\n\r\n",
            "in a trailer": b"3\r\nabc\r\n0\r\nX" + value + b": y\r\n\r\n",
            "for the last CRLF": b"3\r\nabc\r\n0\r\n" + value,
        }.items():
            cases[f"{value!r} {name} of a chunk"] = chunk + body + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        for name, first in {
            "in the method": b"G" + value + b"ET / HTTP/1.1",
            "before the target": b"GET" + value + b"/ HTTP/1.1",
            "in the target": b"GET /a" + value + b"b HTTP/1.1",
            "behind the target": b"GET /" + value + b"HTTP/1.1",
            "in the version": b"GET / HTTP/1" + value + b".1",
            "behind the version": b"GET / HTTP/1.1" + value,
        }.items():
            cases[f"{value!r} {name}"] = first + b"\r\nHost: a\r\n\r\n"
        cases[f"{value!r} in Host"] = b"GET / HTTP/1.1\r\nHost: a" + value + b"b\r\n\r\n"
    return cases


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spiced", type=int, default=3000, help="rows with bytes changed by chance (default: 3000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="a folder of raw requests")
    options = parser.parse_args()
    cases = {f"row {row.name}": row.raw for row in request_table.TABLE if len(row.raw) < 4000} | generated()
    if options.corpus:
        cases |= {f"file {path.name}": path.read_bytes() for path in sorted(options.corpus.iterdir())}
    rows = [row.raw for row in request_table.TABLE if len(row.raw) < 600]
    for number in range(options.spiced):
        seed = options.seed * 1_000_003 + number
        cases[f"spiced {seed}"] = spiced(rows[seed % len(rows)] + rows[seed * 7 % len(rows)], seed)
    answers = {row.name: row.raw for row in response_table.TABLE if b" 101 " not in row.raw[:13]}
    for number, raw in enumerate(list(answers.values()) * (options.spiced // len(answers))):
        answers[f"spiced {number}"] = spiced(raw, options.seed * 1_000_003 + number)
    lanes = [Lane() for _ in range(LANES)]
    with tempfile.TemporaryDirectory(prefix="lb-differential-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        for start in (nginx, haproxy):
            ports = [(lane.ports[start.__name__], lane.targets[start.__name__].port) for lane in lanes]
            process = start(folder, ports)
            stack.callback(process.wait, 10)
            stack.callback(process.terminate)
        for lane in lanes:
            lane.front = stack.enter_context(Front(ports=(lane.targets["lb"].port,), retries=Retries(attempts=0)))
        for lane in lanes:
            for port in lane.ports.values():
                await_port(port)
        return compare(cases, lanes) | compare_answers(answers, lanes)


def compare(cases: dict[str, bytes], lanes: list[Lane]) -> int:
    """Play all and print what differs; returns 1 if lb passed on what another reads in another way."""
    free = list(lanes)

    def play(item: tuple[str, bytes]) -> tuple[str, bytes, dict[str, Verdict]]:
        lane = free.pop()
        try:
            return *item, lane.play(item[1])
        finally:
            free.append(lane)

    differ, passed = 0, 0
    stricter: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    with ThreadPoolExecutor(len(lanes)) as pool:
        for name, raw, found in pool.map(play, cases.items()):
            ours = found["lb"]
            passed += bool(ours.messages)
            others = {peer: found[peer].messages for peer in PEERS} | {"h11": tuple(strict(raw)[0])}
            if ours.broken:
                differ += 1
                print(f"! {name}: lb sent its target something broken: {raw!r}")
            if b"max-forwards: 0" in raw.lower():
                continue  # RFC 9110 section 7.6.2: lb answers some of these itself, so that places do not match
            for peer, theirs in others.items():
                for mine, other in zip(ours.messages, theirs, strict=False):
                    if _normal(mine) != _normal(other):
                        differ += 1
                        print(f"! {name}: {raw!r}\n    lb {mine}\n    {peer} {other}")
                        break
                else:
                    if len(ours.messages) > len(theirs):
                        kind = f"{peer} refuses"
                        stricter[kind] += 1
                        said = found[peer].statuses[len(theirs) :][:1] if peer in found else ""
                        examples.setdefault(kind, []).append(f"{name}: {said} {raw[:200]!r}")
    for kind, some in examples.items():
        print(f"{kind} ({stricter[kind]} times), and lb passes on:")
        for example in some[:60]:
            print(f"    {example}")
    print(f"{len(cases)} requests, of {passed} something was passed on; {differ} differences, {dict(stricter)}")
    return int(differ > 0)


def _normal(message: Message) -> Message:
    """An absolute target is passed on in origin form; an empty path may be spelt `/`."""
    target = message.target
    if target.lower().startswith((b"http://", b"https://")):
        rest = target.partition(b"://")[2]
        cuts = [at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0]
        target = rest[min(cuts) :] if cuts else b"/"
    if not target.startswith((b"/", b"*")):
        target = b"/" + target
    if message.method == b"OPTIONS" and target == b"*":
        target = b"/"
    return message._replace(target=target)


if __name__ == "__main__":
    raise SystemExit(main())
