"""Targets that send much, clients that take little, and what waits in between."""

from __future__ import annotations

import asyncio
import socket
import ssl

import trustme

from tests.support.front import Front, Origin, Script, read_request

HUGE = b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n"


def sized(size: int, framing: str = "length", close: bool = False) -> Script:
    """Answers every request with so many bytes."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            origin.requests.append(await read_request(reader))
            head = b"HTTP/1.1 200 OK\r\n" + (b"Connection: close\r\n" if close else b"")
            if framing == "length":
                writer.write(head + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
            elif framing == "chunked":
                writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * size)
            await writer.drain()
            if close or framing == "until close":
                return

    return script


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    """Answers with 50 MB, as fast as it is taken."""
    origin.requests.append(await read_request(reader))
    writer.write(HUGE)
    for _ in range(500):
        writer.write(bytes(100_000))
        await writer.drain()


def tiny(sock: socket.socket) -> socket.socket:
    """A client whose kernel takes little."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return sock


def connect_tiny(front: Front) -> socket.socket:
    """A connection whose client's kernel takes little from the start."""
    sock = tiny(socket.socket())
    sock.settimeout(10)
    sock.connect(("127.0.0.1", front.port))
    return sock


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def speak_tls(authority: trustme.CA, sock: socket.socket) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context.wrap_socket(sock, server_hostname="localhost")


def tunnels(front: Front) -> int:
    """Bytes that wait in the worker's tunnels."""

    def look() -> int:
        ends = [end for tunnel in front.plane.context.tunnels for end in (tunnel.client_end, tunnel.target_end)]
        return sum(end.transport.get_write_buffer_size() for end in ends if not end.lost)

    return int(front.call(look))
