"""Signatures, keys, requests and certificates of ACME, read back by independent means."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from lb.issuing.acme import jose
from lb.issuing.acme.answers import Authorization, Directory, Nonsense, Order, Problem, RenewalInfo, read, read_problem
from lb.issuing.acme.jose import AccountKey
from lb.issuing.acme.material import (
    ACME_IDENTIFIER,
    Unusable,
    challenge_certificate,
    facts,
    new_key,
    pem_only,
    signing_request,
)

NAMES = ("status", "finalize", "newNonce", "newOrder", "identifier", "challenges", "error", "subproblems", "detail")


def _nested(children: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(children, max_size=4) | st.dictionaries(st.sampled_from(NAMES), children, max_size=4)


def public(jwk: dict[str, str]) -> ec.EllipticCurvePublicKey:
    x, y = (int.from_bytes(jose.decode(jwk[part]), "big") for part in "xy")
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def test_a_signature_can_be_checked_with_the_key_that_it_names() -> None:
    key = AccountKey.new()
    message = json.loads(key.sign(b'{"a":1}', "https://ca/new", "nonce"))
    head = json.loads(jose.decode(message["protected"]))
    assert (head["alg"], head["nonce"], head["url"]) == ("ES256", "nonce", "https://ca/new")
    signature = jose.decode(message["signature"])
    assert len(signature) == 64
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    signed = f"{message['protected']}.{message['payload']}".encode()
    public(head["jwk"]).verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    assert jose.decode(message["payload"]) == b'{"a":1}'


def test_an_account_is_named_by_its_address_and_a_read_has_no_payload() -> None:
    message = json.loads(AccountKey.new().sign(b"", "https://ca/1", "n", "https://ca/account/7"))
    head = json.loads(jose.decode(message["protected"]))
    assert head["kid"] == "https://ca/account/7"
    assert "jwk" not in head
    assert message["payload"] == ""


def test_a_key_is_the_same_after_a_restart() -> None:
    key = AccountKey.new()
    assert AccountKey.from_pem(key.pem()).thumbprint == key.thumbprint
    assert key.key_authorization("tok") == f"tok.{key.thumbprint}"


def test_the_thumbprint_is_the_digest_of_the_required_members_in_order() -> None:
    key = AccountKey.new()
    text = '{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.format(**key.jwk)
    assert jose.decode(key.thumbprint) == hashlib.sha256(text.encode()).digest()


@pytest.mark.parametrize("pem", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_holds_no_account_key_is_refused(pem: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        AccountKey.from_pem(pem)


def test_an_external_binding_is_signed_with_the_other_accounts_key() -> None:
    key = AccountKey.new()
    bound = key.bound_to("kid-1", b"secret", "https://ca/new-account")
    expected = hmac.digest(b"secret", f"{bound['protected']}.{bound['payload']}".encode(), "sha256")
    assert jose.decode(bound["signature"]) == expected
    assert json.loads(jose.decode(bound["payload"])) == key.jwk
    assert json.loads(jose.decode(bound["protected"])) == {
        "alg": "HS256",
        "kid": "kid-1",
        "url": "https://ca/new-account",
    }


@pytest.mark.parametrize("text", ["a", "ä", "%%%", "ab+/"])
def test_text_that_is_no_base64url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        jose.decode(text)


def test_a_request_names_what_it_is_for() -> None:
    request = x509.load_der_x509_csr(signing_request(new_key(), ["a.example.org", "b.example.org"]))
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example.org", "b.example.org"]
    assert request.is_signature_valid


def test_the_challenge_certificate_carries_the_digest_of_the_key_authorization() -> None:
    pem = challenge_certificate("a.example.org", "token.thumbprint")
    certificate = x509.load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERTIFICATE") :])
    extension = certificate.extensions.get_extension_for_oid(ACME_IDENTIFIER)
    assert extension.critical
    value = extension.value
    assert isinstance(value, x509.UnrecognizedExtension)
    assert value.value == b"\x04\x20" + hashlib.sha256(b"token.thumbprint").digest()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example.org"]


def test_facts_hold_names_times_and_the_id_for_renewal_windows() -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("A.example.org", "b.example.org")
    found = facts(leaf.cert_chain_pems[0].bytes())
    certificate = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
    assert found.names == {"a.example.org", "b.example.org"}
    assert found.not_after == certificate.not_valid_after_utc.timestamp()
    issuer, serial = found.ari_id.split(".")
    octets = jose.decode(serial)
    assert int.from_bytes(octets, "big", signed=True) == certificate.serial_number
    key = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert jose.decode(issuer) == key


def test_a_certificate_for_another_key_is_found() -> None:
    leaf = trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert("a.example.org")
    with pytest.raises(Unusable, match="another key"):
        facts(leaf.cert_chain_pems[0].bytes(), new_key())


@pytest.mark.parametrize(
    "chain",
    [
        b"",
        b"<html>",
        b"-----BEGIN CERTIFICATE-----\nAA",
        b"-----BEGIN CERTIFICATE-----\n%%\xff\n-----END CERTIFICATE-----",
    ],
)
def test_an_answer_that_is_no_chain_is_refused(chain: bytes) -> None:
    with pytest.raises(Unusable, match=r"."):
        pem_only(chain)


def test_only_the_certificates_of_a_chain_are_kept() -> None:
    leaf = trustme.CA().issue_cert("a.example.org").cert_chain_pems[0].bytes()
    key = base64.b64encode(b"secret")
    text = b"# comment\n" + leaf + b"-----BEGIN PRIVATE KEY-----\n" + key + b"\n-----END PRIVATE KEY-----\n" + leaf
    assert pem_only(text).count(b"BEGIN CERTIFICATE") == 2
    assert b"PRIVATE" not in pem_only(text)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Directory, b"<html>"),
        (Directory, b"{}"),
        (Directory, b'{"newNonce": "ftp://x", "newAccount": "https://x", "newOrder": "https://x"}'),
        (Order, b'{"status": "good", "finalize": "https://x"}'),
        (Order, b'{"status": "valid", "finalize": "https://x\\r\\nHost: y"}'),
        (Order, b"[" * 100_000),
        (Authorization, b'{"status": "pending", "identifier": {"value": 1}}'),
        (
            Authorization,
            b'{"status": "pending", "identifier": {"value": "a"}, "challenges": '
            b'[{"type": "http-01", "url": "https://x", "token": "../../etc"}]}',
        ),
        (Order, b"\xff\xfe"),
    ],
)
def test_nonsense_of_an_authority_is_called_that(kind: type[Order], body: bytes) -> None:
    with pytest.raises(Nonsense, match="no "):
        read(kind, body)


def test_a_refusal_names_its_kind_and_the_names_that_it_is_about() -> None:
    body = json.dumps(
        {
            "type": "urn:ietf:params:acme:error:compound",
            "detail": "some names",
            "subproblems": [
                {"type": "x", "detail": "is a fault", "identifier": {"type": "dns", "value": "a.example.org"}}
            ],
        }
    ).encode()
    assert str(read_problem(body)) == "compound: some names; a.example.org: is a fault"
    assert read_problem(b"<html>") == Problem()
    assert len(str(Problem("x", "y" * 10_000))) <= 500


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=20), _nested, max_leaves=12))
def test_any_json_is_an_answer_or_nonsense(value: object) -> None:
    body = json.dumps(value).encode()
    for kind in (Directory, Order, Authorization, RenewalInfo):
        try:
            read(kind, body)
        except Nonsense as error:
            assert str(error)  # noqa: PT017 - either outcome is right
    str(read_problem(body))


def test_a_configuration_without_such_certificates_imports_nothing_for_them() -> None:
    """Neither aiohttp's client nor `cryptography` may slow the start of an lb that has no use for them."""
    code = "import sys, lb.supervisor.main; print([name for name in sys.modules if name.startswith('lb.issuing')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
