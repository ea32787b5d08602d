"""Starts a greeting backend on each address of a configuration, and ends them again.

The parent opens every listening socket itself and hands it down: a port that is taken is known before anything has
started, and the first probe finds an open door. A child reads an otherwise silent pipe and ends when that closes, so
that none outlives its parent, however the parent ends.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from lb.core.targets import Target
from lb.demo.greeting import listen

LOCAL = ("127.", "::1", "localhost", "unix:")


class AddressTaken(Exception):  # noqa: N818 - it says what happened
    """A backend's address cannot be listened on."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One child process and where it answers."""

    address: str
    pool: str
    process: subprocess.Popen[bytes]


class Demo:
    """The greeting backends of one `lb run --demo`."""

    def __init__(self) -> None:
        self.backends: list[Backend] = []
        self.left_out: list[str] = []  # targets that are not of this machine, or speak TLS

    def start(self, targets: Iterable[tuple[Target, str, str]]) -> None:
        """(target, readiness path, liveness path) each; raises AddressTaken before the first child is started."""
        opened: list[tuple[str, str, str, str, socket.socket]] = []
        for target, readiness, liveness in targets:
            address = target.host if target.host.startswith("unix:") else host_port(target.host, target.port)
            if target.tls is not None or not target.host.startswith(LOCAL):
                self.left_out.append(address)
                continue
            if any(address == known for known, *_ in opened):
                continue  # one address in two pools is one backend
            try:
                opened.append((address, target.pool, readiness, liveness, listen(address)))
            except OSError as error:
                for *_, sock in opened:
                    sock.close()
                raise AddressTaken(f"{address}: {(error.strerror or str(error)).lower()}") from None
        for address, pool, readiness, liveness, sock in opened:
            command = [sys.executable, "-m", "lb.demo.greeting", address, "--version", pool]
            command += ["--readiness", readiness, "--liveness", liveness, "--fd", str(sock.fileno()), "--until-eof"]
            with sock:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    pass_fds=(sock.fileno(),),
                    start_new_session=True,  # Ctrl-C is for lb, which drains first and then ends them
                )
            self.backends.append(Backend(address, pool, process))

    def close(self) -> None:
        """End them all; one that does not go in two seconds is killed."""
        for backend in self.backends:
            backend.process.terminate()
        for backend in self.backends:
            try:
                backend.process.wait(2.0)
            except subprocess.TimeoutExpired:
                backend.process.kill()
                backend.process.wait(2.0)
            if backend.process.stdin is not None:
                backend.process.stdin.close()
        self.backends.clear()


def host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
