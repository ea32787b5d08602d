"""The Dockerfiles' steps, looked at one by one and carried out as far as that goes without an engine."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.docs.blocks import REPO
from tests.support.certificates import Authority
from tests.support.eventually import eventually
from tests.support.stage import Stage, ask
from tests.support.terminal import Running

DOCKERFILES = [REPO / "Dockerfile", REPO / "examples/greeting-service/Dockerfile"]


def steps(dockerfile: Path) -> list[tuple[str, str]]:
    """(instruction, arguments) of each step, continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.M).replace("\\\n", " ")
    return [
        (line.split(None, 1)[0].upper(), line.split(None, 1)[1].strip()) for line in text.splitlines() if line.strip()
    ]


def last_stage(dockerfile: Path) -> list[tuple[str, str]]:
    found = steps(dockerfile)
    begin = max(index for index, (instruction, _) in enumerate(found) if instruction == "FROM")
    return found[begin:]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build: the last pattern that matches decides."""
    out = False
    for line in (REPO / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            keep = pattern.startswith("!")
            bare = pattern.lstrip("!")
            if fnmatch.fnmatch(path, bare) or path.startswith(f"{bare}/") or bare == "*":
                out = not keep
    return out


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_what_is_copied_is_there(dockerfile: Path) -> None:
    for instruction, rest in steps(dockerfile):
        if instruction == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            for source in sources:
                assert (dockerfile.parent / source).exists(), source
                if dockerfile.parent == REPO:
                    assert not ignored(source), f".dockerignore keeps {source} out"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_it_runs_without_root_and_takes_sigterm_itself(dockerfile: Path) -> None:
    stage = last_stage(dockerfile)
    user = [rest for instruction, rest in stage if instruction == "USER"][-1]
    assert int(user.split(":")[0]) >= 10000
    # Exec form: no shell stands between the engine's signal and the program.
    commands = [rest for instruction, rest in stage if instruction in ("ENTRYPOINT", "CMD")]
    assert commands and all(isinstance(json.loads(rest), list) for rest in commands)
    assert ("STOPSIGNAL", "SIGTERM") in stage


def test_the_image_is_built_from_hashes_in_two_stages() -> None:
    found = steps(REPO / "Dockerfile")
    assert sum(instruction == "FROM" for instruction, _ in found) == 2
    installs = [rest for instruction, rest in found if instruction == "RUN" and "pip install" in rest]
    assert "--require-hashes -r requirements.lock" in installs[0]
    assert "--no-deps --no-build-isolation" in installs[1]
    assert all("install" not in rest for instruction, rest in last_stage(REPO / "Dockerfile") if "pip" in rest)


def test_the_entry_point_is_the_command_and_its_default_works() -> None:
    stage = dict(last_stage(REPO / "Dockerfile"))
    words = json.loads(stage["ENTRYPOINT"]) + json.loads(stage["CMD"])
    assert words == ["lb", "run", "/etc/lb/backends.yaml"]


def test_what_is_copied_is_enough_to_build_the_package(tmp_path: Path) -> None:
    """Only what the build stage copies, then its own pip command; the dashboard must be in the result."""
    source = tmp_path / "src"
    source.mkdir()
    for instruction, rest in steps(REPO / "Dockerfile"):
        if instruction == "COPY" and not rest.startswith("--from"):
            *names, _ = rest.split()
            for name in names:
                if (REPO / name).is_dir():
                    shutil.copytree(REPO / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(REPO / name, source / name)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path),
            ".",
        ],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("lb-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tracked = subprocess.run(["git", "ls-files", "lb"], cwd=REPO, capture_output=True, text=True).stdout.split()
    assert [name for name in tracked if name not in names] == []
    assert any(name.endswith("licenses/LICENSE") for name in names)


def health_check() -> list[str]:
    check = dict(last_stage(REPO / "Dockerfile"))["HEALTHCHECK"]
    words = json.loads(check[check.index("CMD") + 3 :])
    assert words[0] == "bash", "a start of Python every five seconds is 2 % of a core"
    return list(words)


def test_the_health_check_passes_while_lb_lives_and_fails_when_it_does_not(tmp_path: Path) -> None:
    words = health_check()
    running = Running(tmp_path)
    try:
        environment = {**os.environ, "LB_ADMIN": running.admin}
        assert subprocess.run(words, env=environment, timeout=10).returncode == 0
    finally:
        running.stop()
    done = subprocess.run(words, env=environment, timeout=10, stderr=subprocess.DEVNULL)
    assert done.returncode == 1


def test_the_health_check_asks_an_admin_port_with_tls(tmp_path: Path) -> None:
    authority = Authority()
    authority.issue("127.0.0.1").write(tmp_path, "admin")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    tls = f"tls: {{cert_file: {tmp_path}/admin.pem, key_file: {tmp_path}/admin.key}}"
    with Stage(tmp_path) as stage:
        path = stage.config({"blue": [stage.backend()]})
        path.write_text(path.read_text().replace("admin: {", f"admin: {{{tls}, "))
        lb = stage.start(path, ready=False)
        environment = {**os.environ, "LB_ADMIN": lb.admin, "LB_ADMIN_CA": f"{tmp_path}/ca.pem"}
        assert subprocess.run(health_check(), env=environment, timeout=10).returncode == 0
        del environment["LB_ADMIN_CA"]
        done = subprocess.run(health_check(), env=environment, timeout=10, stderr=subprocess.DEVNULL)
        assert done.returncode == 1


def test_the_greeting_service_is_built_from_hashes() -> None:
    folder = REPO / "examples" / "greeting-service"
    (install,) = (rest for instruction, rest in steps(folder / "Dockerfile") if "pip install" in rest)
    assert "--require-hashes -r requirements.txt" in install
    locked = re.sub(r"\\\n", " ", (folder / "requirements.txt").read_text())
    pinned = [line for line in locked.splitlines() if line and not line.lstrip().startswith("#")]
    assert all(re.match(r"[a-z0-9.-]+==\S+ +--hash=sha256:", line) for line in pinned), pinned
    wanted = {re.split(r"[<>=]", line)[0].lower() for line in (folder / "requirements.in").read_text().split()}
    assert wanted <= {line.partition("==")[0] for line in pinned}


def test_compose_names_what_the_file_asks_for() -> None:
    folder = REPO / "examples" / "greeting-service"
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    file = (folder / "lb/backends.yaml").read_text()
    for host in re.findall(r"http://([\w-]+):5000", file):
        assert host in compose["services"]
    assert "./lb:/etc/lb:ro" in compose["services"]["lb"]["volumes"], "a folder: an edit by renaming is seen"
    assert all(service["restart"] == "unless-stopped" for service in compose["services"].values())
    same = [name for name, service in compose["services"].items() if service.get("build") == "."]
    assert same == ["blue-1"], "equal images are built once"
    assert ["0.0.0.0:5000" in shlex.join(json.loads(rest)) for i, rest in steps(folder / "Dockerfile") if i == "CMD"]
    done = subprocess.run(
        [sys.executable, "-m", "lb", "check", str(folder / "lb/backends.yaml")],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_the_flask_service_serves_without_docker() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    app = REPO / "examples" / "greeting-service" / "app.py"
    running = subprocess.Popen(
        [sys.executable, str(app)], env={**os.environ, "PORT": str(port)}, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: _listens(port) or running.poll() is not None, 20.0)
        assert ask(f"http://127.0.0.1:{port}/health/readiness").status == 200
    finally:
        running.terminate()
        running.wait(10)


def test_the_flask_service_keeps_its_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's own endpoints, asked through Flask's test client."""
    monkeypatch.syspath_prepend(str(REPO / "examples" / "greeting-service"))
    monkeypatch.setenv("WARM_UP", "0")
    import app as example

    client = example.app.test_client()
    assert example.readiness.warm.wait(5)
    assert client.get("/greeting").get_json()["greeting"] == "Hello, World!"
    assert client.get("/health/liveness").status_code == 200
    assert client.get("/health/readiness").status_code == 200
    assert client.post("/toggle_health").get_json() == {"status": "Health toggled", "healthy": False}
    answer = client.get("/health/readiness")
    assert answer.status_code == 503 and "toggle_health" in answer.text
    client.post("/toggle_health")
    # An exception in the check is a failed check with its reason.
    monkeypatch.setattr(example.readiness, "problem", lambda: 1 / 0)
    answer = client.get("/health/readiness")
    assert answer.status_code == 503 and "ZeroDivisionError" in answer.text
    assert client.get("/health/liveness").status_code == 200
