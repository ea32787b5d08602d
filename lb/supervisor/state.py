"""The configuration in force, and facts of this run beside it. The supervisor's parts share one `State`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lb.config.model.config import Config
from lb.config.resolve import World
from lb.core.renames import NONE, Renames
from lb.core.targets import Target


@dataclass(slots=True, kw_only=True)
class State:
    """`Installation` replaces what follows from the configuration, all of it in one turn of the event loop."""

    path: Path  # the configuration file
    text: str  # of the configuration in force; the file may have been edited since
    config: Config
    file_world: World  # the results of the file alone
    world: World  # `file_world` with the replaced targets that go on serving
    tls_paths: list[str]
    targets: Mapping[str, Target] = field(default_factory=dict)  # by target id
    renames: Renames = NONE  # from the configuration before this one
    addresses: dict[str, str] = field(default_factory=dict)  # a listener's bind → with the chosen port
    started_at: float = field(default_factory=time.time)  # Unix time
    draining: bool = False  # lb is stopping: /readyz says no
    blocked_by: str = ""  # why nothing may be changed now; empty: it may
