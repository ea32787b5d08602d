"""The file's words about certificates that lb orders by itself: defaults, errors, warnings, and where they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from lb.config.check import acme
from lb.config.load import load_text
from lb.config.model.acme import LETS_ENCRYPT, LETS_ENCRYPT_STAGING
from lb.config.resolve import resolve
from lb.config.tls_files import load_world
from lb.config.yaml.problems import ConfigError
from lb.core.certificates import Certificate, CertificateTable, Source, TlsServer
from tests.support.certificates import Authority

FILE = """\
listeners:
  - bind: 0.0.0.0:80
  - bind: 0.0.0.0:443
    tls:
      certificates:
        - {{acme: le, names: [{names}]}}
acme:
  le: {entry}
state_dir: /var/lib/lb
backends: [http://127.0.0.1:5001]
"""


def text(names: str = "a.example.org, b.example.org", entry: str = "{email: ops@example.org}") -> str:
    return FILE.format(names=names, entry=entry)


def problems(source: str, **options: bool) -> str:
    with pytest.raises(ConfigError) as caught:
        load_text(source, **options)
    return " ".join(str(caught.value).split())


def test_an_entry_means_lets_encrypt_and_its_staging_directory() -> None:
    config = load_text(text())
    entry = config.acme["le"]
    assert (entry.directory, entry.staging_directory()) == (LETS_ENCRYPT, LETS_ENCRYPT_STAGING)
    assert (entry.challenge, entry.email) == ("http-01", "ops@example.org")
    other = load_text(text(entry="{directory: https://ca.example.org/dir}")).acme["le"]
    assert other.staging_directory() == ""


def test_each_name_has_a_file_of_its_own_below_the_state_directory() -> None:
    (_, listener) = resolve(load_text(text()), 0).snapshot.listeners
    assert listener.tls is not None
    (source,) = listener.tls.sources
    assert [path.partition("-")[0] for path in source.stored] == [
        "/var/lib/lb/acme/certificates/a.example.org",
        "/var/lib/lb/acme/certificates/b.example.org",
    ]
    assert {Path(path).name for path in source.stored} == {"certificate.pem"}
    other = resolve(load_text(text(entry="{directory: https://ca.example.org/dir}")), 0).snapshot.listeners[1].tls
    assert other is not None
    assert not set(other.sources[0].stored) & set(source.stored)  # another authority, other certificates


def test_the_internal_authority_vouches_for_this_machine_and_the_routes_hosts() -> None:
    source = """\
listeners: [{bind: "127.0.0.1:8443", tls: {certificates: [internal]}}]
services: {a: {pools: {p: {targets: ["http://127.0.0.1:1"]}}}}
routes: [{host: a.example.org, service: a}, {host: "*.b.example.org", service: a}, {service: a}]
state_dir: /var/lib/lb
"""
    (listener,) = resolve(load_text(source), 0).snapshot.listeners
    assert listener.tls is not None
    assert listener.tls.sources[0].names == ("localhost", "a.example.org", "*.b.example.org")
    assert listener.tls.sources[0].stored[2] == "/var/lib/lb/internal/_.b.example.org.pem"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (text().replace("acme: le,", "acme: lee,"), "there is no acme entry 'lee'"),
        (text(names='"*.example.org"'), "a wildcard needs a dns-01 challenge"),
        (text(names='"192.0.2.1"'), "for host names, not for addresses"),
        (text(entry="{directory: http://ca.example.org/dir}"), "is spoken to over https"),
        (text(entry="{email: nobody}"), "'nobody' is not an e-mail address"),
        (text(entry="{challenge: dns-01}"), "challenge"),
        (text(entry="{eab: {key_id: a}}"), "key_file"),
        (text(entry="{mail: a@b}"), "Did you mean email?"),
    ],
)
def test_what_cannot_work_is_an_error(source: str, said: str) -> None:
    assert said in problems(source)


@pytest.mark.parametrize(
    ("contents", "said"),
    [(None, "the key cannot be read from"), (b"not base64!", "does not hold a key as base64url text")],
)
def test_an_external_accounts_key_must_be_there(contents: bytes | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "eab.key"
    if contents is not None:
        file.write_bytes(contents)
    entry = f"{{eab: {{key_id: a, key_file: {file}}}}}"
    assert said in problems(text(entry=entry), check_files=True)
    file.write_text("c2VjcmV0\n")
    load_text(text(entry=entry), check_files=True)


def codes(source: str) -> list[str]:
    return [code for code, *_ in acme.warnings(load_text(source))]


def test_a_port_that_an_authority_cannot_reach_is_a_warning() -> None:
    assert codes(text()) == []
    assert codes(text().replace("0.0.0.0:80\n", "0.0.0.0:8080\n")) == ["acme-port"]
    assert codes(text(entry="{challenge: tls-alpn-01}")) == []
    assert codes(text(entry="{challenge: tls-alpn-01}").replace(":443", ":8443")) == ["acme-port"]


def test_an_entry_that_no_listener_uses_is_a_warning() -> None:
    assert codes(text().replace("state_dir", "  other: {}\nstate_dir")) == ["acme-unused"]


def test_what_is_kept_in_memory_is_served_like_a_file(tmp_path: Path) -> None:
    config = load_text(text().replace("/var/lib/lb", str(tmp_path)))
    (_, listener) = load_world(config).snapshot.listeners
    assert listener.tls is not None
    assert listener.tls.certificates == ()  # there is none yet, and that is no fault
    assert load_world(config).unusable == ()
    pair = Authority().issue("a.example.org")
    path = listener.tls.sources[0].stored[0]
    world = load_world(config, held={path: pair.key_pem + pair.cert_pem})
    found = world.snapshot.listeners[1].tls
    assert found is not None
    (certificate,) = found.certificates
    assert (certificate.names, certificate.cert_file) == (("a.example.org",), path)
    assert world.unusable == ()


def test_a_name_that_waits_for_its_certificate_gets_no_other_one() -> None:
    other = Certificate("other.pem", "other.key", names=("other.example.org",), algorithm="ecdsa", not_after=9e9)
    tls = TlsServer(sources=(Source(acme="le", names=("a.example.org",)),), certificates=(other,))
    table = CertificateTable(tls, 0.0)
    assert table.choose("A.example.org.") is None  # alert 112
    choice = table.choose("unknown.example.org")
    assert choice is not None
    assert choice.certificates == (other,)
