"""Found endpoints as a part of a world, and files that name endpoints.

A file for discovery holds what `targets` of a pool holds. It is read as that part of a configuration, with the same
errors at their lines.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path as FilePath

from pydantic import ValidationError

from lb.config.check import consistency, messages
from lb.config.check.consistency import Finding, Known
from lb.config.check.messages import dotted
from lb.config.load import read_text
from lb.config.model.addresses import parse_target
from lb.config.model.config import Config, Target
from lb.config.resolve import Endpoint, World, endpoint
from lb.config.yaml.problems import ConfigError, Problem
from lb.config.yaml.source import read
from lb.config.yaml.tree import Node, Path
from lb.core.checks import CheckSpec
from lb.core.membership import Found
from lb.core.renames import Place
from lb.core.targets import TlsClient

#: Where the targets of a file stand in the configuration that they are checked as.
_AT: Path = ("services", "found", "pools", "found", "targets")
#: A file that is a list of plain addresses, one a line.
_PLAIN = re.compile(r"(?:- [0-9a-z][0-9a-z:/.-]*\n)+")


#: Endpoints that were made of a world before, by what they were made of.
Made = dict[tuple[Place, Found, int], Endpoint]


def with_found(world: World, place: Place, found: Iterable[tuple[Found, int]], made: Made | None = None) -> World:
    """The world in which a pool has these endpoints, with these weights, beside the ones of the file.

    An endpoint at an address that the file names is left out: the file's settings count. `made`: endpoints of the same
    world, so that one that is found again is not made again; new ones are added.
    """
    service, pool = place
    own = world.endpoints(service, pool)
    taken = {each.target.id for each in own}
    known = made if made is not None else {}
    more: list[Endpoint] = []
    alike: Alike = {}
    for each, weight in found:
        key = place, each, weight
        one = known.get(key)
        if one is None:
            one = known[key] = found_endpoint(world, place, each, weight, alike)
        if one.target.id not in taken:
            more.append(one)
    return world.with_endpoints(service, pool, (*own, *more))


@dataclass(frozen=True, slots=True)
class FoundChange:
    """Another answer of one source: what differs by it in a world where all else stays."""

    place: Place
    ids: tuple[str, ...]  # of all targets that the pool has then, in their order
    changed: tuple[Endpoint, ...]  # new, or with another weight
    removed: tuple[str, ...]  # ids

    def apply(self, world: World) -> World:
        """The world with this change."""
        return world.with_changed(*self.place, self.ids, self.changed, self.removed)


#: An endpoint without settings of its own, by whether it has TLS and HTTP/2: thousands share one value of their checks.
Alike = dict[tuple[bool, bool], Endpoint]


def found_endpoint(world: World, place: Place, found: Found, weight: int, alike: Alike) -> Endpoint:
    """One found endpoint of a pool; `alike` has examples of that pool, or gets one."""
    service, pool = place
    address = parse_target(found.url)
    example = None if found.settings else alike.get((address.tls, address.http2))
    if example is not None:  # thousands share one value of their checks
        id = f"{service}/{pool}/{address.text}"
        return replace(
            example, target=replace(example.target, id=id, host=address.host, port=address.port, weight=weight)
        )
    made = endpoint(world.config, service, pool, _target(found.url, found.settings))
    target, checks, known = replace(made.target, weight=weight), made.checks, world.found_tls
    if known:
        target = replace(target, tls=known.get(target.tls, target.tls) if target.tls is not None else None)
        liveness = checks.liveness and _with_digests(checks.liveness, known)
        checks = replace(checks, readiness=_with_digests(checks.readiness, known), liveness=liveness)
    one = Endpoint(target, checks)
    if not found.settings:
        alike[address.tls, address.http2] = one
    return one


def _with_digests(spec: CheckSpec, known: Mapping[TlsClient, TlsClient]) -> CheckSpec:
    return replace(spec, tls=known.get(spec.tls, spec.tls)) if spec.tls is not None else spec


@lru_cache(maxsize=32_768)
def _target(url: str, settings: str) -> Target:
    if not settings:
        return Target.model_construct(url=url)
    return Target.model_validate({"url": url, **json.loads(settings)})


# --- files -----------------------------------------------------------------------------------------------------------


def read_found(path: FilePath, part: str = "", environ: Mapping[str, str] = os.environ) -> tuple[Found, ...]:
    """The endpoints that a file names. Raises `ConfigError` with all that is wrong. Blocks."""
    return _parsed(read_text(path), path, part, environ)


class FoundFile:
    """Files that name endpoints, read again and again. In a long list of plain addresses only new lines are parsed.

    Such a line means the same wherever it stands: it has no reference, no variable and no comment.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[FilePath, str], dict[str, Found]] = {}  # file and part → line → endpoint

    def __call__(self, path: FilePath, part: str) -> tuple[Found, ...]:
        """As `read_found`."""
        text = read_text(path)
        key = path, part
        lines = text.splitlines() if _PLAIN.fullmatch(text) else []
        found = self._of_lines(lines, self._known.get(key, {}), path, part)
        if found is None:
            found = _parsed(text, path, part, os.environ)
        self._known[key] = dict(zip(lines, found, strict=False)) if len(lines) == len(found) else {}
        return found

    @staticmethod
    def _of_lines(lines: list[str], known: Mapping[str, Found], path: FilePath, part: str) -> tuple[Found, ...] | None:
        """The endpoints of plain lines; None: the file has to be parsed whole, for the errors' sake as well."""
        if not known or not lines:
            return None
        fresh = [line for line in lines if line not in known]
        try:
            new = _parsed("\n".join((*fresh, "")), path, part, os.environ) if fresh else ()
        except ConfigError:
            return None
        if len(new) != len(fresh):
            return None
        all_of_them = {**known, **dict(zip(fresh, new, strict=True))}
        found = tuple(map(all_of_them.__getitem__, lines))
        return found if len({each.address for each in found}) == len(found) else None


def _parsed(text: str, path: FilePath, part: str, environ: Mapping[str, str]) -> tuple[Found, ...]:
    name = str(path)
    if not text.strip():
        raise ConfigError([Problem(name, 0, 0, "the file is empty: it may be half written", hint=_EMPTY)])
    source = read(text, name, environ)
    prefix: Path = ()
    node: Node | None = source.root
    if source.root.entries is not None:
        prefix = ("targets",)
        unknown = [key for key in source.root.entries if key != "targets" and not key.startswith("x-")]
        if unknown:
            place = source.root.entries[unknown[0]].place
            raise ConfigError([source.problem(place, f"unknown key {unknown[0]!r}", "Allowed: targets.")])
        node = source.root.child("targets")
    if source.problems:
        raise ConfigError(source.problems)
    if node is None or node.items is None:
        hint = "It holds a list of targets, or a mapping with `targets`."
        raise ConfigError([source.problem(source.root.place, "the file has no list of targets", hint)])
    if not node.items:
        return ()
    data = {"services": {"found": {"pools": {"found": {"targets": node.data()}}}}}
    try:
        config = Config.model_validate(data, context={"base": str(path.resolve().parent)})
    except ValidationError as error:
        faults = []
        for each in error.errors(include_url=False):
            location = tuple(each["loc"])
            _, _, fault = messages.problem(source, {**each, "loc": (*prefix, *location[len(_AT) :])}, False)
            faults.append(fault)
        raise ConfigError(faults) from None
    targets = config.services["found"].pools["found"].targets
    faults = [
        source.problem(source.find((*prefix, *at[len(_AT) :])), message, hint)
        for at, message, hint in (*consistency.errors(config, Known()), *_commands(targets))
        if at[: len(_AT)] == _AT
    ]
    if faults:
        raise ConfigError(faults)
    return tuple(_found(target, part) for target in targets)


# --- values ----------------------------------------------------------------------------------------------------------


class Unfit(ValueError):  # noqa: N818 - it says what a value is
    """Values that are no targets; the text says the first faults."""


def found_of(targets: object) -> tuple[Found, ...]:
    """The endpoints of a list as `targets` of a pool has it, of any source. Raises `Unfit`. Blocks."""
    if targets == []:
        return ()
    data = {"services": {"found": {"pools": {"found": {"targets": targets}}}}}
    try:
        config = Config.model_validate(data, context={"base": ""})
    except ValidationError as error:
        faults = [(tuple(each["loc"]), each["msg"]) for each in error.errors(include_url=False)]
        raise Unfit(_first_faults(faults)) from None
    known = config.services["found"].pools["found"].targets
    found = [(at, message) for at, message, _ in (*consistency.errors(config, Known()), *_commands(known))]
    if faults := [(at, message) for at, message in found if at[: len(_AT)] == _AT]:
        raise Unfit(_first_faults(faults))
    return tuple(_found(target, "") for target in known)


def _first_faults(faults: Iterable[tuple[tuple[int | str, ...], str]]) -> str:
    texts = dict.fromkeys(f"{dotted(('targets', *at[len(_AT) :]))}: {message}" for at, message in faults)
    return "; ".join(list(texts)[:3])


def _commands(targets: Iterable[Target]) -> Iterator[Finding]:
    """Commands and hooks: what names a target must not have lb run a program."""
    for index, target in enumerate(targets):
        for key, check in (("readiness", target.readiness), ("liveness", target.liveness)):
            given = check.model_fields_set & {"command", "on_failure"} if check is not None else set()
            for each in sorted(given):
                hint = "Set it for the pool, in the configuration file."
                yield (*_AT, index, key, each), f"a found target may not set {each}", hint


_EMPTY = "A list without targets is `[]`."


def _found(target: Target, part: str) -> Found:
    more = target.model_dump(mode="json", exclude_unset=True, exclude={"url", "weight"})
    settings = json.dumps(more, sort_keys=True) if more else ""
    return Found(parse_target(target.url).text, target.url, target.weight, part=part, settings=settings)
