"""Files are replaced whole, or stay as they were."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lb.net import atomic_file


def test_a_reader_finds_the_old_contents_or_the_new_ones(tmp_path: Path):
    path = tmp_path / "state.json"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        atomic_file.write(path, b"new", durable=True)
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]


def test_the_former_contents_are_kept_under_a_second_name(tmp_path: Path):
    path, kept = tmp_path / "state.json", tmp_path / "last.json"
    for data in (b"1", b"2", b"3"):
        atomic_file.write(path, data, keep=kept)
    assert (path.read_bytes(), kept.read_bytes()) == (b"3", b"2")


def test_nothing_changes_when_it_cannot_be_written(tmp_path: Path):
    path = tmp_path / "state.json"
    path.mkdir()  # a folder cannot be replaced by a file
    with pytest.raises(OSError, match="directory"):
        atomic_file.write(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]


def test_temporary_files_of_killed_processes_are_found(tmp_path: Path):
    for name in (".state.json.4711", ".state.json.tmp", "state.json", ".hidden"):
        (tmp_path / name).touch()
    assert [each.name for each in atomic_file.left_over(tmp_path)] == [".state.json.4711"]
