"""Errors of listeners' TLS settings, each where it stands; and what `lb check` says of certificates."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lb.config.check.lint import lint
from lb.config.load import load, load_with_source
from lb.config.yaml.problems import ConfigError
from tests.support.certificates import DAY, Authority

ROOT = Authority("Root")
BETWEEN = Authority("Between", issuer=ROOT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.test", "b.test", "*.b.test"):
        ROOT.issue(name).write(tmp_path, name.replace("*", "wild"))
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    return tmp_path


def file(folder: Path, tls: str, more: str = "") -> Path:
    path = folder / "lb.yaml"
    path.write_text(f"backends: ['127.0.0.1:1']\nreadiness: /r\nlisteners:\n- bind: 127.0.0.1:0\n  tls:\n{tls}{more}")
    return path


def refused(folder: Path, tls: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(file(folder, tls), {})
    [problem] = error.value.problems
    return f"{problem.line}: {problem.path}: {problem.message}".replace(f"{folder}/", "")


PAIR = "cert_file: {0}.pem, key_file: {0}.key"
ASKS = "client: {mode: required, ca_file: ca.pem}"


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        ("    {}\n", "needs a certificate"),
        ("    {cert_file: a.test.pem}\n", "'key_file' is missing"),
        ("    certificates: [{key_file: a.test.key}]\n", "'cert_file' is missing"),
        ("    certificates: [{}]\n", "nothing says where its certificates come from"),
        ("    certificates: [{directory: ., authority: internal}]\n", "directory and authority are given"),
        ("    certificates: [{directory: nowhere}]\n", "certificates cannot be read from nowhere"),
        ("    certificates: [{directory: ., names: [a.test]}]\n", "these certificates have their names in them"),
        ("    certificates: [{directory: .}]\n    client: {mode: required}\n", "needs the authorities"),
        ("    certificates: [{directory: .}]\n    client: {ca_file: a.test.key}\n", "holds no certificates"),
        ("    certificates: [{directory: .}]\n    client: {ca_file: ca.pem, crl_file: ca.pem}\n", "no revocation list"),
        (f"    certificates: [{{directory: .}}]\n    client_ca_file: ca.pem\n    {ASKS}\n", "both say how clients"),
        ("    certificates: [{cert_file: a.test.pem, key_file: b.test.key}]\n", "b.test.key is not the key of"),
        ("    certificates: [external]\n", "external"),
    ],
)
def test_errors(folder: Path, tls: str, said: str) -> None:
    assert said in refused(folder, tls)


@pytest.mark.parametrize(
    ("first", "second", "conflict"),
    [
        ("a.test", "b.test", False),
        ("a.test", "a.test", True),
        ("b.test", "wild.b.test", False),
        ("x.b.test", "wild.b.test", True),
        ("X.B.TEST", "wild.b.test", True),
        ("y.x.b.test", "wild.b.test", False),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_two_rules_for_one_name_are_an_error(
    folder: Path, first: str, second: str, conflict: bool, swapped: bool
) -> None:
    if not (folder / f"{first}.pem").exists():
        ROOT.issue(first).write(folder, first)
    one, other = f"{{{PAIR.format(first)}, {ASKS}}}", f"{{{PAIR.format(second)}}}"
    both = (other, one) if swapped else (one, other)
    tls = f"    certificates:\n    - {both[0]}\n    - {both[1]}\n"
    if conflict:
        said = refused(folder, tls)
        assert "two rules for TLS" in said and said.startswith(("7: ", "8: ")), said
        same = tls.replace(other, f"{{{PAIR.format(second)}, {ASKS}}}")
        load(file(folder, same), {})
    else:
        load(file(folder, tls), {})


def codes(folder: Path, tls: str, more: str = "", now: float | None = None) -> list[str]:
    found = lint(load_with_source(file(folder, tls, more), {}), time.time() if now is None else now)
    return [each.code for each in found if each.code.startswith("certificate")]


def test_a_directory_of_good_pairs_has_no_warning(folder: Path) -> None:
    certs = folder / "certs"
    ROOT.issue("a.test").write(certs, "a")
    BETWEEN.issue("b.test", public=True).write(certs, "b", ".crt")
    assert codes(folder, "    certificates: [{directory: certs}]\n") == []


def test_warnings_about_a_directory(folder: Path) -> None:
    certs = folder / "certs"
    tls = "    certificates: [{directory: certs}]\n"
    certs.mkdir()
    assert codes(folder, tls) == ["certificate-none"]
    ROOT.issue("a.test").write(certs, "a")
    (certs / "notes.txt").write_text("stray")
    (certs / ".hidden").write_text("no")
    assert codes(folder, tls) == ["certificate-stray"]
    (certs / "notes.txt").unlink()
    (certs / "b.pem").write_bytes((certs / "a.pem").read_bytes())
    assert codes(folder, tls) == ["certificate-stray"], "a certificate without a key"
    (certs / "b.key").write_bytes(ROOT.issue("b.test").key_pem)
    assert "certificate-unusable" in codes(folder, tls)


def test_warnings_about_chains_and_names(folder: Path) -> None:
    def of(*chain: object, names: str = "a.test", **options: object) -> list[str]:
        issued = BETWEEN.issue(names, **options)  # type: ignore[arg-type]
        issued.chain = list(chain)  # type: ignore[arg-type]
        issued.write(folder, "one")
        return codes(folder, "    {cert_file: one.pem, key_file: one.key}\n")

    assert of(BETWEEN.certificate, public=True) == []
    assert of(public=True) == ["certificate-chain"], "the intermediate one is missing"
    assert of() == [], "an authority of one's own may be known to clients"
    assert of(ROOT.certificate) == ["certificate-chain"], "a link is missing"
    assert of(ROOT.certificate, BETWEEN.certificate) == ["certificate-chain"], "the order is wrong"
    assert of(BETWEEN.certificate, Authority("Stranger").certificate, public=True) == ["certificate-chain"]
    assert of(BETWEEN.certificate, ends=DAY) == ["certificate-ends-soon"]


def test_warnings_about_two_certificates_and_a_default(folder: Path) -> None:
    ROOT.issue("a.test", ends=20 * DAY).write(folder, "older")
    ROOT.issue("a.test", algorithm="rsa", ends=20 * DAY).write(folder, "rsa")
    pairs = [f"{{{PAIR.format(name)}}}" for name in ("a.test", "older", "rsa")]
    assert codes(folder, f"    certificates: [{pairs[0]}, {pairs[2]}]\n") == []
    assert codes(folder, f"    certificates: [{pairs[0]}, {pairs[1]}]\n") == ["certificate-twice"]
    assert codes(folder, f"    certificates: [{pairs[0]}]\n    default: b.test\n") == ["certificate-no-default"]
    routes = "routes: [{service: default, host: b.test}]\n"
    assert codes(folder, f"    certificates: [{pairs[0]}]\n", routes) == ["certificate-lacks-name"]


@pytest.mark.parametrize(
    ("source", "hosts", "lacking"),
    [
        ("acme: le, names: [b.test]", "a.test b.test", 0),
        ("acme: le, names: [b.test]", "a.test B.TEST c.test", 1),
        ("acme: le, names: [b.test]", "x.b.test *.b.test", 2),
        ("authority: internal", "a.test b.test *.c.test", 0),
        ("authority: internal, names: ['*.b.test']", "a.test x.b.test *.b.test", 0),
        ("authority: internal, names: ['*.b.test']", "b.test x.y.b.test", 2),
    ],
)
def test_names_whose_certificates_lb_orders_are_covered(folder: Path, source: str, hosts: str, lacking: int) -> None:
    """They are covered before the first certificate is on the disk; other hosts are a finding all the same."""
    ROOT.issue("a.test", ends=20 * DAY).write(folder, "a.test")
    tls = f"    certificates: [{{{PAIR.format('a.test')}}}, {{{source}}}]\n"
    routes = "".join(f"  - {{service: default, host: '{host}'}}\n" for host in hosts.split())
    more = f"acme: {{le: {{challenge: tls-alpn-01}}}}\nstate_dir: state\nroutes:\n{routes}"
    assert codes(folder, tls, more) == ["certificate-lacks-name"] * lacking
    assert codes(folder, f"{tls}    default: a.test\n", more) == ["certificate-lacks-name"] * lacking
    assert "certificate-no-default" in codes(folder, f"{tls}    default: z.test\n", more)
