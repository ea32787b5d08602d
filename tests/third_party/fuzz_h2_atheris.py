"""Coverage-guided fuzzing of an HTTP/2 connection with a client (libFuzzer through atheris).

    python -m tests.third_party.fuzz_h2_atheris [SECONDS] [CORPUS FOLDER]

Needs `pip install atheris` beside hpack, hyperframe, pytest and hypothesis. An input is what a client sends behind its
preface and settings, in pieces. Its first octet says how large they are, and how much of each request is answered.
Whatever comes, nothing is raised, the ledgers are even, and a connection that is over sends nothing more. Where nothing
is answered between the pieces, they change nothing. The seeds are the cases of tests/unit/h2_cases.py.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lb"]):
    from lb.http.h2.connection import CONNECTION_WINDOW, STREAM_WINDOW
    from tests.support.h2_peer import Talk
    from tests.unit import h2_cases

#: Octets that requests are answered with, by the first octet of an input.
ANSWERS = (None, b"", b"ok", bytes(70_000))
played = 0


def talk(data: bytes, size: int, answer: bytes | None) -> Talk:
    """A connection that has got these bytes, in pieces of a size."""
    made = Talk()
    server, wire = made.server, made.server.connection
    done = 0
    for at in range(0, len(data), size):
        wire.receive(data[at : at + size], server.now)
        while done < len(server.requests):
            request = server.requests[done]
            done += 1
            if answer is not None and request.stream.id:
                server.answer(request, answer)
        assert wire.pending_size == sum(stream.pending_size for stream in wire.streams.values())
        assert set(wire.waiting) <= set(wire.streams)
        assert all(stream.waits == (id in wire.waiting) for id, stream in wire.streams.items())
        if wire.failed is None:
            assert 0 <= wire.receiver.window <= CONNECTION_WINDOW
            assert all(0 <= stream.receive_window <= STREAM_WINDOW for stream in wire.streams.values())
    made.take()
    if wire.failed is not None:
        assert made.send(b"\0" * 64) == []
    return made


def play(data: bytes) -> None:
    """One input."""
    global played
    if len(data) < 10:
        return
    played += 1
    how, raw = data[0], data[1:]
    answer = ANSWERS[how & 3]
    whole, pieces = talk(raw, len(raw), answer), talk(raw, (how >> 2) + 1, answer)
    if answer is not None:
        return  # what a frame means depends on whether its stream has been answered
    assert (whole.server.connection.failed is None) == (pieces.server.connection.failed is None)
    for one, other in zip(whole.server.requests, pieces.server.requests, strict=True):
        mine, its = one.head, other.head
        assert (mine.method, mine.target, mine.host) == (its.method, its.target, its.host)
        lines = [line for line in mine.fields.forwarded_lines if b"\r" in line[:-2] or b"\n" in line[:-2]]
        assert not lines, "a field that would be two for HTTP/1"


def seed(folder: Path) -> None:
    """Write the cases as seeds."""
    cases = [*h2_cases.FRAMING, *h2_cases.MESSAGES, *h2_cases.COMPRESSED]
    for number, (_, build, _) in enumerate(cases):
        raw = b"".join(build(Talk().frames))
        if len(raw) < 2000:
            (folder / f"case-{number}").write_bytes(bytes([number * 37 % 256]) + raw)


def main() -> None:
    """Fuzz for so many seconds."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="lb-fuzz-"))
    folder.mkdir(exist_ok=True)
    seed(folder)
    options = [f"-max_total_time={seconds}", "-max_len=1500", "-timeout=20", "-rss_limit_mb=2048"]
    atheris.Setup([sys.argv[0], *options, str(folder)], play)
    print(f"seeds in {folder}; {seconds} s", flush=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
