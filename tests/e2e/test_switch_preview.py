"""Before and beside a switch: previews, mirrored copies, and assets that only one version has."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.eventually import eventually
from tests.support.fleet import Fleet
from tests.support.releases import order, ready, service, two_pools
from tests.support.stage import Backend, Stage, ask


class Site(ThreadingHTTPServer):
    """A backend of a few pages that remembers what it was asked."""

    daemon_threads = True

    def __init__(self, version: str, *paths: str) -> None:
        self.asked: list[str] = []
        self.seconds = 0.0

        class Pages(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site: Site = self.server  # type: ignore[assignment]
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                known = self.path in (*paths, "/health/readiness")
                if self.path != "/health/readiness":
                    site.asked.append(f"{self.command} {self.path}")
                    time.sleep(site.seconds)
                body = f'{{"version": "{version}"}}'.encode() if known else b"no such page"
                self.send_response(200 if known else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Pages)
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def sites(*made: Site) -> Iterator[None]:
    for site in made:
        threading.Thread(target=site.serve_forever, daemon=True).start()
    yield
    for site in made:
        site.shutdown()


def test_chosen_requests_see_the_next_version_first(stage: Stage) -> None:
    lb, _, _ = two_pools(
        stage,
        more="previews: [{pool: green, header: X-Version, value: next}, {pool: green, cookie: version, value: next},"
        " {pool: green, host: next.example.org}]",
    )

    def version(**headers: str) -> str:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return str(ask(f"{lb.url}/greeting", headers=named).json["version"])

    assert version() == "blue"
    assert version(X_Version="next") == "green"
    assert version(X_Version="other") == "blue"
    assert version(Cookie="a=b; version=next") == "green"
    assert version(Host="next.example.org") == "green"
    assert version(Host="www.example.org") == "blue"
    order(lb, "switch", {"to": "green"})
    assert version() == "green"


def test_mirrored_copies_cost_the_original_nothing(stage: Stage) -> None:
    blue, green = Site("blue", "/page"), Site("green", "/page")
    with sites(blue, green):
        path = stage.config(
            {"blue": [blue], "green": [green]},  # type: ignore[list-item]
            service="mirror: {pool: green, percent: 50%, concurrency: 4}",
        )
        lb = stage.start(path)
        ready(lb, 2)
        green.seconds = 1.0  # slower than anyone would wait for
        began = time.monotonic()
        answers = [ask(f"{lb.url}/page", "POST", b"x" * 1000) for _ in range(100)]
        assert {answer.json["version"] for answer in answers} == {"blue"}
        assert time.monotonic() - began < 10, "the copies' answers are not waited for"
        assert len(blue.asked) == 100
        eventually(lambda: green.asked)
        green.shutdown()
        green.server_close()
        assert {ask(f"{lb.url}/page").json["version"] for _ in range(20)} == {"blue"}

        def mirrored() -> dict[str, float]:
            return {name: value for name, value in lb.metrics().items() if name.startswith("lb_mirrored_total")}

        eventually(lambda: sum(mirrored().values()) >= 50)


def test_an_asset_that_only_the_other_version_has(stage: Stage) -> None:
    """A page of green asks for green's asset, and the request for it goes to blue: 404 there, so green is asked."""
    blue, green = Site("blue", "/page", "/blue.js"), Site("green", "/page", "/green.js")
    with sites(blue, green):
        path = stage.config(
            {"blue": [blue], "green": [green]},  # type: ignore[list-item]
            service="sticky: {by: 'cookie:session', asset_fallback: true}",
        )
        lb = stage.start(path)
        ready(lb, 2)
        assert order(lb, "switch", {"to": "green", "steps": [50, 100]}).status == 200
        for client in range(20):
            cookie = {"Cookie": f"session={client}"}
            assert ask(f"{lb.url}/blue.js", headers=cookie).json["version"] == "blue"
            assert ask(f"{lb.url}/green.js", headers=cookie).json["version"] == "green"
            assert ask(f"{lb.url}/red.js", headers=cookie).status == 404
        assert "POST /green.js" not in blue.asked
        assert ask(f"{lb.url}/nothing", "POST", b"x").status == 404
        assert (blue.asked + green.asked).count("POST /nothing") == 1, "only GETs are asked twice"


def test_a_pool_with_previews_is_not_called_safe(stage: Stage) -> None:
    lb, _, _ = two_pools(stage, "bake: 0s", "previews: [{pool: blue, header: X-Version, value: old}]")
    order(lb, "switch", {"to": "green"})
    text = "blue is drained, but previews go to it"
    eventually(lambda: any(text in event["text"] for event in ask(f"{lb.admin}/api/v1/events").json), what=text)


def test_switching_a_service_leaves_the_others_alone(stage: Stage) -> None:
    blue: list[Backend] = stage.pool("blue", 1)
    green: list[Backend] = stage.pool("green", 1)
    path = stage.config({"blue": blue, "green": green})
    other = stage.pool("steady", 1)
    path.write_text(
        path.read_text()
        + f"  other: {{pools: {{steady: [{other[0].url}]}}, readiness: {{path: /health/readiness, interval: 200ms}}}}\n"
        + "routes:\n  - {path: /other, service: other}\n  - {path: /, service: greeting}\n"
    )
    lb = stage.start(path)
    ready(lb, 2)
    with Fleet(lb.url, clients=2, rps=50):
        order(lb, "switch", {"to": "green"})
        assert service(lb)["active"] == "green"
        assert ask(f"{lb.url}/other/greeting").json["version"] == "steady"
