"""The part of a Docker engine's API that discovery uses, on a Unix socket or over TLS: containers and events.

It filters by label and status as the engine does, and sends events as lines of JSON on a response without an end.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.ports import free_port
from tests.support.threaded_server import ThreadedServer


class Engine(ThreadedServer):
    """Containers that a test makes and ends. It lives in a thread of its own, and may be stopped and started again."""

    def __init__(self, socket: Path, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.socket = socket
        self.tls = tls  # None: it listens at the socket; else at a port, with this context
        self.port = free_port() if tls is not None else 0
        self.url = f"tcp://127.0.0.1:{self.port}" if tls is not None else f"unix://{socket}"
        self.containers: dict[str, dict[str, Any]] = {}
        self.broken = ""  # an answer instead of the list
        self.events_allowed = True
        self.lists = 0
        self._listening: dict[web.StreamResponse, asyncio.BaseTransport | None] = {}

    # --- containers --------------------------------------------------------------------------------------------------

    def run(self, name: str, address: str = "127.0.0.1", *, port: int = 80, health: str = "", **labels: str) -> str:
        """Run a container; its labels have dots where the keyword has `_`."""
        id = f"{name:0<12}"
        self.containers[id] = {
            "Id": id,
            "Names": [f"/{name}"],
            "Labels": {"pool": "main", **{key.replace("_", "."): value for key, value in labels.items()}},
            "State": "running",
            "Status": f"Up 2 seconds ({health})" if health else "Up 2 seconds",
            "Ports": [{"PrivatePort": port, "Type": "tcp"}] if port else [],
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": address, "GlobalIPv6Address": ""}}},
        }
        self.emit("start", id)
        return id

    def change(self, id: str, action: str, **more: Any) -> None:
        self.containers[id] |= more
        self.emit(action, id)

    def kill(self, id: str, signal: str = "15") -> None:
        """It is sent a signal, and goes on running."""
        self.emit("kill", id, signal=signal)

    def end(self, id: str) -> None:
        labels = self.containers.pop(id)["Labels"]
        self.emit("die", id, labels=labels)

    def emit(self, action: str, id: str, labels: dict[str, str] | None = None, **attributes: str) -> None:
        labels = labels if labels is not None else self.containers[id]["Labels"]
        actor = {"ID": id, "Attributes": {**labels, **attributes}}
        event = {"Type": "container", "Action": action, "status": action, "id": id, "Actor": actor}
        self._call(self._send(json.dumps(event).encode() + b"\n"))

    # --- the API -----------------------------------------------------------------------------------------------------

    async def _send(self, line: bytes) -> None:
        for response in list(self._listening):
            with suppress(ConnectionError):
                await response.write(line)

    async def _start(self) -> None:
        app = web.Application()
        app.add_routes([web.get("/containers/json", self._containers), web.get("/events", self._events)])
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        if self.tls is None:
            await web.UnixSite(self._runner, str(self.socket)).start()
        else:
            site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.tls, reuse_address=True)
            await site.start()

    async def _stop(self) -> None:
        if self._runner is not None:
            for transport in self._listening.values():
                if transport is not None:
                    transport.close()
            await self._runner.cleanup()
            self._runner = None
            self.socket.unlink(missing_ok=True)

    async def _containers(self, request: web.Request) -> web.Response:
        self.lists += 1
        if self.broken:
            return web.Response(text=self.broken, status=500 if self.broken.startswith("{") else 200)
        wanted = json.loads(request.query["filters"])
        matches = [each for each in self.containers.values() if _matches(each, wanted)]
        return web.json_response(matches)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if not self.events_allowed:
            return web.Response(status=403)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._listening[response] = request.transport
        try:
            await asyncio.Event().wait()
        finally:
            self._listening.pop(response, None)
        return response


def _matches(container: dict[str, Any], wanted: dict[str, list[str]]) -> bool:
    def has(label: str) -> bool:
        name, equals, value = label.partition("=")
        return name in container["Labels"] and (not equals or container["Labels"][name] == value)

    return all(map(has, wanted.get("label", []))) and container["State"] in wanted.get("status", [container["State"]])
