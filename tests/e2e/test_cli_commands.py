"""The client commands against a running lb: what they print, what they change, and how they end."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lb import build_form
from tests.support.eventually import eventually
from tests.support.terminal import Running, environment, lb


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    started = Running(tmp_path_factory.mktemp("cli"))
    try:
        started.all_ready()
        yield started
    finally:
        started.stop()


@pytest.fixture
def clean(running: Running) -> Iterator[Running]:
    """The running lb; afterwards everything is ready and blue is active again."""
    yield running
    for address in running.blue + running.green:
        status = running.json("status")
        for service in status["services"]:
            for pool in service["pools"]:
                for target in pool["targets"]:
                    if target["address"] == address and target["state"] == "unready":
                        running.post(address, "/toggle_health")
                    if target["draining"]:
                        running.lb("undrain", address)
    if running.json("status")["services"][0]["active"] != "blue":
        running.lb("switch", "greeting", "blue", "--force")
    running.all_ready()


def not_ready(running: Running, *addresses: str) -> None:
    for address in addresses:
        running.post(address, "/toggle_health")
    eventually(lambda: all(running.states()[address] == "unready" for address in addresses))


@contextlib.contextmanager
def traffic(running: Running) -> Iterator[None]:
    """Requests, one after the other, as long as the block lasts."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            with (
                contextlib.suppress(urllib.error.HTTPError),
                urllib.request.urlopen(f"{running.url}/greeting", timeout=5),
            ):
                pass

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()


def in_terminal(words: list[str], running: Running, until: str, **env: str) -> tuple[str, int]:
    """Run a command on a terminal of 80 columns until it has printed `until`, then press Ctrl-C."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(
            sys.executable,
            [sys.executable, "-m", "lb", *words],
            environment(LB_ADMIN=running.admin, COLUMNS="80", LINES="40", **env),
        )
    printed = ""
    try:
        end = time.monotonic() + 10
        while not re.search(until, printed, re.S) and time.monotonic() < end:
            printed += os.read(terminal, 65536).decode()
        os.write(terminal, b"\x03")
        rest = b"x"
        while rest:
            try:
                rest = os.read(terminal, 65536)
            except OSError:  # the other side is closed
                break
            printed += rest.decode()
    finally:
        os.close(terminal)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return printed, code


# --- status ----------------------------------------------------------------------------------------------------------


def test_the_form_that_runs_is_said(running: Running) -> None:
    form = build_form.form()
    assert running.json("status")["form"] == form
    assert running.lb("--version").stdout.endswith(f", {form}\n")
    with urllib.request.urlopen(f"{running.admin}/metrics", timeout=5) as answer:
        assert re.search(rf'^lb_build_info{{.*form="{form}".*}} 1', answer.read().decode(), re.M)
    assert running.printed().count("built without optimisation") == (not build_form.is_optimised())


def test_status_tells_all_in_80_columns(running: Running) -> None:
    done = running.lb("status")
    assert done.returncode == 0 and done.stderr == ""
    for word in ("greeting", "blue", "green", "active", "standby", "2 of 2 ready", *running.blue, *running.green):
        assert word in done.stdout
    assert done.stdout.count("● ready") == 4
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout


def test_status_says_why_a_target_is_out(clean: Running) -> None:
    not_ready(clean, clean.blue[0])
    printed = clean.lb("status", "greeting").stdout
    assert "✖ unready" in printed and "1 of 2 ready" in printed
    assert "503" in printed


def test_status_of_one_service(running: Running) -> None:
    done = running.lb("status", "nothing")
    assert done.returncode == 1
    assert "there is no service 'nothing'. There are: greeting" in done.stderr


def test_status_as_json_is_the_api_s_answer(running: Running) -> None:
    status = running.json("status")
    assert [pool["name"] for pool in status["services"][0]["pools"]] == ["blue", "green"]


def test_watching_repaints_and_ends_with_ctrl_c(running: Running) -> None:
    printed, code = in_terminal(["status", "--watch"], running, r"(\x1b\[H.*){2}")
    assert code == 0
    assert printed.startswith("\x1b[?1049h\x1b[?25l\x1b[?7l")  # another screen, no cursor, no wrapping…
    assert printed.endswith("\x1b[?25h\x1b[?1049l")  # …and back
    assert "\x1b[32m● ready\x1b[0m" in printed


def test_no_color_is_honoured(running: Running) -> None:
    printed, _ = in_terminal(["status", "--watch"], running, "ready", NO_COLOR="1")
    assert "● ready" in printed
    assert not re.search(r"\x1b\[\d+m", printed)


def test_watching_into_a_pipe_needs_no_terminal(running: Running) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lb", "status", "--watch", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(LB_ADMIN=running.admin),
    )
    try:
        assert process.stdout is not None
        for _ in range(2):
            assert json.loads(process.stdout.readline())["services"]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0


# --- explain, events, probe ------------------------------------------------------------------------------------------


def test_explain_takes_any_tail(clean: Running) -> None:
    address = clean.blue[0]
    not_ready(clean, address)
    done = clean.lb("explain", address.rpartition(":")[2])
    assert done.returncode == 0
    assert f"greeting/blue/{address}" in done.stdout and "unready" in done.stdout
    assert "✖ failed" in done.stdout and "503" in done.stdout
    assert clean.json("explain", address)["kind"] == "target"


def test_explain_a_service(running: Running) -> None:
    assert running.json("explain", "greeting")["kind"] == "service"


def test_explain_nonsense(running: Running) -> None:
    done = running.lb("explain", "nonsense")
    assert done.returncode == 1
    assert "nothing is known of 'nonsense'" in done.stderr and "greeting" in done.stderr


def test_a_tail_that_fits_none_shows_what_there_is(running: Running) -> None:
    done = running.lb("drain", "nowhere")
    assert done.returncode == 1 and "no target ends in 'nowhere'" in done.stderr
    assert all(address in done.stderr for address in running.blue + running.green)


def test_events_since_and_as_json(clean: Running) -> None:
    not_ready(clean, clean.blue[0])
    lines = [json.loads(line) for line in clean.lb("events", "--since", "1h", "--json").stdout.splitlines()]
    found = [event for event in lines if event["kind"] == "transition" and event["after"] == "unready"]
    assert found and clean.blue[0] in found[-1]["subject"]
    assert clean.blue[0] in clean.lb("events").stdout
    assert clean.lb("events", "--since", "1ms").stdout == ""


def test_events_are_followed_as_they_happen(clean: Running) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "lb", "events", "--follow", "--json", "--since", "1ms"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(LB_ADMIN=clean.admin),
    )
    try:
        assert process.stdout is not None
        for weight in range(3, 30):  # until it listens
            clean.lb("weight", clean.green[0], str(weight))
            if select.select([process.stdout], [], [], 1.0)[0]:
                break
        event = json.loads(process.stdout.readline())
        assert event["kind"] == "weight" and clean.green[0] in event["subject"]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
        clean.lb("weight", clean.green[0], "1")


def test_a_reader_that_goes_away_is_no_traceback(running: Running) -> None:
    script = f"{sys.executable} -m lb events | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=20, env=environment(LB_ADMIN=running.admin)
    )
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""


def test_a_follower_notices_that_nobody_reads_any_more() -> None:
    """At the next sign of life of the stream, even if nothing happens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        script = f"{sys.executable} -m lb events --follow | true; echo ${{PIPESTATUS[0]}}"

        def serve() -> None:
            for body in (b"[]", None):
                connection, _ = server.accept()
                connection.recv(65536)
                if body is not None:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                    connection.close()
                    continue
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
                while not over.wait(0.1):
                    with contextlib.suppress(OSError):
                        connection.sendall(b": still here\n\n")
                connection.close()

        serving = threading.Thread(target=serve)
        serving.start()
        where = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, timeout=60, env=environment(LB_ADMIN=where)
        )
        over.set()
        serving.join()
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_full_disk_is_no_traceback(running: Running) -> None:
    for words in ("status", "events", "schema"):
        script = f"{sys.executable} -m lb {words} >/dev/full"
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, timeout=60, env=environment(LB_ADMIN=running.admin)
        )
        assert done.returncode == 1
        assert done.stderr == "lb: the answer cannot be written: no space left on device\n"


def test_a_terminal_that_knows_no_signs_gets_question_marks(running: Running) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lb", "status"],
        capture_output=True,
        encoding="latin-1",
        timeout=60,
        env=environment(LB_ADMIN=running.admin, PYTHONIOENCODING="latin-1"),
    )
    assert done.returncode == 0 and "? ready" in done.stdout and done.stderr == ""


def test_probe_shows_asked_got_expected(clean: Running) -> None:
    done = clean.lb("probe", clean.blue[0])
    assert done.returncode == 0, done.stderr
    for word in ("passed", "asked", "GET /health/readiness", "got", "200", "expected", "200-299"):
        assert word in done.stdout
    not_ready(clean, clean.blue[0])
    done = clean.lb("probe", clean.blue[0])
    assert done.returncode == 1
    assert "failed" in done.stdout and "503" in done.stdout and "Service is not ready" in done.stdout


# --- switch, rollback ------------------------------------------------------------------------------------------------


def test_a_switch_and_back(clean: Running) -> None:
    done = clean.lb("switch", "greeting", "green")
    assert done.returncode == 0, done.stderr
    assert "greeting: green 100%" in done.stdout and "lb rollback greeting" in done.stdout
    done = clean.lb("rollback", "greeting")
    assert done.returncode == 0 and "blue 100%" in done.stdout


def test_a_refused_switch_lists_each_reason(clean: Running) -> None:
    not_ready(clean, *clean.green)
    done = clean.lb("switch", "greeting", "green")
    assert done.returncode == 1 and done.stdout == ""
    for address in clean.green:
        assert any(address in line and "503" in line for line in done.stderr.splitlines()), done.stderr
    assert clean.json("status")["services"][0]["active"] == "blue"
    assert clean.lb("switch", "greeting", "green", "--force").returncode == 0
    assert clean.json("status")["services"][0]["active"] == "green"


def test_a_dry_run_says_what_would_happen_and_changes_nothing(clean: Running) -> None:
    before = clean.json("status")["services"][0]
    for words, said in (
        (["switch", "greeting", "green"], "all new requests of greeting go to green at once"),
        (["switch", "greeting", "green", "--steps", "5,100"], "5 %"),
        (["drain", clean.blue[0]], "until it is undrained"),
        (["weight", clean.blue[0], "3"], "75% of the requests of blue"),
    ):
        done = clean.lb(*words, "--dry-run")
        assert done.returncode == 0 and said in done.stdout, done
        assert "Nothing was changed" in done.stderr
    not_ready(clean, *clean.green)
    done = clean.lb("switch", "greeting", "green", "-n")
    assert done.returncode == 1
    assert "it would be refused. Not ready" in done.stderr and "--force would do it all the same" in done.stderr
    done = clean.lb("switch", "greeting", "green", "-n", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["allowed"] is False
    after = clean.json("status")["services"][0]
    assert (after["active"], after["rollout"]) == (before["active"], None)
    assert all(not t["draining"] and t["weight"] == 1 for pool in after["pools"] for t in pool["targets"])


def test_the_events_tell_who_gave_an_order(clean: Running) -> None:
    clean.lb("weight", clean.blue[0], "2", LB_ACTOR="deployment 42")
    clean.lb("weight", clean.blue[0], "1", USER="mia", LB_ACTOR="", SUDO_USER="")
    orders = [json.loads(line) for line in clean.lb("events", "--json").stdout.splitlines()]
    actors = [event["actor"] for event in orders if event["kind"] == "weight"]
    assert actors[-2].startswith("deployment 42 (") and actors[-1].startswith("mia (")


def test_a_stepwise_switch_is_shown_as_it_goes(clean: Running) -> None:
    with traffic(clean):
        done = clean.lb("switch", "greeting", "green", "--steps", "50,100", "--step-time", "1s", "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    service = clean.json("status")["services"][0]
    assert (service["active"], service["rollout"]) == ("green", None)
    assert "50 %" in done.stdout and "greeting: green 100%" in done.stdout


def test_a_rollout_that_is_rolled_back_ends_the_wait_with_1(clean: Running) -> None:
    for address in clean.green:
        clean.post(address, "/break?errors=50")
    try:
        with traffic(clean):
            done = clean.lb("switch", "greeting", "green", "--steps", "50,100", "--step-time", "20s", "--wait")
    finally:
        for address in clean.green:
            clean.post(address, "/mend")
    assert done.returncode == 1, done.stdout
    assert "greeting: blue 100%" in done.stdout
    last = " ".join(done.stdout.split()).rpartition("greeting: blue 100%")[2]
    assert "blue → green was rolled back: green fails" in last
    assert clean.json("status")["services"][0]["last_rollout"]["reason"].startswith("green fails")


def test_a_pool_or_service_that_is_not_there(running: Running) -> None:
    for words in (("switch", "greeting", "purple"), ("switch", "nobody", "green"), ("rollback", "nobody")):
        done = running.lb(*words)
        assert done.returncode == 1 and done.stderr.startswith("lb: "), done.stderr


@pytest.mark.parametrize("steps", ["5,3,100", "0,100", "50", "a,b", "5,100,101", ""])
def test_steps_that_lead_nowhere(running: Running, steps: str) -> None:
    done = running.lb("switch", "greeting", "green", "--steps", steps)
    assert done.returncode == 2 and "such as 5,25,50,100" in done.stderr


# --- drain, undrain, weight ------------------------------------------------------------------------------------------


def test_a_drain_waits_until_it_is_safe(clean: Running) -> None:
    done = clean.lb("drain", clean.blue[1], "--wait")
    assert done.returncode == 0, done.stderr
    assert "safe to kill" in done.stdout
    eventually(lambda: clean.states()[clean.blue[1]] == "drained")
    assert clean.lb("undrain", clean.blue[1]).returncode == 0
    eventually(lambda: clean.states()[clean.blue[1]] == "ready")


def test_a_drain_waits_for_what_is_under_way(clean: Running) -> None:
    slow = [
        subprocess.Popen(["curl", "-s", f"{clean.url}/slow?seconds=1.5"], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    eventually(lambda: clean.json("status")["in_flight"] == 2)
    began = time.monotonic()
    done = clean.lb("drain", clean.blue[0], "--wait")
    assert done.returncode == 0 and time.monotonic() - began > 0.5
    assert all('"greeting"' in process.communicate(timeout=5)[0] for process in slow)


def test_a_wait_can_be_given_up(clean: Running) -> None:
    slow = [
        subprocess.Popen(["curl", "-s", f"{clean.url}/slow?seconds=3"], stdout=subprocess.DEVNULL) for _ in range(2)
    ]
    eventually(lambda: clean.json("status")["in_flight"] == 2)
    done = clean.lb("drain", clean.blue[0], "--wait", "--timeout", "0.3")
    assert done.returncode == 1
    assert "is not drained after" in done.stderr and "1 request left" in done.stderr
    for process in slow:
        process.wait(5)


def test_a_weight_is_kept_beside_the_file_s(clean: Running) -> None:
    assert clean.lb("weight", clean.blue[0], "3").returncode == 0
    target = clean.json("status")["services"][0]["pools"][0]["targets"][0]
    assert (target["weight"], target["configured_weight"]) == (3, 1)
    assert "weight 3 (the file says 1)" in clean.lb("status").stdout
    clean.lb("weight", clean.blue[0], "1")


@pytest.mark.parametrize("number", ["-1", "1001", "much"])
def test_a_weight_that_is_none(running: Running, number: str) -> None:
    assert running.lb("weight", running.blue[0], "--", number).returncode == 2


# --- where the admin port is -----------------------------------------------------------------------------------------


def test_the_admin_option_may_stand_on_either_side(running: Running) -> None:
    assert lb("--admin", running.admin, "status").returncode == 0
    assert lb("status", "--admin", running.admin).returncode == 0
    # The nearer one wins over the environment.
    assert lb("status", "--admin", running.admin, LB_ADMIN="http://127.0.0.1:1").returncode == 0


def test_nobody_answers() -> None:
    done = lb("status", LB_ADMIN="http://127.0.0.1:1")
    assert done.returncode == 1 and done.stdout == ""
    assert "http://127.0.0.1:1: connection refused" in done.stderr
    assert "--admin URL" in done.stderr and "LB_ADMIN" in done.stderr
    assert "Traceback" not in done.stderr


# --- completion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(shell: str) -> None:
    done = lb("completion", shell)
    assert done.returncode == 0 and "_LB_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("sw", "switch"),
        ("switch gr", "greeting"),
        ("switch greeting gr", "green"),
        ("drain greeting/b", "blue"),
        ("drill --fault fl", "flap"),
        ("check --ignore single", "single-target"),
    ],
)
def test_words_are_completed_with_what_there_is(running: Running, typed: str, found: str) -> None:
    at = str(len(typed.split(" ")))
    done = running.lb(_LB_COMPLETE="bash_complete", COMP_WORDS=f"lb {typed}", COMP_CWORD=at)
    assert found in done.stdout, done


def test_completion_without_an_lb_is_silent() -> None:
    done = lb(_LB_COMPLETE="bash_complete", COMP_WORDS="lb drain x", COMP_CWORD="2", LB_ADMIN="http://127.0.0.1:1")
    assert done.returncode == 0 and done.stdout.strip() == "" and done.stderr == ""


# --- speed -----------------------------------------------------------------------------------------------------------


#: Prints to stderr how many modules a command brings in, and which of them are no part of lb or Python.
COUNTED = """
import sys
before = set(sys.modules)
from lb.cli.main import group
try:
    group(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
new = sorted(set(sys.modules) - before)
tops = {name.partition(".")[0] for name in new}
print(len(sys.modules), *sorted(tops - set(sys.stdlib_module_names) - {"lb"}), file=sys.stderr)
"""


def brought_in(*words: str, **env: str) -> tuple[int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *words], capture_output=True, text=True, timeout=30, env=environment(**env)
    )
    number, *foreign = done.stderr.split()
    return int(number), set(foreign)


def test_help_and_status_are_quick_because_they_bring_in_little(running: Running) -> None:
    """35 and 45 ms of CPU, of which a bare Python with its 33 modules takes 9. What decides is not the clock of a busy
    machine."""
    modules, foreign = brought_in("--help")
    assert foreign == {"click"} and modules <= 115, (modules, foreign)
    modules, foreign = brought_in("status", LB_ADMIN=running.admin)
    assert foreign == {"click"} and modules <= 130, (modules, foreign)


def test_reload_says_what_it_did(running: Running, tmp_path: Path) -> None:
    text = running.file.read_text()
    try:
        running.file.write_text(text.replace("interval: 100ms", "intervall: 100ms"))
        done = running.lb("reload")
        assert done.returncode == 1
        assert "intervall" in done.stderr and "interval" in done.stderr
    finally:
        running.file.write_text(text)
