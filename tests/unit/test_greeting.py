"""The greeting backend's decisions, and how it frames what it reads."""

import pytest

from lb.demo.greeting import Greeting, body_size


def service() -> Greeting:
    return Greeting("127.0.0.1:5001", "blue", "/health/readiness", "/health/liveness")


def test_the_article_s_endpoints() -> None:
    greeting = service()
    status, body, _ = greeting.answer("GET", "/greeting")
    assert (status, body) == (200, {"greeting": "Hello, World!", "version": "blue", "instance": "127.0.0.1:5001"})
    assert greeting.answer("GET", "/health/liveness")[:2] == (200, "OK")
    assert greeting.answer("GET", "/health/readiness")[:2] == (200, "OK")


def test_a_toggle_touches_readiness_and_nothing_else() -> None:
    greeting = service()
    assert greeting.answer("POST", "/toggle_health")[0] == 200
    assert greeting.answer("GET", "/health/readiness")[:2] == (503, "Service is not ready")
    assert greeting.answer("GET", "/health/liveness")[0] == 200
    assert greeting.answer("GET", "/greeting")[0] == 200
    greeting.answer("POST", "/toggle_health")
    assert greeting.answer("GET", "/health/readiness")[0] == 200


def test_changes_want_post() -> None:
    assert service().answer("GET", "/toggle_health")[0] == 405
    assert service().answer("DELETE", "/greeting")[0] == 405


@pytest.mark.parametrize("errors", [0, 1, 20, 33, 100])
def test_a_broken_one_fails_exactly_its_share(errors: int) -> None:
    greeting = service()
    greeting.answer("POST", f"/break?errors={errors}&delay=0.3")
    answers = [greeting.answer("GET", "/greeting") for _ in range(100)]
    assert sum(status == 500 for status, *_ in answers) == errors
    assert {seconds for *_, seconds in answers} == {0.3}
    assert greeting.answer("GET", "/health/readiness")[0] == 200  # it lies, as real ones do
    greeting.answer("POST", "/mend")
    assert greeting.answer("GET", "/greeting")[0] == 200


@pytest.mark.parametrize("nonsense", ["errors=x", "errors=-1", "errors=nan", "errors=inf", "", "errors="])
def test_nonsense_breaks_nothing(nonsense: str) -> None:
    greeting = service()
    assert greeting.answer("POST", f"/break?{nonsense}")[0] == 200
    assert greeting.answer("GET", "/greeting")[0] == 200


@pytest.mark.parametrize(
    ("sent", "fields", "size"),
    [
        (b"", {}, 0),
        (b"abc", {"content-length": "3"}, 3),
        (b"ab", {"content-length": "3"}, -1),
        (b"3\r\nabc\r\n0\r\n\r\n", {"transfer-encoding": "chunked"}, 13),
        (b"3\r\nabc\r\n0\r\nA: b\r\n\r\n", {"transfer-encoding": "chunked"}, 19),
        (b"3\r\nab", {"transfer-encoding": "chunked"}, -1),
        (b"3;x=y\r\nabc\r\n0\r\n", {"transfer-encoding": "chunked"}, -1),
    ],
)
def test_where_a_body_ends(sent: bytes, fields: dict[str, str], size: int) -> None:
    assert body_size(bytearray(b"head" + sent), 4, fields) == size


@pytest.mark.parametrize("fields", [{"content-length": "x"}, {"content-length": "-1"}])
def test_a_body_that_makes_no_sense(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r".*"):
        body_size(bytearray(b""), 0, fields)
