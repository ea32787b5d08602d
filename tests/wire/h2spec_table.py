"""Cases of h2spec that `tests/unit/h2_cases.py` does not have, by its numbers. tests/scenarios/h2spec.md lists them all.

Expected is `ANSWER`: the request on stream 1 is answered; `CLOSED`: the connection ends without an error; the octets of
the answer that the windows let through; or the error of stream 1, or of the connection.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.support.h2_peer import GET, POST, Frames, raw, settings

DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
ANSWER, CLOSED = "answer", "closed"
PROTOCOL, STREAM_CLOSED, COMPRESSION = 1, 5, 9
CANCEL = bytes(3) + b"\x08"
#: Each answer has so many octets.
SIZE = 10

Build = Callable[[Frames], list[bytes]]
Expected = str | int | tuple[str, int]


def weighed(stream: int, dependency: int, weight: int, exclusive: bool = False) -> bytes:
    return raw(PRIORITY, 0, stream, (dependency | exclusive << 31).to_bytes(4, "big") + bytes([weight - 1]))


def also(field: bytes) -> Build:
    """A request with a field more, as these octets."""
    return lambda f: [f.headers(1, f.block(GET) + field)]


def window(octets: int) -> bytes:
    return (4).to_bytes(2, "big") + octets.to_bytes(4, "big")


_AGENT = b"\x0auser-agent"
_AGENT_SHORT = b"\x87\xb5\x05\xb1\x61\xcc\x5a\x93"
_TEST, _TEST_SHORT = b"\x06x-test", b"\x85\xf2\xb2\x4a\x84\xff"
_VALUE, _VALUE_SHORT = b"\x06h2spec", b"\x84\x9c\x48\xac\xa4"

#: What is sent at once, behind the greeting.
TABLE: dict[str, tuple[Build, Expected]] = {
    "generic 2/2": (lambda f: [f.headers(1), raw(WINDOW, 0, 1, b"\0\0\0\x64")], ANSWER),
    "generic 2/3": (lambda f: [f.headers(1), weighed(1, 0, 256)], ANSWER),
    "generic 3.1/1": (lambda f: [f.headers(1, POST, False), f.data(1, b"test", True)], ANSWER),
    "generic 3.1/2": (lambda f: [f.headers(1, POST, False), f.data(1, b"test"), f.data(1, b"test", True)], ANSWER),
    "generic 3.1/3": (lambda f: [f.headers(1, POST, False), f.data(1, b"test", True, padding=5)], ANSWER),
    "generic 3.3/1": (lambda f: [weighed(1, 0, 1), f.headers(1)], ANSWER),
    "generic 3.3/2": (lambda f: [weighed(1, 0, 256), f.headers(1)], ANSWER),
    "generic 3.3/3": (lambda f: [weighed(3, 1, 16), f.headers(1)], ANSWER),
    "generic 3.3/4": (lambda f: [weighed(3, 1, 16, exclusive=True), f.headers(1)], ANSWER),
    "generic 3.3/5": (lambda f: [weighed(7, 0, 16), f.headers(1)], ANSWER),
    "generic 3.8/1": (lambda f: [raw(GOAWAY, 0, 0, bytes(8))], CLOSED),
    "generic 3.9/1": (lambda f: [raw(WINDOW, 0, 0, b"\0\0\0\1"), f.headers(1)], ANSWER),
    "generic 3.9/2": (lambda f: [f.headers(1), raw(WINDOW, 0, 1, b"\0\0\0\1")], ANSWER),
    "generic 3.10/2": (
        lambda f: [
            raw(HEADERS, 1, 1, (block := f.block(GET))[:3]),
            raw(CONTINUATION, 0, 1, block[3:6]),
            raw(CONTINUATION, 4, 1, block[6:]),
        ],
        ANSWER,
    ),
    "generic 4/2": (lambda f: [f.headers(1, [(":method", "HEAD"), *GET[1:]])], ANSWER),
    "generic 5/1": (also(b"\xba"), ANSWER),
    "generic 5/2": (also(b"\x40" + _AGENT_SHORT + _VALUE_SHORT), ANSWER),
    "generic 5/3": (also(b"\x40" + _AGENT + _VALUE), ANSWER),
    "generic 5/4": (also(b"\x40" + _TEST + _VALUE), ANSWER),
    "generic 5/5": (also(b"\x40" + _TEST_SHORT + _VALUE_SHORT), ANSWER),
    "generic 5/6": (also(b"\x00" + _AGENT + _VALUE), ANSWER),
    "generic 5/7": (also(b"\x00" + _AGENT_SHORT + _VALUE_SHORT), ANSWER),
    "generic 5/8": (also(b"\x00" + _TEST + _VALUE), ANSWER),
    "generic 5/9": (also(b"\x00" + _TEST_SHORT + _VALUE_SHORT), ANSWER),
    "generic 5/10": (also(b"\x10" + _AGENT + _VALUE), ANSWER),
    "generic 5/11": (also(b"\x10" + _AGENT_SHORT + _VALUE_SHORT), ANSWER),
    "generic 5/12": (also(b"\x10" + _TEST + _VALUE), ANSWER),
    "generic 5/13": (also(b"\x10" + _TEST_SHORT + _VALUE_SHORT), ANSWER),
    "generic 5/14": (lambda f: [f.headers(1, b"\x3f\x61" + f.block(GET))], ANSWER),
    "generic 5/15": (lambda f: [f.headers(1, b"\x3f\x61\x3f\xe1\x1f" + f.block(GET))], ANSWER),
    "http2 5.1/10": (
        lambda f: [f.headers(1, POST, False), raw(RST, 0, 1, CANCEL), raw(CONTINUATION, 4, 1, f.block(GET))],
        ("connection", PROTOCOL),
    ),
    "http2 6.5.3/1": (lambda f: [raw(SETTINGS, 0, 0, window(100) + window(1)), f.headers(1)], 1),
    "http2 6.9.1/1": (lambda f: [settings(window=1), f.headers(1)], 1),
    "http2 6.9.2/1": (lambda f: [settings(window=0), f.headers(1), settings(window=1)], 1),
    "http2 6.9.2/2": (
        lambda f: [settings(window=3), f.headers(1), settings(window=2), raw(WINDOW, 0, 1, b"\0\0\0\2")],
        4,
    ),
    "http2 6.10/2": (
        lambda f: [raw(HEADERS, 0, 1, f.block(POST)), raw(CONTINUATION, 0, 1, b""), f.data(1, b"test", True)],
        ("connection", PROTOCOL),
    ),
    "http2 6.10/5": (
        lambda f: [raw(HEADERS, 0, 1, f.block(POST)), raw(CONTINUATION, 4, 1, b""), raw(CONTINUATION, 4, 1, b"")],
        ("connection", PROTOCOL),
    ),
    "http2 6.10/6": (
        lambda f: [raw(HEADERS, 0, 1, f.block(POST)), f.data(1, b"test"), raw(CONTINUATION, 4, 1, b"")],
        ("connection", PROTOCOL),
    ),
    "http2 7/1": (lambda f: [raw(GOAWAY, 0, 0, bytes(7) + b"\xff")], CLOSED),
    "hpack 2.3.3/2": (lambda f: [f.headers(1, f.block(GET) + b"\x7f\x07\x05empty")], ("connection", COMPRESSION)),
}

#: What is sent when the request on stream 1 has been answered. `ANSWER`: another one is answered then, on stream 5.
AFTER: dict[str, tuple[Build, Expected]] = {
    "generic 2/4": (lambda f: [raw(RST, 0, 1, CANCEL), f.headers(5)], ANSWER),
    "generic 2/5": (lambda f: [weighed(1, 0, 256), f.headers(5)], ANSWER),
    "generic 3.4/1": (
        lambda f: [f.headers(3, POST, False), raw(RST, 0, 3, CANCEL), f.headers(5)],
        ANSWER,
    ),
    "http2 5.1/11": (lambda f: [f.data(1, b"test", True)], ("stream", STREAM_CLOSED)),
    "http2 5.1/12": (lambda f: [f.headers(1)], ("connection", STREAM_CLOSED)),
    "http2 5.1/13": (lambda f: [raw(CONTINUATION, 4, 1, f.block(GET))], ("connection", PROTOCOL)),
}
