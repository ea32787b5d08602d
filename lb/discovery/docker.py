"""Targets from a Docker engine, or one that speaks its API (podman): running containers with a label.

The engine's events tell when to ask for the list; the list alone says what there is. So an event that is lost costs
seconds at most, and after the engine was away there is nothing to catch up with but one list. One event is acted on by
itself: a container that is sent a signal to stop is named no more, because it may take no request by the time that a
list would say so.

A container is named once it runs, has an address in its network, and is healthy if it has a check of its own. What its
labels get wrong leaves that container out, by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from lb.config.model.addresses import parse_target
from lb.config.model.discovery import Docker
from lb.config.model.units import Unreadable
from lb.core.membership import Answer, Found
from lb.discovery.failures import in_words
from lb.discovery.labels import MOST_WEIGHT, check, number
from lb.discovery.server_address import ServerAddress
from lb.discovery.source import Newest, NoAnswer, Tell

#: Seconds for one list.
TIMEOUT = 5.0
#: Seconds between two attempts to reach the engine.
RETRY = 0.5
#: Seconds after which the list is asked for although no event has come.
RESYNC = 10.0
#: Seconds within which events are answered with one list.
TOGETHER = 0.02
#: Seconds for which a container that was sent a signal to stop is not named, if it goes on running.
LEAVING = 15.0
#: Octets of a list, and of one event, that are read at most.
MOST_OCTETS, MOST_OF_EVENT = 32 << 20, 1 << 20
#: Containers that are used at most; problems that are told.
MOST_CONTAINERS, MOST_PROBLEMS = 5000, 5

#: Signals by which containers are stopped, as events have them.
STOPPING = frozenset(("2", "3", "9", "15", "SIGINT", "SIGQUIT", "SIGKILL", "SIGTERM"))
#: Events that change nothing of what is named.
IRRELEVANT = ("exec_", "attach", "resize", "top", "copy", "export", "commit", "archive-path", "extract-to-dir")


class DockerSource:
    """One label at one engine."""

    def __init__(self, settings: Docker, resync: float = RESYNC) -> None:
        self._settings = settings
        self._resync = resync
        self._leaving: dict[str, float] = {}  # container id → monotonic seconds until which it is not named
        self._wake = asyncio.Event()
        self._engine = ServerAddress(settings.socket, settings.tls)

    async def ask(self) -> Answer:
        async with self._engine.session() as session:
            return await self._list(session)

    async def watch(self, tell: Tell) -> None:
        newest = Newest(tell)
        async with self._engine.session() as session:
            listening = asyncio.ensure_future(self._listen(session))
            try:
                while True:
                    self._wake.clear()
                    try:
                        now: Answer | NoAnswer = await self._list(session)
                    except NoAnswer as error:
                        now = error
                    newest(now)
                    await self._pause(RETRY if isinstance(now, NoAnswer) else self._resync)
            finally:
                listening.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await listening

    async def _pause(self, longest: float) -> None:
        """Wait for an event."""
        soonest = min(self._leaving.values(), default=float("inf")) - time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(longest, soonest))):
                await self._wake.wait()
                await asyncio.sleep(TOGETHER)

    # --- the engine --------------------------------------------------------------------------------------------------

    async def _list(self, session: aiohttp.ClientSession) -> Answer:
        filters = json.dumps({"label": [self._settings.label], "status": ["running"]})
        raw = bytearray()
        try:
            async with (
                asyncio.timeout(TIMEOUT),
                session.get("containers/json", params={"filters": filters}, **await self._engine.secured()) as response,
            ):
                async for piece in response.content.iter_chunked(65536):
                    raw += piece
                    if len(raw) > MOST_OCTETS:
                        raise NoAnswer(f"its list of containers is longer than {MOST_OCTETS >> 20} MiB")
                status = response.status
            found = json.loads(raw)
        except TimeoutError:
            raise NoAnswer(f"{self._settings.socket} did not answer within {TIMEOUT:g} s") from None
        except (OSError, aiohttp.ClientError) as error:
            raise NoAnswer(f"{self._settings.socket} cannot be asked: {in_words(error)}") from None
        except ValueError:
            raise NoAnswer(f"{self._settings.socket} answered something that is no JSON") from None
        if status != 200 or not isinstance(found, list):
            said = found.get("message", "") if isinstance(found, dict) else ""
            raise NoAnswer(f"{self._settings.socket} answered {status}{f': {said}' if said else ''}")
        return self._answer([each for each in found if isinstance(each, dict)])

    async def _listen(self, session: aiohttp.ClientSession) -> None:
        """Hear the engine's events for as long as lb runs. What they miss, the next list has."""
        filters = json.dumps({"type": ["container"], "label": [self._settings.label]})
        forever = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT)
        while True:
            heard = False
            with contextlib.suppress(OSError, aiohttp.ClientError, ValueError, AttributeError):
                secured = await self._engine.secured()
                async with session.get(
                    "events", params={"filters": filters}, timeout=forever, read_bufsize=MOST_OF_EVENT, **secured
                ) as response:
                    if response.status == 200:
                        heard = True
                        self._wake.set()  # something may have happened before it was heard
                        async for line in response.content:
                            self._hear(json.loads(line))
            if heard:
                self._wake.set()  # the engine may be gone
            await asyncio.sleep(RETRY)

    def _hear(self, event: object) -> None:
        if not isinstance(event, dict):
            return
        action = str(event.get("Action") or event.get("status") or "")
        actor: dict[str, Any] = event.get("Actor") or {}
        id = str(actor.get("ID") or event.get("id") or "")
        attributes: dict[str, Any] = actor.get("Attributes") or {}
        if action == "kill" and str(attributes.get("signal", "15")) in STOPPING:
            self._leaving[id] = time.monotonic() + LEAVING
        elif action in ("start", "die", "destroy"):
            self._leaving.pop(id, None)
        if not action.startswith(IRRELEVANT):
            self._wake.set()

    # --- containers to endpoints -------------------------------------------------------------------------------------

    def _answer(self, containers: list[dict[str, Any]]) -> Answer:
        now = time.monotonic()
        self._leaving = {id: until for id, until in self._leaving.items() if until > now}
        found: list[Found] = []
        problems: list[str] = []
        for container in sorted(containers, key=_name)[:MOST_CONTAINERS]:
            if str(container.get("Id")) in self._leaving or not _is_well(container):
                continue
            try:
                endpoint = self._endpoint(container)
            except (Unreadable, ValueError) as error:
                problems.append(f"container {_name(container)} is left out: {error}")
            else:
                found += [endpoint] if endpoint is not None else []
        return Answer(tuple(found), problems=tuple(problems[:MOST_PROBLEMS]))

    def _endpoint(self, container: dict[str, Any]) -> Found | None:
        """The endpoint of a container; None: it has no address yet. Raises `ValueError` where its labels are wrong."""
        labels = container.get("Labels") or {}
        address = self._address(container, str(labels.get("lb.network", "") or self._settings.network))
        if not address:
            return None
        port = number(labels, "lb.port", 1, 65535) or self._settings.port or _exposed(container)
        weight = number(labels, "lb.weight", 0, MOST_WEIGHT)
        host = f"[{address}]" if ":" in address else address
        text = parse_target(f"{self._settings.scheme}://{host}:{port}").text
        settings = check(labels, "lb.check")
        url = f"{self._settings.scheme}://{text}"
        return Found(text, url, 1 if weight is None else weight, name=_name(container), settings=settings)

    def _address(self, container: dict[str, Any], wanted: str) -> str:
        networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
        if wanted == "host" or (container.get("HostConfig") or {}).get("NetworkMode") == "host":
            return "127.0.0.1"  # podman's list does not say which containers are in the host's network
        if wanted:
            if wanted not in networks:
                raise ValueError(f"it is not in the network {wanted}; it is in {', '.join(sorted(networks)) or 'none'}")
            networks = {wanted: networks[wanted]}
        elif len(networks) > 1:
            raise ValueError(
                f"it is in several networks ({', '.join(sorted(networks))}): `network` or lb.network chooses"
            )
        for network in networks.values():
            return str(network.get("IPAddress") or network.get("GlobalIPv6Address") or "")
        return ""


def _name(container: Mapping[str, Any]) -> str:
    names = container.get("Names") or [str(container.get("Id", ""))[:12]]
    return str(names[0]).removeprefix("/")


def _is_well(container: Mapping[str, Any]) -> bool:
    """Whether it runs, and its own check, if it has one, has passed."""
    health = (container.get("Health") or {}).get("Status", "")
    status = str(container.get("Status", ""))
    if not health and "(" in status:
        health = status.rpartition("(")[2].rstrip(")").removeprefix("health: ")
    return container.get("State", "running") == "running" and health in ("", "none", "healthy")


def _exposed(container: Mapping[str, Any]) -> int:
    """The one port that it exposes."""
    ports = {each.get("PrivatePort") for each in container.get("Ports") or [] if each.get("Type", "tcp") == "tcp"}
    if len(ports) != 1:
        said = f"exposes {len(ports)} ports" if ports else "exposes no port"
        raise ValueError(f"it {said}: `port` or the label lb.port says which one")
    return int(ports.pop())
