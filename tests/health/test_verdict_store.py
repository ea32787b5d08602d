"""Verdicts on disk: written whole, read back, and worth nothing when damaged."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from lb.core.checks import CheckSpec, Expect
from lb.core.restore import Kept
from lb.core.targets import TlsClient
from lb.health.verdict_store import FILE, VerdictStore

FORMER = CheckSpec(protocol="http", headers=(("authorization", "secret"),), expect=Expect(body="ok"), tls=TlsClient())
KEPT = [
    Kept("app/blue/b1:1", "0123", True, True, 1.5e9, "HTTP 200"),
    Kept("app/blue/ü:2", "4567", False, False, 0.0, ""),
    Kept("app/blue/b3:1", "89ab", True, True, 1.5e9, "HTTP 200", former=FORMER),
]


def test_what_is_written_is_read(tmp_path: Path):
    store = VerdictStore(tmp_path)
    assert store.read() == []
    assert store.write(KEPT)
    assert VerdictStore(tmp_path).read() == KEPT
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0, "a check's headers may carry a secret"


def test_damage_and_a_full_disk_cost_the_verdicts_only(tmp_path: Path):
    store = VerdictStore(tmp_path)
    store.write(KEPT)
    data = (tmp_path / FILE).read_bytes()
    for damaged in (b"", data[:-5], b"[]x", b'[{"target": 1}]', b"\0" * 50):
        (tmp_path / FILE).write_bytes(damaged)
        assert store.read() == []
    assert not VerdictStore(tmp_path / "gone").write(KEPT)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / FILE).symlink_to("/dev/full")
    temporary = tmp_path / "full"
    assert VerdictStore(temporary).write(KEPT)  # a rename replaces whatever stands there


def test_a_file_that_is_up_to_date_stays(tmp_path: Path):
    store, path = VerdictStore(tmp_path), tmp_path / FILE
    assert store.write(KEPT)
    before = path.stat()
    assert store.write(list(KEPT))
    assert path.stat() == before
    changed = [KEPT[0], replace(KEPT[1], ready=True), KEPT[2]]
    for kept in (changed, changed[1:], KEPT):
        assert store.write(kept)
        assert VerdictStore(tmp_path).read() == kept


def test_a_file_that_another_lb_has_written_or_that_is_gone_is_replaced(tmp_path: Path):
    store, path = VerdictStore(tmp_path), tmp_path / FILE
    assert store.write(KEPT)
    assert VerdictStore(tmp_path).write(KEPT[1:])
    assert store.write(KEPT)
    assert store.read() == KEPT
    path.unlink()
    assert store.write(KEPT)
    assert store.read() == KEPT
