"""What pydantic found, in words that say what is wrong, what is allowed and what was probably meant."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from lb.config import structure
from lb.config.model import Config, Service, origin
from lb.config.problems import Problem
from lb.config.reading import Scalar
from lb.config.section import Section
from lb.config.tree import Path, Source

#: What the same thing is called elsewhere.
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
    near = get_close_matches(word, [str(name) for name in known], n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else ""


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
            message, hint = f"unknown key {str(path[-1])!r}", _unknown(long_path)
        case "missing":
            place = source.find(path[:-1], key=True)
            message = f"{name!r} is missing" + (f" in {dotted(path[:-1])}" if path[:-1] else "")
            hint = _needed(long_path)
        case "literal_error":
            values = re.findall(r"'([^']*)'", str(context.get("expected", "")))
            message = f"{name}: {_shown(error['input'])} is not one of the choices"
            hint = joined(f"Allowed: {', '.join(values)}.", did_you_mean(str(error["input"]), values))
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


def _unknown(path: Path) -> str:
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
    elif similar := did_you_mean(key.lower().replace("-", "_"), known):
        near = similar
    elif below := structure.deeper(section, key):
        near = f"Did you mean {below}?"
    else:
        near = ""
    return joined(near, f"Allowed: {listed(known)}.")


def _needed(path: Path) -> str:
    if path == ("services",):
        return "Write `backends: [http://127.0.0.1:5001]`, or `services` with `pools`."
    found = structure.at(path[:-1])
    if found is None or found[0] != "section":
        return ""
    description = found[1].model_fields[path[-1]].description or ""
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
