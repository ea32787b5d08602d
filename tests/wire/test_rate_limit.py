"""Rate limits on the wire: who shares a bucket, what a refused client is told, what is counted and logged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lb.core.targets import RATE_LIMIT, AccessLog, RateLimit, StepRule
from tests.support.eventually import eventually
from tests.support.front import Front, status_of, with_listener
from tests.support.h2_client import Client


def limit(number: int = 2, seconds: float = 3600.0, burst: int = 2, **more: Any) -> StepRule:
    return StepRule(RATE_LIMIT, rate=RateLimit(number, seconds, burst, **more))


def ask(front: Front, fields: bytes = b"") -> bytes:
    return front.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")


def statuses(front: Front, *fields: bytes) -> list[int]:
    return [status_of(ask(front, each)) for each in fields]


def lines_of(answer: bytes) -> list[bytes]:
    return answer.partition(b"\r\n\r\n")[0].split(b"\r\n")


def counted(front: Front) -> dict[str, int]:
    return dict(front.plane.stats.step_results(full=True)["/"]["rate_limit"])


def test_more_than_the_burst_gets_429_and_no_target_sees_it() -> None:
    with Front(steps=(limit(),)) as front:
        answers = [ask(front) for _ in range(4)]
        assert [status_of(answer) for answer in answers] == [200, 200, 429, 429]
        assert len(front.origin.requests) == 2
        assert b"Retry-After: 1800" in lines_of(answers[2])
        assert b"rate_limited" not in answers[2]
        assert front.plane.stats.rejected == {"rate_limited": 2}
        assert counted(front) == {"passed": 2, "rate_limited": 2}
        assert front.at_rest()


def test_each_answer_tells_what_is_left() -> None:
    with Front(steps=(limit(), limit(1, 60.0, 9, name="minute"))) as front:
        told = []
        for _ in range(3):
            lines = lines_of(ask(front))
            told.append([line for line in lines if line.startswith(b"RateLimit: ")])
            assert b'RateLimit-Policy: "default";q=2;w=3600' in lines
        assert told == [
            [b'RateLimit: "default";r=1;t=1800', b'RateLimit: "minute";r=8;t=60'],
            [b'RateLimit: "default";r=0;t=1800', b'RateLimit: "minute";r=7;t=60'],
            [b'RateLimit: "default";r=0;t=1800'],
        ]


def test_fields_can_be_left_out() -> None:
    with Front(steps=(limit(fields=False),)) as front:
        answers = b"".join(ask(front) for _ in range(3))
        assert b"RateLimit" not in answers
        assert b"Retry-After: 1800" in answers


@pytest.mark.parametrize(
    ("key", "fields", "expected"),
    [
        ("header:x-key", (b"X-Key: a\r\n", b"x-key: a\r\n", b"X-Key: b\r\n", b"X-Key: a\r\n"), [200, 200, 200, 429]),
        ("header:x-key", (b"", b"", b"X-Key: b\r\n", b""), [200, 200, 200, 429]),
        ("cookie:id", (b"Cookie: id=1\r\n", b"Cookie: id=1\r\n", b"Cookie: id=2\r\n", b"Cookie: z=0; id=1\r\n"), None),
        ("route", (b"X-Key: a\r\n", b"X-Key: b\r\n", b"", b""), [200, 200, 429, 429]),
        ("client", (b"X-Forwarded-For: 192.0.2.1\r\n", b"X-Forwarded-For: 192.0.2.2\r\n", b""), [200, 200, 429]),
    ],
)
def test_keys(key: str, fields: tuple[bytes, ...], expected: list[int] | None) -> None:
    with Front(steps=(limit(key=key),)) as front:
        assert statuses(front, *fields) == (expected or [200, 200, 200, 429])


def test_behind_a_trusted_proxy_the_client_counts() -> None:
    with Front(steps=(limit(1, burst=1),), trusted_proxies=("127.0.0.0/8",)) as front:
        forwarded = [
            b"X-Forwarded-For: " + each + b"\r\n" for each in (b"192.0.2.1", b"192.0.2.2", b"9.9.9.9, 192.0.2.1")
        ]
        assert statuses(front, *forwarded) == [200, 200, 429]
        six = [b"X-Forwarded-For: 2001:db8::" + each + b"\r\n" for each in (b"1", b"2")]
        assert statuses(front, *six) == [200, 429]
        assert statuses(front, b"X-Forwarded-For: nonsense\r\n", b"") == [200, 429], "the peer"


def test_a_dry_run_refuses_nobody_and_says_so_in_counts_and_log(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with Front(steps=(limit(dry_run=True),), access_log=AccessLog("json", str(path))) as front:
        answers = [ask(front) for _ in range(3)]
        assert [status_of(answer) for answer in answers] == [200, 200, 200]
        assert b"RateLimit" not in b"".join(answers)
        assert counted(front) == {"passed": 2, "dry_run": 1}
        assert front.plane.stats.rejected == {}
        eventually(lambda: len(path.read_text().splitlines()) == 3)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line.get("remarks") for line in lines] == [None, None, ["rate_limit default: over the limit (dry run)"]]
        assert all(line["steps"] == ["rate_limit"] for line in lines)
        found = front.call(lambda: front.plane.recall(lines[2]["id"]) or list(front.plane.stats.records))
        assert found[0].remarks == ["rate_limit default: over the limit (dry run)"]


def test_a_reload_keeps_the_buckets_of_a_limit_that_stays() -> None:
    with Front(steps=(limit(),)) as front:
        assert statuses(front, b"", b"") == [200, 200]
        front.call(front.apply)
        assert statuses(front, b"") == [429]
        assert counted(front) == {"passed": 2, "rate_limited": 1}
        front.call(lambda: front.apply(steps=(limit(3),)))
        assert statuses(front, b"") == [200], "another rate is another limit"


def test_over_http2() -> None:
    with Front(listener=with_listener(http2=True), steps=(limit(),)) as front, Client(front) as client:
        got = []
        for stream in (1, 3, 5):
            client.ask(stream)
            got.append(client.answer(stream))
        assert [status for status, _, _ in got] == [200, 200, 429]
        assert got[1][1]["ratelimit"] == '"default";r=0;t=1800'
        assert got[2][1]["retry-after"] == "1800"
