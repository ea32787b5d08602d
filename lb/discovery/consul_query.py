"""Blocking queries for the instances of a Consul service: what is asked, and what an answer's fields say. Pure.

A query with an index is answered when the service has changed since that index, or after its wait. The rules for the
index are Consul's (developer.hashicorp.com/consul/api-docs/features/blocking), but for an answer without an index,
after which lb starts anew as well: there is nothing to wait for changes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from lb.config.model.discovery import Consul
from lb.core.membership import Answer
from lb.discovery.consul_entries import answer_of, read_entries
from lb.discovery.source import NoAnswer

#: An index from which nothing is waited for: the answer comes at once.
START = 0
#: A query is answered up to this share of its wait later, by chance.
JITTER = 1 / 16
#: Decimal digits of the largest index (64 bits).
MOST_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, and the index of it; `START` where it has none."""

    answer: Answer
    index: int


def target_of(settings: Consul, index: int) -> str:
    """Path and parameters of a query that waits for changes since `index`."""
    query = [("tag", tag) for tag in settings.tags]
    for name, value in (
        ("filter", settings.filter),
        ("dc", settings.datacenter),
        ("ns", settings.namespace),
        ("partition", settings.partition),
    ):
        query += [(name, value)] if value else []
    query += [("stale", "")] if settings.stale else []
    if index > START:
        query += [("index", str(index)), ("wait", f"{round(settings.wait * 1000)}ms")]
    return f"/v1/health/service/{quote(settings.service, safe='')}?{urlencode(query)}"


def longest_wait(settings: Consul) -> float:
    """Seconds within which a query with an index is answered."""
    return settings.wait * (1 + JITTER)


def next_index(asked: int, fields: Mapping[str, str]) -> int:
    """The index of the next query, after an answer to one with the index `asked`.

    `START` where it went back, as it does when servers are restored from a snapshot: with the old one changes would be
    missed. `START` as well where an answer has none.
    """
    text = fields.get("X-Consul-Index", "")
    index = int(text) if text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS else START
    return START if index < asked else index


def said_of(settings: Consul, asked: int, fields: Mapping[str, str], raw: bytes | bytearray, token: bool) -> Said:
    """An answer with 200. `token`: whether one was shown. Raises `NoAnswer`.

    Consul leaves out what a token may not read and says so in a field. If that is everything, nothing was answered.
    """
    try:
        entries = read_entries(raw)
    except ValueError as error:
        raise NoAnswer(f"{settings.address}: {error}") from None
    answer = answer_of(entries, settings.scheme, settings.warning)
    hidden = fields.get("X-Consul-Results-Filtered-By-ACLs") == "true"
    if hidden and not entries:
        raise NoAnswer(f"{settings.address} hides all instances from lb's token: {_POLICY}")
    problems: list[str] = []
    if hidden:
        problems.append(f"instances are hidden from lb's token: {_POLICY}")
    elif not entries:
        denied = not token and fields.get("X-Consul-Default-ACL-Policy") == "deny"
        more = f"; it may hide them, because lb shows no token: {_POLICY}" if denied else ""
        problems.append(
            f"Consul knows no {'such ' if _is_narrowed(settings) else ''}instance of {settings.service}{more}"
        )
    if settings.stale and fields.get("X-Consul-KnownLeader") == "false":
        problems.append("the server that has answered knows no leader: its answer may be old")
    answer = Answer(answer.found, problems=(*problems, *answer.problems))
    return Said(answer, next_index(asked, fields))


def _is_narrowed(settings: Consul) -> bool:
    return bool(settings.tags or settings.filter)


_POLICY = "docs/discovery.md has the policy that lb needs"
