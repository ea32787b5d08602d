"""A request is tried over the admin port: by what runs, and with nothing sent."""

from __future__ import annotations

import pytest

from lb.control.api.trial_api import ENDPOINTS
from lb.core.roles import CONFIGURE
from tests.control.conftest import Api
from tests.support.eventually import eventually

PATH = "/api/v1/routes/test"


def test_it_says_what_lb_route_test_prints(shared: Api) -> None:
    answer = shared.ask("POST", PATH, {"url": "http://a.example/x?y=1", "headers": ["X-A: b"]})
    assert answer.status == 200, answer.body
    made = answer.json
    assert (made["route"], made["index"], made["answer"]) == ("/", 0, None)
    assert made["target"]["service"] == "greeting"
    assert made["target"]["targets"] == shared.ids["blue"]
    head = made["target"]["head"].splitlines()
    assert head[0] == "GET /x?y=1 HTTP/1.1"
    assert "X-A: b" in head


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": "http://a.example/", "headers": ["no colon"]},
        {"url": "http://a.example/", "headers": ["A: b\r\nHost: c"]},
        {"url": "http://a.example/ HTTP/1.1\r\nA: b"},
        {"url": "ftp://a.example/"},
        {"url": "/", "client": "somebody"},
        {"url": "/", "client": "1:2:3"},
        {"url": "/", "http": "3"},
        {"url": "/", "method": "G T"},
    ],
)
def test_what_no_client_could_send_is_refused(shared: Api, body: object) -> None:
    assert shared.ask("POST", PATH, body).status == 422


def test_a_request_that_lb_would_refuse(shared: Api) -> None:
    made = shared.ask("POST", PATH, {"method": "CONNECT", "url": "/"}).json
    assert made["answer"]["status"] in (400, 501)
    assert made["target"] is None


def test_the_active_pool_and_maintenance_count(own: Api) -> None:
    def tried() -> object:
        made = own.ask("POST", PATH, {"url": "http://h/"}).json
        return made["answer"]["reason"] if made["answer"] else made["target"]["pool"]

    assert tried() == "blue"
    assert own.ask("POST", "/api/v1/services/greeting/switch", {"to": "green"}).status == 200
    assert tried() == "green"
    assert own.ask("PUT", "/api/v1/maintenance//", {"on": True}).status == 200
    eventually(lambda: tried() == "maintenance")


def test_it_is_for_the_role_that_reads_the_configuration() -> None:
    assert [endpoint.roles for endpoint in ENDPOINTS] == [(CONFIGURE,)]
