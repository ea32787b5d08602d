"""The file that `lb` reads, as data that steps can change: services, pools, targets, settings."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class TargetPlan:
    """A target; `host` is an address, or a name that the model's resolver knows."""

    host: str
    port: int
    weight: int = 1
    scheme: str = ""  # empty: its service's
    found: bool = False  # a source names it, and the file does not

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass
class SourcePlan:
    """The source of a pool's found targets, as the file describes it."""

    path: str
    guard: str = "50%"  # `removal_guard`

    @property
    def share(self) -> float:
        """The share of its targets that may vanish at one time."""
        return float(self.guard.rstrip("%")) / 100


@dataclass
class ServicePlan:
    """A service of the file."""

    name: str
    route: str
    pools: dict[str, list[TargetPlan]]
    active: str
    settings: dict[str, Any] = field(default_factory=dict)
    check: dict[str, Any] = field(default_factory=dict)
    scheme: str = "http"
    max_body: int = 0  # bytes that its route lets a body have; 0: any number
    sources: dict[str, SourcePlan] = field(default_factory=dict)  # by pool

    def pool_of(self, address: str) -> str:
        for name, targets in self.pools.items():
            if any(target.address == address for target in targets):
                return name
        return ""

    def target(self, address: str) -> TargetPlan | None:
        for targets in self.pools.values():
            for target in targets:
                if target.address == address:
                    return target
        return None

    def spelled_pool(self, name: str) -> Any:
        """A pool as the file has it."""
        targets = [
            {"url": self.url(target), "weight": target.weight} for target in self.pools[name] if not target.found
        ]
        source = self.sources.get(name)
        if source is None:
            return targets
        fixed = {"targets": targets} if targets else {}
        return {**fixed, "discover": {"file": source.path}, "removal_guard": source.guard}

    def url(self, target: TargetPlan) -> str:
        """A target as the file, or a source, spells it."""
        return f"{target.scheme or self.scheme}://{target.address}"

    @property
    def interval(self) -> float:
        return _seconds(self.check["interval"])

    @property
    def timeout(self) -> float:
        return _seconds(self.check["timeout"])

    @property
    def detection(self) -> float:
        """Seconds within which the checks have decided anew, whatever they decide."""
        rounds: int = max(self.check["fall"], self.check["rise"]) + 1
        return rounds * (self.interval + self.timeout)

    def setting(self, *path: str, default: Any = None) -> Any:
        value: Any = self.settings
        for key in path:
            if not isinstance(value, dict) or key not in value:
                return default
            value = value[key]
        return value

    def seconds(self, *path: str, default: float = 0.0) -> float:
        value = self.setting(*path)
        return _seconds(value) if value is not None else default


@dataclass
class Plan:
    """The whole file."""

    bind: str
    state_dir: str
    admin: str
    services: dict[str, ServicePlan]
    extra: dict[str, Any] = field(default_factory=dict)
    listener: dict[str, Any] = field(default_factory=dict)  # more of the first listener

    def copy(self) -> Plan:
        return copy.deepcopy(self)

    def text(self) -> str:
        """The file's text; JSON is YAML."""
        services = {
            service.name: {
                "pools": {name: service.spelled_pool(name) for name in service.pools},
                "active": service.active,
                "readiness": service.check,
                **service.settings,
            }
            for service in self.services.values()
        }
        routes = [
            {"path": service.route, "service": service.name, "max_body": service.max_body}
            for service in self.services.values()
        ]
        content = {
            "listeners": [{"bind": self.bind, **self.listener}],
            "admin": {"bind": self.admin},
            "access_log": "off",
            "log": {"level": "error"},
            "state_dir": self.state_dir,
            "drain": "6s",
            "services": services,
            "routes": routes,
            **self.extra,
        }
        return json.dumps(content, indent=1)


def address_of(id: str) -> str:
    """The address in a target's id."""
    return id.rpartition("/")[2]


def _seconds(text: str) -> float:
    if text.endswith("ms"):
        return float(text[:-2]) / 1000
    return float(text.removesuffix("s"))
