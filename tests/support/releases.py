"""Two pools under an lb, and orders to switch between them."""

from __future__ import annotations

import json

from tests.support.eventually import eventually
from tests.support.stage import Backend, Lb, Stage, ask


def order(lb: Lb, action: str, body: dict | None = None, headers: dict | None = None):
    data = json.dumps(body or {}).encode()
    return ask(
        f"{lb.admin}/api/v1/services/greeting/{action}",
        "POST",
        data,
        {"Content-Type": "application/json", **(headers or {})},
    )


def service(lb: Lb) -> dict:
    return ask(f"{lb.admin}/api/v1/services/greeting").json


def events(lb: Lb, kind: str = "") -> list[dict]:
    found = ask(f"{lb.admin}/api/v1/events").json
    found = found["events"] if isinstance(found, dict) else found
    return [event for event in found if kind in ("", event["kind"])]


def ready(lb: Lb, count: int) -> None:
    def all_ready() -> bool:
        states = [t["state"] for p in service(lb)["pools"] for t in p["targets"]]
        return states.count("ready") == count

    eventually(all_ready, what=f"{count} targets are ready")


def two_pools(
    stage: Stage, rollout: str = "", more: str = "", count: int = 2
) -> tuple[Lb, list[Backend], list[Backend]]:
    blue, green = stage.pool("blue", count), stage.pool("green", count)
    text = f"rollout: {{{rollout}}}\n{more}" if rollout else more
    lb = stage.start(stage.config({"blue": blue, "green": green}, service=text))
    ready(lb, 2 * count)
    return lb, blue, green
