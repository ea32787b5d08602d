"""`lb explain REQUEST-ID`: what --help and the bodies of refusals promise of every request answered just now."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.support.stage import Lb, Stage, ask


def explained(lb: Lb, request_id: str) -> str:
    done = lb.cli("explain", request_id)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("log", ["{path: LOG}", "off", "{format: combined, path: LOG}", "{sample: 0%, path: LOG}"])
def test_a_request_that_went_well_is_known(stage: Stage, tmp_path: Path, log: str) -> None:
    path = stage.config({"blue": stage.pool("blue", 1)})
    text = path.read_text()
    kept = re.sub(r"(?m)^access_log: .*$", f"access_log: {log.replace('LOG', str(tmp_path / 'log'))}", text)
    lb = stage.start(stage.file(kept))
    ids = [ask(f"{lb.url}/greeting?n={number}").headers["X-Request-Id"] for number in range(40)]
    for number in (0, 20, 39):
        said = explained(lb, ids[number])
        assert f"GET /greeting?n={number} from 127.0.0.1" in said
        assert "answered 200 after" in said
        assert "pool blue" in said
        assert stage.backends[0].address in said
    unknown = lb.cli("explain", "0123456789abcdef0123")
    assert unknown.returncode == 1
    assert "no request of the recent past" in unknown.stderr


def test_our_own_refusals_are_known(stage: Stage) -> None:
    lb = stage.start(
        stage.config({"blue": stage.pool("blue", 1)}, top="routes: [{path: /greeting, service: greeting}]")
    )
    nowhere = ask(f"{lb.url}/elsewhere")
    assert nowhere.status == 404
    said = explained(lb, nowhere.headers["X-Request-Id"])
    assert "GET /elsewhere from 127.0.0.1" in said
    assert "answered 404" in said and "no_route" in said
    request_id = nowhere.headers["X-Request-Id"]
    assert said.splitlines()[0] == f"{request_id} ended with 404: no_route", "the id once"
    host, port = lb.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 5) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
        answer = sock.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 400")
    request_id = re.search(r"X-Request-Id: (\S+)", answer)
    assert request_id is not None
    said = explained(lb, request_id[1])
    assert "refused before it was understood, with 400" in said
    assert "GET / of host a from 127.0.0.1" in said


@pytest.mark.parametrize("log", ["{path: LOG}", "off"])
def test_the_steps_that_a_request_met_are_known(stage: Stage, tmp_path: Path, log: str) -> None:
    steps = "steps: [{strip_prefix: /v1}, {request_headers: {set: {X-A: b}}}]"
    routes = f"routes: [{{name: versioned, path: /v1, service: greeting, max_body: 3, {steps}}}]"
    path = stage.config({"blue": stage.pool("blue", 1)}, top=routes)
    kept = re.sub(r"(?m)^access_log: .*$", f"access_log: {log.replace('LOG', str(tmp_path / 'log'))}", path.read_text())
    lb = stage.start(stage.file(kept))
    answer = ask(f"{lb.url}/v1/greeting")
    assert answer.status == 200
    said = explained(lb, answer.headers["X-Request-Id"])
    assert "route versioned: body_limit, strip_prefix, request_headers" in said
    assert "GET /v1/greeting from 127.0.0.1" in said
