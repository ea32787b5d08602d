"""Roles: what a token of the admin port allows. Each stands alone, and none includes another one."""

from __future__ import annotations

from typing import Final

READ: Final = "read"
DRAIN: Final = "drain"
OPERATE: Final = "operate"
CONFIGURE: Final = "configure"

#: Role → what it allows.
ROLES: Final = {
    READ: "status, explanations, events, probes, metrics and previews",
    DRAIN: "drain and undrain targets, and `prestop`",
    OPERATE: "switches, rollbacks, weights, drains, maintenance of routes, and probes at once",
    CONFIGURE: "the text of the configuration, reloads and upgrades",
}
