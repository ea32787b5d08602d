"""Routes beside each other: two that are the same, two that the order of the file decides, one that no request reaches.

Only routes of the same host are compared, and of these the ones that `core.routing` compares: with the same path, or
with a regular expression that begins with the same segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lb.config.check.lint_checks import Warned
from lb.config.model.config import Config
from lb.config.model.routes import Route
from lb.config.model.steps import Step
from lb.config.yaml.tree import Path
from lb.core.matching import Conditions
from lb.core.path_rewrite import BadRewrite, rewrite_of
from lb.core.paths import ODD
from lb.core.routing import AMBIGUOUS, UNREADABLE, Candidate, RouteTable, Spot
from lb.core.targets import (
    ALLOW,
    API_KEYS,
    BASIC_AUTH,
    CONCURRENCY,
    CORS,
    DENY,
    EXACT,
    FAULT,
    FORWARD_AUTH,
    HSTS,
    JWT,
    RATE_LIMIT,
    REGEX,
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    SECURITY_HEADERS,
    Match,
    Redirect,
    Snapshot,
)
from lb.http.changed_fields import FIXED_IN_ANSWERS, FIXED_IN_REQUESTS
from lb.http.h1.replies import BODYLESS

#: Steps that have a use on a route which sends no request on.
WITHOUT_TARGET = frozenset((ALLOW, API_KEYS, BASIC_AUTH, CONCURRENCY, CORS, DENY, FAULT, FORWARD_AUTH, JWT, RATE_LIMIT))
WITHOUT_TARGET |= {HSTS, RESPONSE_HEADERS, SECURITY_HEADERS}
#: Routes of one host and path that are compared with one another.
MOST = 200


def errors(config: Config, line: Callable[[Path], int]) -> Iterator[tuple[Path, str, str]]:
    """Faults of single routes, and routes that no request can tell apart."""
    seen: dict[object, int] = {}
    for index, route in enumerate(config.routes):
        at: Path = ("routes", index)
        if route.match is not None:
            paths = route.match.paths()
            if len(paths) > 1:
                yield (*at, "match", paths[1]), f"{' and '.join(paths)} are given; a route has one path", "Remove one."
            if route.match.host and route.host:
                yield (*at, "match", "host"), "host is given twice: here and beside `match`", "Remove one of them."
            if paths and "path" in route.model_fields_set:
                yield (*at, "match", paths[0]), "a path is given here and beside `match`", "Remove one of them."
        yield from _goal(at, route)
        yield from _steps(at, route)
        first = seen.setdefault(route.identity(), index)
        if first != index:
            place = line(("routes", first))
            where = f" (line {place})" if place else ""
            _, path = route.for_path()
            what = f"{route.for_host() or 'any host'}, path {path}"
            same = "host and path" if route.conditions() == Match() else "host, path and conditions"
            yield (
                at,
                f"routes[{first}]{where} has the same {same} ({what}), so this one is never reached",
                "Remove one of them.",
            )


def _goal(at: Path, route: Route) -> Iterator[tuple[Path, str, str]]:
    goals = [key for key in ("service", "split", "redirect", "answer") if getattr(route, key) is not None]
    if not goals:
        yield at, "the route goes nowhere", "Add `service: NAME`, `redirect: {to: URL}` or `answer: {status: 404}`."
    elif len(goals) > 1:
        yield (*at, goals[1]), f"{' and '.join(goals)} are given; a route has one of them", "Remove one."
    redirect, answer, split = route.redirect, route.answer, route.split
    if split is not None and not any(split.values()):
        yield (*at, "split"), "no service of the split has a weight above 0", "Write `{SERVICE: 90, OTHER: 10}`."
    if route.split_by is not None and split is None:
        yield (*at, "split_by"), "there is no `split` that it would be for", "Remove it."
    if route.fallback is not None and route.service is None and split is None:
        yield (*at, "fallback"), "a fallback is for a route with a service", "Remove it."
    elif route.fallback is not None and route.fallback in (route.service, *(split or ())):
        yield (*at, "fallback"), f"{route.fallback} gets the requests anyway", "Name another service, or remove it."
    if redirect is not None:
        path: Path = (*at, "redirect")
        if redirect.status not in (301, 302, 303, 307, 308):
            yield (
                (*path, "status"),
                f"{redirect.status} is no status of a redirect",
                "Allowed: 301, 302, 303, 307, 308.",
            )
        made = redirect.value()
        if made == Redirect(status=redirect.status):
            yield path, "the redirect leads to where the client is", "Add `to`, `scheme`, `port` or `replace_prefix`."
        if redirect.scheme and made.host:
            yield (*path, "scheme"), "`to` has a scheme already", "Remove one of them."
        if made.path and made.prefix:
            yield (*path, "replace_prefix"), "`to` has a path already", "Remove one of them."
    if answer is not None and answer.status in BODYLESS and answer.body:
        yield (*at, "answer", "body"), f"an answer with {answer.status} has no body", "Remove it."


def _steps(at: Path, route: Route) -> Iterator[tuple[Path, str, str]]:
    for number, step in enumerate(route.steps):
        path: Path = (*at, "steps", number)
        kinds = step.kinds()
        if len(kinds) != 1:
            what = f"{' and '.join(kinds)} are in one entry" if kinds else "the step has no key"
            yield path, f"{what}; each step is an entry of its own", "Write a list: one `- key: value` for each."
            continue
        kind = kinds[0]
        if not route.services() and kind not in WITHOUT_TARGET:
            what = "a redirect" if route.redirect is not None else "an answer"
            yield (*path, kind), f"{kind} changes nothing here: a route with {what} sends no request on", "Remove it."
        if step.fault is not None and not step.fault.delay and step.fault.abort is None:
            yield (*path, kind), "the fault does nothing", "Add `delay`, `abort`, or both."
        if step.rewrite is not None:
            try:
                rewrite_of(step.rewrite.pattern, step.rewrite.to)
            except BadRewrite as error:
                yield (*path, kind, error.key), str(error), "An example: {pattern: /users/([0-9]+), to: '/u/{1}'}."
        yield from _identity((*path, kind), step)
        if step.cors is not None and step.cors.credentials and "*" in step.cors.origins:
            yield (*path, kind, "credentials"), "credentials are for named origins", "Name them instead of `*`."
        changes = step.request_headers or step.response_headers
        if changes is None:
            continue
        fixed = FIXED_IN_REQUESTS if kind == REQUEST_HEADERS else FIXED_IN_ANSWERS
        if not (changes.set or changes.add or changes.remove):
            yield (*path, kind), f"{kind} changes nothing", "Add `set`, `add` or `remove`."
        for key, names in (("set", changes.set), ("add", changes.add), ("remove", changes.remove)):
            for place, name in enumerate(names):
                where: Path = (*path, kind, key, place if key == "remove" else name)
                if name.lower() in fixed:
                    yield where, f"{name} frames messages or is lb's own, and no route changes it", "Remove it."
                elif name.lower() == "host" and kind == REQUEST_HEADERS:
                    yield where, "Host is a step of its own", "Write `- host: NAME` as a step."


def _identity(at: Path, step: Step) -> Iterator[tuple[Path, str, str]]:
    """Fields that tell targets of clients, and what a step needs besides."""
    named: list[tuple[str, str]] = []
    if step.basic_auth is not None:
        named = [("user_header", step.basic_auth.user_header or "")]
    elif step.api_keys is not None:
        named = [("header", step.api_keys.header), ("name_header", step.api_keys.name_header or "")]
    elif step.forward_auth is not None:
        named = [("copy", name) for name in step.forward_auth.copy]
        if (step.forward_auth.url is None) == (step.forward_auth.service is None):
            yield at, "`url` or `service` says what is asked, one of them", "Write `url: http://HOST:PORT/PATH`."
    elif step.jwt is not None:
        named = [("header", step.jwt.header), *[("claims", name) for name in step.jwt.claims]]
        if (step.jwt.jwks is None) == (step.jwt.jwks_file is None):
            yield at, "`jwks` or `jwks_file` says where the keys are, one of them", "Write `jwks: https://…`."
    for key, name in named:
        if name.lower() in FIXED_IN_REQUESTS or name.lower() == "host":
            yield (*at, key), f"{name} frames messages or is lb's own, and no route changes it", "Take another name."


def warnings(config: Config, snapshot: Snapshot, line: Callable[[Path], int]) -> Iterator[Warned]:
    table = RouteTable.build(snapshot.routes)
    if not config.routes:
        return

    def named(index: int) -> str:
        where = line(("routes", index))
        return f"routes[{index}] ({snapshot.routes[index].title()}{f', line {where}' if where else ''})"

    for paths in table.hosts():
        for spot in paths.spots():
            yield from _beside_each_other(spot, named)
    yield from _never_asked(config, snapshot, named, table)


def _beside_each_other(spot: Spot, named: Callable[[int], str]) -> Iterator[Warned]:
    candidates = spot.candidates[:MOST]
    for place, later in enumerate(candidates):
        for first in candidates[:place]:
            if first.index == later.index:
                continue
            if _covers(first, later):
                yield (
                    "route-unreachable",
                    ("routes", later.index),
                    f"every request of this route takes {named(first.index)}, which comes first",
                    "Remove one of them, or give this one a condition more.",
                )
                break
            if first.rank == later.rank and not _apart(first, later):
                yield (
                    "route-order",
                    ("routes", later.index),
                    f"a request that fits this route and {named(first.index)} takes the one that is earlier in the "
                    f"file: neither is more specific",
                    "Give one of them a condition more, or leave it so if the order is meant.",
                )
                break


def _covers(first: Candidate, later: Candidate) -> bool:
    """Whether the first one matches whatever the later one does."""
    if first.pattern is not None:
        if later.pattern is not None:
            if first.path != later.path:
                return False
        elif not (
            first.pattern.matches(later.path.removesuffix(b"/") or b"/")
            and first.pattern.matches_all_below(later.path if later.path.endswith(b"/") else later.path + b"/")
        ):
            return False
    elif later.pattern is not None or first.path != later.path:
        return False
    if first.conditions is None:
        return True
    return later.conditions is not None and first.conditions.implied_by(later.conditions)


def _apart(first: Candidate, later: Candidate) -> bool:
    """Whether no request fits both. Of two different patterns that is not known, and they count as apart."""
    if first.path != later.path:
        return True
    one: Conditions | None = first.conditions
    return one is not None and later.conditions is not None and one.exclude(later.conditions)


def _never_asked(
    config: Config, snapshot: Snapshot, named: Callable[[int], str], table: RouteTable
) -> Iterator[Warned]:
    """Routes whose conditions no request can fulfil, by the rest of the file or by their own path."""
    spoken = {protocol for listener in config.listeners for protocol in listener.spoken()}
    secure = any(listener.tls is not None for listener in config.listeners)
    plain = any(listener.tls is None and not listener.redirect for listener in config.listeners)
    for index, route in enumerate(snapshot.routes):
        match, at = route.match, ("routes", index)
        why = ""
        if match.scheme == "https" and not secure and not config.trusted_proxies:
            why = "no listener has `tls`, and there are no `trusted_proxies`: no request has the scheme https"
        elif match.scheme == "http" and not plain and not config.trusted_proxies:
            why = "every listener has `tls` or redirects: no request has the scheme http"
        elif match.protocols and set(match.protocols) <= {"h2", "grpc"} and not spoken & {"h2", "h2c"}:
            why = "no listener speaks HTTP/2 to clients"
        elif route.kind != REGEX and ODD.search(route.path.encode()):
            path = route.path.encode() if route.kind == EXACT else route.path.encode().removesuffix(b"/") + b"/x"
            if table.match(route.host.lower().replace("*.", "x.").encode(), path) in (AMBIGUOUS, UNREADABLE):
                why = f"a target may read {route.path} as a path of another route, so its requests get 400"
        if why:
            yield "route-unreachable", at, why, "Remove the route, or change the condition."
