"""Memory at rest and with many idle connections, each of which has made a request; every proxy in turn."""

from __future__ import annotations

import socket
from dataclasses import asdict, dataclass

from benchmarks.scenarios import STAGES, Run

CONNECTIONS = 10_000
_REQUEST = b"GET / HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n\r\n"


@dataclass(frozen=True)
class Memory:
    """Resident memory of the processes that carry traffic, bytes."""

    at_rest: int
    full: int
    connections: int

    @property
    def each(self) -> float:
        """Bytes per idle connection."""
        return (self.full - self.at_rest) / self.connections if self.connections else 0.0


def idle(run: Run) -> dict[str, Memory]:
    """Measure each proxy. Both ends are on this machine: its limit of open files counts."""
    found: dict[str, Memory] = {}
    with STAGES["plain"].up(run) as servers:
        for name, server in servers.items():
            at_rest = server.resident()
            socks: list[socket.socket] = []
            try:
                for _ in range(CONNECTIONS):
                    sock = socket.create_connection(("127.0.0.1", server.port), 10)
                    socks.append(sock)
                    sock.sendall(_REQUEST)
                    try:
                        if not sock.recv(4096).startswith(b"HTTP/1.1 200"):
                            break
                    except OSError:  # it takes no more
                        break
                found[name] = Memory(at_rest, server.resident(), len(socks))
            finally:
                for sock in socks:
                    sock.close()
    return found


def table(found: dict[str, Memory]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [
        "### Memory with idle connections",
        "",
        "| proxy | at rest, MiB | connections | with them, MiB | KiB each |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, memory in found.items():
        lines.append(
            f"| {name} | {memory.at_rest / (1 << 20):.0f} | {memory.connections:,} | {memory.full / (1 << 20):.0f} "
            f"| {memory.each / 1024:.1f} |"
        )
    return [*lines, ""]


def plain(found: dict[str, Memory]) -> dict[str, dict[str, int]]:
    """As JSON values."""
    return {name: asdict(memory) for name, memory in found.items()}
