"""Coverage-guided fuzzing of the parsers, and of whole dialogues with a listener (libFuzzer through atheris).

    python -m tests.third_party.fuzz_atheris [SECONDS] [CORPUS FOLDER]

Needs `pip install atheris` beside h11, uvloop and msgspec. The first byte of an input says what it is: a client's bytes
or a target's, and in how many pieces they come; the seeds are the rows of the tables in tests/wire. What is asserted
stands in tests/support/dialogue.py: nothing but a refusal is raised, pieces change nothing, what is passed on is read
by a strict parser as the same single messages, and nobody gets bytes of another. A finding ends the run and prints its
input: it belongs into the tables.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lb"]):
    from tests.support import dialogue
    from tests.wire import request_table, response_table

#: What kinds of requests a target answers.
HEADS = (
    dialogue.GET,
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
)
WORDS = (
    b"Content-Length: ", b"Host: a", b"Transfer-Encoding: chunked", b"chunked", b"Connection: ",
    b"close", b"Keep-Alive",
    b"Upgrade: h2c", b"Expect: 100-continue", b"HTTP/1.1", b"HTTP/1.0", b"\r\n\r\n", b"\r\n", b"0\r\n\r\n", b"GET / ",
    b"http://a/", b"TE: trailers", b"Max-Forwards: 0", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 X\r\n", b"HTTP/1.1 204 X",
    b"HTTP/1.1 101 X\r\n", b"Trailer: ", b"websocket", b"Keep-Alive: timeout=", b"\x00", b"\x0b", b"\xa0", b"\r", b"\n",
)  # fmt: skip
played = 0


def play(data: bytes) -> None:
    """One input."""
    global played
    if len(data) < 3:
        return
    played += 1
    kind, pieces, raw = data[0], data[1] or 256, data[2:]
    if kind & 1:
        dialogue.check_request(raw, pieces)
    else:
        dialogue.check_response(raw, pieces, HEADS[(kind >> 1) % len(HEADS)], closes=bool(kind & 8))


def seed(folder: Path) -> None:
    """Write the tables' rows as seeds."""
    rng = random.Random(1)
    for number, row in enumerate(request_table.TABLE):
        if len(row.raw) < 1000:
            (folder / f"request-{number}").write_bytes(bytes([1, rng.randrange(256)]) + row.raw)
    for number, answer in enumerate(response_table.TABLE):
        if len(answer.raw) < 1000:
            kind = 2 if answer.request.startswith(b"HEAD") else 4 if b"TE: trailers" in answer.request else 0
            (folder / f"response-{number}").write_bytes(
                bytes([kind | (8 if answer.close else 0), rng.randrange(256)]) + answer.raw
            )


def main() -> None:
    """Fuzz for so many seconds."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="lb-fuzz-"))
    folder.mkdir(exist_ok=True)
    seed(folder)
    words = folder.parent / f"{folder.name}.dict"
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in WORDS)
    words.write_text("".join(f'"{word}"\n' for word in escaped))
    began = time.monotonic()
    options = [f"-max_total_time={seconds}", f"-dict={words}", "-max_len=700", "-timeout=20", "-rss_limit_mb=2048"]
    atheris.Setup([sys.argv[0], *options, str(folder)], play)
    print(f"seeds in {folder}; {seconds} s from {began:.0f}", flush=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
