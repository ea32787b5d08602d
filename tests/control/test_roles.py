"""Tokens with roles: each operation of the API is tried with a token of each role."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from lb.control.api.app import ENDPOINTS
from lb.control.api.endpoint import Endpoint
from lb.core.roles import CONFIGURE, DRAIN, OPERATE, READ, ROLES
from tests.support.eventually import eventually
from tests.support.stage import Answer, Lb, Stage

TOKENS = {role: f"a-token-that-may-{role}" for role in ROLES}
ALL = "a-token-that-may-do-everything"
FILE = """\
listeners: [127.0.0.1:0]
admin:
  bind: 127.0.0.1:0
  token_file: all.token
  tokens:
{tokens}{tls}
state_dir: ./state
services:
  greeting:
    pools: {{blue: [http://127.0.0.1:1], green: [http://127.0.0.1:2]}}
    active: blue
    readiness: none
    rollout: {{bake: 0s}}
"""


def write(folder: Path, name: str, token: str) -> None:
    (folder / f"{name}.token").write_text(f"{token}\n")
    (folder / f"{name}.token").chmod(0o600)


def text(tls: str = "") -> str:
    lines = [f"    - {{name: {role}er, roles: {role}, token_file: {role}.token}}\n" for role in ROLES]
    return FILE.format(tokens="".join(lines), tls=tls)


def start(stage: Stage, tls: str = "") -> Lb:
    write(stage.folder, "all", ALL)
    for role, token in TOKENS.items():
        write(stage.folder, role, token)
    return stage.start(stage.file(text(tls)), 1, ready=False)


def ask(
    lb: Lb, method: str, path: str, token: str, body: object = None, actor: str = "", ca: Path | None = None
) -> Answer:
    """One request with a token."""
    scheme, _, where = lb.admin.partition("://")
    host, _, port = where.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    if scheme == "https":
        context = ssl.create_default_context(cafile=ca)
        connection = http.client.HTTPSConnection(host, int(port), timeout=20, context=context)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if actor:
        headers["X-LB-Actor"] = actor
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.headers), answer.read())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lb]:
    """With tokens; no test changes it."""
    with Stage(tmp_path_factory.mktemp("roles")) as stage:
        yield start(stage)


def kind(answer: Answer) -> str:
    return str(answer.json["type"]).removeprefix("/problems/")


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.id)
def test_each_operation_asks_for_a_role(endpoint: Endpoint, shared: Lb) -> None:
    """An unknown parameter is refused after the token was looked at: so no order is carried out."""
    path = endpoint.path.format(
        name="greeting", pool="blue", id="127.0.0.1:1", subject="greeting", kind="not-ready", route="/"
    )
    path += "?nonsense=1" if endpoint.strict else ""
    body = {} if endpoint.takes is not None else None
    assert bool(endpoint.roles) != endpoint.open, "an operation has a role, unless it is for everybody"
    assert set(endpoint.roles) <= set(ROLES)
    if endpoint.open:
        return
    for role, token in TOKENS.items():
        answer = ask(shared, endpoint.method, path, token, body)
        if role in endpoint.roles:
            assert answer.status not in (401, 403), (role, answer.body)
        else:
            assert (answer.status, kind(answer)) == (403, "role-needed"), role
            assert answer.json["detail"].endswith(
                f"needs the role {' or '.join(endpoint.roles)}; the token {role}er has {role}"
            )
    assert ask(shared, endpoint.method, path, ALL, body).status not in (401, 403)
    answer = ask(shared, endpoint.method, path, "", body)
    assert (answer.status, kind(answer)) == (401, "token-needed")
    assert answer.json["detail"].endswith(f"has the role {' or '.join(endpoint.roles)}")


def test_who_looks_changes_nothing_and_who_drains_drains() -> None:
    """What the roles are for: a scraper's token is harmless, a preStop hook's does one thing."""
    by_role = {role: {each.id for each in ENDPOINTS if role in each.roles} for role in ROLES}
    orders = {each.id for each in ENDPOINTS if each.order}
    assert not by_role[READ] & orders
    assert by_role[DRAIN] & orders == {"drainTarget", "undrainTarget", "prestop", "postPrestop"}
    assert by_role[OPERATE] & orders == {
        *(by_role[DRAIN] & orders),
        "switchService",
        "rollBackService",
        "weighTarget",
        "putMaintenance",
        "renewCertificate",
        "confirmRemovals",
    }
    assert by_role[CONFIGURE] & orders == {"replaceConfig", "reload", "upgrade"}
    assert {"metrics", "getStatus"} <= by_role[READ]
    assert not {"getConfig", "validateConfig", "lookAtDraft"} & by_role[READ], "the text may hold secrets"


def test_the_rest_of_the_port_with_any_token(shared: Lb) -> None:
    for token in (*TOKENS.values(), ALL):
        assert ask(shared, "GET", "/nothing", token).status == 404
        assert ask(shared, "GET", "/livez", token).status == 200
        assert ask(shared, "GET", "/", token).status == 200
    assert ask(shared, "GET", "/nothing", "").status == 401
    assert ask(shared, "HEAD", "/api/v1/status", TOKENS[READ]).status == 200
    assert ask(shared, "HEAD", "/api/v1/status", TOKENS[DRAIN]).status == 403


def test_names_of_the_configuration_are_shown_to_readers_alone(shared: Lb) -> None:
    """The description is open; its examples are of the running configuration only for a token that may read."""
    assert b"127.0.0.1:1" in ask(shared, "GET", "/openapi.json", TOKENS[READ]).body
    for token in ("", TOKENS[DRAIN], TOKENS[CONFIGURE]):
        assert b"127.0.0.1:1" not in ask(shared, "GET", "/openapi.json", token).body


def test_the_description_lists_the_roles(shared: Lb) -> None:
    said = ask(shared, "GET", "/openapi.json", "").json
    switch = said["paths"]["/api/v1/services/{name}/switch"]["post"]
    assert switch["security"] == [{"token": ["operate"]}]
    assert said["paths"]["/api/v1/prestop"]["get"]["security"] == [{"token": ["drain"]}, {"token": ["operate"]}]
    assert said["paths"]["/livez"]["get"]["security"] == []
    assert "403" in switch["responses"]


def test_the_events_name_the_token_and_never_hold_it(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        lb = start(stage)
        for token, actor in ((TOKENS[OPERATE], "operateer: mallory"), (ALL, "drainer: mallory"), (TOKENS[OPERATE], "")):
            to = "green" if token == TOKENS[OPERATE] else "blue"
            answer = ask(lb, "POST", "/api/v1/services/greeting/switch", token, {"to": to, "force": True}, actor)
            assert answer.status == 200, answer.body
            if not actor:
                break
        events = ask(lb, "GET", "/api/v1/events?kind=switch", TOKENS[READ]).json
        actors = [event["actor"] for event in events if event["actor"]]
        assert "operateer: operateer mallory (127.0.0.1)" in actors
        assert "drainer mallory (127.0.0.1)" in actors, "the token that has no name: the client's name is no token's"
        assert "operateer: admin API (127.0.0.1)" in actors
        kept = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
        said = "".join(path.read_bytes().decode("latin-1") for path in (*kept, lb.errors))
        assert not [token for token in (ALL, *TOKENS.values()) if token in said]


def test_a_reload_takes_new_tokens_and_ends_the_streams_of_former_ones(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        lb = start(stage)
        host, _, port = lb.admin.removeprefix("http://").partition(":")
        stream = http.client.HTTPConnection(host, int(port), timeout=20)
        headers = {"Authorization": f"Bearer {TOKENS[READ]}", "Accept": "text/event-stream"}
        stream.request("GET", "/api/v1/events", headers=headers)
        answer = stream.getresponse()
        assert answer.status == 200
        write(tmp_path, READ, "another-token-that-reads")
        reload = ask(lb, "POST", "/api/v1/reload", TOKENS[CONFIGURE], {})
        assert reload.status == 200
        assert [change["subject"] for change in reload.json["changes"]] == ["admin.tokens.reader"]
        assert b"another-token" not in reload.body
        assert ask(lb, "GET", "/metrics", TOKENS[READ]).status == 401
        assert ask(lb, "GET", "/metrics", "another-token-that-reads").status == 200
        began = time.monotonic()
        while answer.readline():
            pass
        assert time.monotonic() - began < 10
        stream.close()

        write(tmp_path, DRAIN, TOKENS[OPERATE])
        refused = ask(lb, "POST", "/api/v1/reload", TOKENS[CONFIGURE], {})
        assert refused.status == 422
        assert "the same token as" in refused.body.decode()
        assert ask(lb, "GET", "/api/v1/prestop?nonsense=1", TOKENS[DRAIN]).status == 400, "the former ones count still"


def test_a_token_or_key_that_others_may_read_is_said_at_the_start_and_by_check(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        start(stage).stop()
        (tmp_path / "drain.token").chmod(0o644)
        lb = stage.start(tmp_path / "lb.yaml", 1, ready=False)
        assert "drain.token has mode 0644: other users of this machine may read it" in lb.errors.read_text()
        checked = lb.cli("check", str(tmp_path / "lb.yaml"))
        assert "drain.token has mode 0644" in " ".join(checked.stdout.split()) + " ".join(checked.stderr.split())


def test_no_reload_opens_the_port_to_everybody(tmp_path: Path) -> None:
    """A file without its tokens, by mistake or by `PUT /api/v1/config`, takes none away until a restart."""
    with Stage(tmp_path) as stage:
        lb = start(stage)
        put_pair(tmp_path, trustme.CA())
        whole = text()
        begin, end = whole.index("  token_file"), whole.index("state_dir")
        open_to_all = whole[:begin] + "  tls: {cert_file: admin.pem, key_file: admin.key}\n" + whole[end:]
        (tmp_path / "lb.yaml").write_text(open_to_all)
        reload = ask(lb, "POST", "/api/v1/reload", TOKENS[CONFIGURE], {})
        assert reload.status == 200
        kept = {change["subject"]: change["kind"] for change in reload.json["changes"]}
        assert kept == {"admin.tls": "restart", "admin.token_file": "restart", "admin.tokens": "restart"}
        assert ask(lb, "GET", "/metrics", "").status == 401
        assert ask(lb, "GET", "/metrics", TOKENS[READ]).status == 200
        assert len(ask(lb, "GET", "/api/v1/status", ALL).json["config"]["needs_restart"]) == 3


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def put_pair(folder: Path, authority: trustme.CA) -> None:
    issued = authority.issue_cert("127.0.0.1", "localhost")
    (folder / "admin.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (folder / "admin.key").write_bytes(issued.private_key_pem.bytes())
    (folder / "admin.key").chmod(0o600)


def serial(lb: Lb, ca: Path) -> str:
    """The number of the certificate that the port shows."""
    host, _, port = lb.admin.removeprefix("https://").partition(":")
    made = http.client.HTTPSConnection(host, int(port), context=ssl.create_default_context(cafile=ca), timeout=10)
    with contextlib.closing(made) as connection:
        connection.connect()
        assert isinstance(connection.sock, ssl.SSLSocket)
        certificate = connection.sock.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


def test_the_port_over_tls_with_a_certificate_that_is_renewed(tmp_path: Path, authority: trustme.CA) -> None:
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    put_pair(tmp_path, authority)
    with Stage(tmp_path) as stage:
        lb = start(stage, "  tls: {cert_file: admin.pem, key_file: admin.key}")
        assert lb.admin.startswith("https://")
        assert ask(lb, "GET", "/metrics", TOKENS[READ], ca=ca).status == 200
        assert ask(lb, "GET", "/metrics", "", ca=ca).status == 401
        plain = http.client.HTTPConnection("127.0.0.1", int(lb.admin.rpartition(":")[2]), timeout=5)
        plain.request("GET", "/livez")
        with pytest.raises((http.client.HTTPException, OSError)):
            plain.getresponse()
        plain.close()

        options = ["--token-file", str(tmp_path / "all.token")]
        done = lb.cli("--ca-file", str(ca), *options, "status")
        assert done.returncode == 0, done.stderr
        done = lb.cli("status", *options)
        assert done.returncode == 1
        assert "its certificate is not trusted" in done.stderr
        assert "--ca-file FILE or LB_ADMIN_CA=FILE" in done.stderr
        done = lb.cli("status", "--ca-file", str(ca), "--token-file", str(tmp_path / "drain.token"))
        assert "needs the role read; the token drainer has drain" in " ".join(done.stderr.split())
        done = lb.cli("status", "--ca-file", str(tmp_path / "admin.key"), *options)
        assert "cannot use the certificates in" in done.stderr

        before = serial(lb, ca)
        put_pair(tmp_path, authority)
        done = lb.cli("reload", "--ca-file", str(ca), *options)
        assert (done.returncode, "admin.tls" in done.stdout) == (0, True), done.stdout
        eventually(lambda: serial(lb, ca) != before)
        put_pair(tmp_path, authority)
        (tmp_path / "admin.key").write_text("no key")
        after = serial(lb, ca)
        assert lb.cli("reload", "--ca-file", str(ca), *options).returncode == 1
        assert serial(lb, ca) == after
        assert ask(lb, "GET", "/metrics", TOKENS[READ], ca=ca).status == 200
