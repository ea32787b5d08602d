"""A target's cookie with real processes: over workers, a reload with another secret, a restart and a drain."""

from __future__ import annotations

from tests.support.eventually import eventually
from tests.support.stage import Answer, Lb, Stage, ask


def visit(lb: Lb, cookie: str = "") -> tuple[str, str, Answer]:
    """The backend that has answered, the cookie for the next visit, and the answer."""
    answer = ask(lb.url, headers={"Cookie": cookie} if cookie else {})
    assert answer.status == 200, answer.body
    given = answer.headers.get("Set-Cookie", "").partition(";")[0]
    return str(answer.json["instance"]), given or cookie, answer


def explained(lb: Lb, answer: Answer) -> str:
    said = lb.cli("explain", answer.headers["X-Request-Id"]).stdout
    return next((line.strip() for line in said.splitlines() if "affinity: " in line), said)


def test_a_client_comes_back_whatever_becomes_of_lb(stage: Stage) -> None:
    secret = stage.folder / "secret"
    secret.write_text("0123456789abcdef\n")
    path = stage.config(
        {"blue": stage.pool("blue", 3)},
        service=f"affinity: {{cookie: lb_target, secret_file: {secret}}}",
        top="workers: 2",
    )
    lb = stage.start(path)
    eventually(lambda: len({visit(lb)[0] for _ in range(6)}) == 3)
    home, cookie, answer = visit(lb)
    assert "affinity: no cookie yet, new one for" in explained(lb, answer)
    for _ in range(12):  # each on a connection of its own: both workers are asked
        assert visit(lb, cookie)[:2] == (home, cookie)
    assert "affinity: kept to greeting/blue/" in explained(lb, visit(lb, cookie)[2])

    secret.write_text("another-0123456789abcdef\n0123456789abcdef\n")
    reloaded = lb.cli("reload")
    assert reloaded.returncode == 0
    assert "renewed, for new requests" in reloaded.stdout
    same, newer, _ = visit(lb, cookie)
    assert same == home
    assert newer != cookie
    assert lb.stop() == 0
    lb = stage.start(path)
    eventually(lambda: len({visit(lb)[0] for _ in range(6)}) == 3)
    for _ in range(6):
        assert visit(lb, newer)[:2] == (home, newer)

    assert lb.cli("drain", home).returncode == 0
    away, another, answer = visit(lb, newer)
    assert away != home
    assert "draining, fell over to" in explained(lb, answer)
    assert lb.cli("undrain", home).returncode == 0
    for _ in range(6):
        assert visit(lb, another)[:2] == (away, another)
