"""A WebSocket over HTTP/2 (RFC 8441) from Chromium to a server that speaks HTTP/1.1, through a real lb."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http import HTTPStatus

import pytest
import trustme
from selenium import webdriver
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from tests.support.browser import Browser, start_chromium
from tests.support.eventually import eventually
from tests.support.stage import Lb, Stage

OPEN = """
window.socket = new WebSocket(location.href.replace('https', 'wss') + 'ws', ['chat']);
window.heard = [];
socket.onmessage = (event) => heard.push(event.data);
socket.onclose = (event) => { window.end = [event.code, event.wasClean]; };
socket.onopen = () => done(socket.protocol);
socket.onerror = () => done('error');
"""


def page(connection: ServerConnection, request: Request) -> Response | None:
    """The answer to what is no WebSocket."""
    return None if request.path == "/ws" else connection.respond(HTTPStatus.OK, "a page")


def echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


@pytest.fixture
def target() -> Iterator[Server]:
    with serve(echo, "127.0.0.1", 0, subprotocols=["chat"], process_request=page) as server:  # type: ignore[list-item]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server


@pytest.fixture
def chromium() -> Iterator[webdriver.Chrome]:
    yield from start_chromium(any_certificate=True)


@pytest.fixture
def lb(stage: Stage, target: Server) -> Lb:
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(stage.folder / "both.pem")
    (stage.folder / "both.pem").chmod(0o600)
    return stage.start(
        stage.file(
            "listeners: [{bind: '127.0.0.1:0', tls: {cert_file: both.pem, key_file: both.pem}}]\n"
            "admin: {bind: '127.0.0.1:0'}\nstate_dir: ./state\naccess_log: {path: access.log}\n"
            "services: {s: {readiness: {protocol: tcp}, timeouts: {drain: 5s}, "
            f"pools: {{blue: ['127.0.0.1:{target.socket.getsockname()[1]}']}}}}}}\n"
        )
    )


def test_from_chromium(chromium: webdriver.Chrome, lb: Lb) -> None:
    browser = Browser(chromium)
    browser.open(lb.url.replace("127.0.0.1", "localhost") + "/")
    assert "a page" in browser.text("body")
    assert browser.wait_for(OPEN) == "chat"
    for message in ("hello", "x" * 200_000):
        browser.run("socket.send(arguments[0])", message)
        eventually(lambda said=message: browser.run("return heard.includes(arguments[0])", said))
    assert lb.cli("reload").returncode == 0
    browser.run("socket.send('after a reload')")
    eventually(lambda: browser.run("return heard.includes('after a reload')"))

    target = lb.status()["services"][0]["pools"][0]["targets"][0]["id"]
    assert lb.cli("drain", target, "--force").returncode == 0
    eventually(lambda: browser.run("return window.end"), 10.0)
    assert browser.run("return window.end") == [1001, True]
    eventually(lambda: "/ws" in lb.access.read_text())
    [line] = [line for line in lb.access.read_text().splitlines() if "/ws" in line]
    assert '"protocol":"HTTP/2.0"' in line
    assert '"status":200' in line
