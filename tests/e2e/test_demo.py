"""`lb run --demo`: backends on the file's addresses, what is printed, and how everything ends."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from tests.support.eventually import eventually
from tests.support.terminal import FILE, Running, environment, lb


def greet(running: Running) -> str:
    with urllib.request.urlopen(f"{running.url}/greeting", timeout=5) as answer:
        body = json.loads(answer.read())
        assert body["greeting"] == "Hello, World!"
        assert answer.headers["X-Served-By"] == f"{body['version']} {body['instance']}"
        return str(body["instance"])


def refused(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex((host, int(port))) != 0


def test_the_article_s_story(tmp_path: Path) -> None:
    """Requests alternate; a toggle takes one out and no request fails; toggling back returns it."""
    running = Running(tmp_path)
    try:
        running.all_ready()
        assert Counter(greet(running) for _ in range(20)) == dict.fromkeys(running.blue, 10)
        out, stays = running.blue
        assert running.post(out, "/toggle_health")["healthy"] is False
        served = []

        def gone() -> bool:
            served.append(greet(running))
            return running.states()[out] == "unready"

        eventually(gone)
        assert {greet(running) for _ in range(10)} == {stays}
        running.post(out, "/toggle_health")
        eventually(lambda: running.states()[out] == "ready")
        assert {greet(running) for _ in range(10)} == {out, stays}
    finally:
        assert running.stop() == 0
    assert all(refused(address) for address in running.blue + running.green)


def test_what_is_printed_can_be_typed(tmp_path: Path) -> None:
    running = Running(tmp_path)
    try:
        running.all_ready()
        tips = running.printed().partition("Try, in another terminal:")[2].splitlines()
        commands = [line.partition("#")[0].strip() for line in tips if "#" in line]
        first = [command.split()[0] for command in commands if not command.startswith("source ")]
        assert first == ["curl", "curl", "export", "lb", "lb", "lb", "lb"]
        for command in commands:
            if command.startswith("lb "):
                words = [word for word in command.split()[1:] if word != "--watch"]
                assert running.lb(*words).returncode == 0, command
            elif command.startswith("curl"):
                assert subprocess.run([*command.split(), "-sf"], stdout=subprocess.DEVNULL, timeout=5).returncode == 0
            elif command.startswith("source "):
                found = subprocess.run(["bash", "-c", f"{command} && command -v lb"], capture_output=True, text=True)
                assert Path(found.stdout.strip()).name == "lb", command
            else:
                assert command == f"export LB_ADMIN={running.admin}"
    finally:
        running.stop()


def test_no_backend_outlives_an_lb_that_is_killed(tmp_path: Path) -> None:
    running = Running(tmp_path)
    running.stop(signal.SIGKILL)
    for address in running.blue + running.green:
        eventually(lambda at=address: refused(at), what=f"{address} has ended")
    for doorway in tmp_path.rglob("workers/*.sock"):  # the worker has outlived its supervisor, as it should
        os.kill(int(doorway.stem), signal.SIGKILL)


def test_requests_do_not_flood_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(FILE.replace("access_log: off\n", ""))
    terminal, other = pty.openpty()
    command = [sys.executable, "-m", "lb", "run", "f.yaml", "--demo"]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=other, stderr=other, env=environment())
    try:
        os.close(other)
        shown = ""
        while "Ctrl-C ends it all" not in shown:
            shown += os.read(terminal, 4096).decode()
        assert "log     state/access.log" in shown
        address = re.search(r"lb serves (http://[0-9.:]+)", shown.replace("\x1b[1m", "").replace("\x1b[0m", ""))
        assert address is not None
        log = tmp_path / "state" / "access.log"
        with urllib.request.urlopen(f"{address[1]}/greeting", timeout=5) as answer:
            answer.read()
        eventually(lambda: '"path":"/greeting"' in log.read_text())
    finally:
        running.terminate()
        assert running.wait(20) == 0
        os.close(terminal)


def test_a_backend_that_a_person_starts_says_where() -> None:
    command = [sys.executable, "-m", "lb.demo.greeting", "127.0.0.1:0", "--version", "green"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as backend:
        assert backend.stdout is not None
        assert backend.stdout.readline().startswith("green answers on 127.0.0.1:")
        backend.terminate()


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = tmp_path / "backends.yaml"
        file.write_text(FILE.replace("http://127.0.0.1:0", f"http://127.0.0.1:{port}", 1))
        done = lb("run", str(file), "--demo")
    assert done.returncode == 1
    assert f"--demo cannot start a backend on 127.0.0.1:{port}: address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_invalid_file_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "backends.yaml"
    file.write_text("backends: [http://127.0.0.1:1]\nbalence: round_robin\nworkers: many\n")
    done = lb("run", str(file))
    assert done.returncode == 1
    assert "2 errors; nothing was started" in done.stderr
    assert f"{file}:2:1" in done.stderr and "balance" in done.stderr
    assert f"{file}:3:10" in done.stderr


def test_no_file_at_all(tmp_path: Path) -> None:
    done = lb("run", cwd=tmp_path)
    assert done.returncode == 1
    assert "backends.yaml" in done.stderr and "no such file" in done.stderr


def test_a_reload_starts_backends_for_new_addresses(tmp_path: Path) -> None:
    running = Running(tmp_path)
    try:
        running.all_ready()
        text = running.file.read_text()
        running.file.write_text(text.replace("blue: [", "blue: [http://127.0.0.1:0, "))
        done = running.lb("reload")
        assert done.returncode == 0, done.stderr
        running.all_ready()
        pools = running.json("status")["services"][0]["pools"]
        assert [len(pool["targets"]) for pool in pools] == [3, 2]
    finally:
        assert running.stop() == 0
