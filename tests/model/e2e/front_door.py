"""Certificates that lb shows its clients, and client certificates that it wants: renewed, broken, restored, exchanged.

A listener has a directory with the pairs of two names, and a third name that wants client certificates. Of each name it
is known which certificates may be shown: the newest one that a reload has confirmed, and what was written since.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509

from tests.model.clock import CLOCK
from tests.model.e2e.world import RealWorld

NAMES = ("a.front.test", "b.front.test")
CLOSED = "c.front.test"
#: Seconds after a death of a process in which handshakes may fail.
EXCUSED = 3.0


class FrontDoor:
    """The TLS listener of one run."""

    def __init__(self, world: RealWorld) -> None:
        self.world = world
        self.address = (f"{world.prefix}.251", 8443)
        self.folder = world.directory / "front"
        self.folder.mkdir()
        self.authority = trustme.CA()
        self.clients = trustme.CA()
        self.may_show: dict[str, set[int]] = {}
        self.broken: dict[str, int] = {}  # name → the supervisor that has seen it whole
        for name in NAMES:
            self.may_show[name] = {self.write(self.folder / "pairs", name)}
        self.may_show[CLOSED] = {self.write(self.folder, CLOSED)}
        self.clients.cert_pem.write_to_path(str(self.folder / "clients.pem"))
        self.client = self._client_file()

    def listener(self) -> dict[str, Any]:
        """As the file has it."""
        closed = self.folder / CLOSED
        asks = {"mode": "required", "ca_file": str(self.folder / "clients.pem")}
        pair = {"cert_file": f"{closed}.pem", "key_file": f"{closed}.key", "client": asks}
        sources = [{"directory": str(self.folder / "pairs")}, pair]
        return {"bind": "{}:{}".format(*self.address), "tls": {"certificates": sources, "strict_sni": True}}

    def write(self, folder: Path, name: str, whole: bool = True) -> int:
        """A new certificate, with its key or with that of another one; its serial number."""
        folder.mkdir(exist_ok=True)
        issued = self.authority.issue_cert(name)
        key = (issued if whole else self.authority.issue_cert(name)).private_key_pem
        for ending, blob in ((".key", key), (".pem", issued.cert_chain_pems[0])):
            new = folder / f".{name}{ending}"
            new.write_bytes(blob.bytes())
            new.chmod(0o600)
            new.replace(folder / f"{name}{ending}")
        return x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).serial_number

    def _client_file(self) -> str:
        path = self.folder / f"client-{CLOCK.now}.pem"
        self.clients.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(str(path))
        return str(path)

    def exchange_clients(self) -> None:
        """Another authority vouches for clients."""
        self.clients = trustme.CA()
        self.clients.cert_pem.write_to_path(str(self.folder / "clients.pem"))
        self.client = self._client_file()

    # --- what is seen -------------------------------------------------------------------------------------------------

    async def look(self) -> str:
        """A handshake with each name; what it shows is judged."""
        for name in NAMES:
            if name not in self.broken or self.broken[name] == self.world.program.pid:
                await self._judge(name, "")
        await self._judge(CLOSED, self.client)
        if (shown := await self._shake(CLOSED, "")) is not None and not self._excused():
            self.world.violate("8 certificates", f"{CLOSED} let a client without a certificate in: {shown}")
        if await self._shake("z.front.test", "") is not None:
            self.world.violate("8 certificates", "a name without a certificate was shown one")
        return f"broken: {', '.join(self.broken) or 'none'}"

    async def _judge(self, name: str, client: str) -> None:
        before = set(self.may_show[name])
        for _ in range(3):
            shown = await self._shake(name, client)
            if shown is not None or self._excused():
                break
            await asyncio.sleep(0.3)
        if shown is None and not self._excused():
            self.world.violate("8 certificates", f"no handshake with {name}: {self.world.program.tail()[-300:]}")
        elif shown is not None and shown not in before | self.may_show[name]:
            self.world.violate("8 certificates", f"{name} showed {shown}; it may show {before | self.may_show[name]}")

    def _excused(self) -> bool:
        world = self.world
        return world.away or CLOCK.now - max(world.workers_hurt, world.disturbed) < EXCUSED

    async def _shake(self, name: str, client: str) -> int | None:
        return await asyncio.get_running_loop().run_in_executor(None, self._shake_now, name, client)

    def _shake_now(self, name: str, client: str) -> int | None:
        """The serial number of what a name shows to a client that is then let in; None: it is not."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if client:
            context.load_cert_chain(client)
        with (
            contextlib.suppress(OSError),
            socket.create_connection(self.address, timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=name) as sock,
        ):
            sock.sendall(f"GET /nowhere HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            if sock.recv(100).startswith(b"HTTP/1.1 "):
                shown = sock.getpeercert(binary_form=True) or b""
                return x509.load_der_x509_certificate(shown).serial_number
        return None


async def change(world: RealWorld, dice: random.Random) -> str:
    """One change of the files, a reload, and a look. What the reload says has to be so."""
    front: FrontDoor = world.front
    name, what = dice.choice(NAMES), dice.choice(("renew", "renew", "break", "clients", "look"))
    if what == "look":
        return await front.look()
    serial = 0
    if what == "clients":
        front.exchange_clients()
    elif what == "break":
        front.write(front.folder / "pairs", name, whole=False)
        front.broken.setdefault(name, world.program.pid)
    else:
        serial = front.write(front.folder / "pairs", name)
        front.may_show[name].add(serial)
    said = await world.admin("POST", "/api/v1/reload", {})
    if not said.ok:
        return f"{what} {name}: {said.status} {said.detail}"  # the next look finds what came of it
    if serial:
        front.may_show[name] = {serial}
        front.broken.pop(name, None)
    if bool(said.body.get("unusable")) != bool(front.broken):
        world.violate("8 certificates", f"{what} {name}: broken are {list(front.broken)}, but lb said {said.body}")
    return f"{what} {name}: {await front.look()}"
