"""What `lb reload` says of a reload."""

from __future__ import annotations

from lb.cli.reload import told


def test_a_warning_is_said_whatever_changed() -> None:
    warning = "no line of the access log /x/log will be kept: there is no directory /x. Make it: mkdir -p /x"
    assert told({"changed": True, "lines": ["a"], "warnings": [warning]}) == ["Reloaded.", "  a", f"Warning: {warning}"]
    assert told({"changed": False, "lines": [], "warnings": [warning]})[1:] == [f"Warning: {warning}"]
    assert told({"changed": False, "lines": [], "warnings": []}) == ["Nothing to change."]
