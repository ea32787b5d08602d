"""Targets from DNS: the addresses of a name (A, AAAA), or services with ports, weights and priorities (SRV).

A name is asked for again when its time to live is over, within bounds. Each record type is followed by itself: a server
that never answers for AAAA delays nothing and takes nothing away. An answer that there is no such record is an answer,
and `core.membership` judges it as any other. No answer, or a failure of the server, changes nothing.

dnspython reads and writes the messages. Each query has a random id and port. What comes from another address, or does
not fit the question, is ignored. A truncated answer is asked for again over TCP.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rdtypes.IN.SRV

from lb.config.model.addresses import parse_bind, parse_target
from lb.config.model.discovery import Dns
from lb.config.model.units import Unreadable
from lb.core.membership import Answer, Found
from lb.discovery.source import NoAnswer, Tell, same
from lb.discovery.weights import scaled

#: Seconds between two attempts to get an answer.
RETRY = 0.5
#: Seconds after which an answer with missing parts is asked for again, at most.
RETRY_PARTS = 2.0
#: Seconds for which an answer that there are no such records is believed, at most.
NEGATIVE = 5.0
#: Seconds that AAAA records of a service's host are waited for once its A records are there.
GRACE = 0.5
#: Names that one name may stand for, one after the other (CNAME).
MOST_ALIASES = 8
#: Servers of the system that are asked, as resolv.conf(5) has it.
MOST_SERVERS = 3
#: Hosts of one service, and look-ups of them at one time.
MOST_HOSTS, AT_ONE_TIME = 1000, 16
#: Bytes of an answer over UDP (dnsflagday.net/2020).
PAYLOAD = 1232

RESOLV_CONF = Path("/etc/resolv.conf")

_FINAL = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


class Server(NamedTuple):
    """A DNS server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one name and type. None is an answer, too."""

    data: tuple[object, ...]
    ttl: float


@dataclass(frozen=True, slots=True)
class Part:
    """The answer for one part of a source: endpoints, hosts without an answer, and seconds until it is asked again."""

    found: tuple[Found, ...]
    wait: float
    unanswered: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()


class DnsSource:
    """One name."""

    def __init__(
        self,
        settings: Dns,
        system: Callable[[], list[Server]] | None = None,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._dice = dice
        self._system = system or (lambda: servers_of_system(RESOLV_CONF))
        self._servers = [Server(address.host, address.port) for address in map(parse_bind, settings.resolvers)]
        self._first = 0  # the server that answered last is asked first
        self._limit = asyncio.Semaphore(AT_ONE_TIME)
        self._last: Answer | NoAnswer | None = None

    async def ask(self) -> Answer:
        parts = await asyncio.gather(*map(self._ask_part, self._types()))
        answer = self._combined(dict(zip(self._types(), parts, strict=True)))
        if isinstance(answer, NoAnswer):
            raise answer
        return answer

    async def watch(self, tell: Tell) -> None:
        results: dict[str, Part | NoAnswer] = {}

        async def follow(kind: str) -> None:
            task = asyncio.current_task()
            while True:
                results[kind] = part = await self._ask_part(kind)
                if task is not None and task.cancelling():
                    # `asyncio.wait_for`, in dnspython, may return an answer instead (Python 3.11, CPython gh-86296).
                    raise asyncio.CancelledError
                answer = self._combined(results)
                if not same(self._last, answer):
                    self._last = answer
                assert self._last is not None
                tell(self._last)
                wait = RETRY if isinstance(part, NoAnswer) else part.wait
                await asyncio.sleep(wait * (1 - self._dice() / 10))

        async with asyncio.TaskGroup() as group:
            for kind in self._types():
                group.create_task(follow(kind))

    def _types(self) -> list[str]:
        return self._settings.kind().split("+")

    def _combined(self, results: dict[str, Part | NoAnswer]) -> Answer | NoAnswer:
        """The answer of the parts that have one. The members of the other parts stay."""
        parts = {kind: each for kind, each in results.items() if isinstance(each, Part)}
        failed = {kind: str(each) for kind, each in results.items() if isinstance(each, NoAnswer)}
        if not parts:
            return NoAnswer("; ".join(dict.fromkeys(failed.values())))
        unanswered = {kind for kind in self._types() if kind not in parts}
        problems = [f"{kind} records: {text}" for kind, text in failed.items()]
        return Answer(
            tuple(found for each in parts.values() for found in each.found),
            frozenset(unanswered.union(*(each.unanswered for each in parts.values()))),
            (*problems, *(problem for each in parts.values() for problem in each.problems)),
        )

    # --- records to endpoints ----------------------------------------------------------------------------------------

    async def _ask_part(self, kind: str) -> Part | NoAnswer:
        try:
            return await (self._services() if kind == "SRV" else self._addresses(kind))
        except NoAnswer as error:
            return error

    async def _addresses(self, kind: str) -> Part:
        records = await self._look_up(self._settings.name, kind)
        found, problems = self._endpoints(records, self._settings.port or 0, Found("", "", part=kind))
        return Part(tuple(found), self.refresh(records), problems=tuple(problems))

    async def _services(self) -> Part:
        records = await self._look_up(self._settings.name, "SRV")
        services = [each for each in records.data if isinstance(each, dns.rdtypes.IN.SRV.SRV)]
        named = sorted(services, key=lambda each: (each.priority, str(each.target), each.port))[:MOST_HOSTS]
        named = [each for each in named if each.target != dns.name.root]
        weights = scaled([each.weight for each in named])  # a record of weight 0 gets a small share (RFC 2782)
        hosts = list(dict.fromkeys(each.target.to_text(omit_final_dot=True).lower() for each in named))
        looked_up = dict(zip(hosts, await asyncio.gather(*map(self._host, hosts)), strict=True))
        found: list[Found] = []
        problems: list[str] = []
        waits = [self.refresh(records)]
        unanswered: set[str] = set()
        for service, weight in zip(named, weights, strict=True):
            host = service.target.to_text(omit_final_dot=True).lower()
            for kind, result in looked_up[host].items():
                part = f"{host} {kind}"
                if isinstance(result, NoAnswer):
                    unanswered.add(part)
                    problems.append(f"{part} records: {result}")
                    waits.append(RETRY_PARTS)
                    continue
                waits.append(self.refresh(result))
                pattern = Found("", "", weight, service.priority, part, host)
                more, faults = self._endpoints(result, service.port, pattern)
                found += more
                problems += faults
        return Part(tuple(found), min(waits), frozenset(unanswered), tuple(dict.fromkeys(problems))[:8])

    async def _host(self, host: str) -> dict[str, Records | NoAnswer]:
        """The addresses of a service's host, by record type. One that is slow does not hold up the other for long."""

        async def one(kind: str) -> Records | NoAnswer:
            async with self._limit:
                try:
                    return await self._look_up(host, kind)
                except NoAnswer as error:
                    return error

        tasks = {kind: asyncio.ensure_future(one(kind)) for kind in ("A", "AAAA")}
        try:
            first = await tasks["A"]
            enough = isinstance(first, Records) and bool(first.data)
            await asyncio.wait((tasks["AAAA"],), timeout=GRACE if enough else None)
            late = NoAnswer("no answer in time")
            return {"A": first, "AAAA": tasks["AAAA"].result() if tasks["AAAA"].done() else late}
        finally:
            for task in tasks.values():
                task.cancel()

    def _endpoints(self, records: Records, port: int, pattern: Found) -> tuple[list[Found], list[str]]:
        found: list[Found] = []
        problems: list[str] = []
        for address in sorted({str(getattr(each, "address", "")) for each in records.data} - {""}):
            host = f"[{address}]" if ":" in address else address
            url = f"{self._settings.scheme}://{host}:{port}"
            try:
                text = parse_target(url).text
            except Unreadable as error:
                problems.append(str(error))
                continue
            found.append(replace(pattern, address=text, url=f"{self._settings.scheme}://{text}"))
        return found, problems

    def refresh(self, records: Records) -> float:
        """Seconds until a name with these records is asked for again."""
        ttl = records.ttl if records.data else min(records.ttl, NEGATIVE)
        return max(self._settings.min_refresh, min(ttl, self._settings.max_refresh))

    # --- questions ---------------------------------------------------------------------------------------------------

    async def _look_up(self, name: str, kind: str) -> Records:
        """The records of a name, through its aliases. Raises `NoAnswer` when no server has answered."""
        ttl = float(2**31)
        for _ in range(MOST_ALIASES):
            records, alias = await self._of_any_server(name, kind)
            ttl = min(ttl, records.ttl)
            if not alias or records.data:
                return Records(records.data, ttl)
            name = alias
        raise NoAnswer(f"{self._settings.name} stands for more than {MOST_ALIASES} other names, one after the other")

    async def _of_any_server(self, name: str, kind: str) -> tuple[Records, str]:
        servers = self._servers or await asyncio.to_thread(self._system)
        if not servers:
            raise NoAnswer(f"{RESOLV_CONF} names no DNS server, and `resolvers` does not either")
        reasons = []
        for turn in range(len(servers)):
            index = (self._first + turn) % len(servers)
            try:
                answer = await self._of_server(servers[index], name, kind)
            except NoAnswer as error:
                reasons.append(f"{servers[index]} {error}")
            else:
                self._first = index
                return answer
        raise NoAnswer(f"{name}: {'; '.join(reasons)}")

    async def _of_server(self, server: Server, name: str, kind: str) -> tuple[Records, str]:
        """The records of one server's answer, and the name to ask for instead; empty: there is none."""
        response = await self._exchange(server, dns.message.make_query(name, kind, use_edns=0, payload=PAYLOAD))
        if response.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP):  # it may not know EDNS
            response = await self._exchange(server, dns.message.make_query(name, kind, use_edns=False))
        if response.rcode() not in _FINAL:
            raise NoAnswer(f"answered {dns.rcode.to_text(response.rcode())}")
        if not isinstance(response, dns.message.QueryMessage):
            raise NoAnswer("answered something else")
        try:
            chain = response.resolve_chaining()
        except dns.exception.DNSException as error:
            raise NoAnswer(f"answered nonsense: {_words(error)}") from None
        data = tuple(chain.answer) if chain.answer is not None else ()
        ended = response.rcode() == dns.rcode.NXDOMAIN or data or not chain.cnames
        alias = "" if ended else chain.canonical_name.to_text(omit_final_dot=True)
        return Records(data, float(chain.minimum_ttl)), alias

    async def _exchange(self, server: Server, query: dns.message.Message) -> dns.message.Message:
        timeout = self._settings.timeout
        try:
            async with asyncio.timeout(2 * timeout):
                response, _ = await dns.asyncquery.udp_with_fallback(
                    query, server.host, timeout, server.port, ignore_unexpected=True, ignore_errors=True
                )
        except (TimeoutError, dns.exception.Timeout):
            raise NoAnswer(f"did not answer within {timeout:g} s") from None
        except (OSError, EOFError, dns.exception.DNSException) as error:
            raise NoAnswer(f"could not be asked: {_words(error)}") from None
        return response


def servers_of_system(path: Path) -> list[Server]:
    """The servers that the system asks. Blocks."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found = [words[1] for line in lines if (words := line.split()) and words[0] == "nameserver" and len(words) > 1]
    return [Server(address, 53) for address in found if _is_address(address)][:MOST_SERVERS]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _words(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".").lower()
