"""The access log's lines: what is in them, which are left out, and what a worker that is killed takes with it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lb.core.targets import AccessLog
from lb.proxy import crash_counters
from lb.proxy.access_log import PIECE, Log
from lb.proxy.crash_counters import BEGUN, LOGGED, OVER, TAKEN, WRITTEN, Unfinished, cells
from tests.support.data_plane import GET, OK, POST, Stage


class Written:
    """A stage whose log is a file."""

    def __init__(self, path: Path, sample: float = 1.0, page: int = -1) -> None:
        self.path = path
        self.stage = Stage()
        self.plane = self.stage.plane
        self.plane.stats.crash_counters = cells(page)
        self.plane.stats.crash_counters[LOGGED] = 1
        self.log = self.plane.log = Log(AccessLog("json", str(path), sample), 0.0, self.plane.stats.crash_counters)

    def serve(self, head: bytes = GET, body: bytes = b"") -> None:
        client, _ = self.stage.ask(head, body)
        while self.stage.connector.opening:
            self.stage.accept()
        for lane in self.plane.lanes.values():
            for upstream in list(lane.connections):
                if upstream.exchange is not None:
                    upstream.data_received(OK)
        assert client.status == 200

    def lines(self) -> list[dict[str, Any]]:
        self.log.close()
        return [json.loads(line) for line in self.path.read_text().splitlines()]


def test_what_a_line_says(tmp_path: Path) -> None:
    one = Written(tmp_path / "log")
    client, _ = one.stage.ask(POST, b"hello")
    refused = one.stage.refuse()
    one.stage.accept()[0].data_received(OK)
    assert client.status == 200
    [line] = one.lines()
    assert line["method"] == "POST"
    assert line["path"] == "/x"
    assert line["status"] == 200
    assert line["bytes_in"] == 5
    assert line["target"] != refused
    assert line["attempts"] == 2
    assert line["tries"] == [f"{refused}: refused the connection"]
    assert 0 <= line["connect_seconds"] <= line["seconds"]
    assert len(line["id"]) == 20
    assert "reason" not in line


def test_an_answer_of_our_own_has_a_reason(tmp_path: Path) -> None:
    one = Written(tmp_path / "log")
    one.stage.rotate((("blue", 100),), only="green")
    client, _ = one.stage.ask(GET)
    assert client.status == 503
    [line] = one.lines()
    assert line["reason"] == "no_target"
    assert line["target"] == "none"


@pytest.mark.parametrize("length", [10, 1200, 6000])
def test_into_a_pipe_go_whole_lines_in_pieces_that_do_not_mix(tmp_path: Path, length: int) -> None:
    """Two workers write into one pipe: what is longer than PIPE_BUF may be torn, so nothing else is."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    workers = [Written(path), Written(path)]
    for number in range(30):
        for one in workers:
            one.serve(b"GET /%b HTTP/1.1\r\nHost: h\r\n" % (b"%d" % number * length)[:length])
            one.log.flush()
    got = b""
    until = time.monotonic() + 10
    while got.count(b"\n") < 60 and time.monotonic() < until:
        try:
            got += os.read(reader, 1 << 20)
        except BlockingIOError:
            time.sleep(0.01)
    os.close(reader)
    for one in workers:
        one.log.close()
    lines = [json.loads(line) for line in got.splitlines()] if length < 4096 else got.splitlines()
    assert len(lines) == 60


def test_a_long_round_of_lines_is_written_in_order(tmp_path: Path) -> None:
    one = Written(tmp_path / "log")
    for number in range(1000):
        one.serve(b"GET /%d HTTP/1.1\r\nHost: h\r\n" % number)
    assert [line["path"] for line in one.lines()] == [f"/{number}" for number in range(1000)]


def test_the_combined_form_goes_out_a_dozen_at_a_time_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    writev = os.writev

    def write(fd: int, pieces: list[bytes]) -> int:
        sizes.extend(piece.count(b"\n") for piece in pieces)
        return writev(fd, pieces)

    monkeypatch.setattr(os, "writev", write)
    one = Written(tmp_path / "unused")
    path = tmp_path / "log"
    log = one.plane.log = Log(AccessLog("combined", str(path)), 0.0, one.plane.stats.crash_counters)
    for number in range(30):
        one.serve(b"GET /%d HTTP/1.1\r\nHost: h\r\nUser-Agent: me\r\n" % number)
    log.close()
    one.log.close()
    assert sizes == [PIECE, PIECE, 30 - 2 * PIECE], "made into bytes as they came, and not at the end"
    lines = path.read_text().splitlines()
    assert [line.split()[6] for line in lines] == [f"/{number}" for number in range(30)]
    assert all(line.endswith('"-" "me"') and " 200 2 " in line for line in lines)


def test_a_sample_keeps_its_share_of_the_good_and_all_of_the_others(tmp_path: Path) -> None:
    one = Written(tmp_path / "log", sample=0.25)
    for _ in range(100):
        one.serve()
    one.stage.rotate((("blue", 100),), only="green")
    for _ in range(5):
        one.stage.ask(GET)
    statuses = [line["status"] for line in one.lines()]
    assert statuses.count(200) == 25
    assert statuses.count(503) == 5
    assert one.plane.stats.crash_counters[OVER] == 105


@pytest.fixture
def page() -> Iterator[int]:
    fd = crash_counters.create()
    yield fd
    os.close(fd)


def test_what_a_killed_worker_had_under_way_and_unwritten_is_known(tmp_path: Path, page: int) -> None:
    one = Written(tmp_path / "log", sample=0.5, page=page)
    assert crash_counters.read(page) == Unfinished(0, 0)
    for _ in range(10):
        one.serve()
    one.stage.ask(GET)
    one.stage.ask(POST, b"hel", done=False)
    assert crash_counters.read(page) == Unfinished(2, 5), "five of ten are to be written, and wait for the next pass"
    one.log.flush()
    until = time.monotonic() + 10
    while crash_counters.read(page) != Unfinished(2, 0):
        assert time.monotonic() < until
        time.sleep(0.005)
    assert one.plane.stats.crash_counters[BEGUN] == 12
    one.log.close()


def test_lines_that_are_being_written_are_known_as_such(
    tmp_path: Path, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is killed then has them in the file or not: nobody can say."""
    one = Written(tmp_path / "log", page=page)
    begun, goes_on = threading.Event(), threading.Event()
    writev = os.writev

    def write(fd: int, pieces: list[bytes]) -> int:
        begun.set()
        assert goes_on.wait(10)
        return writev(fd, pieces)

    monkeypatch.setattr(os, "writev", write)
    for _ in range(3):
        one.serve()
    one.log.flush()
    assert begun.wait(10)
    one.serve()
    told = one.plane.stats.crash_counters
    assert told[TAKEN] - told[WRITTEN] == 3
    assert crash_counters.read(page) == Unfinished(0, 4)
    goes_on.set()
    one.log.close()
    assert told[TAKEN] == told[WRITTEN] == 4


def test_lines_that_nobody_takes_are_lost_once(page: int) -> None:
    one = Written(Path("/dev/full"), page=page)
    for _ in range(3):
        one.serve()
    one.log.close()
    one.log.flush()
    assert one.log.lost == 3
    assert crash_counters.read(page) == Unfinished(0, 0), "they are counted already"


def test_without_a_log_nothing_is_owed(page: int) -> None:
    one = Written(Path(os.devnull), page=page)
    one.log.close()
    one.plane.log = None
    one.plane.stats.crash_counters[LOGGED] = 0
    one.serve()
    assert crash_counters.read(page) == Unfinished(0, 0)


def test_no_page_no_account() -> None:
    assert crash_counters.read(-1) is None


def written(one: Written, path: bytes) -> None:
    """A request whose line has been handed to the disk, or was lost."""
    one.serve(b"GET /%b HTTP/1.1\r\nHost: h\r\n" % path)
    done = one.plane.stats.crash_counters[WRITTEN]
    one.log.flush()
    until = time.monotonic() + 5
    while one.plane.stats.crash_counters[WRITTEN] == done and time.monotonic() < until:
        time.sleep(0.005)
    one.log.flush()


def test_lines_go_to_the_old_file_while_a_new_one_cannot_be_opened(tmp_path: Path) -> None:
    """A rotation whose new file cannot be made costs no line, and is tried again."""
    folder = tmp_path / "logs"
    folder.mkdir()
    one = Written(folder / "log")
    written(one, b"before")
    assert one.log.trouble == ""
    folder.rename(tmp_path / "moved")
    one.log.reopen()
    written(one, b"meanwhile")
    assert one.log.trouble == f"{folder / 'log'} cannot be opened: No such file or directory"
    assert one.plane.report().log_trouble == one.log.trouble
    folder.mkdir()
    written(one, b"after")
    assert (one.log.trouble, one.log.lost) == ("", 0)
    assert [line["path"] for line in one.lines()] == ["/after"]
    old = (tmp_path / "moved" / "log").read_text().splitlines()
    assert [json.loads(line)["path"] for line in old] == ["/before", "/meanwhile"]


def test_a_disk_that_takes_no_more_is_said_until_it_does(tmp_path: Path) -> None:
    one = Written(Path("/dev/full"))
    written(one, b"lost")
    assert (one.log.trouble, one.log.lost) == ("/dev/full cannot be written: No space left on device", 1)
    one.log.close()
