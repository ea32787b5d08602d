"""The part of an API server of Kubernetes that discovery uses: EndpointSlices, listed and watched, over TLS.

Versions grow with each change over all objects, as etcd's do. A list has pages, and is of one version. A watch goes on
from any version that is still known; older ones are gone (410), as a status or as an event. Bookmarks come as a watch
begins to wait, before it ends, and when a test says so. It ends after `timeoutSeconds`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.threaded_server import ThreadedServer

GROUP = "discovery.k8s.io"
#: Names and versions are of the real API (discovery.k8s.io/v1).
API = f"{GROUP}/v1"
Json = dict[str, Any]


class ApiServer(ThreadedServer):
    """Slices that a test makes. It lives in a thread of its own, and may be stopped and started again."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__()
        self.authority = Authority("cluster")
        self.tokens = {"good-token"}
        self.client_authority: Authority | None = None  # client certificates of it may ask as well
        self.forbidden: set[str] = set()  # verbs: list, watch
        self.broken = ""  # an answer instead of any other
        self.status = 200  # of each answer
        self.hung = False  # lists and watches are not answered
        self.silent = False  # watches begin, say nothing and do not end
        self.mute = False  # watches say nothing, and end in time
        self.gone_as_event = False  # old versions are said to be gone by an event instead of by a status
        self.asked: list[str] = []  # verb and version of each request
        self.shown: list[str] = []  # how each request was allowed
        self._objects: dict[tuple[str, str], Json] = {}  # (namespace, name) → slice
        self._history: list[tuple[int, str, Json]] = []  # (version, kind, object), the oldest first
        self._compacted = 0  # versions up to this one are forgotten
        self._pages: dict[str, list[Json]] = {}  # what is left of lists, by `continue`
        self.version = 100
        self._watching: dict[web.StreamResponse, tuple[asyncio.Event, asyncio.BaseTransport | None]] = {}
        self._host = host
        self._port = free_port()
        self.url = f"https://{host}:{self._port}"

    # --- how it is reached -------------------------------------------------------------------------------------------

    def account(self, folder: Path, token: str = "good-token", namespace: str = "prod") -> tuple[Path, dict[str, str]]:
        """The account of a pod: its folder, and its environment."""
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(token)
        (folder / "namespace").write_text(namespace)
        (folder / "ca.crt").write_bytes(self.authority.pem)
        return folder, {"KUBERNETES_SERVICE_HOST": self._host, "KUBERNETES_SERVICE_PORT": str(self._port)}

    def kubeconfig(self, path: Path, *, namespace: str = "prod", **user: Any) -> Path:
        """A kubeconfig file. `user`: what it shows the server; a token, if nothing else is given."""
        ca = base64.b64encode(self.authority.pem).decode()
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "c", "cluster": {"server": self.url, "certificate-authority-data": ca}}],
            "users": [{"name": "u", "user": user or {"token": "good-token"}}],
            "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
        }
        path.write_text(yaml.safe_dump(document))
        return path

    # --- objects -----------------------------------------------------------------------------------------------------

    def put(
        self,
        name: str,
        *endpoints: Json,
        service: str = "web",
        namespace: str = "prod",
        ports: list[Json] | None = None,
        family: str = "IPv4",
    ) -> None:
        """Make a slice, or replace it."""
        if ports is None:
            ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
        self._call(self._put(name, namespace, service, family, list(endpoints), ports))

    def remove(self, name: str, namespace: str = "prod") -> None:
        self._call(self._remove((namespace, name)))

    def touch(self) -> None:
        """Something else in the cluster changes: the version grows, and no watch of slices is told."""
        self._call(self._grow())

    def bookmark(self) -> None:
        """Tell watches which version is the newest."""
        self._call(self._bookmark())

    def compact(self) -> None:
        """Forget all versions up to now."""
        self._call(self._compact())

    def cut(self, last: bytes = b"") -> None:
        """Break all watches off, after a last piece."""
        self._call(self._cut(last))

    @property
    def watches(self) -> int:
        return len(self._watching)

    def verbs(self) -> list[str]:
        return [each.partition(" ")[0] for each in self.asked]

    # --- in its thread -----------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get(f"/apis/{API}/namespaces/{{namespace}}/endpointslices", self._slices)
        app.router.add_get("/apis", self._groups)
        app.router.add_get("/api", self._core)
        app.router.add_get(f"/apis/{API}", self._resources)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        issued = self.authority.issue(self._host, "kubernetes.default.svc")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        with tempfile.TemporaryDirectory() as folder:
            cert, key = Path(folder) / "cert", Path(folder) / "key"
            cert.write_bytes(issued.cert_pem)
            key.write_bytes(issued.key_pem)
            context.load_cert_chain(cert, key)
        if self.client_authority is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata=self.client_authority.pem.decode())
        await web.TCPSite(self._runner, self._host, self._port, ssl_context=context, reuse_address=True).start()

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._cut(b"")
            await self._runner.cleanup()
            self._runner = None

    async def _grow(self) -> None:
        self.version += 1

    async def _put(
        self, name: str, namespace: str, service: str, family: str, endpoints: list[Json], ports: list[Json]
    ) -> None:
        await self._grow()
        kind = "MODIFIED" if (namespace, name) in self._objects else "ADDED"
        made = {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": f"uid-{namespace}-{name}",
                "resourceVersion": str(self.version),
                "labels": {f"{GROUP.replace('discovery', 'endpointslice')}/managed-by": "test", **_labels(service)},
            },
            "addressType": family,
            "endpoints": endpoints,
            "ports": ports,
        }
        self._objects[namespace, name] = made
        self._tell(kind, made)

    async def _remove(self, key: tuple[str, str]) -> None:
        await self._grow()
        made = self._objects.pop(key)
        made = {**made, "metadata": {**made["metadata"], "resourceVersion": str(self.version)}}
        self._tell("DELETED", made)

    def _tell(self, kind: str, made: Json) -> None:
        self._history.append((self.version, kind, made))
        for changed, _ in self._watching.values():
            changed.set()

    async def _bookmark(self) -> None:
        for response in list(self._watching):
            await self._write(response, _bookmark_of(self.version))

    async def _compact(self) -> None:
        self._compacted = self.version
        self._history.clear()

    async def _cut(self, last: bytes) -> None:
        for response, (_, transport) in list(self._watching.items()):
            with suppress(ConnectionError):
                if last:
                    await response.write(last)
            if transport is not None:
                transport.close()

    async def _write(self, response: web.StreamResponse, event: Json) -> None:
        with suppress(ConnectionError):
            await response.write(json.dumps(event).encode() + b"\n")

    # --- the API -----------------------------------------------------------------------------------------------------

    async def _slices(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        verb = "watch" if query.get("watch") in ("true", "1") else "list"
        self.asked.append(f"{verb} {query.get('resourceVersion', '')}")
        if self.hung:
            await asyncio.Event().wait()
        if self.broken or self.status != 200:
            return web.Response(text=self.broken or "{}", status=self.status)
        peer = request.transport.get_extra_info("peercert") if request.transport is not None else None
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in self.tokens:
            self.shown.append(f"token {token}")
        elif peer and self.client_authority is not None:
            self.shown.append("certificate")
        else:
            return _status(401, "Unauthorized", "Unauthorized")
        if verb in self.forbidden:
            text = f'endpointslices.{GROUP} is forbidden: User "lb" cannot {verb} resource "endpointslices"'
            return _status(403, "Forbidden", text)
        namespace = request.match_info["namespace"]
        selector = dict(each.split("=") for each in query.get("labelSelector", "").split(",") if each)
        return await (self._watch if verb == "watch" else self._list)(request, namespace, selector)

    async def _list(self, request: web.Request, namespace: str, selector: dict[str, str]) -> web.StreamResponse:
        limit = int(request.query.get("limit", "0"))
        going_on = request.query.get("continue", "")
        if going_on:
            if going_on not in self._pages:
                return _status(410, "Expired", "The provided continue parameter is too old")
            matches = self._pages.pop(going_on)
            version = going_on.partition("-")[0]
        else:
            version = str(self.version)
            matches = [each for key, each in sorted(self._objects.items()) if _matches(key, each, namespace, selector)]
        metadata = {"resourceVersion": version}
        if limit and len(matches) > limit:
            metadata["continue"] = f"{version}-{len(self._pages)}-{id(matches)}"
            self._pages[metadata["continue"]] = matches[limit:]
            matches = matches[:limit]
        kind = {"kind": "EndpointSliceList", "apiVersion": API}
        return web.json_response({**kind, "metadata": metadata, "items": matches})

    async def _watch(self, request: web.Request, namespace: str, selector: dict[str, str]) -> web.StreamResponse:
        query = request.query
        since = int(query.get("resourceVersion") or self.version)
        gone = since < self._compacted
        if since > self.version:
            return _status(504, "Timeout", f"Too large resource version: {since}, current: {self.version}")
        if gone and not self.gone_as_event:
            return _status(410, "Expired", f"too old resource version: {since} ({self._compacted})")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        if gone:
            status = _status_of(410, "Expired", f"too old resource version: {since} ({self._compacted})")
            await self._write(response, {"type": "ERROR", "object": status})
            return response
        changed = asyncio.Event()
        self._watching[response] = changed, request.transport
        mute = self.mute
        bookmarks = query.get("allowWatchBookmarks") == "true" and not mute
        try:
            if self.silent:
                await asyncio.Event().wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(float(query.get("timeoutSeconds", "300"))):
                    while True:
                        if mute:
                            await asyncio.Event().wait()
                        changed.clear()
                        for version, kind, made in [each for each in self._history if each[0] > since]:
                            key = (made["metadata"]["namespace"], made["metadata"]["name"])
                            if _matches(key, made, namespace, selector):
                                await self._write(response, {"type": kind, "object": _typed(made)})
                            since = version
                        await changed.wait()
            if bookmarks:
                await self._write(response, _bookmark_of(self.version))
            return response
        finally:
            self._watching.pop(response, None)

    # --- what kubectl asks first --------------------------------------------------------------------------------------

    async def _core(self, _: web.Request) -> web.Response:
        return web.json_response({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})

    async def _groups(self, _: web.Request) -> web.Response:
        version = {"groupVersion": API, "version": "v1"}
        group = {"name": GROUP, "versions": [version], "preferredVersion": version}
        return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})

    async def _resources(self, _: web.Request) -> web.Response:
        resource = {
            "name": "endpointslices",
            "singularName": "endpointslice",
            "namespaced": True,
            "kind": "EndpointSlice",
            "verbs": ["get", "list", "watch"],
        }
        return web.json_response(
            {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API, "resources": [resource]}
        )


def pod(address: str, name: str = "", **conditions: bool | None) -> Json:
    """An endpoint of a slice, as the controller of Kubernetes writes it; `conditions` differ from a ready pod's."""
    return {
        "addresses": [address],
        "conditions": {"ready": True, "serving": True, "terminating": False, **conditions},
        "targetRef": {"kind": "Pod", "namespace": "prod", "name": name or f"pod-{address.rpartition('.')[2]}"},
        "nodeName": "node-1",
        "zone": "zone-1",
    }


def leaving(address: str, name: str = "", serving: bool = True) -> Json:
    """An endpoint whose pod was told to stop."""
    return pod(address, name, ready=False, serving=serving, terminating=True)


def _labels(service: str) -> dict[str, str]:
    return {"kubernetes.io/service-name": service}


def _typed(made: Json) -> Json:
    return {"kind": "EndpointSlice", "apiVersion": API, **made}


def _bookmark_of(version: int) -> Json:
    metadata = {"resourceVersion": str(version), "creationTimestamp": None}
    empty = {"metadata": metadata, "addressType": "", "endpoints": None, "ports": None}
    return {"type": "BOOKMARK", "object": _typed(empty)}


def _matches(key: tuple[str, str], made: Json, namespace: str, selector: dict[str, str]) -> bool:
    labels = made["metadata"]["labels"]
    return key[0] == namespace and all(labels.get(name) == value for name, value in selector.items())


def _status_of(code: int, reason: str, message: str) -> Json:
    kind = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**kind, "message": message, "reason": reason, "code": code}


def _status(code: int, reason: str, message: str) -> web.Response:
    return web.json_response(_status_of(code, reason, message), status=code)
