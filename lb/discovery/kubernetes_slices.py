"""EndpointSlices of one Service as endpoints. Pure.

The conditions of an endpoint mean what KEP-1672 says: no `ready` means yes, no `serving` means what `ready` is, no
`terminating` means no. So an endpoint

- that is ready and does not terminate is named;
- that terminates and still serves is named with the next priority: it gets requests only when no other one passes its
  checks, and ends those that it has;
- that does neither is not named. The guard of `core.membership` keeps those that pass, when too many go at one time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from lb.config.model.addresses import parse_target
from lb.config.model.units import Unreadable
from lb.core.membership import Answer, Found

#: Problems of one answer that are told.
MOST_PROBLEMS = 5
#: Priorities of endpoints that are ready, and of endpoints that terminate.
READY, TERMINATING = 0, 1


class Conditions(msgspec.Struct, frozen=True):
    """What Kubernetes knows of an endpoint. None: it does not say."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Reference(msgspec.Struct, frozen=True):
    """The object behind an endpoint, mostly a pod."""

    kind: str = ""
    name: str = ""


class SliceEndpoint(msgspec.Struct, frozen=True, rename="camel"):
    """One endpoint. Its addresses mean the same, so the first one is enough."""

    addresses: list[str] | None = None
    conditions: Conditions | None = None
    target_ref: Reference | None = None


class SlicePort(msgspec.Struct, frozen=True):
    """A port of all endpoints of a slice. No number: every port."""

    name: str | None = None
    port: int | None = None
    protocol: str | None = None


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """Of an object, or of a page of a list."""

    name: str = ""
    resource_version: str = ""
    next: str = msgspec.field(name="continue", default="")


class Slice(msgspec.Struct, frozen=True, rename="camel"):
    """An EndpointSlice, as far as it is used. A bookmark's lists are null."""

    metadata: Metadata = Metadata()
    address_type: str = ""
    endpoints: list[SliceEndpoint] | None = None
    ports: list[SlicePort] | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What one slice names. `ports`: the ports that it has, where the wanted one is not among them."""

    family: str
    found: tuple[Found, ...] = ()
    ports: tuple[str, ...] | None = None
    problems: tuple[str, ...] = ()


def priority(conditions: Conditions | None) -> int | None:
    """Of an endpoint with these conditions. None: it is not named."""
    given = conditions or Conditions()
    ready = given.ready is not False
    if given.terminating:
        return TERMINATING if (ready if given.serving is None else given.serving) else None
    return READY if ready else None


def port_of(ports: Iterable[SlicePort], wanted: str) -> int | None:
    """The number of the wanted port (a name, a number, or empty for the only one). None: it is not among these."""
    tcp = [each for each in ports if (each.protocol or "TCP") == "TCP"]
    if wanted.isdecimal():
        every = not tcp or any(each.port is None for each in tcp)
        return int(wanted) if every or any(each.port == int(wanted) for each in tcp) else None
    if wanted:
        return next((each.port for each in tcp if each.name == wanted), None)
    return tcp[0].port if len(tcp) == 1 else None


def part_of(given: Slice, wanted: str, scheme: str) -> Part:
    """The endpoints of one slice, at the wanted port."""
    named = [(each, level) for each in given.endpoints or () if (level := priority(each.conditions)) is not None]
    if not named:
        return Part(given.address_type)
    port = port_of(given.ports or (), wanted)
    if port is None:
        return Part(given.address_type, ports=tuple(_title(each) for each in given.ports or ()))
    found: list[Found] = []
    problems: list[str] = []
    for each, level in named:
        name = each.target_ref.name if each.target_ref is not None else ""
        address = each.addresses[0] if each.addresses else ""
        host = f"[{address}]" if ":" in address else address
        try:
            text = parse_target(f"{scheme}://{host}:{port}").text
        except Unreadable as error:
            problems.append(f"endpoint {name or address!r} is left out: {error}")
            continue
        name = f"{name} (terminating)".strip() if level == TERMINATING else name
        found.append(Found(text, f"{scheme}://{text}", priority=level, name=name))
    return Part(given.address_type, tuple(found), problems=tuple(problems))


def answer_of(parts: Mapping[str, Part], service: str, wanted: str) -> Answer:
    """What the slices of a Service say together. `parts`: by the slices' names.

    A Service with two address families names each pod twice. The IPv4 slices count where there are any.
    """
    families = {each.family for each in parts.values()}
    family = "IPv4" if "IPv4" in families else "IPv6"
    problems: list[str] = []
    if not parts:
        problems.append(f"there is no EndpointSlice of a Service {service}")
    elif not families & {"IPv4", "IPv6"}:
        problems.append(f"its addresses are {', '.join(sorted(families)) or 'of no type'}: IPv4 and IPv6 are used")
    used = [parts[name] for name in sorted(parts) if parts[name].family == family]
    without = [each.ports for each in used if each.ports is not None]
    if without:
        problems.append(_no_port(wanted, sorted({port for ports in without for port in ports})))
    problems += [problem for each in used for problem in each.problems]
    best: dict[str, Found] = {}
    for found in (found for each in used for found in each.found):
        known = best.get(found.address)  # an endpoint that moves may be in two slices for a moment
        if known is None or found.priority < known.priority:
            best[found.address] = found
    return Answer(tuple(best[address] for address in sorted(best)), problems=tuple(problems[:MOST_PROBLEMS]))


def _no_port(wanted: str, ports: list[str]) -> str:
    known = f"they have {', '.join(ports)}" if ports else "they have none"
    if wanted:
        return f"endpoints without a port {wanted} are left out: {known} (ports of pods, not of the Service)"
    return f"endpoints without one port alone are left out: {known}; `port` chooses"


def _title(port: SlicePort) -> str:
    return " ".join(filter(None, (port.name, f"({port.port})" if port.name and port.port else str(port.port or ""))))
