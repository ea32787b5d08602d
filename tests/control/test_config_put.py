"""`PUT /api/v1/config`: a text becomes the file and what runs, whole or not at all, and nobody's edit is lost."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lb.net.atomic_file import Replacement
from tests.control.conftest import TOKEN, Api
from tests.support.eventually import eventually


def put(api: Api, text: str, tag: str = "*", **more: object):
    return api.ask("PUT", "/api/v1/config", {"text": text, **more}, {"If-Match": tag, "X-LB-Actor": "alice"})


def running(api: Api) -> tuple[str, str]:
    answer = api.ask("GET", "/api/v1/config")
    return answer.json["text"], answer.headers["ETag"]


def weights(api: Api) -> list[int]:
    pools = api.ask("GET", "/api/v1/services/greeting").json["pools"]
    return [target["weight"] for target in pools[0]["targets"]]


def heavier(text: str) -> str:
    """The same with a comment, and another weight for the first target."""
    before, _, rest = text.partition("blue: [")
    first, _, rest = rest.partition(",")
    return f"# by hand\n{before}blue: [{{url: {first}, weight: 5}},{rest}"


def test_a_text_becomes_the_file_and_what_runs(own: Api) -> None:
    text, tag = running(own)
    own.file.chmod(0o640)
    done = put(own, heavier(text), tag)
    assert done.status == 200, done.body
    assert done.json["changed"]
    assert "weight 1 → 5" in done.json["lines"][0]
    weight = {"kind": "change", "target": own.ids["blue"][0], "field": "weight", "old": "1", "new": "5"}
    assert weight.items() <= done.json["changes"][0].items()
    assert weights(own) == [5, 1]
    assert own.file.read_text() == heavier(text) == running(own)[0]
    assert own.file.with_name("lb.yaml~").read_text() == text
    assert stat.S_IMODE(own.file.stat().st_mode) == 0o640
    assert sorted(path.name for path in own.file.parent.glob("*lb.yaml*")) == ["lb.yaml", "lb.yaml~"]
    event = own.events("?kind=reload")[-1]
    assert event["actor"] == "alice (127.0.0.1)"
    assert event["before"] != event["after"]
    assert event["after"].startswith("configuration ")

    late = put(own, text, tag)
    assert (late.status, late.json["type"]) == (412, "/problems/somebody-was-faster")
    assert "alice" in late.json["detail"]
    assert put(own, text, running(own)[1]).status == 200
    assert weights(own) == [1, 1]
    same = put(own, text, running(own)[1])
    assert (same.status, same.json["changed"]) == (200, False)


def test_of_two_texts_that_are_sent_at_once_one_is_taken(own: Api) -> None:
    """Both are based on what runs when they come; the second one has to see what the first one did."""
    text, tag = running(own)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: put(own, f"{text}# by {number}\n", tag), range(4)))
    assert sorted(answer.status for answer in answers) == [200, 412, 412, 412]
    [taken] = [number for number, answer in enumerate(answers) if answer.status == 200]
    assert running(own)[0] == f"{text}# by {taken}\n" == own.file.read_text()
    assert {answer.json["type"] for answer in answers if answer.status == 412} == {"/problems/somebody-was-faster"}


def test_orders_in_between_do_not_make_a_text_old(own: Api) -> None:
    text, tag = running(own)
    assert own.ask("POST", "/api/v1/services/greeting/switch", {"to": "green"}).status == 200
    assert put(own, heavier(text), tag).status == 200
    assert own.ask("POST", "/api/v1/reload", headers={"If-Match": tag}).status == 412
    assert own.ask("POST", "/api/v1/reload", headers={"If-Match": running(own)[1]}).status == 200


def test_a_refused_text_leaves_all_as_it_was(shared: Api) -> None:
    text, _ = running(shared)
    refused = put(shared, text.replace("interval: 200ms", "intervall: 200ms"))
    assert (refused.status, refused.json["type"]) == (422, "/problems/the-file-is-invalid")
    [problem] = refused.json["problems"]
    assert problem["line"] == 11
    assert "intervall" in problem["message"]
    assert "intervall: 200ms" in problem["quote"]
    assert problem["width"] == len("intervall")
    assert problem["path"].startswith("services.greeting.readiness")
    taken = shared.lb.url.removeprefix("http://")
    refused = put(shared, text.replace("listeners: [127.0.0.1:0]", f"listeners: ['127.0.0.1:0', '{taken}']"))
    assert (refused.status, refused.json["type"]) == (409, "/problems/cannot-listen")
    told = shared.events("?kind=reload")[-1]
    assert "a new text was refused" in told["text"]
    assert told["actor"] == "alice (127.0.0.1)"
    assert shared.file.read_text() == text == running(shared)[0]
    assert not shared.file.with_name("lb.yaml~").exists()
    assert shared.ask("GET", "/api/v1/status").json["config"]["last_reload_ok"]


def test_somebody_s_edit_of_the_file_is_not_lost(own: Api) -> None:
    text, tag = running(own)
    own.file.write_text(f"{text}# an edit\n")
    refused = put(own, heavier(text), tag)
    assert (refused.status, refused.json["type"]) == (409, "/problems/the-file-was-edited")
    assert weights(own) == [1, 1]
    assert put(own, heavier(text), tag, force=True).status == 200
    assert weights(own) == [5, 1]
    assert own.file.with_name("lb.yaml~").read_text() == f"{text}# an edit\n"


def test_without_a_token_nobody_gets_lb_to_run_or_write_something(shared: Api, guarded: Api, tmp_path: Path) -> None:
    text, _ = running(shared)
    for more in (
        "    liveness: {path: /, on_failure: {command: [touch, /tmp/x]}}\n",
        "    rollout: {pre: {command: [touch, /tmp/x]}}\n",
        f"access_log: {{path: {tmp_path}/taken}}\n",
        "    pools: {found: {discover: {file: /etc/hostname}}}\n",
        "    pools: {found: {discover: {consul: {service: a}}}}\n",
        "    pools: {found: {discover: {consul: {service: a, token_file: /etc/hostname}}}}\n",
        "    pools: {found: {discover: {docker: {label: a}}}}\n",
        "    pools: {found: {discover: {kubernetes: {service: a, kubeconfig: /etc/hostname}}}}\n",
        "    pools: {found: {discover: {python: {source: 'os:listdir'}}}}\n",
    ):
        wanted = text.replace("    rollout: {bake: 0s, min_ready: 1}\n", "") + more
        if "pools" in more:
            wanted = text.replace(
                "    pools:\n", "    pools:\n      found: " + more.partition("found: ")[2][:-2] + "\n"
            )
        assert shared.ask("POST", "/api/v1/config/validate", {"text": wanted}).json["ok"]
        refused = put(shared, wanted)
        assert (refused.status, refused.json["type"]) == (403, "/problems/token-needed-for-commands"), refused.body
        assert refused.json["reasons"][0]["where"].endswith(
            ("command", "path", "file", "address", "token_file", "socket", "kubeconfig", "source")
        )
    assert running(shared)[0] == text
    protected, tag = running(guarded)
    allowed = protected.replace("min_ready: 1", "min_ready: 1, post: {command: [true]}")
    assert put(guarded, allowed, tag).status == 200
    assert put(guarded, protected).status == 200
    assert TOKEN not in protected


def test_what_the_file_runs_already_may_stay(own: Api) -> None:
    text, _ = running(own)
    own.file.write_text(text.replace("min_ready: 1", "min_ready: 1, post: {command: ['true']}"))
    assert own.ask("POST", "/api/v1/reload").status == 200
    now, tag = running(own)
    assert put(own, heavier(now), tag).status == 200


def test_a_file_that_is_a_link_is_replaced_where_it_lies(tmp_path: Path) -> None:
    real = tmp_path / "real" / "lb.yaml"
    real.parent.mkdir()
    real.write_text("old")
    link = tmp_path / "lb.yaml"
    link.symlink_to(real)
    with Replacement(link, "new") as replacement:
        assert replacement.path.parent == real.parent
        assert real.read_text() == "old"
        replacement.put()
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.with_name("lb.yaml~").read_text() == "old"
    with Replacement(link, "never"):
        pass
    assert sorted(path.name for path in real.parent.iterdir()) == ["lb.yaml", "lb.yaml~"]
    with pytest.raises(OSError, match="nowhere"), Replacement(tmp_path / "nowhere" / "lb.yaml", "x"):
        pass


def test_a_file_that_cannot_be_written_is_a_refusal(own: Api) -> None:
    text, _ = running(own)
    folder = own.file.parent
    away = folder.rename(folder.with_name("away"))
    try:
        refused = put(own, heavier(text), force=True)
    finally:
        away.rename(folder)
    assert (refused.status, refused.json["type"]) == (409, "/problems/the-file-cannot-be-written")
    assert "nothing has changed" in refused.json["detail"]
    assert weights(own) == [1, 1]


def test_a_file_that_is_watched_is_not_read_twice(own: Api) -> None:
    text, _ = running(own)
    assert put(own, f"watch: true\n{text}").status == 200
    count = len(own.events("?kind=reload"))
    assert put(own, f"watch: true\n{heavier(text)}").status == 200
    own.file.write_text(f"watch: true\n{text}")  # by hand: this one is seen
    eventually(lambda: weights(own) == [1, 1])
    assert len(own.events("?kind=reload")) == count + 2
