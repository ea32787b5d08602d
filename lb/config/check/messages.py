"""Errors of pydantic, in words that give the fault, the allowed values and the probable meaning."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from lb.config.model import structure
from lb.config.model.coerce import Scalar
from lb.config.model.config import Config, Service, origin
from lb.config.model.described import descriptions
from lb.config.model.section import Section
from lb.config.yaml.problems import Problem
from lb.config.yaml.tree import Node, Path, Source

#: Names of the same thing elsewhere.
_ELSEWHERE = {
    "servers": "targets", "endpoints": "targets", "hosts": "targets", "upstream": "targets", "members": "targets",
    "server": "targets", "upstreams": "services", "clusters": "services", "backend": "backends", "service": "services",
    "health_check": "readiness", "healthcheck": "readiness", "healthchecks": "readiness", "health": "readiness",
    "check": "readiness", "readinessProbe": "readiness", "livenessProbe": "liveness", "probe": "readiness",
    "frontends": "listeners", "entrypoints": "listeners", "listen": "listeners", "port": "bind", "address": "bind",
    "lb_policy": "balance", "algorithm": "balance", "strategy": "balance", "periodSeconds": "interval",
    "timeoutSeconds": "timeout", "failureThreshold": "fall", "successThreshold": "rise", "fails": "fall",
    "unhealthy_threshold": "fall", "healthy_threshold": "rise", "initialDelaySeconds": "grace", "inter": "interval",
    "period": "interval", "uri": "path", "expected_status": "expect", "status": "expect", "max_fails": "fall",
    "retry": "retries", "timeout": "timeouts", "circuit_breaker": "breaker", "outlier_detection": "outlier",
    "slowstart": "slow_start", "paths": "path", "prefix": "path", "hostname": "host", "domain": "host",
    "logging": "log", "accesslog": "access_log", "token": "token_file", "cert": "cert_file", "key": "key_file",
    "certificate": "cert_file", "state": "state_dir", "default": "active", "primary": "active",
}  # fmt: skip

#: Balancing policies and other choices, by what they are called elsewhere.
_CHOICES_ELSEWHERE = {
    "ip_hash": "ring", "iphash": "ring", "ring_hash": "ring", "source": "ring", "hash": "ring", "sticky": "ring",
    "consistent_hash": "ring", "uri": "ring", "least_conn": "least_request", "leastconn": "least_request",
    "least_connections": "least_request", "least_requests": "least_request", "lc": "least_request",
    "roundrobin": "round_robin", "rr": "round_robin", "wrr": "round_robin", "weighted_round_robin": "round_robin",
    "static-rr": "round_robin", "random": "random_two", "p2c": "random_two", "power_of_two": "random_two",
    "random_choose": "random_two", "ewma": "peak_ewma", "least_time": "peak_ewma",
}  # fmt: skip


def _step(example: str) -> str:
    return f"A step of a route does it: `steps: [{{{example}}}]`."


#: Features of other proxies that have another place or name here, or none, by the key that asks for them.
_REWRITES = "A route's `steps` change paths: `- strip_prefix: /v1`, `- replace_prefix: {prefix: /v1, to: /}`."
_CHANGES = "A route's `steps` change fields: `- request_headers: {set: {X-A: b}}`, `- response_headers: {…}`."
_RATES = "A route's `steps` limit requests: `- rate_limit: {rate: 10/s}`."
_STEPS = "What a route does with requests stands in its `steps`: `steps: [{strip_prefix: /v1}, {compress: {}}]`."
_CACHES = "lb does not cache: a CDN or a web server does, in front or behind."
_NOT_HERE = {
    **dict.fromkeys(("strip_prefix", "stripprefix", "rewrite", "rewrites", "replace_path", "path_rewrite"), _REWRITES),
    **dict.fromkeys(("prefix_rewrite", "regex_rewrite", "uri_strip_prefix", "add_prefix"), _REWRITES),
    **dict.fromkeys(("add_header", "add_headers", "set_header", "request_headers", "response_headers"), _CHANGES),
    **dict.fromkeys(("proxy_set_header", "header_up", "header_down", "remove_header", "headers"), _CHANGES),
    **dict.fromkeys(("middlewares", "middleware", "plugins", "filters", "http_filters", "modules"), _STEPS),
    "redirects": "`redirect: {to: URL}` of a route is one.",
    **dict.fromkeys(("rate_limit", "ratelimit", "limit_req", "throttle"), _RATES),
    **dict.fromkeys(("auth", "basic_auth", "basicauth", "auth_basic"), _step("basic_auth: {users_file: FILE}")),
    **dict.fromkeys(("forward_auth", "forwardauth", "auth_request"), _step("forward_auth: {url: URL}")),
    **dict.fromkeys(("compress", "compression", "gzip", "encode"), _step("compress: {}")),
    **dict.fromkeys(("cache", "proxy_cache", "caching"), _CACHES),
    "jwt": _step("jwt: {…}"),
    "cors": _step("cors: {…}"),
    **dict.fromkeys(("letsencrypt", "cert_resolver"), "Certificates of a listener are below its `tls: certificates:`."),
}  # fmt: skip


def dotted(path: Path) -> str:
    """services.greeting.pools.blue.targets[0]"""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def label(path: Path) -> str:
    """The last of it, as a reader of the line knows it."""
    if not path:
        return "the file"
    if isinstance(path[-1], int):
        return dotted(path[-2:]) if len(path) > 1 else dotted(path)
    return str(path[-1])


def did_you_mean(word: str, known: Any) -> str:
    near = nearest(word, known)
    return f"Did you mean {near}?" if near else ""


def nearest(word: str, known: Any, alike: float = 0.6) -> str:
    """The spelling nearest to `word`, or an empty text if none is at least so alike (difflib's ratio, 0 to 1)."""
    return next(iter(get_close_matches(word, [str(name) for name in known], n=1, cutoff=alike)), "")


def listed(names: Any, most: int = 24) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def joined(*hints: str) -> str:
    return "\n".join(hint for hint in hints if hint)


def problem(source: Source, error: Any, short: bool) -> tuple[Path, Path, Problem]:
    """(path in the long form, path in the file, problem) of one of pydantic's errors."""
    location: Path = tuple(error["loc"])
    of_key = bool(location) and location[-1] == "[key]"
    long_path = location[:-1] if of_key else location
    path = origin(long_path) if short else long_path
    context: dict[str, Any] = error.get("ctx") or {}
    name = label(path)
    place = source.find(path, key=of_key)
    match error["type"]:
        case "extra_forbidden":
            place = source.find(path, key=True)
            message, hint = f"unknown key {str(path[-1])!r}", unknown(long_path, source.node(path))
        case "missing":
            place = source.find(path[:-1], key=True)
            message = f"{name!r} is missing" + (f" in {dotted(path[:-1])}" if path[:-1] else "")
            hint = _needed(long_path)
        case "literal_error":
            values = re.findall(r"'([^']*)'", str(context.get("expected", "")))
            message = f"{name}: {_shown(error['input'])} is not one of the choices"
            word = str(error["input"])
            meant = _CHOICES_ELSEWHERE.get(word.lower(), "")
            near = f"Did you mean {meant}?" if meant in values else did_you_mean(word.lower().replace("-", "_"), values)
            hint = joined(f"Allowed: {', '.join(values)}.", near)
        case "model_type" if at := too_deep(long_path):
            place = source.find(path, key=True)
            message = f"{name!r} stands among the names of {at[-1]}"
            hint = f"{name} belongs one level up: {dotted((*at[:-1], name))}."
        case "model_type" | "model_attributes_type" | "dict_type":
            message = f"{name}: {_shown(error['input'])} is not a mapping"
            found = structure.at(long_path)
            hint = f"Allowed keys: {listed(structure.keys(found[1]))}." if found and found[0] == "section" else ""
            if found and found[0] == "mapping":
                hint = "Write `name: …` lines under it."
        case "list_type" | "tuple_type":
            message, hint = f"{name}: {_shown(error['input'])} is not a list", "Write [a, b], or lines with a dash."
        case "too_short":
            message, hint = f"{name} is empty", "At least one is needed."
        case "refused":
            message = f"{name}: {context['message']}"
            hint = allowed(context["allowed"], context["suggestion"])
        case _:
            message, hint = f"{name}: {error['msg']}", ""
    return long_path, path, source.problem(place, message, hint, dotted(path))


def allowed(what: str, suggestion: str = "") -> str:
    return joined(f"Allowed: {what}." if what else "", f"Did you mean {suggestion}?" if suggestion else "")


def too_deep(path: Path) -> Path:
    """The mapping of names that a key is in by mistake, as it belongs beside that mapping; empty: it is not."""
    outer, inside = structure.at(path[:-2]), structure.at(path[:-1])
    if len(path) < 2 or outer is None or inside is None or outer[0] != "section" or inside[0] != "mapping":
        return ()
    return path[:-1] if path[-1] in outer[1].model_fields else ()


def _higher(path: Path) -> Path:
    """Where a key would be right that stands too deep in the file; empty: nowhere above."""
    for length in range(len(path) - 2, 0, -1):
        found = structure.at(path[:length])
        if found is not None and found[0] == "section" and path[-1] in found[1].model_fields:
            return (*path[:length], path[-1])
    return ()


def unknown(path: Path, node: Node | None = None) -> str:
    """The remedy for an unknown key, `path` being its place in the long form and `node` its value."""
    found = structure.at(path[:-1])
    if found is None or found[0] != "section":
        return ""
    section: type[Section] = found[1]
    key, known = str(path[-1]), structure.keys(section)
    meant = _ELSEWHERE.get(key, "") or _ELSEWHERE.get(key.lower(), "")
    if meant in known:
        near = f"Did you mean {meant}?"
    elif section is Config and key in Service.model_fields:
        near = f"Did you mean services.NAME.{key}?"
    elif higher := _higher(path):
        near = f"{key} belongs further up: {dotted(higher)}."
    elif similar := did_you_mean(key.lower().replace("-", "_"), known):
        near = similar
    elif below := structure.deeper(section, key):
        near = f"Did you mean {below}?"
    elif node is not None and node.anchored and section is Config:
        near = f"A key that only holds an anchor begins with `x-`: x-{key}."
    else:
        near = _NOT_HERE.get(key.lower().replace("-", "_"), "")
    return joined(near, f"Allowed: {listed(known)}.")


def _needed(path: Path) -> str:
    if path == ("services",):
        return "Write `backends: [http://127.0.0.1:5001]`, or `services` with `pools`."
    found = structure.at(path[:-1])
    if found is None or found[0] != "section":
        return ""
    description = descriptions(found[1]).get(str(path[-1]), "")
    first = re.split(r"(?<=[.:])\s", description.replace("\n", " "))[0]
    return f"{path[-1]}: {first}" if first else ""


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, Scalar):
        return str(value)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
