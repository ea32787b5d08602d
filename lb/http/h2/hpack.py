"""Header compression (RFC 7541): a decoder with the client's dynamic table, and an encoder that keeps none.

The decoder's `generation` changes with its table. While it stands still, equal blocks mean equal fields, and the
connection keeps what it has made of them. The encoder never indexes, as nginx's: an answer's block then depends on the
answer alone, and is made once for all connections.
"""

from __future__ import annotations

from typing import Final

from lb.http.h2 import huffman

#: RFC 7541 appendix A.
STATIC: Final[list[tuple[bytes, bytes]]] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    *[
        (name, b"")
        for name in b"""accept-language accept-ranges accept access-control-allow-origin age allow authorization
        cache-control content-disposition content-encoding content-language content-length content-location
        content-range content-type cookie date etag expect expires from host if-match if-modified-since if-none-match
        if-range if-unmodified-since last-modified link location max-forwards proxy-authenticate proxy-authorization
        range referer refresh retry-after server set-cookie strict-transport-security transfer-encoding user-agent vary
        via www-authenticate""".split()
    ],
]
_FIRST_DYNAMIC: Final = len(STATIC) + 1

#: Octets that an entry counts beside its name and value (RFC 7541 section 4.1).
OVERHEAD: Final = 32
#: The largest dynamic table that lb offers to clients: the protocol's default.
TABLE_SIZE: Final = 4096
#: No integer of a block may be larger: sizes and indexes far below it are refused for other reasons.
_LARGEST: Final = 1 << 24

#: Huffman strings that were decoded of late, with their texts. Bounded in number and length.
_texts: Final[dict[bytes, bytes]] = {}
_TEXTS: Final = 512
_TEXT_LENGTH: Final = 128


class BadBlock(Exception):  # noqa: N818
    """A header block that cannot be decoded: the connection is lost, since both tables differ from here on."""


class Decoder:
    """The receiving side's table."""

    __slots__ = ("_limit", "_size", "_table", "count", "generation", "too_large")

    def __init__(self) -> None:
        self._table: list[tuple[bytes, bytes]] = []  # the newest entry is the last one
        self._size = 0
        self._limit = TABLE_SIZE
        self.generation = 0  # another number after each change of the table
        self.too_large = False  # the last block was over a limit, and its fields were thrown away
        self.count = 0  # fields of the last block, with the ones that were thrown away

    def decode(self, block: bytes, size_limit: int, count_limit: int) -> list[tuple[bytes, bytes]]:
        """The fields of a block. Raises `BadBlock`.

        Fields over `count_limit`, or with more octets in all than `size_limit` (as RFC 9113 section 6.5.2 counts
        them), set `too_large`. The rest is decoded then, for the table's sake, and nothing of the block is kept.
        """
        fields: list[tuple[bytes, bytes]] = []
        self.too_large = False
        size = position = count = 0
        end = len(block)
        while position < end:
            byte = block[position]
            if byte & 0x80:  # RFC 7541 section 6.1: an indexed field
                index = byte & 0x7F
                position += 1
                if index == 0x7F:
                    index, position = _integer(block, position, index)
                field = self._entry(index)
            elif byte & 0xE0 == 0x20:  # section 6.3: a new size of the table
                limit = byte & 0x1F
                position += 1
                if limit == 0x1F:
                    limit, position = _integer(block, position, limit)
                if limit > TABLE_SIZE:
                    raise BadBlock("a larger table than lb has offered")
                if fields or self.too_large:
                    raise BadBlock("a change of the table's size behind a field")  # section 4.2
                self._limit = limit
                self._evict(0)
                self.generation += 1
                continue
            else:  # sections 6.2.1 to 6.2.3: a literal, with a name from a table or a literal one
                prefix = 0x3F if byte & 0x40 else 0x0F
                index = byte & prefix
                position += 1
                if index == prefix:
                    index, position = _integer(block, position, index)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, position = _string(block, position)
                value, position = _string(block, position)
                field = name, value
                if byte & 0x40:
                    self._add(field)
            count += 1
            size += len(field[0]) + len(field[1]) + OVERHEAD
            if self.too_large or size > size_limit or len(fields) >= count_limit:
                self.too_large = True
                fields = []
            else:
                fields.append(field)
        self.count = count
        return fields

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if 0 < index < _FIRST_DYNAMIC:
            return STATIC[index - 1]
        table = self._table
        at = len(table) - 1 - (index - _FIRST_DYNAMIC)
        if index == 0 or at < 0:
            raise BadBlock("an index that no table has")  # RFC 7541 section 2.3.3
        return table[at]

    def _add(self, field: tuple[bytes, bytes]) -> None:
        size = len(field[0]) + len(field[1]) + OVERHEAD
        self._evict(size)
        if size <= self._limit:  # RFC 7541 section 4.4: a larger one has emptied the table, and is not added
            self._table.append(field)
            self._size += size
        self.generation += 1

    def _evict(self, room: int) -> None:
        """Drop the oldest entries until there is room."""
        table = self._table
        while table and self._size + room > self._limit:
            name, value = table.pop(0)
            self._size -= len(name) + len(value) + OVERHEAD


def _integer(block: bytes, position: int, value: int) -> tuple[int, int]:
    """The rest of an integer whose prefix is full (RFC 7541 section 5.1); returns (integer, position behind it)."""
    shift = 0
    while True:
        if position >= len(block):
            raise BadBlock("a block that ends within a number")
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if value > _LARGEST or shift > 28:
            raise BadBlock("a number that is too large")
        if not byte & 0x80:
            return value, position
        shift += 7


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    """The string literal at the position (RFC 7541 section 5.2), and the position behind it."""
    if position >= len(block):
        raise BadBlock("a block that ends before a string")
    byte = block[position]
    size = byte & 0x7F
    position += 1
    if size == 0x7F:
        size, position = _integer(block, position, size)
    end = position + size
    if end > len(block):
        raise BadBlock("a block that ends within a string")
    raw = block[position:end]
    if not byte & 0x80:
        return raw, end
    text = _texts.get(raw)
    if text is None:
        try:
            text = huffman.decode(raw)
        except ValueError as error:
            raise BadBlock(str(error)) from None
        if size <= _TEXT_LENGTH:
            if len(_texts) >= _TEXTS:
                _texts.clear()
            _texts[raw] = text
    return text, end


# --- encoding --------------------------------------------------------------------------------------------------------

_WHOLE: Final[dict[tuple[bytes, bytes], int]] = {field: number + 1 for number, field in reversed([*enumerate(STATIC)])}
_NAMES: Final[dict[bytes, int]] = {field[0]: number + 1 for number, field in reversed([*enumerate(STATIC)])}

#: The first bytes of a connection's first block: lb's encoder uses no table, whatever size the client allows (RFC 7541
#: section 4.2 wants a smaller size signalled).
NO_TABLE: Final = b"\x20"


def encode_field(name: bytes, value: bytes) -> bytes:
    """One field, as a reference to the static table or a literal that is not indexed. The name is in lower case."""
    index = _WHOLE.get((name, value), 0)
    if index:
        return _number(0x80, 0x7F, index)
    index = _NAMES.get(name, 0)
    if index:
        return _number(0x00, 0x0F, index) + _text(value)
    return b"\x00" + _text(name) + _text(value)


def encode_plain(name: bytes, value: bytes) -> bytes:
    """The same, but with no string compressed: that takes longer than sending it to a target nearby."""
    index = _WHOLE.get((name, value), 0)
    if index:
        return _number(0x80, 0x7F, index)
    index = _NAMES.get(name, 0)
    if index:
        return _number(0x00, 0x0F, index) + plain_text(value)
    return b"\x00" + plain_text(name) + plain_text(value)


def plain_text(text: bytes) -> bytes:
    """A string literal that is not compressed."""
    size = len(text)
    return (bytes((size,)) if size < 0x7F else _number(0x00, 0x7F, size)) + text


def encode_status(status: int) -> bytes:
    """The pseudo-header field of a response."""
    return encode_field(b":status", b"%d" % status)


def _text(text: bytes) -> bytes:
    packed = huffman.encode(text)
    if len(packed) < len(text):
        return _number(0x80, 0x7F, len(packed)) + packed
    return _number(0x00, 0x7F, len(text)) + text


def _number(pattern: int, prefix: int, value: int) -> bytes:
    """An integer with a prefix (RFC 7541 section 5.1) that shares its byte with a pattern."""
    if value < prefix:
        return bytes((pattern | value,))
    out = [pattern | prefix]
    value -= prefix
    while value >= 0x80:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)
    return bytes(out)
