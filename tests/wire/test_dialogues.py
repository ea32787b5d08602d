"""Requests and answers that Hypothesis thinks of, through the whole listener in memory; see `dialogue.py`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.dialogue import GET, check_request, check_response
from tests.support.spice import spiced
from tests.wire import request_table, response_table

REQUESTS = [row.raw for row in request_table.TABLE if len(row.raw) < 600]
RESPONSES = [row for row in response_table.TABLE if len(row.raw) < 600 and b"Upgrade" not in row.request]


@pytest.mark.parametrize("row", request_table.TABLE, ids=lambda row: row.name)
def test_every_row_whole_and_in_pieces(row: request_table.Row) -> None:
    check_request(row.raw, len(row.raw))
    if len(row.raw) < 300:
        check_request(row.raw, 1)


@pytest.mark.parametrize("row", RESPONSES, ids=lambda row: row.name)
def test_every_answer_whole_and_in_pieces(row: response_table.Row) -> None:
    check_response(row.raw, 1, row.request, row.close)
    check_response(row.raw, len(row.raw) + 2, row.request, row.close)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3), st.integers(0, 1 << 32), st.integers(1, 1 << 16))
def test_spiced_requests(rows: list[bytes], spice: int, pieces: int) -> None:
    check_request(spiced(b"".join(rows), spice), pieces)


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(RESPONSES), st.integers(0, 1 << 32), st.integers(1, 1 << 16), st.booleans())
def test_spiced_answers(row: response_table.Row, spice: int, pieces: int, closes: bool) -> None:
    check_response(spiced(row.raw, spice), pieces, row.request, closes)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 1 << 16), st.booleans())
def test_noise(raw: bytes, pieces: int, closes: bool) -> None:
    check_request(raw, pieces)
    check_response(raw, pieces, GET, closes)
