"""The part of a Consul agent's HTTP API that discovery uses: the health of a service's instances, by blocking queries.

Names, fields and status codes are of the real API (`/v1/health/service/:service`). Indexes grow with each change over
all services, and each service has the index of its own last change. A query waits until that is larger than the index
it names, up to a sixteenth longer than asked for. Checks are of an instance or of its node; maintenance is a critical
check. Tokens that are not known get 403, and instances that a token may not read are left out, which a field says.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.ports import free_port
from tests.support.threaded_server import ThreadedServer

Json = dict[str, Any]
#: Seconds that a query waits where it does not say, and at most.
WAIT, MOST_WAIT = 300.0, 600.0
#: Of the filter language: a field of the entry is equal to a text.
FILTER = re.compile(r'([\w.]+) == "?([\w.-]+)"?')


class Agent(ThreadedServer):
    """Instances that a test registers. It lives in a thread of its own, and may be stopped and started again."""

    def __init__(self, socket: Path | None = None, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self._socket = socket  # None: it listens at a port
        self._tls = tls
        self._port = free_port()
        scheme = "http" if tls is None else "https"
        self.url = f"unix://{socket}" if socket is not None else f"{scheme}://127.0.0.1:{self._port}"
        self.datacenter = "dc1"
        self.tokens: dict[str, set[str]] = {}  # secret → services that it may read; none at all: no token is needed
        self.leader = True
        self.broken = ""  # an answer with 200 instead of any other
        self.status = 200  # of each answer
        self.hung = False  # queries are not answered
        self.indexed = True  # answers have an index
        self.eager = False  # queries with an index are answered at once
        self.impatient = False  # a proxy before the agent gives queries with an index up
        self.asked: list[dict[str, str]] = []  # parameters and token of each query
        self.index = 10
        self._entries: dict[tuple[str, str], Json] = {}  # (node, id of the instance) → entry
        self._changed_at: dict[str, int] = {}  # service → index
        self._epoch = 0  # how often the state was replaced whole
        self._waiting: dict[asyncio.Event, asyncio.BaseTransport | None] = {}

    # --- what is registered ------------------------------------------------------------------------------------------

    def register(
        self,
        id: str,
        address: str = "127.0.0.1",
        port: int = 80,
        *,
        service: str = "web",
        node: str = "node-1",
        node_address: str = "127.0.0.1",
        status: str = "passing",
        **more: Any,
    ) -> None:
        """Register an instance, or replace it. `more`: other keys of its Service object."""
        self._change(service, lambda: self._put(id, address, port, service, node, node_address, status, more))

    def deregister(self, *ids: str, node: str = "node-1", service: str = "web") -> None:
        def remove() -> None:
            for id in ids:
                del self._entries[node, id]

        self._change(service, remove)

    def check(self, id: str, status: str, node: str = "node-1") -> None:
        """The instance's own check turns."""
        entry = self._entries[node, id]
        self._change(entry["Service"]["Service"], lambda: entry["Checks"][1].update(Status=status))

    def maintain(self, id: str, on: bool, node: str = "node-1") -> None:
        """Maintenance of an instance begins or ends; of its node, where `id` is empty."""
        check_id = f"_service_maintenance:{id}" if id else "_node_maintenance"
        for (of, each_id), entry in list(self._entries.items()):
            if of == node and id in ("", each_id):
                kept = [each for each in entry["Checks"] if each["CheckID"] != check_id]
                checks = [*kept, _check(of, check_id, "critical", each_id if id else "")] if on else kept
                self._change(entry["Service"]["Service"], lambda e=entry, c=checks: e.update(Checks=c))

    def restore(self, index: int) -> None:
        """Servers are restored from a snapshot: indexes go back, and queries that wait are answered."""

        async def go_back() -> None:
            self.index = index
            self._changed_at = dict.fromkeys(self._changed_at, index)
            self._epoch += 1
            self._wake()

        self._call(go_back())

    def touch(self) -> None:
        """A write that changes nothing of what is named: the index of every service grows, and queries are answered."""
        for service in list(self._changed_at):
            self._change(service, lambda: None)

    def cut(self) -> None:
        """Break all queries off that wait."""

        async def close() -> None:
            self._close()

        self._call(close())

    @property
    def waiting(self) -> int:
        """Queries that wait for a change."""
        return len(self._waiting)

    # --- in its thread -----------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/health/service/{service}", self._health)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        if self._socket is not None:
            await web.UnixSite(self._runner, str(self._socket)).start()
        else:
            await web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls, reuse_address=True).start()

    async def _stop(self) -> None:
        if self._runner is not None:
            self._close()
            await self._runner.cleanup()
            self._runner = None
            if self._socket is not None:
                self._socket.unlink(missing_ok=True)

    def _close(self) -> None:
        for transport in self._waiting.values():
            if transport is not None:
                transport.close()

    def _change(self, service: str, change: Callable[[], object]) -> None:
        async def work() -> None:
            change()
            self.index += 1
            self._changed_at[service] = self.index
            self._wake()

        self._call(work())

    def _wake(self) -> None:
        for changed in self._waiting:
            changed.set()

    def _put(
        self, id: str, address: str, port: int, service: str, node: str, node_address: str, status: str, more: Json
    ) -> None:
        taken = node_address
        self._entries[node, id] = {
            "Node": {
                "ID": f"40e4a748-2192-161a-0510-{sum(node.encode()):012d}",
                "Node": node,
                "Address": node_address,
                "Datacenter": self.datacenter,
                "TaggedAddresses": {"lan": taken, "lan_ipv4": taken, "wan": taken, "wan_ipv4": taken},
                "Meta": {"consul-network-segment": ""},
                "CreateIndex": self.index,
                "ModifyIndex": self.index,
            },
            "Service": {
                "ID": id,
                "Service": service,
                "Tags": [],
                "Address": address,
                "TaggedAddresses": {"lan_ipv4": {"Address": address or taken, "Port": port}},
                "Meta": None,
                "Port": port,
                "Weights": {"Passing": 1, "Warning": 1},
                "EnableTagOverride": False,
                "Proxy": {"Mode": "", "MeshGateway": {}, "Expose": {}},
                "Connect": {},
                "PeerName": "",
                "CreateIndex": self.index,
                "ModifyIndex": self.index,
                **more,
            },
            "Checks": [_check(node, "serfHealth", "passing", ""), _check(node, f"service:{id}", status, id)],
        }

    # --- the API -----------------------------------------------------------------------------------------------------

    async def _health(self, request: web.Request) -> web.StreamResponse:
        query, token = request.query, request.headers.get("X-Consul-Token", "")
        service = request.match_info["service"]
        asked = {name: ",".join(query.getall(name)) for name in query}
        self.asked.append({"service": service, **asked, **({"token": token} if token else {})})
        if self.hung:
            await asyncio.Event().wait()
        if self.broken or self.status != 200:
            return web.Response(text=self.broken, status=self.status, headers=self._fields(service))
        if token and token not in self.tokens and self.tokens:
            return web.Response(status=403, text="rpc error making call: ACL not found")
        if "consistent" in query and "stale" in query:
            return web.Response(status=400, text="Cannot specify ?stale with ?consistent, conflicting semantics.")
        if not self.leader and "stale" not in query:
            return web.Response(status=500, text="No cluster leader")
        if query.get("dc", self.datacenter) != self.datacenter:
            return web.Response(status=500, text="No path to datacenter")
        if query.get("filter") and not FILTER.fullmatch(query["filter"]):
            return web.Response(
                status=400, text="Failed to create boolean expression evaluator: 1:1 (0): no match found"
            )
        if self.impatient and query.get("index"):
            return web.Response(status=504, text="stream timeout")
        if (index := int(query.get("index") or 0)) and not self.eager:
            await self._wait(request, service, index, _seconds(query.get("wait", "")))
        entries = [each for _, each in sorted(self._entries.items()) if _matches(each, service, query)]
        fields = self._fields(service)
        if self.tokens and service not in self.tokens.get(token, ()):
            if entries and token:  # who shows no token is not told
                fields["X-Consul-Results-Filtered-By-ACLs"] = "true"
            entries = []
        return web.json_response(entries, headers=fields)

    async def _wait(self, request: web.Request, service: str, index: int, seconds: float) -> None:
        changed, epoch = asyncio.Event(), self._epoch
        self._waiting[changed] = request.transport
        try:
            async with asyncio.timeout(seconds * (1 + random.random() / 16)):
                while self._index_of(service) <= index and epoch == self._epoch:
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            pass
        finally:
            del self._waiting[changed]

    def _index_of(self, service: str) -> int:
        return self._changed_at.get(service, 1)

    def _fields(self, service: str) -> dict[str, str]:
        fields = {
            "X-Consul-Default-ACL-Policy": "deny" if self.tokens else "allow",
            "X-Consul-Effective-Consistency": "leader",
            "X-Consul-KnownLeader": "true" if self.leader else "false",
            "X-Consul-LastContact": "0" if self.leader else "12345",
            "X-Consul-Query-Backend": "blocking-query",
        }
        return fields | ({"X-Consul-Index": str(self._index_of(service))} if self.indexed else {})


def _check(node: str, id: str, status: str, of: str) -> Json:
    return {
        "Node": node,
        "CheckID": id,
        "Name": id,
        "Status": status,
        "Notes": "",
        "Output": "",
        "ServiceID": of,
        "ServiceName": "web" if of else "",
        "ServiceTags": [],
        "Type": "http" if of else "",
        "Interval": "10s",
        "Timeout": "1s",
        "ExposedPort": 0,
        "Definition": {},
        "CreateIndex": 1,
        "ModifyIndex": 1,
    }


def _matches(entry: Json, service: str, query: Any) -> bool:
    given = entry["Service"]
    if given["Service"] != service or not set(query.getall("tag", [])) <= set(given["Tags"]):
        return False
    if query.get("ns", "default") != given.get("Namespace", "default"):
        return False
    if query.get("partition", "default") != given.get("Partition", "default"):
        return False
    if "passing" in query and any(each["Status"] != "passing" for each in entry["Checks"]):
        return False
    if (parsed := FILTER.fullmatch(query.get("filter", ""))) is None:
        return True
    value: Any = entry
    for name in parsed[1].split("."):
        value = (value or {}).get(name)
    return bool(value == parsed[2])


def _seconds(text: str) -> float:
    """A duration as Go writes it, in one unit."""
    parsed = re.fullmatch(r"([0-9.]+)(ms|s|m)", text)
    if parsed is None:
        return WAIT
    return min(float(parsed[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0}[parsed[2]], MOST_WAIT)
