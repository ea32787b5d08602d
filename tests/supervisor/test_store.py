"""Desired state on disk: kill -9 at any moment, damage, a full disk, a second lb."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lb.core.desired import Desired, LastRollout, ServiceDesired, TargetDesired
from lb.supervisor.desired import CannotSave
from lb.supervisor.store import DAMAGED, FILE, LAST_GOOD, FileStore, StateTaken

ONE = Desired(1, {"greeting": ServiceDesired("blue", "blue")}, {"greeting/blue/a:1": TargetDesired(draining=True)})
TWO = Desired(2, {"greeting": ServiceDesired("green", "blue", previous="blue", shares=(("blue", 95), ("green", 5)))})


@contextmanager
def file_size(limit: int) -> Iterator[None]:
    """No file of this process may grow beyond `limit` bytes: what a full disk feels like, without being root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    assert store.load() == (None, "")
    last = LastRollout("blue", "green", "rolled_back", "green fails 3 of 9 requests", 5.0)
    for state in (ONE, TWO, Desired(3, {"greeting": ServiceDesired("blue", "blue", last=last)})):
        store.save(state)
        assert FileStore(tmp_path).load() == (state, "")


names = st.text(max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.builds(
        Desired,
        st.integers(0, 2**40),
        st.dictionaries(
            names,
            st.builds(
                ServiceDesired,
                names,
                names,
                previous=names,
                shares=st.lists(st.tuples(names, st.integers(0, 100)), max_size=3).map(tuple),
                since=st.floats(0, 1e10),
                rollout=st.none() | st.dictionaries(names, st.integers() | names | st.none(), max_size=3),
            ),
            max_size=3,
        ),
        st.dictionaries(
            names,
            st.builds(TargetDesired, st.booleans(), st.none() | st.integers(0, 9), st.none() | st.integers(0, 9)),
            max_size=3,
        ),
    )
)
def test_any_state_survives(tmp_path: Path, state: Desired) -> None:
    store = FileStore(tmp_path)
    store.save(state)
    assert store.load() == (state, "")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"green", b"greet"),
        lambda data: b"\x00" * len(data),
        lambda data: b"[]",
        lambda data: b'{"checksum": 1, "body": 2}',
    ],
    ids=["empty", "torn", "changed", "zeros", "a list", "wrong types"],
)
def test_a_damaged_file_is_noticed_and_the_last_good_one_is_used(tmp_path: Path, damage: object) -> None:
    store = FileStore(tmp_path)
    store.save(ONE)
    store.save(TWO)
    path = tmp_path / FILE
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    state, complaint = FileStore(tmp_path).load()
    assert state == ONE
    assert str(path) in complaint
    assert "the state before it" in complaint
    assert (tmp_path / DAMAGED).exists(), "kept to be looked at"
    store.save(ONE)
    assert FileStore(tmp_path).load() == (ONE, "")
    path.write_bytes(b"nonsense")
    (tmp_path / LAST_GOOD).write_bytes(b"nonsense")
    state, complaint = FileStore(tmp_path).load()
    assert state is None
    assert str(path) in complaint, "both are damaged: lb starts as the file says, and says so"


def test_a_future_format_is_not_guessed_at(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save(ONE)
    text = (tmp_path / FILE).read_text()
    assert '\\"format\\":1' in text
    changed = text.replace('\\"format\\":1', '\\"format\\":9')
    (tmp_path / FILE).write_text(changed)
    assert FileStore(tmp_path).load()[0] is None


def test_kill_9_at_any_moment_leaves_one_of_two_legal_states(tmp_path: Path) -> None:
    """The process writes 1, 2, 1, 2 … as fast as it can and is killed: one of the two is there, whole."""
    code = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from lb.core.desired import Desired, ServiceDesired
        from lb.supervisor.store import FileStore
        store = FileStore(Path({str(tmp_path)!r}))
        states = [Desired(n, {{"s": ServiceDesired("x" * n * 1000, "x")}}) for n in (1, 2)]
        print("go", flush=True)
        while True:
            for state in states:
                store.save(state)
        """
    )
    for number in range(12):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.003 * number)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        state, _ = FileStore(tmp_path).load()
        if state is not None:
            assert state.version in (1, 2)
            assert len(state.services["s"].active) == state.version * 1000


def test_a_full_disk_is_said_and_costs_nothing_that_is_there(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save(ONE)
    with file_size(10), pytest.raises(CannotSave) as refused:
        store.save(TWO)
    assert str(tmp_path / FILE) in str(refused.value)
    assert os.strerror(errno.EFBIG) in str(refused.value)
    assert FileStore(tmp_path).load() == (ONE, "")
    assert not [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")], "nothing is left behind"
    store.save(TWO)
    assert store.load() == (TWO, "")


def test_no_space_left_on_the_device(tmp_path: Path) -> None:
    """The kernel's own ENOSPC: what is written goes to /dev/full."""
    store = FileStore(tmp_path)
    store.save(ONE)
    (tmp_path / f".{FILE}.{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(CannotSave, match=os.strerror(errno.ENOSPC)):
        store.save(TWO)
    assert FileStore(tmp_path).load() == (ONE, "")
    store.save(TWO)
    assert FileStore(tmp_path).load() == (TWO, "")


def test_an_unreadable_file_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    state, complaint = FileStore(tmp_path).load()
    assert state is None
    assert FILE in complaint


def test_two_lbs_do_not_share_a_directory(tmp_path: Path) -> None:
    first, second = FileStore(tmp_path), FileStore(tmp_path)
    first.lock()
    with pytest.raises(StateTaken, match=f"process {os.getpid()}"):
        second.lock()
    first.unlock()
    second.lock()
    second.unlock()


def test_what_the_killed_left_half_written_is_removed(tmp_path: Path) -> None:
    FileStore(tmp_path).save(ONE)
    for name in (f".{FILE}.12345", ".verdicts.json.7", ".hidden"):
        (tmp_path / name).write_text("half")
    store = FileStore(tmp_path)
    store.lock()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".hidden", FILE, "lock"]
    assert store.load() == (ONE, "")
    store.unlock()


def test_a_lock_is_held_until_its_last_copy_is_closed(tmp_path: Path) -> None:
    """What an upgrade rests on: the predecessor ends, and the directory stays taken."""
    first, heir, third = FileStore(tmp_path), FileStore(tmp_path), FileStore(tmp_path)
    first.lock()
    heir.take_lock(os.dup(first.lock_fd))
    first.unlock()
    with pytest.raises(StateTaken):
        third.lock()
    heir.unlock()
    third.lock()
    third.unlock()
