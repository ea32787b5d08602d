"""gRPC's values: deadlines, statuses, and what they say of a target."""

from __future__ import annotations

import pytest

from lb.core.grpc import FAILURES, NAMES, counts_as, described
from lb.http.grpc import forbids_retry, is_grpc, read_status, read_timeout, status_of, write_timeout


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"100m", 0.1),  # milliseconds, and not minutes
        (b"2M", 120.0),
        (b"1H", 3600.0),
        (b"3S", 3.0),
        (b"5u", 5e-6),
        (b"7n", 7e-9),
        (b"0m", 0.0),
        (b"99999999H", 99999999 * 3600.0),
        *((bad, -1.0) for bad in (b"", b"m", b"100", b"100s", b"-1m", b"1.5S", b"123456789m", b"1 m", b"1m ")),
    ],
)
def test_a_timeout_is_read(value: bytes, seconds: float) -> None:
    assert read_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("seconds", [0.0, 1e-6, 0.0999, 1.0, 9.999999, 10.0, 3600.5, 1e5, 1e12])
def test_a_timeout_that_is_written_is_no_longer(seconds: float) -> None:
    again = read_timeout(write_timeout(seconds))
    assert 0.0 <= again <= seconds
    assert again >= min(seconds * 0.999, 9e7) - 2e-6


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"grpc-status: 0\r\n", 0),
        (b"x-a: b\r\nGrpc-Status:14\r\n", 14),
        (b"grpc-status: 17\r\n", 2),
        (b"grpc-status: -1\r\n", 2),
        (b"grpc-status: \r\n", 2),
        (b"x-grpc-status: 5\r\n", -1),
        (b"", -1),
    ],
)
def test_a_status_is_read(lines: bytes, status: int) -> None:
    assert read_status(lines) == status


def test_content_types() -> None:
    assert all(
        map(is_grpc, (b"application/grpc", b"Application/gRPC+proto", b"application/grpc;x", b"application/grpc "))
    )
    assert not any(map(is_grpc, (b"application/grpc-web", b"application/grpc-web+proto", b"text/plain", b"")))


def test_failures_are_what_a_5xx_would_be() -> None:
    names = {NAMES[code] for code in FAILURES}
    assert names == {"UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
    assert counts_as(14) == 503
    assert counts_as(5) == 200
    assert described(14) == "grpc-status 14 (UNAVAILABLE)"


def test_statuses_of_answers_without_one() -> None:
    expected = {200: 2, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14, 499: 1}
    assert {code: status_of(code) for code in expected} == expected
    assert status_of(504, "grpc_deadline") == 4


def test_pushback() -> None:
    assert forbids_retry(b"grpc-retry-pushback-ms: -1\r\n")
    assert forbids_retry(b"a: b\r\nGrpc-Retry-Pushback-Ms: 100\r\n")
    assert not forbids_retry(b"grpc-retry-pushback-ms: 0\r\n")
    assert not forbids_retry(b"grpc-status: 14\r\n")
