"""What lb and the system around it tell each other: systemd, children, descriptors, a changing file, the log."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lb.process import descriptors
from lb.supervisor import logs
from lb.supervisor.os import reaper, systemd
from lb.supervisor.os.file_watch import FileWatch
from tests.support.eventually_async import eventually


class TestSystemd:
    def test_it_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = str(tmp_path / "notify")
        for name, address in ((path, path), ("@lb-test-" + str(os.getpid()), "\0lb-test-" + str(os.getpid()))):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
                listener.bind(address)
                listener.settimeout(5)
                monkeypatch.setenv("NOTIFY_SOCKET", name)
                systemd.notify("READY=1", "STATUS=fine")
                assert listener.recv(100) == b"READY=1\nSTATUS=fine"

    def test_lb_waits_until_it_has_acted_on_what_it_was_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(tmp_path / "notify"))
            listener.settimeout(5)
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
            waiting = threading.Thread(target=systemd.await_heard)
            waiting.start()
            said, (descriptor,), _, _ = socket.recv_fds(listener, 100, 1)
            assert said == b"BARRIER=1"
            waiting.join(0.1)
            assert waiting.is_alive()
            os.close(descriptor)
            waiting.join(2.0)
            assert not waiting.is_alive()

    def test_it_waits_for_a_bounded_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(systemd, "HEARD_WITHIN", 0.05)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(tmp_path / "notify"))
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
            systemd.await_heard()  # nobody closes the descriptor

    def test_where_it_is_not_nothing_happens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
        systemd.notify("READY=1")
        systemd.await_heard()
        monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
        systemd.notify("READY=1")
        systemd.await_heard()

    @pytest.mark.parametrize(
        ("usec", "pid", "every"),
        [("3000000", "", 1.0), ("3000000", "ours", 1.0), ("3000000", "1", 0.0), ("", "", 0.0), ("x", "", 0)],
    )
    def test_watchdog(self, monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, every: float) -> None:
        monkeypatch.setenv("WATCHDOG_USEC", usec)
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "ours" else pid)
        assert systemd.watchdog() == every

    def test_sockets_are_taken_and_not_passed_on(self) -> None:
        """In a process of its own, as systemd starts it: descriptors from 3 on, and its own pid in the environment."""
        code = """
import os
os.environ["LISTEN_PID"] = str(os.getpid())
from lb.supervisor.os.systemd import take_sockets
taken = take_sockets()
print(*[sock.getsockname()[1] for sock in taken], *[os.get_inheritable(sock.fileno()) for sock in taken])
print("LISTEN_FDS" in os.environ, len(take_sockets()))
"""
        with socket.socket() as one, socket.socket() as two:
            for sock in (one, two):
                sock.bind(("127.0.0.1", 0))
                sock.listen()

            def place() -> None:
                a, b = os.dup(one.fileno()), os.dup(two.fileno())
                os.dup2(a, 3)
                os.dup2(b, 4)

            done = subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"},
                close_fds=False,
                preexec_fn=place,
                capture_output=True,
                text=True,
                check=True,
            )
            ports = f"{one.getsockname()[1]} {two.getsockname()[1]}"
        assert done.stdout == f"{ports} False False\nFalse 0\n"

    def test_sockets_for_another_process_are_left_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LISTEN_FDS", "2")
        monkeypatch.setenv("LISTEN_PID", "1")
        assert systemd.take_sockets() == []


async def test_dead_children_that_nobody_waits_for_are_asked_for() -> None:
    """And one that the event loop waits for is left to it."""
    looking = asyncio.ensure_future(reaper.run(0.05))
    abandoned = os.posix_spawn("/bin/true", ["true"], {})  # noqa: ASYNC221 - nobody is to wait for it
    watched = await asyncio.create_subprocess_exec("/bin/sh", "-c", "sleep 0.2; exit 7")
    await eventually(lambda: not Path(f"/proc/{abandoned}").exists(), what="it is gone from the process table")
    assert await watched.wait() == 7
    looking.cancel()
    assert not reaper.is_needed(), "only process 1 has these duties"


class TestDescriptors:
    @pytest.fixture(autouse=True)
    def _restore(self) -> Iterator[None]:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        yield
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_the_limit_is_raised(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert descriptors.raise_limit() == min(hard, descriptors.PLENTY)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, descriptors.PLENTY)

    @pytest.mark.parametrize(("limit", "connections"), [(1024, 462), (120, 30), (10100, 5000)])
    def test_each_connection_may_need_two(self, limit: int, connections: int) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        assert descriptors.connections() == connections


class TestFileWatch:
    async def test_every_way_to_change_a_file_is_seen_once(self, tmp_path: Path) -> None:
        path, seen = tmp_path / "lb.yaml", []
        path.write_text("one")

        async def changed() -> None:
            seen.append(path.read_text())

        watch = FileWatch(path, changed, every=0.02)
        looking = asyncio.ensure_future(watch.run())
        path.write_text("written in place")
        await eventually(lambda: seen == ["written in place"])
        (tmp_path / "new").write_text("renamed over")
        (tmp_path / "new").replace(path)
        await eventually(lambda: seen[1:] == ["renamed over"])
        for version in ("v1", "v2"):
            (tmp_path / version).write_text(version)
        path.unlink()
        path.symlink_to("v1")
        await eventually(lambda: seen[2:] == ["v1"])
        (tmp_path / "turn").symlink_to("v2")
        (tmp_path / "turn").replace(path)  # what Kubernetes does with a ConfigMap
        await eventually(lambda: seen[3:] == ["v2"])
        path.unlink()
        await asyncio.sleep(0.1)
        assert len(seen) == 4, "a file that is gone is no configuration"
        looking.cancel()

    async def test_a_file_that_is_being_written_is_waited_for(self, tmp_path: Path) -> None:
        path, seen = tmp_path / "lb.yaml", []
        path.write_text("")

        async def changed() -> None:
            seen.append(path.read_text())

        looking = asyncio.ensure_future(FileWatch(path, changed, every=0.05).run())
        until = time.monotonic() + 0.5
        with path.open("a") as file:
            while time.monotonic() < until:
                file.write("more\n")
                file.flush()
                await asyncio.sleep(0.01)
        assert not seen
        await eventually(lambda: len(seen) == 1)
        looking.cancel()

    async def test_what_was_read_for_another_reason_is_no_news(self, tmp_path: Path) -> None:
        path, seen = tmp_path / "lb.yaml", []
        path.write_text("one")

        async def changed() -> None:
            seen.append(path.read_text())

        watch = FileWatch(path, changed, every=0.02)
        looking = asyncio.ensure_future(watch.run())
        path.write_text("two")
        watch.seen()
        await asyncio.sleep(0.2)
        assert not seen
        looking.cancel()


class TestLogs:
    @pytest.fixture
    def root(self) -> Iterator[logging.Logger]:
        root = logging.getLogger("lb")
        before = (root.handlers[:], root.level, root.propagate)
        root.handlers.clear()
        yield root
        root.handlers[:], root.level, root.propagate = before[0], before[1], before[2]

    def test_json_lines(self, root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
        logs.to_stderr("info", "json")
        root.info("it – happened", extra={"fields": {"kind": "reload", "actor": "a"}})
        root.debug("not this")
        line = json.loads(capsys.readouterr().err)
        assert (line["level"], line["message"], line["kind"]) == ("info", "it – happened", "reload")

    def test_level_and_format_can_change(self, root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
        logs.to_stderr("info", "json")
        logs.to_stderr("info", "text")
        logs.level("warning")
        root.info("not this")
        root.warning("but this")
        assert capsys.readouterr().err.strip().endswith("WARNING but this")

    def test_a_reader_that_is_gone_is_no_trouble(
        self, root: logging.Logger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Gone(io.StringIO):
            def write(self, text: str) -> int:
                raise BrokenPipeError

        monkeypatch.setattr(sys, "stderr", Gone())
        logs.to_stderr("info", "text")
        root.info("nobody reads this")
