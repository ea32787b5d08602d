"""The client commands as a person meets them: on a terminal, through restarts, completed by a shell."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.terminal import FILE, Running, environment, lb

#: What each command is given; `run`, `completion` and `schema` are left out, which print no report.
WORDS = {
    "status": [], "explain": ["greeting"], "events": [], "probe": ["x"], "switch": ["greeting", "green"],
    "rollback": ["greeting"], "drain": ["x"], "undrain": ["x"], "weight": ["x", "1"], "reload": [], "upgrade": [],
    "plan": ["backends.yaml"], "check": ["backends.yaml"], "drill": ["backends.yaml"],
    "import": ["marathon", "backends.yaml"],
}  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    started = Running(tmp_path_factory.mktemp("terminal"))
    try:
        started.all_ready()
        yield started
    finally:
        started.stop()


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, command: list[str], columns: int = 80, rows: int = 24, **env: str) -> None:
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, environment(**env))
        self.resize(columns, rows)
        self.printed = ""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.end, keys.encode())

    def until(self, pattern: str, within: float = 40.0) -> str:
        """Read until `pattern` is among what was printed since the last call; what that is."""
        deadline = time.monotonic() + within
        found = ""
        while not re.search(pattern, found, re.S):
            assert time.monotonic() < deadline, f"no {pattern!r} in {found!r}"
            if select.select([self.end], [], [], 0.2)[0]:
                try:
                    found += os.read(self.end, 65536).decode(errors="replace")
                except OSError:
                    break  # the other side is closed
        self.printed += found
        return found

    def close(self) -> int:
        """Read the rest; the exit code."""
        self.until("\0never")
        os.close(self.end)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def watch(running: Running, columns: int = 80, rows: int = 24) -> Terminal:
    command = [sys.executable, "-m", "lb", "status", "--watch"]
    return Terminal(command, columns, rows, LB_ADMIN=running.admin)


# --- status --watch --------------------------------------------------------------------------------------------------


def test_q_ends_the_watch_and_the_terminal_is_as_before(running: Running) -> None:
    terminal = watch(running)
    terminal.until("q: quit")
    terminal.type("q")
    assert terminal.close() == 0
    assert terminal.printed.endswith("\x1b[?7h\x1b[?25h\x1b[?1049l")
    assert "\x1b[2J" not in terminal.printed  # nothing is erased before it is painted: it would flicker


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_watch_and_the_terminal_is_as_before(running: Running, number: int) -> None:
    terminal = watch(running)
    terminal.until("q: quit")
    os.kill(terminal.pid, number)
    assert terminal.close() == 0
    assert terminal.printed.endswith("\x1b[?1049l")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, "q"])
def test_a_watch_on_a_stopped_terminal_ends_and_gives_it_back(running: Running, end: int | str) -> None:
    terminal = watch(running)
    terminal.until("q: quit")
    terminal.type("\x13")
    while select.select([terminal.end], [], [], 1.5)[0]:  # until there are no more pictures
        os.read(terminal.end, 65536)
    if isinstance(end, str):
        terminal.type(end)
    else:
        os.kill(terminal.pid, end)
    assert terminal.close() == 0
    assert terminal.printed.endswith("\x1b[?1049l")


def test_a_watch_in_the_background_of_a_shell_ends(running: Running) -> None:
    """Its terminal is the shell's then: a change of it would stop the watch instead of ending it."""
    terminal = Terminal(["bash", "--norc", "-im"], LB_ADMIN=running.admin)
    terminal.type(f"{sys.executable} -m lb status --watch\r")
    terminal.until("q: quit")
    terminal.type("\x1a")
    terminal.until("Stopped")
    terminal.type("kill %1; wait %1; echo en''ded\r")
    terminal.until("ended")
    terminal.type("exit\r")
    assert terminal.close() == 0


def test_a_stopped_terminal_that_goes_on_is_painted_again(running: Running) -> None:
    terminal = watch(running)
    terminal.until("q: quit")
    terminal.type("\x13")
    while select.select([terminal.end], [], [], 1.5)[0]:
        os.read(terminal.end, 65536)
    terminal.type("\x11")
    terminal.until("q: quit")
    terminal.type("q")
    assert terminal.close() == 0


def test_a_new_size_is_painted_at_once_and_the_rest_is_scrolled_to(running: Running) -> None:
    terminal = watch(running)
    terminal.until("q: quit")
    terminal.resize(60, 8)
    assert "lines 1 to 7 of" in terminal.until(r"lines 1 to \d+ of")
    terminal.type("j")
    terminal.until("lines 2 to 8 of")
    terminal.type("G")
    last = terminal.until(r"lines \d+ to (\d+) of \1\b")
    assert running.green[1] in last
    terminal.type("q")
    assert terminal.close() == 0


def test_a_watch_outlives_lb_and_says_so(tmp_path: Path) -> None:
    started = Running(tmp_path)
    terminal = watch(started)
    try:
        terminal.until("q: quit")
        started.stop()
        said = re.sub(r"\x1b\[[\d;?]*\w|\s+", " ", terminal.until("seen last"))
        assert re.search(rf"No connection to {started.admin} for \d+s \(.*?\); +trying +again", said), said
        assert started.blue[0] in terminal.until(re.escape(started.green[1]))
        terminal.type("q")
        assert terminal.close() == 0
    finally:
        started.stop()


# --- events --follow -------------------------------------------------------------------------------------------------


def test_a_follower_outlives_a_restart_and_misses_nothing(tmp_path: Path) -> None:
    text = FILE.replace("admin: {bind: 127.0.0.1:0}", f"admin: {{bind: 127.0.0.1:{free_port()}}}")
    started = Running(tmp_path, text)
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        following = subprocess.Popen(
            [sys.executable, "-u", "-m", "lb", "events", "--follow", "--json"],
            stdout=out,
            stderr=err,
            env=environment(LB_ADMIN=started.admin),
        )

    def kinds() -> list[str]:
        return [json.loads(line)["kind"] for line in (tmp_path / "out").read_text().splitlines()]

    try:
        eventually(lambda: "start" in kinds(), 40.0)
        started.stop()
        eventually(lambda: "lost the connection" in (tmp_path / "err").read_text(), 40.0)
        started = Running(tmp_path, text)
        eventually(lambda: kinds().count("start") == 2, 40.0)
        ids = [json.loads(line)["id"] for line in (tmp_path / "out").read_text().splitlines()]
        assert ids == sorted(set(ids)), "one came twice, or in another order"
        said = (tmp_path / "err").read_text()
        assert said.count("lost the connection") == 1 == said.count("connected again after")
    finally:
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == 0
        started.stop()


# --- progress --------------------------------------------------------------------------------------------------------


def test_a_drain_on_a_terminal_shows_what_is_left(running: Running) -> None:
    slow = subprocess.Popen(["curl", "-s", f"{running.url}/slow?seconds=2"], stdout=subprocess.DEVNULL)
    try:
        targets = lambda: [  # noqa: E731
            t for s in running.json("status")["services"] for p in s["pools"] for t in p["targets"] if t["in_flight"]
        ]
        address = eventually(targets)[0]["address"]
        terminal = Terminal(
            [sys.executable, "-m", "lb", "drain", address, "--wait"], columns=60, LB_ADMIN=running.admin
        )
        shown = terminal.until("request left")
        assert "\x1b[K" in shown
        assert terminal.close() == 0
        assert "is drained: safe to kill" in terminal.printed
        # A line that is painted over must not be wider than the terminal, or it cannot be painted over.
        for part in re.findall(r"\r\x1b\[K([^\r\x1b]*)", terminal.printed):
            assert all(len(line) < 60 for line in part.splitlines()), part
    finally:
        slow.wait(10)
        running.lb("undrain", address)
        running.all_ready()


def test_an_order_that_takes_its_time_shows_the_time(tmp_path: Path) -> None:
    """`lb reload` against an admin port that thinks for a while."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                over.wait(15)
                body = b'{"changed": false, "lines": [], "forced": "", "warnings": []}'
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

        thinking = threading.Thread(target=answer)
        thinking.start()
        terminal = Terminal(
            [sys.executable, "-m", "lb", "reload"], LB_ADMIN=f"http://127.0.0.1:{server.getsockname()[1]}"
        )
        terminal.until(r"reading the file again … \d")
        over.set()
        assert terminal.close() == 0
        thinking.join()
    assert terminal.printed.endswith("\r\x1b[KNothing to change.\r\n")


def test_ctrl_c_while_waiting_says_what_goes_on(running: Running) -> None:
    words = ["switch", "greeting", "green", "--steps", "5,100", "--step-time", "60s", "--wait"]
    terminal = Terminal([sys.executable, "-m", "lb", *words], LB_ADMIN=running.admin)
    terminal.until("5 %")
    terminal.type("\x03")
    assert terminal.close() == 1
    assert "the rollout of greeting goes on" in terminal.printed
    assert running.json("status")["services"][0]["rollout"]
    assert running.lb("rollback", "greeting").returncode == 0


# --- lines that fit, and only where a person reads -------------------------------------------------------------------


@pytest.mark.parametrize("words", [["explain", "greeting/blue"], ["events"], ["explain", "nonsense"]])
def test_lines_are_broken_between_words(running: Running, words: list[str]) -> None:
    words = [f"{word}/{running.blue[0]}" if word == "greeting/blue" else word for word in words]
    terminal = Terminal([sys.executable, "-m", "lb", *words], columns=64, LB_ADMIN=running.admin, NO_COLOR="1")
    terminal.close()
    # (The path of the file is one word, and stays one.)
    assert all(len(line) <= 64 or " " not in line.strip() for line in terminal.printed.splitlines()), terminal.printed
    into_pipe = running.lb(*words)
    whole = (into_pipe.stdout or into_pipe.stderr).splitlines()
    assert max(map(len, whole)) > 64, "into a pipe a line stays whole, for grep"


# --- --json ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", WORDS)
def test_whoever_asks_for_json_gets_json_of_a_failure_as_well(command: str, tmp_path: Path) -> None:
    words = [command, *WORDS[command], "--json"]
    done = lb(*words, LB_ADMIN="http://127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 1, done
    document = json.loads(done.stdout)
    assert document.get("detail") or document["errors"], document
    if command != "check":
        assert done.stderr.startswith("lb: ")


def test_json_of_wrong_usage() -> None:
    done = lb("switch", "greeting", "--json")
    assert done.returncode == 2 and "Missing argument" in done.stderr
    assert json.loads(done.stdout) == {"title": "Wrong usage", "detail": "Missing argument 'POOL'."}


def test_json_of_a_refusal_is_the_api_s_problem(running: Running) -> None:
    done = running.lb("switch", "greeting", "gren", "--json")
    problem = json.loads(done.stdout)
    assert (problem["status"], done.returncode) == (404, 1)
    assert "Did you mean green?" in done.stderr


# --- completion ------------------------------------------------------------------------------------------------------

COMPLETING = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
LOADING = {
    "bash": "source <(lb completion bash)",
    "zsh": "autoload -Uz compinit; compinit -u -D; source <(lb completion zsh)",
    "fish": "lb completion fish | source",
}


def beginning(word: str, words: list[str]) -> str:
    """As much of `word` as tells it from the others."""
    return next(word[:size] for size in range(1, len(word) + 1) if sum(w.startswith(word[:size]) for w in words) == 1)


@pytest.mark.parametrize("shell", [shell for shell in COMPLETING if shutil.which(shell)])
def test_a_shell_completes_what_is_typed(running: Running, shell: str, tmp_path: Path) -> None:
    """Commands, services, pools, and targets with the colon that shells take for the end of a word."""
    here = Path(sys.executable).parent
    terminal = Terminal(
        COMPLETING[shell], columns=120, LB_ADMIN=running.admin, PATH=f"{here}:{os.environ['PATH']}", HOME=str(tmp_path)
    )
    try:
        terminal.type(f"{LOADING[shell]}; echo load''ed\r")
        terminal.until("loaded")
        ids = [f"greeting/blue/{address}" for address in running.blue]
        ids += [f"greeting/green/{address}" for address in running.green]
        address, known = running.blue[0], ids[3]
        for typed, whole in (
            ("roll", "rollback"),
            ("switch gree", "switch greeting"),
            ("switch greeting gr", "switch greeting green"),
            (f"drain {beginning(address, running.blue + running.green)}", f"drain {address}"),
            (f"explain {beginning(known, ids)}", f"explain {known}"),
        ):
            terminal.type(f"lb {typed}\t\x01echo is: \r")  # the line is completed, then printed instead of run
            terminal.until(rf"\ris: lb {re.escape(whole)} ?\r\n|\nis: lb {re.escape(whole)} ?\r\n")
    finally:
        os.kill(terminal.pid, signal.SIGKILL)
        os.close(terminal.end)
        os.waitpid(terminal.pid, 0)
