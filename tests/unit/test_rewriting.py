"""Changed paths and texts with variables; Gateway API's conformance cases for rewriting are among them."""

from __future__ import annotations

import pytest

from lb.core.rewriting import fault_of, with_prefix
from lb.http.changed_fields import FieldChanges
from lb.http.template import BadTemplate, BadValue, Template, Values


class Known(Values):
    """Each variable has a value that looks like another one."""

    def value(self, variable: int) -> bytes:
        return b"{host}%d" % variable if variable else b"a\r\nb: c"


@pytest.mark.parametrize(
    ("path", "prefix", "to", "expected"),
    [
        (b"/v1/x", b"/v1", b"/", b"/x"),
        (b"/v1", b"/v1", b"/", b"/"),
        (b"/v1/", b"/v1", b"/", b"/"),
        (b"/v1x", b"/v1", b"/", b"/v1x"),
        (b"/v1/a%2Fb//c;d", b"/v1", b"/", b"/a%2Fb//c;d"),
        (b"/v1/x", b"/v1/", b"/api/", b"/api/x"),
        # httproute-rewrite-path
        (b"/prefix/one/two", b"/prefix/one", b"/one", b"/one/two"),
        (b"/strip-prefix/three", b"/strip-prefix", b"/", b"/three"),
        (b"/prefix/rewrite-path-and/one", b"/prefix/rewrite-path-and", b"/prefix", b"/prefix/one"),
        (b"/foo/bar", b"/foo", b"/xyz", b"/xyz/bar"),
        (b"/foo/", b"/foo", b"/xyz", b"/xyz/"),
        (b"/foo", b"/foo", b"/xyz", b"/xyz"),
        (b"/foo/bar", b"/foo", b"/", b"/bar"),
        (b"/foo", b"/", b"/xyz", b"/xyz/foo"),
    ],
)  # fmt: skip
def test_prefixes(path: bytes, prefix: bytes, to: bytes, expected: bytes) -> None:
    assert with_prefix(path, prefix, to) == expected


@pytest.mark.parametrize(
    ("path", "fine"), [(b"/x", True), (b"//host/x", False), (b"/../x", False), (b"/%2e%2e/x", False)]
)
def test_a_changed_path_is_judged_like_a_clients(path: bytes, fine: bool) -> None:
    assert (fault_of(path) == "") is fine


def test_variables_are_expanded_once() -> None:
    assert Template("a{path}b{{host}}{method}").expand(Known()) == b"a{host}3b{host}{host}2"
    assert Template("plain").static


@pytest.mark.parametrize("text", ["{unknown}", "{", "a}b", "{tls}", "{}"])
def test_bad_templates(text: str) -> None:
    with pytest.raises(BadTemplate):
        Template(text)


def test_a_value_with_a_control_character_is_refused() -> None:
    with pytest.raises(BadValue):
        Template("{client_ip}").expand(Known())


def test_set_replaces_every_spelling_and_add_leaves_them() -> None:
    changes = FieldChanges([("X-A", "1")], [("X-B", "2")], ["x-gone"])
    lines = [b"x_a: 0\r\n", b"X-B: 1\r\n", b"X-GONE: y\r\n", b"X.A: z\r\n", b"Accept: */*\r\n"]
    kept, new, gone = changes.apply(lines, Known())
    assert kept == [b"X-B: 1\r\n", b"Accept: */*\r\n"]
    assert new == [b"X-A: 1\r\n", b"X-B: 2\r\n"]
    assert gone == [b"x_a: 0\r\n", b"X-GONE: y\r\n", b"X.A: z\r\n"]
