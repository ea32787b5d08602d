"""Which certificate a name gets: exact before wildcard, one label, every spelling of a name, the same every time."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.certificates import Certificate, CertificateTable, ClientAuth, Source, TlsServer, covers, folded

NOW = 1000.0


def certificate(*names: str, algorithm: str = "ecdsa", starts: float = 0.0, ends: float = 2000.0) -> Certificate:
    return Certificate(f"{names}{algorithm}{starts}{ends}", "", 0, names, algorithm, starts, ends)


def table(*certificates: Certificate, default: str = "", strict: bool = False) -> CertificateTable:
    return CertificateTable(TlsServer(default=default, strict_sni=strict, certificates=certificates), NOW)


EXACT, WILD = certificate("a.example.org"), certificate("*.example.org")
DEEP = certificate("*.WWW.EXAMPLE.ORG")
OTHER = certificate("other.test")


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("a.example.org", EXACT),
        ("A.Example.ORG", EXACT),
        ("a.example.org.", EXACT),
        (" a.example.org ", EXACT),
        ("b.example.org", WILD),
        ("b.www.example.org", DEEP),
        ("B.WWW.example.org.", DEEP),
        ("example.org", None),
        ("a.b.example.org", None),
        ("b.c.www.example.org", None),
        (".example.org", WILD),
        ("*.example.org", WILD),
        ("org", None),
        ("unknown.test", None),
        ("", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("order", range(4))
def test_the_certificate_of_a_name(asked: str | None, served: Certificate | None, order: int) -> None:
    certificates = [EXACT, WILD, DEEP, OTHER]
    random.Random(order).shuffle(certificates)
    found = table(*certificates, strict=True).choose(asked)
    assert (found.certificates if found else None) == ((served,) if served else None)
    if served is not None:  # also where it is the only one
        alone = table(OTHER, served, strict=True).choose(asked)
        assert alone is not None and alone.certificates == (served,)


def test_a_name_that_no_certificate_has_gets_the_default() -> None:
    named = table(EXACT, OTHER, default="OTHER.test.")
    for asked in ("unknown.test", None, ""):
        found = named.choose(asked)
        assert found is not None and (found.certificates, found.reason) == ((OTHER,), "default")
    by_wildcard = table(EXACT, WILD, default="b.example.org").choose(None)
    assert by_wildcard is not None and by_wildcard.certificates == (WILD,)


def test_without_a_default_it_is_the_first_certificate() -> None:
    found = table(OTHER, EXACT).choose("unknown.test")
    assert found is not None and (found.certificates, found.reason) == ((OTHER,), "first")
    assert table().choose("unknown.test") is None
    nameless = certificate()
    found = table(nameless).choose("any.test")
    assert found is not None and found.certificates == (nameless,)


def test_a_strict_listener_refuses_unknown_names() -> None:
    strict = table(EXACT, OTHER, strict=True)
    assert strict.choose("unknown.test") is None and strict.choose(None) is None
    with_default = table(EXACT, OTHER, strict=True, default="other.test")
    assert with_default.choose("unknown.test") is None, "a client that names a host gets that host or nothing"
    found = with_default.choose(None)
    assert found is not None and found.certificates == (OTHER,)


def test_a_default_that_names_nothing_is_no_certificate() -> None:
    assert table(EXACT, default="unknown.test").choose(None) is None


def test_each_key_algorithm_has_one() -> None:
    rsa, ecdsa = certificate("a.test", algorithm="rsa", ends=3000.0), certificate("a.test", ends=2000.0)
    found = table(rsa, ecdsa).choose("a.test")
    assert found is not None and found.certificates == (rsa, ecdsa)


def test_the_one_that_ends_last_is_chosen_then_the_first_of_the_file() -> None:
    short, long = certificate("a.test", ends=1500.0), certificate("a.test", ends=3000.0)
    twin = replace(long, cert_file="another file")
    for certificates, served in (((short, long, twin), long), ((twin, short, long), twin), ((long, twin), long)):
        found = table(*certificates).choose("a.test")
        assert found is not None and found.certificates == (served,)


def test_one_that_is_not_valid_now_is_the_last_choice() -> None:
    early = certificate("a.test", starts=1500.0, ends=9000.0)
    expired = certificate("a.test", ends=900.0)
    valid = certificate("a.test", ends=1100.0)
    rsa = certificate("a.test", algorithm="rsa", ends=500.0)
    found = table(early, expired, valid, rsa).choose("a.test")
    assert found is not None and found.certificates == (valid,)
    found = table(expired).choose("a.test")
    assert found is not None and found.certificates == (expired,), "better than none: the client decides"


LABELS = st.sampled_from(["a", "b", "www", "example", "org"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.one_of(NAMES, NAMES.map(lambda name: f"*.{name}"))
CERTIFICATES = st.lists(
    st.builds(
        lambda names, algorithm, ends: certificate(*names, algorithm=algorithm, ends=ends),
        st.lists(PATTERNS, max_size=3),
        st.sampled_from(["ecdsa", "rsa"]),
        st.sampled_from([500.0, 1500.0, 2500.0]),
    ),
    max_size=6,
)
SPELLINGS = st.sampled_from([str, str.upper, str.title, lambda name: f"{name}.", lambda name: f" {name}"])


@given(CERTIFICATES, NAMES, SPELLINGS, st.randoms())
def test_any_choice(certificates: list[Certificate], name: str, spelled: object, dice: random.Random) -> None:
    """What is chosen covers the name; a name that is covered is served; neither spelling nor order matters."""
    assert callable(spelled)
    found = table(*certificates, strict=True).choose(spelled(name))
    covering = [each for each in certificates if any(covers(folded(one), name) for one in each.names)]
    exact = [each for each in covering if name in each.names]
    assert bool(found) == bool(covering)
    if found is not None:
        assert set(found.certificates) <= set(exact or covering)
        assert len({each.algorithm for each in found.certificates}) == len(found.certificates)
        best = max(each.not_after for each in exact or covering)
        assert max(each.not_after for each in found.certificates) == best
        mixed = list(certificates)
        dice.shuffle(mixed)
        again = table(*mixed, strict=True).choose(name)
        assert again is not None
        assert sorted(each.not_after for each in again.certificates) == sorted(
            each.not_after for each in found.certificates
        )


# --- policies --------------------------------------------------------------------------------------------------------

ASKS = ClientAuth("required", "ca.pem")


def with_sources(*certificates: Certificate, strict: bool = False) -> CertificateTable:
    """The first certificate is of a source without clients' certificates, the second of one that requires them."""
    sources = (Source(cert_file="open"), Source(cert_file="asks", client=ASKS))
    placed = tuple(replace(each, source=at % 2) for at, each in enumerate(certificates))
    return CertificateTable(TlsServer(sources=sources, strict_sni=strict, certificates=placed), NOW)


def test_each_name_has_the_policy_of_its_source() -> None:
    table = with_sources(certificate("a.test"), certificate("*.b.test"))
    policies = {
        name: choice.policy.client for name in ("a.test", "x.b.test", "c.test") if (choice := table.choose(name))
    }
    assert policies == {"a.test": ClientAuth(), "x.b.test": ASKS, "c.test": ClientAuth()}


@pytest.mark.parametrize("name", ["a.test", "A.test."])
def test_a_name_of_two_policies_is_refused(name: str) -> None:
    """The file cannot say so; a renewed certificate with more names can. Neither policy may stand for the other."""
    table = with_sources(certificate("a.test", "open.test"), certificate("a.test", "asks.test", algorithm="rsa"))
    assert table.choose(name) is None
    found = table.choose("open.test"), table.choose("asks.test")
    assert [each.policy.client if each else None for each in found] == [ClientAuth(), ASKS]
    by_wildcard = with_sources(certificate("*.a.test"), certificate("*.a.test", algorithm="rsa"))
    assert by_wildcard.choose("x.a.test") is None
