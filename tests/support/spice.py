"""Messages made slightly wrong, by chance."""

from __future__ import annotations

import random

#: What a mutation puts in: bytes that mean something to some parser.
SPICE = [b"\r\n", b"\r", b"\n", b"\x00", b" ", b"\t", b":", b",", b";", b"0", b"\x0b", b"\xff", b"\r\n\r\n"]
SPICE += [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"Host: b\r\n", b"Expect: x\r\n"]


def spiced(raw: bytes, seed: int) -> bytes:
    """`raw` with a few bytes put in, taken out or changed; 0 leaves it as it is."""
    rng = random.Random(seed)
    data = bytearray(raw)
    for _ in range(rng.randint(1, 3) if seed else 0):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            data[at:at] = rng.choice(SPICE)
        elif kind == 1:
            del data[at : at + rng.randint(1, 4)]
        elif kind == 2 and at < len(data):
            data[at] = rng.randrange(256)
        else:
            data[at:at] = data[at : at + rng.randint(1, 30)]
    return bytes(data)
