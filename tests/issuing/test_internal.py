"""The internal authority: what it issues is trusted by its root, renewed in time, and survives damage."""

from __future__ import annotations

import ssl
import stat
import time
from pathlib import Path

import pytest
from cryptography import x509

from lb.config.certificate_sources import internal_file
from lb.issuing.internal import LEAF_LIFE, ROOT_LIFE, InternalAuthority
from lb.net import atomic_file


def names_of(path: Path) -> list[str]:
    leaf = x509.load_pem_x509_certificate(path.read_bytes())
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = (str(each) for each in found.get_values_for_type(x509.IPAddress))
    return [*found.get_values_for_type(x509.DNSName), *addresses]


def shakes_hands(pem: Path, name: str, root: Path) -> bool:
    """Whether a client that trusts the root takes the certificate, by a handshake in memory."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ssl.create_default_context(cafile=str(root))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return True


def test_its_certificates_are_trusted_by_its_root_alone(tmp_path: Path) -> None:
    told: list[str] = []
    authority = InternalAuthority(str(tmp_path), told.append)
    names = ["localhost", "a.example.org", "*.b.example.org"]
    assert list(authority.ensure(names)) == names
    assert authority.in_memory == set()
    local, a, wild = (internal_file(str(tmp_path), n) for n in ("localhost", "a.example.org", "*.b.example.org"))
    assert names_of(local) == ["localhost", "127.0.0.1", "::1"]
    for pem, name in ((local, "localhost"), (local, "127.0.0.1"), (a, "a.example.org"), (wild, "x.b.example.org")):
        assert shakes_hands(pem, name, authority.root_file), name
    assert not shakes_hands(a, "b.example.org", authority.root_file)
    other = InternalAuthority(str(tmp_path / "other"))
    assert not shakes_hands(a, "a.example.org", _root(other))
    assert told == [f"a certificate authority was made, {authority.root_file}; see `lb certificates trust`"]


def _root(authority: InternalAuthority) -> Path:
    authority.ensure(["localhost"])
    return authority.root_file


def test_the_next_process_goes_on_with_what_is_stored(tmp_path: Path) -> None:
    InternalAuthority(str(tmp_path)).ensure(["a.example.org"])
    before = {path: path.read_bytes() for path in (tmp_path / "internal").iterdir()}
    InternalAuthority(str(tmp_path)).ensure(["a.example.org"])
    assert {path: path.read_bytes() for path in (tmp_path / "internal").iterdir()} == before
    for path in (tmp_path / "internal", *before):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_a_certificate_is_renewed_after_two_thirds_of_its_life_and_the_root_stays(tmp_path: Path) -> None:
    ahead = 0.0
    authority = InternalAuthority(str(tmp_path), wall=lambda: time.time() + ahead)
    authority.ensure(["a.example.org"])
    path = internal_file(str(tmp_path), "a.example.org")
    first, root = path.read_bytes(), authority.root_file.read_bytes()
    ahead = LEAF_LIFE.total_seconds() * 0.6
    authority.ensure(["a.example.org"])
    assert path.read_bytes() == first
    ahead = LEAF_LIFE.total_seconds() * 0.7
    authority.ensure(["a.example.org"])
    assert path.read_bytes() != first
    assert authority.root_file.read_bytes() == root


def test_a_root_that_ends_soon_is_replaced_and_said_so(tmp_path: Path) -> None:
    told: list[str] = []
    InternalAuthority(str(tmp_path)).ensure(["a.example.org"])
    ahead = ROOT_LIFE.total_seconds() * 0.7
    later = InternalAuthority(str(tmp_path), told.append, wall=lambda: time.time() + ahead)
    later.ensure(["a.example.org"])
    assert "ends soon" in told[0]
    leaf = x509.load_pem_x509_certificate(internal_file(str(tmp_path), "a.example.org").read_bytes())
    leaf.verify_directly_issued_by(later.root().certificate)


@pytest.mark.parametrize("name", ["root.pem", "root.key", "a.example.org.pem"])
def test_a_damaged_file_is_made_anew(name: str, tmp_path: Path) -> None:
    InternalAuthority(str(tmp_path)).ensure(["a.example.org"])
    (tmp_path / "internal" / name).write_bytes(b"damaged")
    authority = InternalAuthority(str(tmp_path))
    authority.ensure(["a.example.org"])
    assert shakes_hands(internal_file(str(tmp_path), "a.example.org"), "a.example.org", authority.root_file)


def test_an_operator_can_have_a_certificate_renewed(tmp_path: Path) -> None:
    authority = InternalAuthority(str(tmp_path))
    authority.ensure(["a.example.org"])
    path = internal_file(str(tmp_path), "a.example.org")
    before = path.read_bytes()
    authority.renew("a.example.org")
    authority.ensure(["a.example.org"])
    assert path.read_bytes() != before


def test_a_disk_that_takes_nothing_leaves_them_in_memory_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes, *, durable: bool = False) -> None:
        raise OSError(28, "No space left on device")

    told: list[str] = []
    authority = InternalAuthority(str(tmp_path), told.append)
    with monkeypatch.context() as patch:
        patch.setattr(atomic_file, "write", full)
        held = authority.ensure(["a.example.org"])
        assert list(held) == ["a.example.org"] == list(authority.in_memory)
        assert authority.ensure(["a.example.org"]) == held  # the same one
    assert [text for text in told if "in memory alone" in text] == [told[-1]]
    assert authority.ensure(["a.example.org"]) == held
    assert authority.in_memory == set()
    assert internal_file(str(tmp_path), "a.example.org").read_bytes() in held.values()


def test_nothing_is_made_where_nothing_is_wanted(tmp_path: Path) -> None:
    assert InternalAuthority(str(tmp_path)).ensure([]) == {}
    assert list(tmp_path.iterdir()) == []
