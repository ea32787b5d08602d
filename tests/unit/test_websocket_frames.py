"""Frame borders: found in whatever pieces the bytes come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lb.http.websocket import GOING_AWAY, GOING_AWAY_MASKED, Frames


def frame(size: int, masked: bool) -> bytes:
    mask_bit = 0x80 if masked else 0
    if size < 126:
        head = bytes([0x82, mask_bit | size])
    elif size < 65536:
        head = bytes([0x82, mask_bit | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x82, mask_bit | 127]) + size.to_bytes(8, "big")
    return head + (b"mask" if masked else b"") + b"x" * size


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 5, 125, 126, 127, 300, 65535, 65536]), st.booleans()), min_size=1, max_size=8
    ),
    st.data(),
)
def test_borders_are_those_of_the_frames(frames: list[tuple[int, bool]], data: st.DataObject) -> None:
    stream, borders = b"", [0]
    for size, masked in frames:
        stream += frame(size, masked)
        borders.append(len(stream))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    follower = Frames()
    start = 0
    for cut in [*cuts, len(stream)]:
        piece = stream[start:cut]
        border = follower.feed(piece)
        expected = [b - start for b in borders if start < b <= cut]
        if start in borders and not expected and piece:
            assert border in (-1, 0)
        elif piece:
            assert border == (expected[-1] if expected else -1)
        assert follower.between == (cut in borders)
        start = cut


def test_the_goodbyes_are_whole_frames() -> None:
    for goodbye in (GOING_AWAY, GOING_AWAY_MASKED):
        follower = Frames()
        assert follower.feed(goodbye) == len(goodbye)
        assert goodbye[-2:] == (1001).to_bytes(2, "big")
