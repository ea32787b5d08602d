"""The origin behind all proxies: nginx with small answers, large files and POST, and an echo for WebSocket messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.processes import LOAD_CPU, await_answer, binary, free_port, start

ANSWER = "hello from the backend: an answer of sixty-five bytes, more or less"
UP = "up"  # what the WebSocket echo answers to a plain request
FILES = (("1m", 1 << 20), ("100m", 100 << 20))
#: nginx's folders for what it buffers: the usual ones belong to root.
TEMPORARY = "".join(f"{kind}_temp_path {{0}}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))


def origin(folder: Path, targets: int = 1) -> tuple[subprocess.Popen[bytes], tuple[str, ...]]:
    """Start the origin; returns it and the addresses of `targets` targets.

    The first is at 127.0.0.1; further ones have loopback addresses of their own and share its port, so that a thousand
    of them need no thousand free ports.
    """
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for name, size in FILES:
        with (files / name).open("wb") as file:
            file.truncate(size)
    port = free_port()
    addresses = [f"127.0.0.1:{port}"]
    addresses += [f"127.1.{number >> 8}.{number & 255}:{port}" for number in range(1, targets)]
    fillers = "".join(f"add_header X-Filler-{i} value-of-filler-{i};" for i in range(26))
    listens = "".join(f"listen {address} backlog=8192;" for address in addresses)
    config = folder / "origin.conf"
    config.write_text(
        f"daemon off; master_process off; error_log {folder}/origin.err; pid {folder}/origin.pid;"
        f" events {{ worker_connections 19000; }}"
        f"http {{ access_log off; keepalive_requests 100000000; client_max_body_size 0;"
        f"client_body_buffer_size 128k; {TEMPORARY.format(folder)}"
        f"server {{ {listens} location / {{ return 200 '{ANSWER}'; }}"
        f"location /headers {{ {fillers} return 200 '{ANSWER}'; }}"
        f"location /files/ {{ root {folder}; sendfile on; }} }} }}"
    )
    process = start([binary("nginx"), "-c", str(config)], {LOAD_CPU}, folder, "origin")
    await_answer(f"http://{addresses[-1]}/", process)
    return process, tuple(addresses)


def echo(folder: Path) -> tuple[subprocess.Popen[bytes], tuple[str, ...]]:
    """Start the WebSocket echo; returns it and its address."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.websocket", "serve", str(port)]
    process = start(command, {LOAD_CPU}, folder, "echo", {"PYTHONPATH": str(Path(__file__).parent.parent)})
    await_answer(f"http://127.0.0.1:{port}/", process)
    return process, (f"127.0.0.1:{port}",)
