"""The history of probes on the disk: it survives ends of every kind, is bounded, and disk trouble harms only itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lb.control import jsonl
from lb.control.jsonl import JsonLines
from lb.control.probe_history import FILE, OPEN, RING, ProbeHistory
from lb.core.lifecycle import Verdict
from lb.core.runs import Run

PASS = Verdict(True, 0.002, "HTTP 200", "passed")
REFUSED = Verdict(False, 0.0001, "connection refused", "refused")
TARGET = "app/blue/b1:80"


def history(directory: Path) -> ProbeHistory:
    made = ProbeHistory()
    made.open(directory)
    return made


def counts(found: ProbeHistory, target: str = TARGET) -> list[tuple[str, int]]:
    return [(run.kind, run.count) for run in found.of(target)]


def fill(found: ProbeHistory, *verdicts: Verdict, target: str = TARGET, start: float = 1000.0) -> None:
    for number, verdict in enumerate(verdicts):
        found.saw(target, "readiness", start + number, verdict)


def test_runs_outlive_an_end(tmp_path: Path):
    first = history(tmp_path)
    fill(first, PASS, PASS, REFUSED, PASS, PASS, PASS)
    first.flush(everything=True)
    second = history(tmp_path)
    assert counts(second) == [("passed", 2), ("refused", 1), ("passed", 3)]
    fill(second, PASS, start=2000.0)
    assert counts(second) == [("passed", 2), ("refused", 1), ("passed", 3), ("passed", 1)]
    second.flush(everything=True)
    assert counts(history(tmp_path)) == counts(second)


def test_the_body_of_an_answer_is_never_on_the_disk(tmp_path: Path):
    found = history(tmp_path)
    fill(found, Verdict(False, 0.002, "HTTP 503", "status", got="HTTP 503\nhunter2", excerpt="hunter2"), PASS)
    found.flush(everything=True)
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"HTTP 503" in written and b"hunter2" not in written


def test_killed_at_any_moment_it_loses_only_what_was_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What went on when the file of those was written last may have ended since: it is not told twice."""
    monkeypatch.setattr("lb.control.probe_history.OPEN_PER_SECOND", 1e-6)  # the second writing is not due yet
    first = history(tmp_path)
    fill(first, PASS, PASS)
    first.flush(everything=True)
    fill(first, PASS, REFUSED, start=1002.0)
    first.flush()  # the run that ended is written; the file of those that go on still has its beginning
    assert counts(history(tmp_path)) == [("passed", 3)]
    fill(first, PASS, start=1010.0)
    assert counts(history(tmp_path)) == [("passed", 3)]


@pytest.mark.parametrize("torn", [b'{"target":"app/bl', b"\xff\xfe", b'{"target":1}\n{"no":"run"}\n', b"[]\n\n\n"])
def test_a_torn_or_damaged_end_costs_its_own_line_only(tmp_path: Path, torn: bytes):
    first = history(tmp_path)
    fill(first, PASS, REFUSED)
    first.flush()
    with (tmp_path / FILE).open("ab") as file:
        file.write(torn)
    (tmp_path / OPEN).write_bytes(torn)
    second = history(tmp_path)
    fill(second, PASS, REFUSED, start=2000.0)
    second.flush()
    assert counts(history(tmp_path)) == [("passed", 1), ("passed", 1), ("refused", 1)]


def test_it_is_bounded_on_disk_and_in_memory(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(jsonl, "FILE_LIMIT", 20_000)
    found = history(tmp_path)
    for number in range(3000):
        fill(found, PASS, REFUSED, target=f"app/blue/b{number % 3}:80", start=1000.0 + 100 * number)
        found.flush()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 50_000
    assert all(len(found.of(f"app/blue/b{n}:80")) == RING + 1 for n in range(3))
    again = history(tmp_path)
    assert again.since(0)[-1].last > 1000 + 100 * 2990
    assert len(again.since(0)) > 50


def test_a_full_disk_is_said_and_forgiven(tmp_path: Path):
    found = history(tmp_path)
    (tmp_path / FILE).symlink_to("/dev/full")
    fill(found, PASS, REFUSED)
    found.flush()
    assert "No space left" in found.trouble
    assert counts(found) == [("passed", 1), ("refused", 1)]
    (tmp_path / FILE).unlink()
    found.flush()
    assert found.trouble == ""
    assert counts(history(tmp_path))[0] == ("passed", 1)


def test_a_directory_that_is_gone_harms_nothing(tmp_path: Path):
    found = history(tmp_path / "gone")
    for start in (1000.0, 2000.0, 3000.0):
        fill(found, PASS, REFUSED, start=start)
        found.flush(everything=True)
    assert "No such file" in found.trouble
    (tmp_path / "gone").mkdir()
    found.flush(everything=True)
    assert found.trouble == ""
    assert sum(run.count for run in history(tmp_path / "gone").of(TARGET)) == 6


def test_a_line_that_found_no_room_is_ended_before_the_next(tmp_path: Path, monkeypatch):
    written = []
    honest = os.write

    def short(fd: int, data: bytes) -> int:
        if not written:
            written.append(data)
            return honest(fd, data[:10])
        return honest(fd, data)

    file = JsonLines(tmp_path / "some.jsonl")
    monkeypatch.setattr(os, "write", short)
    assert not file.append(b'{"number": 1}\n')
    assert "no room" in file.trouble
    assert file.append(b'{"number": 2}\n')
    assert file.trouble == ""
    *_, last = JsonLines(tmp_path / "some.jsonl").lines()
    assert json.loads(last) == {"number": 2}


def test_of_targets_that_are_gone_the_runs_end_and_are_kept(tmp_path: Path):
    found = history(tmp_path)
    fill(found, PASS, PASS)
    fill(found, PASS, target="app/blue/b2:80")
    found.keep(["app/blue/b2:80"])
    assert counts(found) == [("passed", 2)]
    fill(found, PASS, start=2000.0)
    assert counts(found) == [("passed", 2), ("passed", 1)]
    assert [run.target for run in found.since(1999.0)] == [TARGET]


def test_what_was_seen_is_found_under_a_new_name_also_after_a_restart(tmp_path: Path):
    new, newest = "app/teal/b1:80", "web/teal/b1:80"
    found = history(tmp_path)
    fill(found, PASS, REFUSED, REFUSED)
    found.rename({new: TARGET})
    found.keep([new])
    fill(found, PASS, target=new, start=2000.0)
    expected = [("passed", 1), ("refused", 2), ("passed", 1)]
    assert counts(found, new) == expected
    assert found.of(TARGET) == []
    assert [run.target for run in found.since(0.0)] == [new] * 3
    found.flush(everything=True)
    again = history(tmp_path)
    assert counts(again, new) == expected
    again.rename({newest: new})
    again.flush(everything=True)
    assert counts(history(tmp_path), newest) == expected


def test_while_another_lb_takes_over_nothing_is_written(tmp_path: Path):
    old = history(tmp_path)
    fill(old, PASS)
    old.pause()
    size = (tmp_path / OPEN).stat().st_size
    fill(old, REFUSED, REFUSED, start=1001.0)
    old.flush(everything=True)
    assert (tmp_path / OPEN).stat().st_size == size
    assert not (tmp_path / FILE).exists()
    new = ProbeHistory()
    fill(new, PASS, start=1001.0)  # it probes already, and has nowhere to write yet
    new.open(tmp_path)
    assert counts(new) == [("passed", 1), ("passed", 1)]
    old.resume()
    old.flush(everything=True)
    assert (tmp_path / FILE).exists()


def test_what_was_seen_before_it_was_opened_is_written(tmp_path: Path):
    found = ProbeHistory()
    fill(found, PASS, REFUSED)
    found.flush(everything=True)
    assert list(tmp_path.iterdir()) == []
    found.open(tmp_path)
    found.flush(everything=True)
    assert counts(history(tmp_path)) == [("passed", 1), ("refused", 1)]


def test_runs_are_read_as_they_were_written(tmp_path: Path):
    found = history(tmp_path)
    fill(found, PASS, REFUSED._replace(text="ü\n\x00"), PASS)
    found.flush(everything=True)
    assert history(tmp_path).of(TARGET) == found.of(TARGET)
    assert isinstance(found.of(TARGET)[0], Run)
