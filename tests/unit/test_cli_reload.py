"""What `lb reload` says of a reload."""

from __future__ import annotations

from lb.cli.reload import told


def test_a_warning_is_said_whatever_changed() -> None:
    warning = "no line of the access log /x/log will be kept: there is no directory /x. Make it: mkdir -p /x"
    unchanged = {"changed": False, "lines": [], "forced": "", "warnings": []}
    changed = {"changed": True, "lines": ["a"], "forced": "", "warnings": [warning]}
    assert told(changed) == ["Reloaded.", "  a", f"Warning: {warning}"]
    assert told({**unchanged, "warnings": [warning]})[1:] == [f"Warning: {warning}"]
    assert told(unchanged) == ["Nothing to change."]


def test_what_was_forced_is_said() -> None:
    answer = {"changed": True, "lines": ["a"], "forced": "app has no target that can serve", "warnings": ["w"]}
    assert told(answer)[2:] == ["Forced: app has no target that can serve", "Warning: w"]
