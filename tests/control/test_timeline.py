"""The timeline's file: numbers go on over restarts, damage costs its own line, a full disk is said and forgiven."""

from __future__ import annotations

from pathlib import Path

from lb.control import jsonl
from lb.control.events import EventLog, Place, place_of


def texts(log: EventLog) -> list[str]:
    return [event.text for event in log.since()]


def test_events_outlive_an_end_and_their_numbers_go_on(tmp_path: Path):
    first = EventLog(tmp_path)
    first.add("switch", "app", "blue → green", actor="anna")
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"id": 9, "at"')  # torn in the middle of a line
    second = EventLog(tmp_path)
    second.add("note", "lb", "übrigens\n")
    third = EventLog(tmp_path)
    assert texts(third) == ["blue → green", "übrigens\n"]
    assert [event.id for event in third.since()] == [1, 2]
    assert third.since()[0].actor == "anna"


def test_an_event_names_its_place_in_parts():
    assert place_of("app") == Place("app")
    assert place_of("app/blue") == Place("app", "blue")
    assert place_of("app/blue/10.0.0.1:80") == Place("app", "blue", "app/blue/10.0.0.1:80")
    assert place_of("app/blue/unix:/run/a.sock") == Place("app", "blue", "app/blue/unix:/run/a.sock")


def test_events_of_an_earlier_lb_get_the_parts_of_their_place(tmp_path: Path):
    lines = [f'{{"id": {id}, "at": 1, "kind": "note", "subject": "{subject}", "text": "x"}}'
             for id, subject in enumerate(("app/blue/10.0.0.1:80", "lb", "all"), 1)]  # fmt: skip
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    found = [Place(event.service, event.pool, event.target) for event in EventLog(tmp_path).since()]
    assert found == [Place("app", "blue", "app/blue/10.0.0.1:80"), Place(), Place()]


def test_an_event_that_is_repeated_keeps_all_but_its_number(tmp_path: Path):
    early = EventLog()
    event = early.add("switch", "app", "x", actor="anna", before="blue", after="green", place=Place("app"), cause="c")
    log = EventLog(tmp_path)
    log.add("note", "lb", "first")
    log.repeat(event)
    assert EventLog(tmp_path).since()[-1] == event.model_copy(update={"id": 2})


def test_the_file_is_bounded(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(jsonl, "FILE_LIMIT", 5000)
    log = EventLog(tmp_path)
    for number in range(500):
        log.add("note", "lb", f"event {number}")
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 10_000
    kept = texts(EventLog(tmp_path))
    assert kept == [f"event {number}" for number in range(500 - len(kept), 500)]
    assert len(kept) > 50


def test_a_full_disk_is_said_and_forgiven(tmp_path: Path):
    log = EventLog(tmp_path)
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    log.add("note", "lb", "one")
    assert "No space left" in log.trouble
    (tmp_path / "events.jsonl").unlink()
    log.add("note", "lb", "two")
    assert log.trouble == ""
    assert texts(log) == ["one", "two"]
