"""Files that steps and affinities go by: errors with places, contents in the world, and what a reload says of them."""

from __future__ import annotations

from pathlib import Path

import bcrypt
import pytest

from lb.config.check.lint import lint
from lb.config.diff import diff
from lb.config.load import load, load_with_source
from lb.config.resolve import World
from lb.config.tls_files import load_world, with_certificates_read_again
from lb.config.yaml.problems import ConfigError
from lb.core.affinity import TargetCookie
from lb.core.guards import BasicAuth, Jwt
from lb.core.step_files import step_digests
from lb.supervisor.installation import digests_of_snapshot
from lb.supervisor.route_trial import Request, trial
from tests.support.tokens import ALL, claims, token

SERVICES = "services: {s: {pools: {p: {targets: ['h:1']}}}}\n"
USERS = b"anna:" + bcrypt.hashpw(b"secret", b"$2b$04$" + b"abcdefghijklmnopqrstuu") + b"\n"


def write(folder: Path, *steps: str) -> Path:
    path = folder / "backends.yaml"
    path.write_text(f"{SERVICES}routes:\n  - {{service: s, steps: [{', '.join(steps)}]}}\n")
    return path


def errors(folder: Path, *steps: str) -> list[tuple[int, str]]:
    try:
        load(write(folder, *steps))
    except ConfigError as error:
        return [(each.line, each.message) for each in error.problems]
    return []


def world(folder: Path, *steps: str, former: World | None = None) -> World:
    return load_world(load(write(folder, *steps)), former)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, "cannot be read from"),
        (b"# nobody\n", "has no users"),
        (USERS + b"bo:{SHA}x\n", "users, line 2: its hash is SHA-1"),
        (b"x" * (5 << 20), "larger than 4 MiB"),
    ],
)
def test_a_file_of_users(tmp_path: Path, contents: bytes | None, message: str) -> None:
    if contents is not None:
        (tmp_path / "users").write_bytes(contents)
    found = errors(tmp_path, "{basic_auth: {users_file: users}}")
    assert [line for line, _ in found] == [3]
    assert message in found[0][1]


def test_the_contents_are_part_of_the_world(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_bytes(USERS)
    step = "{basic_auth: {users_file: users, realm: office, user_header: X-User}}"
    before = world(tmp_path, step)
    rule = before.snapshot.routes[0].steps[0]
    assert rule.basic_auth == BasicAuth("office", "X-User")
    assert rule.file == str(users)
    assert before.files == {rule.digest: USERS}
    assert digests_of_snapshot(before.snapshot) == {rule.digest}
    assert step_digests(with_certificates_read_again(before).snapshot) == {rule.digest}
    assert with_certificates_read_again(before).files == before.files
    assert diff(before, world(tmp_path, step)).changes == ()
    users.write_bytes(USERS + b"bo:" + USERS[5:])
    assert [str(change) for change in diff(before, world(tmp_path, step)).changes] == [
        f"~ {users}: renewed, for new requests"
    ]


def test_lb_route_test_checks_passwords(tmp_path: Path) -> None:
    (tmp_path / "users").write_bytes(USERS)
    made = world(tmp_path, "{basic_auth: {users_file: users, user_header: X-User}}")
    right, wrong = (f"Authorization: Basic {text}" for text in ("YW5uYTpzZWNyZXQ=", "YW5uYTp3cm9uZw=="))
    assert "X-User: anna" in trial(made, Request("GET", "http://a/", (right, "x_user: bo"))).sent.splitlines()
    refused = trial(made, Request("GET", "http://a/", (wrong,)))
    assert (refused.status, refused.reason, refused.met) == (401, "unauthorized", ["basic_auth"])


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "has no keys"),
        (b"a:short", "a key has at least 16"),
        (b"a:0123456789 abcdef", "a key has at least 16"),
        (b"a:sha256:12", "64 hexadecimal digits"),
        (b"0123456789abcdef", "NAME:KEY"),
        (b"a:0123456789abcdef\nb:0123456789abcdef", "another name has the same key"),
    ],
)
def test_a_file_of_keys(tmp_path: Path, contents: bytes, message: str) -> None:
    (tmp_path / "keys").write_bytes(contents)
    found = errors(tmp_path, "{api_keys: {keys_file: keys}}")
    assert [line for line, _ in found] == [3]
    assert message in found[0][1]


def test_several_keys_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"a:0123456789abcdef\na:0123456789abcdeg\n")
    assert errors(tmp_path, "{api_keys: {keys_file: keys}}") == []


def test_a_file_of_token_keys(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b'{"keys": [{"kty": "oct", "k": "AAAA"}]}')
    [(line, message)] = errors(tmp_path, "{jwt: {jwks_file: keys}}")
    assert line == 3
    assert "a shared secret (oct) is not taken" in message
    (tmp_path / "keys").write_bytes(ALL)
    made = world(tmp_path, "{jwt: {jwks_file: keys, issuer: a, audience: [b, c], claims: {X-User: sub}}}")
    rule = made.snapshot.routes[0].steps[0]
    assert rule.jwt == Jwt(("a",), ("b", "c"), (), (("X-User", "sub"),))
    assert made.files == {rule.digest: ALL}
    text = token(payload=claims(iss="a", aud="c"))
    sent = trial(made, Request("GET", "http://a/", (f"Authorization: Bearer {text}", "x_user: root"))).sent
    assert "X-User: anna" in sent.splitlines()
    assert "root" not in sent


def test_keys_from_a_url_are_read_again_and_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "users").write_bytes(USERS)
    steps = "{jwt: {jwks: 'https://id/jwks'}}", "{basic_auth: {users_file: users}}"
    before = world(tmp_path, *steps)
    assert [bool(rule.digest) for rule in before.snapshot.routes[0].steps] == [False, True]
    (tmp_path / "users").write_bytes(b"broken")
    after = with_certificates_read_again(before, {"https://id/jwks": ALL})
    keys, users = after.snapshot.routes[0].steps
    assert after.files == {keys.digest: ALL, users.digest: USERS}
    assert users == before.snapshot.routes[0].steps[1]
    assert with_certificates_read_again(after).snapshot == after.snapshot


def test_lb_route_test_takes_it_that_a_service_lets_pass(tmp_path: Path) -> None:
    made = world(tmp_path, "{forward_auth: {url: 'http://127.0.0.1:9/verify', copy: [X-User]}}", "{strip_prefix: /a}")
    result = trial(made, Request("GET", "http://h/a/b", ("X_User: root",)))
    assert result.sent.startswith("GET /b HTTP/1.1\n")
    assert "root" not in result.sent
    assert result.met == ["forward_auth", "strip_prefix"]
    assert result.notes == ["Service auth-127.0.0.1-9 is not asked, but taken to let the request pass."]


def affine(folder: Path, affinity: str = "{secret_file: secret}") -> Path:
    path = folder / "backends.yaml"
    path.write_text(f"services:\n  s:\n    pools: {{p: {{targets: ['h:1', 'h:2']}}}}\n    affinity: {affinity}\n")
    return path


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, "the secret cannot be read from"),
        (b"", "has no secret"),
        (b"0123456789abcdef\nshort\n", "secret, line 2: a secret has at least 16"),
    ],
)
def test_a_file_of_secrets(tmp_path: Path, contents: bytes | None, message: str) -> None:
    if contents is not None:
        (tmp_path / "secret").write_bytes(contents)
    with pytest.raises(ConfigError) as caught:
        load(affine(tmp_path))
    [problem] = caught.value.problems
    assert problem.line == 4
    assert message in problem.message
    assert problem.hint


def test_secrets_are_part_of_the_world_and_clients_keep_their_targets(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"0123456789abcdef\n")
    file = affine(tmp_path, "{cookie: c, secret_file: secret}")
    before = load_world(load(file))
    rule = before.snapshot.services[0].affinity
    assert rule is not None
    assert (rule.cookie, rule.file, before.files) == ("c", str(secret), {rule.digest: b"0123456789abcdef\n"})
    assert digests_of_snapshot(before.snapshot) == {rule.digest}
    assert with_certificates_read_again(before).files == before.files
    value = TargetCookie("c", [b"0123456789abcdef"]).value("s/p/h:2").decode()
    tried = trial(before, Request("GET", "http://a/", (f"Cookie: c={value}",)))
    assert (tried.targets, tried.steps) == (["s/p/h:2"], ["affinity"])
    assert tried.notes == ["Its cookie c stands for this target."]
    tried = trial(before, Request("GET", "http://a/", ("Cookie: c=forged",)))
    assert len(tried.targets) == 2
    assert tried.notes == ["No cookie c leads it to a target: it gets one with the answer."]
    secret.write_bytes(b"another-0123456789abcdef\n")
    assert [str(change) for change in diff(before, load_world(load(file), before)).changes] == [
        f"~ {secret}: renewed, for new requests"
    ]


def test_services_with_one_cookie_and_one_host(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"0123456789abcdef\n")
    (tmp_path / "secret").chmod(0o644)
    path = tmp_path / "backends.yaml"
    names = {"a": "*.example.org", "b": "x.example.org", "c": "x.example.com"}
    services = "".join(
        f"  {name}: {{pools: {{p: {{targets: ['h{name}:1', 'h{name}:2']}}}}, affinity: {{secret_file: secret}}}}\n"
        for name in names
    )
    routes = "".join(f"  - {{host: '{host}', service: {name}}}\n" for name, host in names.items())
    path.write_text(f"services:\n{services}routes:\n{routes}")
    found = lint(load_with_source(path), now=0.0)
    assert [(each.line, each.code) for each in found if each.code.startswith(("affinity", "file"))] == [
        (2, "file-too-open"),
        (3, "affinity-cookie-shared"),
        (3, "file-too-open"),
        (4, "file-too-open"),
    ]
