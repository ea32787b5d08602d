"""How the API server of Kubernetes is reached: a pod's account, and what a kubeconfig file may say."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from lb.discovery.kubernetes_access import access_of_file, access_of_pod
from lb.discovery.source import NoAnswer

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


def account(folder: Path) -> Path:
    (folder / "token").write_text("a-token\n")
    (folder / "namespace").write_text("prod")
    (folder / "ca.crt").write_text("CA")
    return folder


def written(folder: Path, cluster: dict[str, Any] | None = None, user: Any = None, **more: Any) -> Path:
    document = {
        "current-context": "main",
        "clusters": [{"name": "c", "cluster": {"server": "https://api.test:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user if user is not None else {"token": "a-token"}}],
        "contexts": [
            {"name": "main", "context": {"cluster": "c", "user": "u", "namespace": "prod"}},
            {"name": "other", "context": {"cluster": "c"}},
        ],
        **more,
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_pod_is_shown_by_its_account(tmp_path: Path) -> None:
    access = access_of_pod(POD, account(tmp_path))
    assert (access.server, access.namespace, access.token) == ("https://10.96.0.1:6443", "prod", "a-token")
    assert access.tls is not None and access.tls.verify and list(access.contents.values()) == [b"CA"]
    assert access_of_pod({"KUBERNETES_SERVICE_HOST": "fd00::1"}, tmp_path).server == "https://[fd00::1]:443"
    assert "a-token" not in repr(access)
    (tmp_path / "token").write_text("another-token")
    assert access_of_pod(POD, tmp_path) != access


def test_without_a_pod_the_way_out_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match=r"KUBERNETES_SERVICE_HOST is not set.*`kubeconfig: FILE`"):
        access_of_pod({}, tmp_path)
    with pytest.raises(NoAnswer, match=r"cannot be read from .*token: no such file"):
        access_of_pod(POD, tmp_path)
    account(tmp_path)
    (tmp_path / "token").write_text("")
    with pytest.raises(NoAnswer, match="holds no text that could be the token"):
        access_of_pod(POD, tmp_path)


def test_the_current_context_or_a_chosen_one(tmp_path: Path) -> None:
    path = written(tmp_path)
    access = access_of_file(path)
    assert (access.server, access.namespace, access.token) == ("https://api.test:6443", "prod", "a-token")
    other = access_of_file(path, "other")
    assert (other.namespace, other.token) == ("", "")
    with pytest.raises(NoAnswer, match="has no context 'none'; it has main, other"):
        access_of_file(path, "none")


def test_content_in_the_file_comes_before_other_files(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki/ca.crt").write_text("of a file")
    (tmp_path / "token").write_text("of a file")
    user = {"tokenFile": "token", "client-certificate-data": base64.b64encode(b"CERT").decode()}
    user |= {"client-key-data": base64.b64encode(b"KEY").decode()}
    access = access_of_file(written(tmp_path, {"certificate-authority": "pki/ca.crt", "tls-server-name": "k"}, user))
    assert access.token == "of a file" and access.tls is not None and access.tls.server_name == "k"
    assert set(access.contents.values()) == {b"of a file", b"CERT", b"KEY"}
    inline = {"certificate-authority": "pki/ca.crt", "certificate-authority-data": base64.b64encode(b"X").decode()}
    assert list(access_of_file(written(tmp_path, inline)).contents.values()) == [b"X"]
    loose = access_of_file(written(tmp_path, {"insecure-skip-tls-verify": True}))
    assert loose.tls is not None and not loose.tls.verify
    assert access_of_file(written(tmp_path, {"server": "http://127.0.0.1:8001"})).tls is None


@pytest.mark.parametrize(
    ("cluster", "user", "more", "said"),
    [
        ({}, {"exec": {"command": "aws"}}, {}, "`exec` of user u is not supported"),
        ({}, {"auth-provider": {"name": "gcp"}}, {}, "`auth-provider` of user u is not supported"),
        ({}, {"username": "a", "password": "b"}, {}, "`username` of user u is not supported"),
        ({}, {"token": "t", "as": "admin"}, {}, "`as` of user u is not supported"),
        ({"proxy-url": "http://p"}, {}, {}, "`proxy-url` of cluster c is not supported"),
        ({"server": "api.test"}, {}, {}, "has the server 'api.test', which is no URL"),
        ({"certificate-authority": "none.crt"}, {}, {}, "the authority cannot be read from"),
        ({"certificate-authority-data": "%"}, {}, {}, "the authority is no base64"),
        ({}, {"client-certificate-data": "WA=="}, {}, "a client certificate or a key, and not both"),
        ({}, {}, {"current-context": ""}, "has no current-context: `context: NAME` chooses one"),
        ({}, {}, {"users": None}, "has no user 'u'; it has none"),
        ({}, {}, {"contexts": "text"}, "is no kubeconfig file"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    with pytest.raises(NoAnswer) as error:
        access_of_file(written(tmp_path, cluster, user, **more))
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["{", "- a", "7", "a: !!python/object:os.system {}", "a: *none"])
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(NoAnswer, match="is no kubeconfig file"):
        access_of_file(path)
    path.write_text("")
    with pytest.raises(NoAnswer, match="has no current-context"):
        access_of_file(path)
