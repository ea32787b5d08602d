"""`lb run`: read the file, start the demo backends if asked to, and hand over to the supervisor.

The next steps are printed once everything listens, with the addresses that were really chosen.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lb.cli.failure import DEFAULT_ADMIN, Failure
from lb.cli.terminal import Ink, colours

if TYPE_CHECKING:
    from lb.config.load import Served
    from lb.config.model.config import Config
    from lb.demo.start import Demo
    from lb.supervisor.main import Supervisor


@click.command(
    epilog="""\b
Examples:
  lb run                          serve what backends.yaml says
  lb run --demo                   with small backends on its addresses
  lb run /etc/lb/backends.yaml --workers 4

SIGTERM, SIGINT and SIGQUIT drain and stop (a second one stops at once), SIGHUP
reloads, SIGUSR1 reopens the logs, SIGUSR2 upgrades to the installed code."""
)
@click.argument("file", default="backends.yaml", type=click.Path(dir_okay=False))
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Worker processes. Default: one per core.")
@click.option("--demo", is_flag=True, help="Start small greeting backends on the file's addresses.")
def run(file: str, workers: int | None, demo: bool) -> None:
    """Serve: the proxy, its health checks and its admin port."""
    from lb.config.load import load
    from lb.config.yaml.problems import ConfigError

    path = Path(file)
    try:
        config = load(path)
    except ConfigError as error:
        count = len(error.problems)
        raise Failure(f"{file} has {count} error{'s' * (count != 1)}; nothing was started.\n{error}") from None
    raise SystemExit(with_demo(path, config, workers) if demo else serve(path, config, workers, None))


def serve(path: Path, config: Config, workers: int | None, demo: Demo | None) -> int:
    from lb.supervisor import logs
    from lb.supervisor import main as supervisor

    logs.to_stderr(config.log.level, config.log.format)
    log_file = quiet(config) if demo is not None else ""

    def announce(started: Supervisor) -> None:
        with contextlib.suppress(OSError):  # the output may have no reader, or the disk be full
            for line in greeting(started, demo, Ink(colours(sys.stderr)), log_file):
                print(line, file=sys.stderr, flush=True)

    def read(again: Path, served: Served) -> Config:
        from lb.config.load import load_again

        config = load_again(again, served)
        return demo.follow(config) if demo is not None else config

    return supervisor.run(path, config, workers=workers, announce=announce, read=read, upgradable=demo is None)


def quiet(config: Config) -> str:
    """Send standard output to a file if it is a terminal, so that requests do not scroll away what to try.

    Returns the file's path, relative if that is shorter; an empty text if everything stays as it was.
    """
    if not sys.stdout.isatty() or config.access_log.path != "-" or config.access_log.format == "off":
        return ""
    path = Path(config.state_dir) / "access.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as log:
            os.dup2(log.fileno(), sys.stdout.fileno())
    except OSError:
        return ""  # the state directory has its own words for that
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near


def with_demo(path: Path, config: Config, workers: int | None) -> int:
    """Serve with a greeting backend on each address of the file; they end when lb does."""
    from lb.demo.start import AddressTaken, Demo

    demo = Demo()
    try:
        config = demo.start(config)
    except AddressTaken as error:
        port = error.address.rpartition(":")[2]
        raise Failure(
            f"--demo cannot start a backend on {error}.\n"
            f"  `ss -ltnp 'sport = :{port}'` tells who is there. Change the address in {path},\n"
            "  or leave --demo out to use what runs there."
        ) from None
    try:
        return serve(path, config, workers, demo)
    finally:
        demo.close()


def greeting(started: Supervisor, demo: Demo | None, ink: Ink, log_file: str = "") -> list[str]:
    """The addresses that listen, and the next steps. `log_file`: where a demo's access log goes instead of the
    terminal."""
    listeners = [f"{'https' if tls else 'http'}://{reachable(address)}" for address, tls in listening(started)]
    admin = f"{'https' if started.admin.tls else 'http'}://{reachable(started.admin_address)}"
    lines = [
        f"{ink('lb', 'bold')} serves {', '.join(listeners)}",
        f"   admin   {admin}  (dashboard, /metrics, /api/v1/status)",
    ]
    if demo is None:
        return lines
    if log_file:
        lines.append(f"   log     {log_file}  (one line for each request)")
    for pool in dict.fromkeys(backend.pool for backend in demo.backends):
        addresses = ", ".join(backend.address for backend in demo.backends if backend.pool == pool)
        lines.append(f"   {pool:7} {addresses}")
    for address in demo.left_out:
        lines.append(f"   not started by --demo: {address} (not of this machine, or TLS or HTTP/2)")
    if not demo.backends:
        return lines
    name, service = next(iter(started.state.config.services.items()))
    first = demo.backends[0].address
    other = next((pool for pool in service.pools if pool != service.first_active()), None)
    tries = [
        (f"curl {listeners[0]}/greeting", "alternates over the ready backends"),
        (f"curl -X POST {first}/toggle_health", "says not ready: is left out"),
        ("lb status --watch", "see it happen"),
        (f"lb explain {first}", "why, and what brings it back"),
    ]
    if other is not None:
        tries += [(f"lb switch {name} {other}", "blue/green in one step"), (f"lb rollback {name}", "and back")]
    if admin != DEFAULT_ADMIN:
        tries.insert(2, (f"export LB_ADMIN={admin}", "where lb's commands find it"))
    import shutil

    if shutil.which("lb") is None:
        tries.insert(2, (put_on_path(), "puts lb on the path"))
    size = max(len(command) for command, _ in tries)
    lines += ["", "Try, in another terminal:"]
    lines += [f"   {ink(command.ljust(size), 'bold')}  # {why}" for command, why in tries]
    return [*lines, "", "Ctrl-C ends it all.", ""]


def put_on_path() -> str:
    """The command that makes the shell find `lb`, which runs from an environment that is not on its path."""
    folder = Path(sys.executable).parent
    if not (folder / "activate").exists():
        return f"export PATH=$PATH:{folder}"
    near = os.path.relpath(folder / "activate")
    return f"source {folder / 'activate' if near.startswith('..') else near}"


def listening(started: Supervisor) -> list[tuple[str, bool]]:
    """(address with its real port, whether it speaks TLS) of each listener."""
    tls = {listener.bind: listener.tls is not None for listener in started.state.world.snapshot.listeners}
    return [(address, tls.get(bind, False)) for bind, address in started.state.addresses.items()]


def reachable(address: str) -> str:
    """An address to connect to: every address means this machine as well."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]", "::", "") else address
