"""Listening sockets on their way between processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lb.process import fd_handover
from lb.process.fd_handover import FOLDER, find_workers
from tests.process.standing import Standing, listening


def test_a_worker_gets_sockets_and_orders_to_close_them() -> None:
    ours, theirs = fd_handover.pair()
    theirs.setblocking(False)
    with listening() as first, listening() as second:
        fd_handover.hand(ours, ("127.0.0.1:0", 0), first)
        fd_handover.hand(ours, ("unix:/x y", 7), second, spare=True)
        fd_handover.close(ours, ("127.0.0.1:0", 0))
        found, more = fd_handover.receive(theirs)
        assert more
        assert [(door, sock and sock.getsockname(), spare) for door, sock, spare in found] == [
            (("127.0.0.1:0", 0), first.getsockname(), False),
            (("unix:/x y", 7), second.getsockname(), True),
            (("127.0.0.1:0", 0), None, False),
        ]
        for _, sock, _ in found:
            if sock is not None:
                assert not sock.get_inheritable()
                sock.close()
    assert fd_handover.receive(theirs) == ([], True)
    ours.close()
    assert fd_handover.receive(theirs) == ([], False), "the supervisor is gone"
    theirs.close()


def test_one_that_takes_nothing_does_not_block() -> None:
    ours, theirs = fd_handover.pair()
    with listening() as sock, pytest.raises(OSError):  # noqa: PT011, PT012 - EAGAIN, or too many descriptors on their way
        for _ in range(100_000):
            fd_handover.hand(ours, ("127.0.0.1:0", 0), sock)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("count", [0, 1, 3, 450])
def test_an_heir_is_given_every_socket(tmp_path: Path, count: int) -> None:
    sockets = {("127.0.0.1:0", seat): listening() for seat in range(count)}
    standing = Standing(tmp_path, sockets)
    try:
        [found], hung = find_workers(tmp_path)
        assert not hung
        assert (found.pid, found.number, found.incarnation, found.applied) == (os.getpid(), 3, 12345, 9)
        assert {door: sock.getsockname() for door, sock in found.sockets.items()} == {
            door: sock.getsockname() for door, sock in sockets.items()
        }
        found.leave()
    finally:
        standing.close()
        for sock in sockets.values():
            sock.close()


def test_a_directory_may_be_deeper_than_a_socket_path_is_long(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    standing = Standing(deep, {})
    found, _ = find_workers(deep)
    assert len(found) == 1
    found[0].leave()
    standing.close()
    assert not list((deep / FOLDER).iterdir()), "it leaves nothing behind"


def test_doorways_of_the_dead_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "4242.sock"))
    dead.close()
    (folder / "notes.txt").write_text("not ours")
    assert find_workers(tmp_path) == ([], [])
    assert [entry.name for entry in folder.iterdir()] == ["notes.txt"]


def test_one_that_does_not_answer_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fd_handover, "PATIENCE", 0.1)
    folder = tmp_path / FOLDER
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(folder / "4243.sock"))
        mute.listen()
        assert find_workers(tmp_path) == ([], [4243])


@pytest.mark.parametrize("answer", [b"", b"\x00\x00\x00\x05nonsense", b"\x00\x00\x00\x02{}"], ids=str)
def test_one_that_answers_nonsense_is_taken_for_hung(tmp_path: Path, answer: bytes) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as odd:
        odd.bind(str(folder / "4244.sock"))
        odd.listen()

        def reply() -> None:
            connection, _ = odd.accept()
            connection.sendall(answer)
            connection.close()

        thread = threading.Thread(target=reply)
        thread.start()
        assert find_workers(tmp_path) == ([], [4244])
        thread.join(5)


def test_only_the_same_user_is_let_in(tmp_path: Path) -> None:
    standing = Standing(tmp_path, {})
    handover_socket = tmp_path / FOLDER / f"{os.getpid()}.sock"
    assert handover_socket.stat().st_mode & 0o077 == 0
    assert handover_socket.parent.stat().st_mode & 0o077 == 0
    find_workers(tmp_path)[0][0].leave()
    standing.close()


def test_descriptors_do_not_leak(tmp_path: Path) -> None:
    """Counted in a process of its own, over a hundred visits."""
    code = f"""
import os, sys, threading
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from lb.process.fd_handover import find_workers
from tests.process.standing import Standing, listening
def count(): return len(os.listdir("/proc/self/fd"))
sockets = {{("a", seat): listening() for seat in range(5)}}
def once():
    standing = Standing(Path({str(tmp_path)!r}), sockets)
    find_workers(Path({str(tmp_path)!r}))[0][0].leave()
    standing.close()
once()
before = count()
for _ in range(100): once()
assert count() == before, (before, count())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
