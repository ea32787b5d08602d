"""Guards with real processes: files that change, keys that are exchanged, another server that is asked."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Iterator

import bcrypt
import pytest

from tests.support.eventually import eventually
from tests.support.stage import Stage, ask
from tests.support.tokens import EC, RSA, jwk, jwks, token


class Server:
    """A server of keys, and of verdicts. `keys` b"": it is out of order."""

    def __init__(self) -> None:
        self.keys = jwks(jwk(RSA, kid="r"))
        self.fetches = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/jwks":
                    outer.fetches += 1
                    self.send_response(200 if outer.keys else 500)
                    body = outer.keys
                else:
                    user = self.headers.get("X-Who", "")
                    self.send_response(204 if user else 401)
                    self.send_header("Remote-User", user)
                    body = b""
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def routes(*steps: str) -> str:
    """A route /0, /1, … to `greeting` for each step."""
    lines = [
        f"  - {{path: /{number}, service: greeting, steps: [{step}, {{strip_prefix: /{number}}}]}}\n"
        for number, step in enumerate(steps)
    ]
    return "routes:\n" + "".join(lines)


def test_keys_are_exchanged_while_lb_runs(stage: Stage, server: Server) -> None:
    rule = f"{{jwt: {{jwks: '{server.url}/jwks', refresh: 1s, claims: {{X-User: sub}}}}}}"
    path = stage.config({"blue": [stage.backend()]})
    path.write_text(path.read_text() + routes(rule))
    lb = stage.start(path)

    def status(text: str = "") -> int:
        return ask(f"{lb.url}/0", headers={"Authorization": f"Bearer {text}"} if text else {}).status

    old, new = token(RSA, kid="r"), token(EC, kid="e")
    eventually(lambda: status(old) == 200)
    assert (status(), status(new)) == (401, 401)
    server.keys = jwks(jwk(EC, kid="e"))
    eventually(lambda: (status(old), status(new)) == (401, 200))
    server.keys = b""
    eventually(lambda: "cannot be fetched" in lb.cli("events").stdout)
    assert status(new) == 200
    assert lb.stop() == 0
    lb = stage.start(path)
    assert status(new) == 200


def test_passwords_change_with_a_reload(stage: Stage) -> None:
    def users(password: bytes) -> None:
        (stage.folder / "users").write_bytes(b"anna:" + bcrypt.hashpw(password, bcrypt.gensalt(4)) + b"\n")

    def status(password: bytes) -> int:
        value = base64.b64encode(b"anna:" + password).decode()
        return ask(f"{lb.url}/0", headers={"Authorization": f"Basic {value}"}).status

    users(b"first")
    path = stage.config({"blue": [stage.backend()]})
    path.write_text(path.read_text() + routes("{basic_auth: {users_file: users}}"))
    lb = stage.start(path)
    assert (status(b"first"), status(b"second")) == (200, 401)
    users(b"second")
    assert "users: renewed" in lb.cli("reload").stdout.replace("\n", "")
    assert (status(b"first"), status(b"second")) == (401, 200)
    (stage.folder / "users").write_text("anna:{SHA}x\n")
    refused = lb.cli("reload")
    assert refused.returncode == 1
    assert "SHA-1" in refused.stdout + refused.stderr
    assert status(b"second") == 200


def test_a_server_that_is_asked_is_a_service(stage: Stage, server: Server) -> None:
    path = stage.config({"blue": [stage.backend()]})
    path.write_text(path.read_text() + routes(f"{{forward_auth: {{url: '{server.url}/verify', copy: [Remote-User]}}}}"))
    lb = stage.start(path)
    name = f"auth-{server.url[7:].replace(':', '-')}"
    assert name in [service["name"] for service in lb.status()["services"]]
    eventually(lambda: lb.state(server.url[7:]) == "ready")
    assert ask(f"{lb.url}/0").status == 401
    assert ask(f"{lb.url}/0", headers={"X-Who": "anna"}).status == 200
    server.close()
    eventually(lambda: ask(f"{lb.url}/0", headers={"X-Who": "anna"}).status == 503)
    assert lb.metrics()['lb_rejected_total{reason="auth_unavailable"}'] >= 1
