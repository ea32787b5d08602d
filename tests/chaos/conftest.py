"""Chaos tests stand on the same stage as the end-to-end ones."""

from __future__ import annotations

from tests.support.stage import stage

__all__ = ["stage"]
