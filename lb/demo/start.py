"""Starts a greeting backend on each address of a configuration, and ends them again.

The parent opens every listening socket itself and hands it down. A port that is taken is known before anything has
started, and the first probe finds an open door. A child reads an otherwise silent pipe and ends when that closes, so
that none outlives its parent, however the parent ends.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import dataclass, replace

from lb.config.model.addresses import parse_target
from lb.config.model.config import Config, Pool, Service
from lb.config.model.merging import liveness_of, readiness_of
from lb.demo.greeting import listen


class AddressTaken(Exception):  # noqa: N818 - it says what happened
    """A backend's address cannot be listened on."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"{address}: {why}")
        self.address = address


@dataclass(frozen=True, slots=True)
class Backend:
    """One child process and where it answers."""

    address: str
    pool: str
    process: subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Door:
    """A listening socket that waits for its backend."""

    pool: str
    readiness: str
    liveness: str
    sock: socket.socket


class Demo:
    """The greeting backends of one `lb run --demo`."""

    def __init__(self) -> None:
        self.backends: list[Backend] = []
        self.left_out: list[str] = []  # targets that are not of this machine, or speak TLS or HTTP/2
        self._chosen: dict[tuple[str, str, int], int] = {}  # (service, pool, place in it) → port in place of 0

    def start(self, config: Config) -> Config:
        """Start one backend for each address. Returns the configuration with real ports in place of port 0.

        Raises AddressTaken before the first child is started.
        """
        opened: dict[str, Door] = {}
        try:
            placed = self._place(config, opened)
        except AddressTaken:
            for door in opened.values():
                door.sock.close()
            raise
        for address, door in opened.items():
            self._start_one(address, door)
        return placed

    def follow(self, config: Config) -> Config:
        """The same for a configuration that is reloaded: new addresses get a backend, known ones keep theirs.

        An address that is taken is left to its owner.
        """
        while True:
            try:
                return self.start(config)
            except AddressTaken as taken:
                self.left_out.append(taken.address)

    def _place(self, config: Config, opened: dict[str, Door]) -> Config:
        services = {}
        for name, service in config.services.items():
            pools = {pool: self._open(name, pool, service, opened) for pool in service.pools}
            services[name] = service.model_copy(update={"pools": pools})
        return config.model_copy(update={"services": services})

    def _open(self, service_name: str, name: str, service: Service, opened: dict[str, Door]) -> Pool:
        """A door for each target of the pool that this machine can play; the pool with their real addresses."""
        pool = service.pools[name]
        started = {backend.address for backend in self.backends}
        targets = []
        for place, target in enumerate(pool.targets):
            address = parse_target(target.url)
            free = not address.unix and not address.port
            if free:
                address = replace(address, port=self._chosen.get((service_name, name, place), 0))
            if address.tls or address.http2 or not address.loopback:
                if address.text not in self.left_out:
                    self.left_out.append(address.text)
            # One address in two pools is one backend.
            elif address.text not in (*started, *opened, *self.left_out):
                try:
                    sock = listen(address.text)
                except OSError as error:
                    raise AddressTaken(address.text, (error.strerror or str(error)).lower()) from None
                if free:
                    address = replace(address, port=sock.getsockname()[1])
                    self._chosen[service_name, name, place] = address.port
                readiness = readiness_of(service, pool, target)
                liveness = liveness_of(service, pool, target)
                opened[address.text] = Door(name, readiness.path, liveness.path if liveness else "/", sock)
            targets.append(target.model_copy(update={"url": address.url}) if free else target)
        return pool.model_copy(update={"targets": targets})

    def _start_one(self, address: str, door: Door) -> None:
        command = [sys.executable, "-m", "lb.demo.greeting", address, "--version", door.pool]
        paths = {"--readiness": door.readiness, "--liveness": door.liveness}
        for option, path in paths.items():
            if path != "/":  # a TCP check asks for no path
                command += [option, path]
        with door.sock:
            process = subprocess.Popen(
                [*command, "--fd", str(door.sock.fileno()), "--until-eof"],
                stdin=subprocess.PIPE,
                pass_fds=(door.sock.fileno(),),
                start_new_session=True,  # Ctrl-C is for lb, which drains first and then ends them
            )
        self.backends.append(Backend(address, door.pool, process))

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
