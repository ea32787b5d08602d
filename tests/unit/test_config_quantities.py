"""Durations, sizes, shares, statuses and addresses: what is read, what is refused, and what was probably meant."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.config.model.addresses import parse_bind, parse_network, parse_target
from lb.config.model.units import (
    LONGEST,
    Unreadable,
    format_duration,
    format_percent,
    format_size,
    format_statuses,
    parse_duration,
    parse_percent,
    parse_size,
    parse_statuses,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25), ("2s", 2.0), ("1m", 60.0), ("1h", 3600.0), ("1d", 86400.0), ("1h30m", 5400.0),
        ("1.5s", 1.5), ("0", 0.0), ("0s", 0.0), ("1m30s500ms", 90.5), ("0.1ms", 0.0001),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10", "10s"), ("1:30", "1m30s"), ("1:02:03", "1h2m3s"), ("2 s", "2s"), ("5sec", "5s"), ("10 minutes", "10m"),
        ("2S", "2s"), ("500msec", "500ms"), ("x", ""), ("", ""), ("-1s", ""), ("1s2", ""), ("1e3s", ""), ("4000d", ""),
    ],
)  # fmt: skip
def test_what_is_no_duration_says_what_was_meant(text: str, meant: str) -> None:
    with pytest.raises(Unreadable) as refused:
        parse_duration(text)
    assert refused.value.suggestion == meant
    assert "250ms" in refused.value.allowed


@given(st.floats(0, LONGEST) | st.integers(0, 10**9).map(lambda n: n / 1000))
def test_a_duration_survives_being_written(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("64KiB", 65536), ("10MiB", 10 * 2**20), ("1.5KiB", 1536), ("10 MB", 10_000_000), ("512", 512), ("0", 0)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "meant"), [("64K", "64KiB"), ("10m", "10MiB"), ("1g", "1GiB"), ("1.3B", ""), ("lots", ""), ("-1", "")]
)
def test_what_is_no_size(text: str, meant: str) -> None:
    with pytest.raises(Unreadable) as refused:
        parse_size(text)
    assert refused.value.suggestion == meant


@given(st.integers(0, 2**53))
def test_a_size_survives_being_written(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(("text", "share"), [("20%", 0.2), ("0.5%", 0.005), ("100 %", 1.0), ("0", 0.0), ("0%", 0.0)])
def test_percentages(text: str, share: float) -> None:
    assert parse_percent(text) == share


@pytest.mark.parametrize(("text", "meant"), [("20", "20%"), ("0.2", "20%"), ("1", "1%"), ("a fifth", "")])
def test_what_is_no_percentage(text: str, meant: str) -> None:
    with pytest.raises(Unreadable) as refused:
        parse_percent(text)
    assert refused.value.suggestion == meant


@given(st.floats(0, 1))
def test_a_percentage_survives_being_written(share: float) -> None:
    assert parse_percent(format_percent(share)) == share


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("200", ((200, 200),)),
        ("200-299", ((200, 299),)),
        ("200-299,304", ((200, 299), (304, 304))),
        ("304, 200-204", ((200, 204), (304, 304))),
    ],
)
def test_statuses(text: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert parse_statuses(text) == ranges
    assert parse_statuses(format_statuses(ranges)) == ranges


@pytest.mark.parametrize(("text", "meant"), [("2xx", "200-299"), ("299-200", "200-299"), ("600", ""), ("ok", "")])
def test_what_is_no_status(text: str, meant: str) -> None:
    with pytest.raises(Unreadable) as refused:
        parse_statuses(text)
    assert refused.value.suggestion == meant


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("0.0.0.0:8080", "0.0.0.0:8080"), (":8080", "0.0.0.0:8080"), ("*:80", "0.0.0.0:80"), ("[::]:8443", "[::]:8443"),
        ("[0:0::1]:1", "[::1]:1"), ("localhost:0", "localhost:0"), ("unix:/run/lb.sock", "unix:/run/lb.sock"),
    ],
)  # fmt: skip
def test_bind_addresses(text: str, written: str) -> None:
    assert parse_bind(text).text == written


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("8080", "127.0.0.1:8080"), ("0.0.0.0", "0.0.0.0:8080"), ("http://0.0.0.0:80", "0.0.0.0:80"),
        ("::1:80", "[::1]:80"), ("1.2.3.4.5:80", ""), ("h:99999", ""), ("unix:run/x", ""),
        ("unix://run/x", "unix:/run/x"),         ("a b:80", ""),
    ],
)  # fmt: skip
def test_what_is_no_bind_address(text: str, meant: str) -> None:
    with pytest.raises(Unreadable) as refused:
        parse_bind(text)
    assert refused.value.suggestion == meant


@pytest.mark.parametrize(
    ("text", "written", "tls"),
    [
        ("http://127.0.0.1:5001", "127.0.0.1:5001", False), ("http://127.0.0.1:5001/", "127.0.0.1:5001", False),
        ("HTTP://Host.Example", "host.example:80", False), ("https://h", "h:443", True), ("h:81", "h:81", False),
        ("https://[::1]:8", "[::1]:8", True), ("unix:/run/app.sock", "unix:/run/app.sock", False),
        ("http://127.0.0.1:0", "127.0.0.1:0", False),
    ],
)  # fmt: skip
def test_targets(text: str, written: str, tls: bool) -> None:
    address = parse_target(text)
    assert (address.text, address.tls) == (written, tls)
    assert parse_target(address.url) == address


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("http://h:1/path", "http://h:1"), ("ftp://h:1", "http://h:1"), ("h", "h:8080"), ("http://:80", "http://127.0.0.1:80"),
        ("http://0.0.0.0:80", ""), ("http://user:pw@h", ""), ("http://300.1.1.1:80", ""), ("http://h:70000", ""),
        ("http://[zz]:1", ""), ("", "http://127.0.0.1:8080"),
    ],
)  # fmt: skip
def test_what_is_no_target(text: str, meant: str) -> None:
    with pytest.raises(Unreadable) as refused:
        parse_target(text)
    assert refused.value.suggestion == meant
    assert "pw" not in str(refused.value)


def test_loopback_is_what_only_this_machine_reaches() -> None:
    assert all(parse_bind(text).loopback for text in ("127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"))
    assert not any(parse_bind(text).loopback for text in ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1"))


def test_networks() -> None:
    assert parse_network("10.0.0.0/8") == "10.0.0.0/8"
    assert parse_network("192.0.2.7") == "192.0.2.7/32"
    with pytest.raises(Unreadable) as refused:
        parse_network("10.1.0.0/8")
    assert refused.value.suggestion == "10.0.0.0/8"


@given(st.text(max_size=40))
def test_nothing_but_unreadable_comes_out(text: str) -> None:
    for parse in (parse_duration, parse_size, parse_percent, parse_statuses, parse_bind, parse_target, parse_network):
        with contextlib.suppress(Unreadable):
            parse(text)  # type: ignore[operator]
