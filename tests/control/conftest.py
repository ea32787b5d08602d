"""An lb whose admin port is asked: behind it sockets that only accept, which is all that a TCP check wants."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.eventually import eventually
from tests.support.stage import Answer, Lb, Stage

TOKEN = "c2l4dGVlbiBieXRlcyBhdCBsZWFzdA"
FILE = """\
listeners: [127.0.0.1:0]
admin: {{bind: 127.0.0.1:0, allowed_hosts: [lb.example]{token}}}
state_dir: ./state
services:
  greeting:
    pools:
      blue: [http://{0}, http://{1}]
      green: [http://{2}]
      red: [http://127.0.0.1:1]
    active: blue
    readiness: {{protocol: tcp, interval: 200ms, timeout: 500ms}}
    rollout: {{bake: 0s, min_ready: 1}}
"""


class Api:
    """The admin port of one lb. Each request is one connection, with exactly the headers that are given."""

    def __init__(self, lb: Lb, token: str, folder: Path) -> None:
        self.lb = lb
        self.token = token
        self.file = folder / "lb.yaml"
        self.port = urlsplit(lb.admin).port or 0
        status = self.ask("GET", "/api/v1/status").json
        pools = {pool["name"]: pool["targets"] for pool in status["services"][0]["pools"]}
        self.ids = {name: [target["id"] for target in targets] for name, targets in pools.items()}

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        token: str | None = None,
    ) -> Answer:
        """One request; `body` becomes JSON unless it is bytes."""
        sent = dict(headers or {})
        if (given := self.token if token is None else token) and "Authorization" not in sent:
            sent["Authorization"] = f"Bearer {given}"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body=data, headers=sent)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.headers), answer.read())
        finally:
            connection.close()

    def raw(self, data: bytes, until: bytes = b"") -> bytes:
        """The answer to bytes: all of it, or until something was in it."""
        with socket.create_connection(("127.0.0.1", self.port), 20) as sock:
            sock.sendall(data)
            got = b""
            while (not until or until not in got) and (more := sock.recv(65536)):
                got += more
        return got

    def events(self, query: str = "") -> list[Any]:
        """The timeline."""
        found: list[Any] = self.ask("GET", f"/api/v1/events{query}").json
        return found


def start(folder: Path, stack: ExitStack, token: str = "") -> Api:
    """A ready lb with pools blue (2), green (1) and red (nobody there)."""
    stage = stack.enter_context(Stage(folder))
    sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
    for sock in sockets:
        sock.listen(1000)
    if token:
        (folder / "token").write_text(token)
        (folder / "token").chmod(0o600)
    addresses = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in sockets]
    path = stage.file(FILE.format(*addresses, token=", token_file: token" if token else ""))
    api = Api(stage.start(path, 1, ready=False), token, folder)

    def all_known() -> bool:
        pools = api.ask("GET", "/api/v1/services/greeting").json["pools"]
        return [pool["healthy"] for pool in pools] == [2, 1, 0]

    eventually(all_known, 40.0, "the probes have looked at all pools")
    return api


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """With a token; nobody changes it."""
    with ExitStack() as stack:
        yield start(tmp_path_factory.mktemp("guarded"), stack, TOKEN)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Without a token; whoever changes it changes it back."""
    with ExitStack() as stack:
        yield start(tmp_path_factory.mktemp("shared"), stack)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Api]:
    """Without a token, for one test."""
    with ExitStack() as stack:
        yield start(tmp_path, stack)
