"""The Huffman code of header compression (RFC 7541 section 5.2 and appendix B).

The code is canonical: codes of one length are consecutive, in the order of their symbols. So the lengths alone define
it. Decoding goes by four bits at a time through a table of states, which is made at the first use.
"""

from __future__ import annotations

from typing import Final

#: Symbols by the length of their code in bits. 256 is the end of the string, which no string may contain.
_SYMBOLS: Final[dict[int, tuple[int, ...]]] = {
    5: (*b"012aceiost",),
    6: (*b" %-./3456789=A_bdfghlmnpru",),
    7: (*b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",),
    8: (*b"&*,;XZ",),
    10: (*b'!"()?',),
    11: (*b"'+|",),
    12: (*b"#>",),
    13: (*b"\0$@[]~",),
    14: (*b"^}",),
    15: (*b"<`{",),
    19: (92, 195, 208),
    20: (128, 130, 131, 162, 184, 194, 224, 226),
    21: (153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230),
    22: (
        *(129, 132, 133, 134, 136, 146, 154, 156, 160, 163, 164, 169, 170),
        *(173, 178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232, 233),
    ),
    23: (
        *(1, 135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157),
        *(158, 165, 166, 168, 174, 175, 180, 182, 183, 188, 191, 197, 231, 239),
    ),
    24: (9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237),
    25: (199, 207, 234, 235),
    26: (192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255),
    27: (203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245, 246, 247, 248, 250, 251, 252, 253, 254),
    28: (
        *(2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19),
        *(20, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 127, 220, 249),
    ),
    30: (10, 13, 22, 256),
}
END: Final = 256

#: Marks of a decoding step that leads nowhere, and of one that completes no symbol.
_INVALID: Final = -1
_NO_SYMBOL: Final = -1


def _assign() -> list[tuple[int, int]]:
    """(code, its length) of each symbol."""
    codes = [(0, 0)] * 257
    code = last = 0
    for length, symbols in _SYMBOLS.items():
        code <<= length - last
        last = length
        for symbol in symbols:
            codes[symbol] = code, length
            code += 1
    return codes


CODES: Final = _assign()


class _Table:
    """The decoder's states. A state is a node of the code's tree, in which a symbol has been begun."""

    __slots__ = ("ends", "next", "symbols")

    def __init__(self) -> None:
        children: list[list[int]] = [[0, 0]]  # node → the nodes for 0 and 1; a leaf is ~symbol
        padding = {0}  # nodes at which a string may end: fewer than eight bits, all of them ones
        for symbol, (code, length) in enumerate(CODES):
            node = 0
            for position in range(length - 1, 0, -1):
                bit = code >> position & 1
                if not children[node][bit]:
                    children.append([0, 0])
                    children[node][bit] = len(children) - 1
                node = children[node][bit]
                depth = length - position
                if depth < 8 and code >> position == (1 << depth) - 1:
                    padding.add(node)
            children[node][code & 1] = ~symbol
        self.next: list[int] = []  # state × 16 + four bits → the next state
        self.symbols: list[int] = []  # … → the symbol that they complete: no code is shorter than five bits
        self.ends = [node in padding for node in range(len(children))]
        for state in range(len(children)):
            for bits in range(16):
                node, symbol = state, _NO_SYMBOL
                for position in (3, 2, 1, 0):
                    node = children[node][bits >> position & 1]
                    if node < 0:
                        symbol = ~node
                        if symbol == END:
                            node = _INVALID
                            break
                        node = 0
                self.next.append(node)
                self.symbols.append(symbol)


_table: list[_Table] = []


def decode(data: bytes) -> bytes:
    """The text of a Huffman string. Raises ValueError for a bad end, or for the end's symbol within."""
    if not _table:
        _table.append(_Table())
    table = _table[0]
    following, symbols = table.next, table.symbols
    text = bytearray()
    state = 0
    for byte in data:
        at = state * 16 + (byte >> 4)
        state = following[at]
        if state < 0:
            raise ValueError("the end's symbol within a Huffman string")
        symbol = symbols[at]
        if symbol >= 0:
            text.append(symbol)
        at = state * 16 + (byte & 15)
        state = following[at]
        if state < 0:
            raise ValueError("the end's symbol within a Huffman string")
        symbol = symbols[at]
        if symbol >= 0:
            text.append(symbol)
    if not table.ends[state]:
        raise ValueError("a Huffman string that ends within a symbol")  # RFC 7541 section 5.2
    return bytes(text)


def encode(text: bytes) -> bytes:
    """The text as a Huffman string."""
    codes = CODES
    value = bits = 0
    for byte in text:
        code, length = codes[byte]
        value = value << length | code
        bits += length
    padding = -bits % 8
    return (value << padding | ((1 << padding) - 1)).to_bytes((bits + padding) // 8, "big")
