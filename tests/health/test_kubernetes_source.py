"""The provider `kubernetes`, against a stand-in for an API server: real sockets, real TLS, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lb.config.model.discovery import Kubernetes
from lb.core.membership import Answer
from lb.discovery import kubernetes
from lb.discovery.kubernetes import KubernetesSource, Pace
from lb.discovery.source import NoAnswer
from tests.support.certificates import Authority
from tests.support.eventually_async import eventually
from tests.support.kubernetes_api import ApiServer, leaving, pod
from tests.support.source_watch import Watching, watched

#: Seconds as usual, but for those that a test would wait for.
QUICK = Pace(answer=1.0, watch=30.0, longest=0.3, longest_denied=0.5)


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "account"


def source(api: ApiServer, folder: Path, pace: Pace = QUICK, **more: Any) -> KubernetesSource:
    """With the account of a pod."""
    account, environ = api.account(folder)
    return KubernetesSource(Kubernetes.model_validate({"service": "web", **more}), pace, account, environ)


class Asked(Watching):
    def says(self, *wanted: str) -> bool:
        return isinstance(self.last, Answer) and [each.address for each in self.last.found] == [
            f"10.0.0.{number}:8080" for number in wanted
        ]

    @property
    def empty(self) -> list[object]:
        """Answers without endpoints."""
        return [each for each in self.told if isinstance(each, Answer) and not each.found]


async def test_ready_endpoints_of_the_service_are_named(api: ApiServer, folder: Path) -> None:
    api.put("web-a", pod("10.0.0.1"), pod("10.0.0.2", ready=False, serving=False), leaving("10.0.0.3", "web-3"))
    api.put("web-b", pod("10.0.0.4"), pod("10.0.0.1"))
    api.put("other", pod("10.0.0.9"), service="other")
    api.put("elsewhere", pod("10.0.0.8"), namespace="stage")
    answer = await source(api, folder).ask()
    assert [(each.address, each.priority, each.name) for each in answer.found] == [
        ("10.0.0.1:8080", 0, "pod-1"),
        ("10.0.0.3:8080", 1, "web-3 (terminating)"),
        ("10.0.0.4:8080", 0, "pod-4"),
    ]
    assert [each.address for each in (await source(api, folder, namespace="stage").ask()).found] == ["10.0.0.8:8080"]


async def test_a_port_is_chosen_by_name_or_number(api: ApiServer, folder: Path) -> None:
    ports = [{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}]
    api.put("web-a", pod("10.0.0.1"), ports=ports)
    for port in ("http", 8080):
        found = (await source(api, folder, port=port, scheme="https").ask()).found
        assert [each.url for each in found] == ["https://10.0.0.1:8080"]
    assert "`port` chooses" in (await source(api, folder).ask()).problems[0]


async def test_a_list_of_many_pages_is_one_answer(
    api: ApiServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "PAGE", 2)
    for number in range(1, 6):
        api.put(f"web-{number}", pod(f"10.0.0.{number}"))
    answer = await source(api, folder).ask()
    assert len(answer.found) == 5 and len(api.asked) == 3


async def test_events_are_followed_and_each_is_one_message(api: ApiServer, folder: Path) -> None:
    api.put("web-a", pod("10.0.0.1"))
    async with watched(source(api, folder), Asked()) as watching:
        await eventually(lambda: watching.says("1") and api.watches)
        api.put("web-b", pod("10.0.0.2"))
        await eventually(lambda: watching.says("1", "2"))
        api.put("web-a", pod("10.0.0.1", ready=False, serving=False))
        await eventually(lambda: watching.says("2"))
        api.put("web-a", pod("10.0.0.1"))
        await eventually(lambda: watching.says("1", "2"))
        api.remove("web-b")
        await eventually(lambda: watching.says("1"))
    assert api.verbs() == ["list", "watch"]


async def test_a_pod_that_terminates_stands_by_until_it_is_gone(api: ApiServer, folder: Path) -> None:
    api.put("web-a", pod("10.0.0.1"), pod("10.0.0.2"))
    async with watched(source(api, folder), Asked()) as watching:
        await eventually(lambda: watching.says("1", "2") and api.watches)
        api.put("web-a", leaving("10.0.0.1"), pod("10.0.0.2"))
        await eventually(
            lambda: isinstance(watching.last, Answer) and [e.priority for e in watching.last.found] == [1, 0]
        )
        api.put("web-a", leaving("10.0.0.1", serving=False), pod("10.0.0.2"))
        await eventually(lambda: watching.says("2"))


async def test_a_burst_of_events_is_told_together(api: ApiServer, folder: Path) -> None:
    api.put("web-0", pod("10.0.0.1"))
    async with watched(source(api, folder), Asked()) as watching:
        await eventually(lambda: watching.says("1") and api.watches)
        before = len(watching.told)
        for number in range(1, 101):
            api.put(f"web-{number}", pod(f"10.0.1.{number}"))
        await eventually(lambda: isinstance(watching.last, Answer) and len(watching.last.found) == 101)
        assert len(watching.told) - before < 60


# --- what ends a watch -----------------------------------------------------------------------------------------------


async def test_a_watch_that_ends_goes_on_from_its_version(api: ApiServer, folder: Path) -> None:
    api.put("web-a", pod("10.0.0.1"))
    async with watched(source(api, folder, Pace(watch=1.0)), Asked()) as watching:
        await eventually(lambda: watching.says("1") and api.watches)
        for _ in range(5):
            api.touch()
        await eventually(lambda: api.verbs().count("watch") > 1)
        assert api.asked[-1] == f"watch {api.version}"  # the bookmark at its end has told it
        api.put("web-b", pod("10.0.0.2"))
        await eventually(lambda: watching.says("1", "2"))
    assert api.verbs().count("list") == 1


@pytest.mark.parametrize("as_event", [True, False])
async def test_a_version_that_is_gone_is_caught_up_with_by_a_list(api: ApiServer, folder: Path, as_event: bool) -> None:
    api.gone_as_event = as_event
    api.put("web-a", pod("10.0.0.1"), pod("10.0.0.2"))
    async with watched(source(api, folder, Pace(watch=1.0)), Asked()) as watching:
        await eventually(lambda: watching.says("1", "2") and api.watches)
        api.touch()
        known = api.version
        api.mute = True  # from the next watch on
        await eventually(lambda: api.verbs().count("watch") > 1)
        api.put("web-a", pod("10.0.0.2"), pod("10.0.0.3"))
        api.compact()
        api.mute = False
        await eventually(lambda: watching.says("2", "3"))
        assert api.asked[2:5] == [f"watch {known}", f"watch {known}", "list "]
        assert not watching.empty and not any(isinstance(each, NoAnswer) for each in watching.told)


@pytest.mark.parametrize("last", [b'{"type":"MODIFIED","object":{"meta', b"", b"nonsense\n", b'{"type":"ADDED"}\n'])
async def test_a_watch_that_is_cut_or_garbled_costs_one_list(api: ApiServer, folder: Path, last: bytes) -> None:
    api.put("web-a", pod("10.0.0.1"))
    async with watched(source(api, folder), Asked()) as watching:
        await eventually(lambda: watching.says("1") and api.watches)
        api.cut(last)
        api.put("web-a", pod("10.0.0.2"))
        await eventually(lambda: watching.says("2"))
        assert not watching.empty and not any(isinstance(each, NoAnswer) for each in watching.told)
        assert not any(each.problems for each in watching.told if isinstance(each, Answer))
    assert api.verbs().count("list") >= 2


async def test_a_silent_watch_is_given_up(api: ApiServer, folder: Path) -> None:
    api.silent = True
    api.put("web-a", pod("10.0.0.1"))
    async with watched(source(api, folder, Pace(watch=0.5, grace=0.2)), Asked()) as watching:
        await eventually(lambda: watching.says("1") and api.watches)
        api.put("web-a", pod("10.0.0.2"))
        await eventually(lambda: watching.says("2"))
        await eventually(lambda: isinstance(watching.last, Answer) and watching.last.problems)
        assert isinstance(watching.last, Answer) and "does not end its watches" in watching.last.problems[0]


async def test_changes_are_noticed_where_watches_are_not_allowed(api: ApiServer, folder: Path) -> None:
    api.forbidden = {"watch"}
    api.put("web-a", pod("10.0.0.1"))
    async with watched(source(api, folder), Asked()) as watching:
        await eventually(lambda: watching.says("1"))
        api.put("web-a", pod("10.0.0.2"))
        await eventually(lambda: watching.says("2"))
        await eventually(lambda: isinstance(watching.last, Answer) and watching.last.problems)
        assert isinstance(watching.last, Answer)
        assert "changes are noticed late" in watching.last.problems[0] and "cannot watch" in watching.last.problems[0]
        api.forbidden = set()
        await eventually(lambda: isinstance(watching.last, Answer) and not watching.last.problems)


async def test_the_list_is_asked_for_now_and_then(api: ApiServer, folder: Path) -> None:
    api.put("web-a", pod("10.0.0.1"))
    async with watched(source(api, folder, Pace(watch=1.0, relist=0.5)), Asked()) as watching:
        await eventually(lambda: watching.says("1"))
        await eventually(lambda: api.verbs().count("list") >= 2)
        assert len(watching.told) == 1


# --- no answer -------------------------------------------------------------------------------------------------------


async def test_a_server_that_is_gone_is_caught_up_with(api: ApiServer, folder: Path) -> None:
    api.put("web-a", pod("10.0.0.1"))
    async with watched(source(api, folder, Pace()), Asked()) as watching:
        await eventually(lambda: watching.says("1") and api.watches)
        api.stop()
        await eventually(lambda: isinstance(watching.last, NoAnswer))
        assert str(watching.last) == f"{api.url} cannot be asked: connection refused"
        api.put("web-a", pod("10.0.0.2"))
        api.compact()
        api.start()
        await eventually(lambda: watching.says("2"))
        assert not watching.empty
    assert Pace().longest < 2.0  # seconds in which it is caught up with


async def test_versions_that_go_back_are_followed(api: ApiServer, folder: Path) -> None:
    """The cluster's database was restored from a backup."""
    api.put("web-a", pod("10.0.0.1"))
    async with watched(source(api, folder, Pace(watch=1.0)), Asked()) as watching:
        await eventually(lambda: watching.says("1") and api.watches)
        api.version = 10
        api.put("web-a", pod("10.0.0.2"))
        api.cut()
        await eventually(lambda: watching.says("2"))


@pytest.mark.parametrize(
    ("broken", "status", "said"),
    [
        ("<html>", 200, "its list of EndpointSlices cannot be read"),
        ("{}", 200, "its list of EndpointSlices cannot be read"),
        ("", 503, "answered 503"),
        ("", 302, "answered 302"),
        ("<html>", 500, "answered 500"),
        (json.dumps({"message": "etcd is\x1baway"}), 500, r"answered 500: etcd is\\x1baway"),
        ("", 410, "answered 410 to a list"),
    ],
)
async def test_an_answer_that_is_no_list_is_no_answer(
    api: ApiServer, folder: Path, broken: str, status: int, said: str
) -> None:
    api.broken, api.status = broken, status
    with pytest.raises(NoAnswer, match=said):
        await source(api, folder).ask()


async def test_an_answer_without_an_end_is_no_answer(
    api: ApiServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "MOST_OCTETS", 1 << 20)
    api.broken = "x" * (2 << 20)
    with pytest.raises(NoAnswer, match="answered more than 1 MiB"):
        await source(api, folder).ask()


async def test_a_server_that_hangs_is_no_answer(api: ApiServer, folder: Path) -> None:
    api.put("web-a", pod("10.0.0.1"))
    async with watched(source(api, folder, Pace(answer=0.5, watch=1.0)), Asked()) as watching:
        await eventually(lambda: watching.says("1") and api.watches)
        api.hung = True
        await eventually(lambda: isinstance(watching.last, NoAnswer))
        assert "did not answer within 0.5 s" in str(watching.last)
        api.hung = False
        await eventually(lambda: watching.says("1"))


# --- credentials -----------------------------------------------------------------------------------------------------


async def test_a_token_that_is_replaced_is_shown(api: ApiServer, folder: Path) -> None:
    api.put("web-a", pod("10.0.0.1"))
    async with watched(source(api, folder, Pace(watch=1.0)), Asked()) as watching:
        await eventually(lambda: watching.says("1") and api.watches)
        api.tokens = {"rotated-token"}
        (folder / "token").write_text("rotated-token")
        await eventually(lambda: api.shown[-1] == "token rotated-token")
        api.put("web-a", pod("10.0.0.2"))
        await eventually(lambda: watching.says("2"))
        assert not any(isinstance(each, NoAnswer) for each in watching.told)


async def test_a_token_that_is_not_taken_keeps_the_last_answer(api: ApiServer, folder: Path) -> None:
    api.put("web-a", pod("10.0.0.1"))
    async with watched(source(api, folder, Pace(watch=1.0)), Asked()) as watching:
        await eventually(lambda: watching.says("1") and api.watches)
        api.tokens = {"rotated-token"}
        await eventually(lambda: isinstance(watching.last, NoAnswer))
        assert "answered 401: Unauthorized" in str(watching.last) and "good-token" not in str(watching.last)
        (folder / "token").write_text("rotated-token")
        await eventually(lambda: watching.says("1"))


async def test_what_is_not_allowed_names_the_role(api: ApiServer, folder: Path) -> None:
    api.forbidden = {"list"}
    with pytest.raises(NoAnswer, match=r"answered 403: .* cannot list .*; docs/discovery.md has the role"):
        await source(api, folder).ask()


async def test_a_server_of_another_authority_gets_no_token(api: ApiServer, folder: Path) -> None:
    made = source(api, folder)
    (folder / "ca.crt").write_bytes(Authority("another").pem)
    with pytest.raises(NoAnswer, match="its certificate cannot be verified"):
        await made.ask()
    assert api.asked == []
    (folder / "ca.crt").write_bytes(api.authority.pem)  # it was renewed
    assert (await made.ask()).found == ()


async def test_a_kubeconfig_file_with_a_client_certificate(api: ApiServer, tmp_path: Path) -> None:
    api.stop()
    api.client_authority = Authority("clients")
    api.start()
    api.put("web-a", pod("10.0.0.1"))
    api.client_authority.issue("lb", client=True).write(tmp_path / "pki", "lb")
    path = api.kubeconfig(tmp_path / "config", **{"client-certificate": "pki/lb.pem", "client-key": "pki/lb.key"})
    settings = Kubernetes.model_validate({"service": "web", "kubeconfig": str(path)})
    assert [each.address for each in (await KubernetesSource(settings).ask()).found] == ["10.0.0.1:8080"]
    assert api.shown == ["certificate"]
    (tmp_path / "pki/lb.pem").write_text("nonsense")
    with pytest.raises(NoAnswer, match=r"certificates for https://.* cannot be used"):
        await KubernetesSource(settings).ask()


async def test_a_kubeconfig_file_that_runs_programs_is_refused(api: ApiServer, tmp_path: Path) -> None:
    path = api.kubeconfig(tmp_path / "config", exec={"command": "aws-iam-authenticator"})
    settings = Kubernetes.model_validate({"service": "web", "kubeconfig": str(path)})
    with pytest.raises(NoAnswer, match="`exec` of user u is not supported"):
        await KubernetesSource(settings).ask()
