"""Instances of a Consul service as endpoints. Pure.

An instance and its node have checks; the worst one counts, as in Consul's own DNS. So an instance

- whose checks pass is named, and so is one with a warning, unless the settings say otherwise;
- with a critical check is not named. The guard of `core.membership` keeps those that pass, when too many go at once;
- in maintenance, which Consul shows as a critical check, is named with the next priority: it was told to stop and still
  serves. It ends its requests, and gets new ones only when no other instance passes its checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import msgspec

from lb.config.model.addresses import parse_target
from lb.config.model.units import Unreadable
from lb.core.membership import Answer, Found
from lb.discovery.labels import MOST_WEIGHT, check, number
from lb.discovery.weights import scaled

#: Problems of one answer that are told.
MOST_PROBLEMS = 5
#: Priorities of instances that serve, and of instances in maintenance.
SERVING, MAINTENANCE = 0, 1
#: Check ids of maintenance, of an instance and of a node; the first one is followed by the instance's id.
OF_INSTANCE, OF_NODE = "_service_maintenance:", "_node_maintenance"
#: Keys of an instance's meta. Consul allows no dot in them.
WEIGHT, CHECK = "lb_weight", "lb_check"

Scheme = Literal["http", "https", "h2c", "h2"]


class Node(msgspec.Struct, frozen=True, rename="pascal"):
    """Where an instance runs."""

    node: str = ""
    address: str = ""


class Weights(msgspec.Struct, frozen=True, rename="pascal"):
    """Shares of requests, from 0 to 65535."""

    passing: int = 1
    warning: int = 1


class Instance(msgspec.Struct, frozen=True, rename="pascal"):
    """An instance as it was registered. No address: its node's."""

    id: str = msgspec.field(name="ID", default="")
    address: str = ""
    port: int = 0
    meta: dict[str, str] | None = None
    weights: Weights | None = None


class Check(msgspec.Struct, frozen=True, rename="pascal"):
    """The state of one check, of the instance or of its node."""

    check_id: str = msgspec.field(name="CheckID", default="")
    status: str = ""


class Entry(msgspec.Struct, frozen=True, rename="pascal"):
    """An instance with its node and all checks that concern it."""

    node: Node = Node()
    service: Instance = Instance()
    checks: list[Check] | None = None


def read_entries(raw: bytes | bytearray) -> list[Entry]:
    """The body of an answer. Raises `ValueError`."""
    try:
        return _ENTRIES.decode(raw) or []
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"its list of instances cannot be read: {error}") from None


def priority(checks: Iterable[Check], warning: bool) -> int | None:
    """Of an instance with these checks; None: it is not named. `warning`: whether those with a warning are."""
    given = list(checks)
    usual = [each for each in given if not _is_maintenance(each)]
    good = ("passing", "warning") if warning else ("passing",)
    if any(each.status not in good for each in usual):
        return None
    return MAINTENANCE if any(each.status == "critical" for each in given) else SERVING


def answer_of(entries: Iterable[Entry], scheme: Scheme, warning: bool) -> Answer:
    """What the instances of a service say together. An address that two of them have is one endpoint."""
    named: list[Found] = []
    problems: list[str] = []
    for each in sorted(entries, key=lambda each: (each.service.id, each.node.node)):
        level = priority(each.checks or (), warning)
        if level is None:
            continue
        try:
            named.append(_endpoint(each, scheme, level))
        except (Unreadable, ValueError) as error:
            problems.append(f"instance {_title(each)} is left out: {error}")
    weights = scaled([each.weight for each in named])
    best: dict[str, Found] = {}
    for found, weight in zip(named, weights, strict=True):
        known = best.get(found.address)
        if known is None or found.priority < known.priority:
            best[found.address] = replace(found, weight=weight if found.weight else 0)
    return Answer(tuple(best[address] for address in sorted(best)), problems=tuple(problems[:MOST_PROBLEMS]))


def _endpoint(entry: Entry, scheme: Scheme, level: int) -> Found:
    service = entry.service
    address = service.address or entry.node.address
    if not service.port:
        raise ValueError("it was registered without a port")
    host = f"[{address}]" if ":" in address else address
    text = parse_target(f"{scheme}://{host}:{service.port}").text
    meta = service.meta or {}
    weight = number(meta, WEIGHT, 0, MOST_WEIGHT)
    settings = check(meta, CHECK)
    name = _title(entry) if level == SERVING else f"{_title(entry)} (maintenance)"
    weight = _registered_weight(entry) if weight is None else weight
    return Found(text, f"{scheme}://{text}", weight, level, name=name, settings=settings)


def _registered_weight(entry: Entry) -> int:
    weights = entry.service.weights or Weights()
    warned = any(each.status == "warning" for each in entry.checks or ())
    return max(0, weights.warning if warned else weights.passing)


def _is_maintenance(check: Check) -> bool:
    return check.check_id == OF_NODE or check.check_id.startswith(OF_INSTANCE)


def _title(entry: Entry) -> str:
    """Ids of instances are unique on their node alone."""
    return " on ".join(filter(None, (entry.service.id, entry.node.node))) or "without a name"


_ENTRIES = msgspec.json.Decoder(list[Entry] | None)
