"""What a service may have: a run has some of the features, each is drawn at its begin, and drawn again by reloads."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from tests.model.plan import ServicePlan

Settings = dict[str, Any]
Draw = Callable[[random.Random, ServicePlan], Any]

#: Header by which clients stay on a version, and by which balancers hash.
CLIENT = "X-Client"


def _pool(rng: random.Random, service: ServicePlan) -> str:
    """A pool; most of the time one beside the active one, where features of two pools have an effect."""
    others = [pool for pool in service.pools if pool != service.active]
    return rng.choice(others if others and rng.random() < 0.75 else list(service.pools))


def _previews(rng: random.Random, service: ServicePlan) -> list[Settings]:
    kinds: list[Settings] = [
        {"header": "X-Version", "value": "next"},
        {"header": "X-Any"},
        {"cookie": "version", "value": "next"},
        {"cookie": "any"},
        {"host": "next.model.test"},
    ]
    return [{"pool": _pool(rng, service), **kind} for kind in rng.sample(kinds, rng.choice((1, 1, 2)))]


def _mirror(rng: random.Random, service: ServicePlan) -> Settings:
    return {"pool": _pool(rng, service), "percent": rng.choice(("100%", "50%"))}


def _breaker(rng: random.Random, service: ServicePlan) -> Settings:
    kinds: list[Settings] = [
        {"connections": 2, "pending": 3},
        {"connections": 1, "pending": 8},
        {"requests": rng.choice((2, 3, 6))},
        {"adaptive": True},
        {"connections": 3, "pending": 0},
        {"connections": 2, "pending": 20},
        {"connections": 1, "pending": 300},
        {"connections": 1, "pending": 300},
    ]
    return rng.choice(kinds)


def _rollout(rng: random.Random, service: ServicePlan) -> Settings:
    return {
        "steps": rng.choice(([100], [50, 100], [10, 50, 100])),
        "step_time": "2s",
        "bake": rng.choice(("0s", "3s")),
        "min_ready": rng.choice(("100%", 1, "50%")),
        "analysis": {"min_requests": rng.choice((1, 20))},
        "after_restart": rng.choice(("resume", "rollback")),
    }


def _panic(rng: random.Random, service: ServicePlan) -> str:
    return rng.choice(("fail", "spread"))


#: Feature → (how often of 100, its settings), in runs that have it.
FEATURES: dict[str, tuple[int, Draw]] = {
    "balance": (
        60,
        lambda rng, service: rng.choice(
            (
                "least_request",
                "random_two",
                "peak_ewma",
                {"policy": "ring", "key": f"header:{CLIENT}"},
                {"policy": "maglev", "key": f"header:{CLIENT}"},
            )
        ),
    ),
    "sticky": (
        70,
        lambda rng, service: {"by": rng.choice(("client", f"header:{CLIENT}")), "asset_fallback": rng.random() < 0.6},
    ),
    "previews": (80, _previews),
    "mirror": (80, _mirror),
    "fallback": (70, _pool),
    "panic": (60, _panic),
    "panic_threshold": (60, lambda rng, service: rng.choice(("40%", "60%"))),
    "breaker": (80, _breaker),
    "retries": (70, lambda rng, service: rng.choice(({"attempts": 0}, {"statuses": [502, 503]}, {"budget": "100%"}))),
    "slow_start": (80, lambda rng, service: {"window": rng.choice(("8s", "20s", "40s"))}),
    "outlier": (
        80,
        lambda rng, service: rng.choice(
            (
                {"enabled": False},
                {"consecutive_failures": 3, "base_ejection": "4s", "max_ejected": "100%", "connect_ejection": "2s"},
            )
        ),
    ),
    "rollout": (80, _rollout),
}


#: Of 100 runs so many have a feature at all: few features in each run, so that those it has meet each other early
#: (Groce et al., Swarm Testing, 2012).
IN_A_RUN = 45


def swarm(rng: random.Random) -> list[str]:
    """The features of a run."""
    return [name for name, (often, _) in FEATURES.items() if often and rng.random() * 100 < IN_A_RUN]


def draw(rng: random.Random, service: ServicePlan, name: str) -> str:
    """Draw one feature anew; it may go as well."""
    often, make = FEATURES[name]
    if rng.random() * 100 < often:
        service.settings[name] = make(rng, service)
    else:
        service.settings.pop(name, None)
    sane(service)
    return f"{name}: {service.settings.get(name)}"


def draw_all(rng: random.Random, service: ServicePlan, names: Iterable[str] = tuple(FEATURES)) -> None:
    for name in names:
        draw(rng, service, name)


def sane(service: ServicePlan) -> None:
    """What the file's own rules ask for: pools that are named exist, and a panic of fallback has one."""
    settings = service.settings
    if service.active not in service.pools:
        service.active = next(iter(service.pools))
    if settings.get("fallback", service.active) not in service.pools:
        del settings["fallback"]
    if "fallback" in settings:
        settings.pop("panic", None)
    if "mirror" in settings and settings["mirror"]["pool"] not in service.pools:
        del settings["mirror"]
    if "previews" in settings:
        settings["previews"] = [each for each in settings["previews"] if each["pool"] in service.pools]
        if not settings["previews"]:
            del settings["previews"]
