"""A DNS server on loopback, over UDP and TCP, that answers as a test says. dnslib writes its messages."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

from dnslib import AAAA, CNAME, QTYPE, RCODE, RR, SOA, SRV, A, DNSHeader, DNSRecord


class DnsServer:
    """Names and their records, each by its type. What it has no record of does not exist."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.records: dict[tuple[str, str], list[RR]] = {}
        self.broken: dict[str, str] = {}  # type (`*`: any) → timeout | servfail | refused | garbage | formerr_edns
        self.truncate = False  # answers over UDP are cut, so that they are asked for over TCP
        self.tcp = True  # answer over TCP
        self.strange: Callable[[DNSRecord], bytes] | None = None  # an answer of a test's own
        self.asked: list[tuple[str, str]] = []  # (name, type)
        self._udp, self._listening = _pair(host, port)
        self.port = self._udp.getsockname()[1]
        self._listening.listen(64)
        self.address = f"{host}:{self.port}"
        self._closing = False
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._serve_udp, self._serve_tcp)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        for sock in (self._udp, self._listening):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(2)

    # --- what it says ------------------------------------------------------------------------------------------------

    def say(self, name: str, *addresses: str, ttl: int = 1) -> None:
        """The addresses of a name, of both families."""
        for kind, sign in (("A", "."), ("AAAA", ":")):
            values = [each for each in addresses if sign in each]
            make = A if kind == "A" else AAAA
            self.records[name, kind] = [RR(name, getattr(QTYPE, kind), rdata=make(each), ttl=ttl) for each in values]

    def say_services(self, name: str, *services: tuple[int, int, int, str], ttl: int = 1) -> None:
        """Priority, weight, port and host of each."""
        self.records[name, "SRV"] = [
            RR(name, QTYPE.SRV, rdata=SRV(priority, weight, port, host), ttl=ttl)
            for priority, weight, port, host in services
        ]

    def alias(self, name: str, other: str, ttl: int = 1) -> None:
        self.records[name, "CNAME"] = [RR(name, QTYPE.CNAME, rdata=CNAME(other), ttl=ttl)]

    def forget(self, name: str) -> None:
        """It does not exist."""
        self.records = {key: value for key, value in self.records.items() if key[0] != name}

    # --- how it answers ----------------------------------------------------------------------------------------------

    def _answer(self, data: bytes, udp: bool) -> bytes | None:
        request = DNSRecord.parse(data)
        name, kind = str(request.q.qname).rstrip(".").lower(), QTYPE[request.q.qtype]
        self.asked.append((name, kind))
        broken = self.broken.get(kind) or self.broken.get("*")
        if broken == "timeout":
            return None
        if broken == "garbage":
            return data[:2] + b"\xff" * 30
        if self.strange is not None:
            return self.strange(request)
        reply = request.reply()
        if broken in ("servfail", "refused"):
            reply.header.rcode = getattr(RCODE, broken.upper())
            return bytes(reply.pack())
        if broken == "formerr_edns" and request.ar:
            reply.header.rcode = RCODE.FORMERR
            return bytes(reply.pack())
        known = name
        for _ in range(20):
            aliases = self.records.get((known, "CNAME"))
            if not aliases:
                break
            reply.add_answer(*aliases)
            known = str(aliases[0].rdata.label).rstrip(".").lower()
        found = self.records.get((known, kind), [])
        reply.add_answer(*found)
        if not found:
            if not any(key[0] == known for key in self.records):
                reply.header.rcode = RCODE.NXDOMAIN
            reply.add_auth(RR("test", QTYPE.SOA, rdata=SOA("ns.test", "ops.test", (1, 60, 60, 60, 1)), ttl=1))
        if udp and self.truncate:
            header = DNSHeader(id=request.header.id, qr=1, aa=1, tc=1, rd=1)
            return bytes(DNSRecord(header, q=request.q).pack())
        return bytes(reply.pack())

    def _serve_udp(self) -> None:
        while not self._closing:
            try:
                data, peer = self._udp.recvfrom(4096)
                if not data:  # it was shut down
                    return
                answer = self._answer(data, True)
                if answer is not None:
                    self._udp.sendto(answer, peer)
            except OSError:
                if self._closing:
                    return

    def _serve_tcp(self) -> None:
        while not self._closing:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_one, args=(peer,), daemon=True).start()

    def _serve_one(self, peer: socket.socket) -> None:
        with peer:
            peer.settimeout(5)
            try:
                while head := peer.recv(2, socket.MSG_WAITALL):
                    data = peer.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL)
                    answer = self._answer(data, False) if self.tcp else None
                    if answer is None:
                        return
                    peer.sendall(struct.pack("!H", len(answer)) + answer)
            except (OSError, struct.error):
                return


def _pair(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Sockets for UDP and TCP on one port. One that is free for the one may be taken for the other: then the next."""
    while True:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((host, port))
        tcp = socket.socket()
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tcp.bind((host, udp.getsockname()[1]))
        except OSError:
            tcp.close()
            udp.close()
            if port:
                raise
        else:
            return udp, tcp
