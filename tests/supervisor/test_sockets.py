"""Listening sockets: a taken address is found out, a chosen port is everybody's, given ones are used."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import pytest

from lb.process.descriptors import open_now
from lb.supervisor.sockets import (
    CannotListen,
    bound_name,
    is_at,
    listen_once,
    open_listener,
    parse_bind,
    remove_file,
    remove_left_over,
)


def close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize(
    ("bind", "family", "address"),
    [
        ("127.0.0.1:80", socket.AF_INET, ("127.0.0.1", 80)),
        (":80", socket.AF_INET, ("0.0.0.0", 80)),
        ("[::1]:80", socket.AF_INET6, ("::1", 80)),
        ("[::]:0", socket.AF_INET6, ("::", 0)),
        ("unix:/run/lb.sock", socket.AF_UNIX, "/run/lb.sock"),
    ],
)
def test_binds(bind: str, family: int, address: object) -> None:
    assert parse_bind(bind) == (family, address)


def test_each_seat_has_a_socket_on_the_same_port() -> None:
    sockets = open_listener("127.0.0.1:0", 3)
    assert len({sock.getsockname() for sock in sockets}) == 1
    assert len({sock.fileno() for sock in sockets}) == 3
    assert bound_name("127.0.0.1:0", sockets[0]) == f"127.0.0.1:{sockets[0].getsockname()[1]}"
    assert is_at(sockets[0], f"127.0.0.1:{sockets[0].getsockname()[1]}")
    close(sockets)


@pytest.mark.parametrize("reuse", [False, True], ids=["alone", "with SO_REUSEPORT"])
def test_an_address_in_use_is_named(reuse: bool) -> None:
    """SO_REUSEPORT would let a second lb of the same user take it silently."""
    with socket.socket() as other:
        if reuse:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(CannotListen, match=f"{bind}: the address is in use"):
            open_listener(bind, 2)


def test_an_address_whose_last_connections_still_close_is_free(tmp_path: Path) -> None:
    """TIME_WAIT after a restart is no reason not to start."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = server.getsockname()
        with socket.create_connection(address) as client:
            accepted, _ = server.accept()
            accepted.close()  # the server closes first: its side waits
            assert client.recv(1) == b""
    close(open_listener(f"127.0.0.1:{address[1]}", 2))


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1:80: this machine does not have the address"):
        open_listener("192.0.2.1:80", 1)


def test_given_sockets_are_used_first_and_what_is_missing_is_opened_beside_them() -> None:
    given = open_listener("127.0.0.1:0", 2)
    sockets = open_listener("127.0.0.1:0", 3, given)
    assert sockets[:2] == given
    assert len({sock.getsockname() for sock in sockets}) == 1
    close(sockets)


def test_no_given_queue_is_closed_with_connections_in_it() -> None:
    """A restart with fewer workers: the kernel resets what waits in a queue whose last descriptor is closed."""
    given = open_listener("127.0.0.1:0", 4)
    clients = [socket.create_connection(given[0].getsockname()) for _ in range(40)]
    sockets = open_listener("127.0.0.1:0", 1, given)
    accepted = [accepted for sock in sockets for accepted in _accept_all(sock)]
    assert len(accepted) == len(clients)
    close([*clients, *accepted, *sockets])


def test_a_queue_that_is_given_twice_takes_no_other_ones_place() -> None:
    """A worker that stands in for a neighbour hands over a copy of the neighbour's socket beside its own."""
    own, other = open_listener("127.0.0.1:0", 2)
    copy = own.dup()
    sockets = open_listener("127.0.0.1:0", 2, [own, copy, other])
    assert sockets == [own, other]
    assert copy.fileno() == -1
    close(sockets)


def _accept_all(sock: socket.socket) -> list[socket.socket]:
    sock.setblocking(False)
    accepted = []
    with suppress(BlockingIOError):
        while True:
            accepted.append(sock.accept()[0])
    return accepted


def test_a_given_socket_that_cannot_be_shared_is_one_queue_for_all() -> None:
    """systemd opens one socket without SO_REUSEPORT."""
    alone = listen_once("127.0.0.1:0")
    sockets = open_listener("127.0.0.1:0", 3, [alone])
    assert len({sock.getsockname() for sock in sockets}) == 1
    client = socket.create_connection(alone.getsockname())
    accepted, _ = sockets[2].accept()
    accepted.close()
    client.close()
    close(sockets)


class TestUnix:
    def test_one_queue_for_all(self, tmp_path: Path) -> None:
        path = tmp_path / "lb.sock"
        sockets = open_listener(f"unix:{path}", 3)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            sockets[1].accept()[0].close()
        close(sockets)

    def test_a_left_over_file_is_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "lb.sock"
        close(open_listener(f"unix:{path}", 1))
        assert path.exists()
        close(open_listener(f"unix:{path}", 1))

    def test_one_that_is_listened_on_is_not(self, tmp_path: Path) -> None:
        path = tmp_path / "lb.sock"
        sockets = open_listener(f"unix:{path}", 1)
        with pytest.raises(CannotListen, match="in use"):
            open_listener(f"unix:{path}", 1)
        close(sockets)

    @pytest.mark.parametrize("name", ["lb.sock", "with a space.sock"])
    def test_the_file_goes_with_the_last_socket_that_listens(self, tmp_path: Path, name: str) -> None:
        """An lb that backs out of an upgrade closes copies; the lb that goes on still listens there."""
        path = tmp_path / name
        own, copy = open_listener(f"unix:{path}", 2)
        copy.close()
        remove_left_over(f"unix:{path}")
        assert path.exists()
        own.close()
        remove_left_over(f"unix:{path}")
        assert not path.exists()

    def test_a_path_that_ends_alike_does_not_keep_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        [long] = open_listener(f"unix:{tmp_path}/a/lb.sock", 1)
        bind = f"unix:{tmp_path}/lb.sock"
        close(open_listener(bind, 1))
        remove_left_over(bind)
        assert not (tmp_path / "lb.sock").exists()
        assert (tmp_path / "a" / "lb.sock").exists()
        long.close()

    def test_a_connection_does_not_keep_the_file(self, tmp_path: Path) -> None:
        """A client of the listener that is gone may still be served."""
        path = tmp_path / "lb.sock"
        [listening] = open_listener(f"unix:{path}", 1)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            served, _ = listening.accept()
            with served:
                listening.close()
                remove_left_over(f"unix:{path}")
                assert not path.exists()

    def test_a_listener_that_is_removed_takes_its_file_along(self, tmp_path: Path) -> None:
        """Workers close their copies a moment later."""
        path = tmp_path / "lb.sock"
        sockets = open_listener(f"unix:{path}", 1)
        remove_file(f"unix:{path}")
        assert not path.exists()
        close(sockets)

    def test_a_file_that_is_no_socket_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "notes"
        path.write_text("mine")
        with pytest.raises(CannotListen, match="in use"):
            open_listener(f"unix:{path}", 1)
        assert path.read_text() == "mine"


def test_a_refusal_leaks_no_descriptor() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        before = open_now()
        for _ in range(20):
            with pytest.raises(CannotListen):
                open_listener(f"127.0.0.1:{other.getsockname()[1]}", 4)
        assert open_now() == before
