"""What a file says, what is wrong with it, and where: every error at once, with its place and a way out."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lb.config.load import load, load_text
from lb.config.model.config import Config
from lb.config.yaml.problems import ConfigError, Problem
from lb.core.quorum import Quorum

SERVICE = """\
services:
  greeting:
    pools:
      blue: {targets: [http://127.0.0.1:5001]}
      green: {targets: [http://127.0.0.1:5003]}
    active: blue
"""


def problems(text: str, **environ: str) -> list[Problem]:
    with pytest.raises(ConfigError) as refused:
        load_text(text, "f.yaml", environ)
    return refused.value.problems


def problem(text: str, **environ: str) -> Problem:
    found = problems(text, **environ)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


def marked(text: str) -> str:
    """The part of the quoted line that the caret underlines."""
    one = problem(text)
    return one.quote[one.column - 1 : one.column - 1 + one.width]


# --- what is accepted ------------------------------------------------------------------------------------------------


def test_the_smallest_file() -> None:
    config = load_text("backends: [http://127.0.0.1:5001, http://127.0.0.1:5002]")
    assert [listener.bind for listener in config.listeners] == ["0.0.0.0:8080"]
    assert config.admin.bind == "127.0.0.1:9900"
    service = config.services["default"]
    assert [target.url for target in service.pools["default"].targets] == [
        "http://127.0.0.1:5001",
        "http://127.0.0.1:5002",
    ]
    assert service.first_active() == "default"
    assert service.balance.policy == "round_robin"
    assert service.readiness.kind() == "tcp"
    assert [(route.host, route.path, route.service) for route in config.route_list()] == [("", "/", "default")]


def test_a_path_beside_it_makes_the_check_http() -> None:
    config = load_text("backends: [127.0.0.1:5001]\nreadiness: /health/readiness\nliveness: /health/liveness\n")
    service = config.services["default"]
    assert (service.readiness.kind(), service.readiness.path) == ("http", "/health/readiness")
    assert service.liveness is not None
    assert (service.liveness.path, service.liveness.interval) == ("/health/liveness", 10.0)


def test_the_full_form_of_the_interface_page() -> None:
    config = load_text("""\
listeners:
  - bind: 0.0.0.0:8080            # or unix:/run/lb.sock, or [::]:8443 with tls
admin:
  bind: 127.0.0.1:9900            # anything but loopback needs token_file
services:
  greeting:
    pools:
      blue:  {targets: [http://127.0.0.1:5001, {url: http://127.0.0.1:5002, weight: 2}]}
      green: {targets: [http://127.0.0.1:5003]}
    active: blue                  # first start only: afterwards the persisted switch wins
    balance: round_robin          # weighted by target weight
    readiness:
      protocol: http              # http | https | tcp | grpc | command | none (never probed, taken as ready)
      path: /health/readiness
      interval: 2s
      timeout: 1s
      rise: 2                     # successes in a row to enter rotation
      fall: 3                     # failures in a row to leave it
      grace: 30s                  # failures of a target never yet ready do not count this long
      expect: {status: 200-299}   # also body (substring or /regex/) and headers
    liveness: {path: /health/liveness, interval: 10s, fall: 3, on_failure: {webhook: https://example.org/restart}}
    retries: {attempts: 2, budget: 20%}
    timeouts: {connect: 1s, response: 30s, idle: 60s}
routes:
  - {host: api.example.org, path: /greeting, service: greeting}
  - {path: /, service: greeting}
state_dir: ./.lb                  # persisted switches, drains and events
""")
    service = config.services["greeting"]
    assert [target.weight for target in service.pools["blue"].targets] == [1, 2]
    assert service.readiness.expect.status == ((200, 299),)
    assert service.retries.budget == 0.2
    assert service.timeouts.idle == 60.0
    assert service.liveness is not None and service.liveness.on_failure is not None
    assert config.routes[0].host == "api.example.org"


def test_short_spellings() -> None:
    config = load_text("""\
listeners: [127.0.0.1:0, unix:/run/lb.sock, '[::]:0']
services:
  a:
    pools: {x: [127.0.0.1:1], y: {targets: ['http://[::1]:2', unix:/run/y.sock]}}
    active: x
    balance: {policy: ring, key: header:X-User}
    readiness: {expect: "200-299,304"}
    slow_start: 10s
    rollout: {bake: 5m, min_ready: 2, steps: [5, 100]}
  b:
    pools: {x: [127.0.0.1:2]}
    readiness: none
    rollout: {min_ready: 75%}
routes: [{service: a}, {service: b, path: /b}]
access_log: off
canary: 10.0.0.1:53
""")
    a, b = config.services["a"], config.services["b"]
    assert a.readiness.expect.status == ((200, 299), (304, 304))
    assert a.readiness.kind() == "http"
    assert (a.slow_start.window, a.rollout.bake.time, a.rollout.min_ready) == (10.0, 300.0, Quorum(0.0, 2))
    assert (b.readiness.kind(), b.rollout.min_ready) == ("none", Quorum(0.75))
    assert config.access_log.format == "off"
    assert config.canary is not None and config.canary.readiness.kind() == "tcp"


def test_anchors_and_merges() -> None:
    config = load_text("""\
x-check: &check {path: /ready, interval: 1s, timeout: 500ms}
services:
  a: {pools: {x: &pool [127.0.0.1:1]}, readiness: *check}
  b: {pools: {x: *pool}, readiness: {<<: *check, interval: 3s}}
routes: [{service: a}, {service: b, path: /b}]
""")
    assert config.services["a"].readiness.interval == 1.0
    assert config.services["b"].readiness.interval == 3.0
    assert config.services["b"].readiness.path == "/ready"


def test_the_environment() -> None:
    environ = {"HOST": "10.0.0.1", "N": "3", "EMPTY": "", "TRICK": "x, y: [z]"}
    config = load_text(
        """\
services:
  a:
    pools: {x: [http://${HOST}:5001, "http://${OTHER:-10.0.0.2}:${PORT:-5001}"]}
    readiness: {fall: "${N}", interval: ${T:-4s}, headers: {X-Price: $$5, X-Raw: "${TRICK}", X-E: "${EMPTY:-full}"}}
# ${UNSET} in a comment is nobody's business
""",
        "f.yaml",
        environ,
    )
    service = config.services["a"]
    assert [target.url for target in service.pools["x"].targets] == ["http://10.0.0.1:5001", "http://10.0.0.2:5001"]
    assert (service.readiness.fall, service.readiness.interval) == (3, 4.0)
    assert service.readiness.headers == {"X-Price": "$5", "X-Raw": "x, y: [z]", "X-E": "full"}


def test_a_text_stays_as_it_is_written() -> None:
    """Norway's `no`, a version's trailing zero, an octal: a field of texts keeps them all."""
    config = load_text("""\
services:
  no: {pools: {on: [127.0.0.1:1]}, readiness: {headers: {X-A: 1.10, X-B: 010, X-C: yes, X-D: 1:30, X-E: true}}}
""")
    assert list(config.services) == ["no"]
    assert list(config.services["no"].pools) == ["on"]
    assert list(config.services["no"].readiness.headers.values()) == ["1.10", "010", "yes", "1:30", "true"]


def test_port_0_may_be_given_twice() -> None:
    config = load_text("backends: [http://127.0.0.1:0, http://127.0.0.1:0]\nlisteners: [127.0.0.1:0, 127.0.0.1:0]\n")
    assert len(config.services["default"].pools["default"].targets) == 2


def test_relative_paths_begin_at_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    file = tmp_path / "backends.yaml"
    file.write_text(
        "backends: [127.0.0.1:1]\nadmin: {bind: 0.0.0.0:0, token_file: ./token}\naccess_log: {path: a.log}\n"
    )
    config = load(file, {})
    assert config.admin.token_file == f"{tmp_path}/token"
    assert config.state_dir == f"{tmp_path}/.lb"
    assert config.access_log.path == f"{tmp_path}/a.log"
    assert load_text("backends: [127.0.0.1:1]").access_log.path == "-"


# --- what is refused -------------------------------------------------------------------------------------------------


def test_all_errors_are_reported_at_once_and_in_order() -> None:
    found = problems("""\
listeners:
  - bind: 0.0.0.0:8080
  - {bind: 0.0.0.0:8080}
admin: {bind: 0.0.0.0:9900}
services:
  greeting:
    pools:
      blue: {targets: [http://127.0.0.1:5001, {url: http://127.0.0.1:5001/x}, 127.0.0.1:5001]}
      green: {targets: ["http://${HOST}:5003"]}
    active: bleu
    balance: round_robbin
    readiness: {protocol: htpp, intervall: 2s, timeout: 1:30, fall: three}
    liveness: {interval: 10, on_failure: {}}
    retries: {attempts: 2}
    retries: {attempts: 3}
    timeouts:
  broken:
    active: blue
routes:
  - {path: /greeting, service: greting}
  - {path: /, service: broken}
  - {path: /, service: greeting}
watch: yes
""")
    assert [(one.line, one.message) for one in found] == [
        (3, "0.0.0.0:8080 is bound by listeners[0] already"),
        (4, "0.0.0.0:9900 can be reached from other machines, so the admin port needs a token"),
        (
            8,
            "url: 'http://127.0.0.1:5001/x' has a path; a target is an address, "
            "and the client's path goes on as it came",
        ),
        (9, "the environment variable HOST is not set"),
        (10, "active: greeting has no pool 'bleu'"),
        (11, "policy: 'round_robbin' is not one of the choices"),
        (12, "protocol: 'htpp' is not one of the choices"),
        (12, "unknown key 'intervall'"),
        (12, "timeout: '1:30' is not a duration"),
        (12, "fall: 'three' is not a whole number"),
        (13, "interval: '10' is not a duration"),
        (13, "on_failure does nothing"),
        (15, "'retries' is given twice; the first one is in line 14"),
        (16, "'timeouts' has no value"),
        (17, "'pools' is missing in services.broken"),
        (20, "there is no service 'greting'"),
        (22, "routes[1] (line 21) has the same host and path (any host, path /), so this one is never reached"),
        (23, "watch: 'yes' is a truth value in YAML 1.1 and a text in YAML 1.2"),
    ]


@pytest.mark.parametrize(
    ("line", "what", "hint"),
    [
        ("    balance: rond_robin", "rond_robin", "Did you mean round_robin?"),
        ("    readines: /x", "readines", "Did you mean readiness?"),
        ("    health_check: /x", "health_check", "Did you mean readiness?"),
        ("    interval: 2s", "interval", "Did you mean readiness.interval?"),
        ("    readiness: {intervall: 2s}", "intervall", "Did you mean interval?"),
        ("    readiness: {interval: 10}", "10", "Did you mean 10s?"),
        ("    readiness: {interval: 0s}", "0s", "Allowed: a duration above 0."),
        ("    readiness: {path: ready}", "ready", "Did you mean /ready?"),
        ("    readiness: {fall: 0}", "0", "Allowed: a whole number, 1 or more."),
        ("    readiness: {fall: 010}", "010", "Did you mean 10?"),
        ("    readiness: {fall: '3'}", "'3'", "Did you mean 3?"),
        ("    readiness: {rise: 1_000}", "1_000", "Did you mean 1000?"),
        ("    readiness: {expect: 2xx}", "2xx", "Did you mean 200-299?"),
        ("    readiness: {expect: {body: /(/}}", "/(/", "Allowed: a text, or a /regular expression/."),
        ("    readiness: health", "health", "Did you mean /health?"),
        ("    readiness: [a]", "readiness", "Allowed keys: protocol"),
        ("    readiness: {protocol: tcp, path: /x}", "/x", "protocol: http or https"),
        ("    readiness: {protocol: command}", "command", "Add `command:"),
        ("    readiness: {headers: {'a b': c}}", "'a b'", "RFC 9110"),
        ("    readiness: {headers: {a: \"b\\nc\"}}", '"b\\nc"', "one line"),
        ("    readiness: {protocol: https, tls: {cert_file: a}}", "tls", "Add `key_file: FILE`."),
        ("    liveness: none", "none", "Remove the whole block."),
        ("    liveness: {on_failure: {backoff: 10m, command: [a]}}", "on_failure", "Allowed: 10m or more."),
        ("    retries: {budget: 20}", "20", "Did you mean 20%?"),
        ("    retries: {budget: 120%}", "120%", "Allowed: 0% to 100%."),
        ("    retries: {statuses: [502, 500]}", "statuses", "Allowed: a list of 502, 503 and 504."),
        ("    retries: {replay: 64k}", "64k", "Did you mean 64KiB?"),
        ("    fallback: red", "red", "Pools of greeting: blue, green."),
        ("    fallback: gren", "gren", "Did you mean green?"),
        ("    panic: fallback", "fallback", "Add `fallback: POOL`."),
        ("    tls: {verify: no}", "no", "Did you mean false?"),
        ("    mirror: {pool: green}", "mirror", "percent: Share of the requests that are copied."),
        ("    previews: [{pool: green}]", "{", "Write one entry for each."),
        ("    rollout: {steps: [5, 50]}", "steps", "the last one 100"),
        ("    rollout: {min_ready: 0%}", "0%", "Allowed: a percentage above 0%, or a number of targets."),
        ("    rollout: {pre: {timeout: 1s}}", "pre", "Add `command: [program, argument]` or `webhook: URL`."),
        ("    rollout: {post: {webhook: example.org}}", "example.org", "Did you mean https://example.org?"),
        ("    sticky: {by: path}", "path", "Allowed: client, header:NAME or cookie:NAME."),
        ("    balance: {policy: ring, key: user}", "user", "Allowed: client, path, header:NAME or cookie:NAME."),
        ("    outlier: {max_ejection: 1s}", "1s", "Allowed: 30s or more."),
        ("    host_header: !!binary eA==", "!!binary eA==", "Remove it"),
        ("routes: [{host: 'http://a.org', service: greeting}]", "'http://a.org'", "Did you mean a.org?"),
        ("routes: [{host: bücher.eu, service: greeting}]", "bücher.eu", "Did you mean xn--bcher-kva.eu?"),
        ("routes: [{path: /a*, service: greeting}]", "/a*", "Did you mean /a?"),
        ("routes: [{path: /a?b, service: greeting}]", "/a?b", "without query"),
        ("trusted_proxies: [10.0.0.1/8]", "10.0.0.1/8", "Did you mean 10.0.0.0/8?"),
        ("    readiness: {expect: 200,304}", "304", "a text with a comma needs quotes"),
        ("workers: many", "many", "Allowed: a whole number."),
        ("workers: -1", "-1", "Allowed: a whole number, 0 to 256."),
        ("admin: {bind: unix:/x}", "unix:/x", "Use a loopback address"),
        ("listeners: [127.0.0.1:9900]", "127.0.0.1:9900", "Give one of them another port."),
        ("listeners: []", "listeners", "At least one is needed."),
        ("backends: [127.0.0.1:1]", "backends", "Make it a pool under services.NAME.pools."),
        ("access_log: jsn", "jsn", "Did you mean json?"),
        ("log: {level: warn}", "warn", "Did you mean warning?"),
        ("retries: {attempts: 1}", "retries", "Did you mean services.NAME.retries?"),
        ("lame_duck: 1:30", "1:30", "Did you mean 1m30s?"),
    ],
)  # fmt: skip
def test_an_error_names_its_place_and_a_way_out(line: str, what: str, hint: str) -> None:
    text = SERVICE + line + "\n"
    one = problem(text)
    assert marked(text) == what
    assert hint.lower() in " ".join(one.hint.split()).lower(), one.hint
    assert one.line == text.count("\n", 0, text.index(line)) + 1


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "the file is empty"),
        ("# nothing\n", 1, "the file is empty"),
        ("[a]", 1, "the file is a list, not a mapping"),
        ("a: b: c\n", 1, "a second `:` makes this line ambiguous"),
        ("backends: [127.0.0.1:1\nlisteners: []\n", 2, "a list that began with `[` does not go on here"),
        ('a: "x\nb: c\n', 1, "a quoted text never ends"),
        ("backends:\n\t- a\n", 2, "a tab is used for indentation"),
        ("backends: @a\n", 1, "a plain text cannot begin with `@`"),
        ("backends: [127.0.0.1:1]\n---\nbackends: []\n", 2, "a second document begins here; a file is one document"),
        ("backends: &a [*a]\n", 1, "*a stands inside of what it names"),
        ("backends: [" * 40, 1, "nested more than 32 levels deep"),
        ("[" * 100_000, 1, "nested more than 32 levels deep"),
        ("backends: [*nobody]\n", 1, "there is no anchor &nobody above this line"),
        ("backends: [a\x01b]\n", 1, "the character U+0001 is not allowed in YAML"),
        ("backends: [\ue024]\n", 1, "a character of the private-use area is not allowed here"),
        ("backends: ['${A-1}:1']", 1, "'${A-1}:1' has a reference that cannot be read"),
        ("? [a, b]\n: c\n", 1, "a key must be a text, not a mapping or a list"),
        ("backends: [127.0.0.1:1]\n<<: 3\n", 2, "`<<` takes a mapping, or a list of mappings"),
    ],
)  # fmt: skip
def test_what_is_not_the_yaml_that_is_meant(text: str, line: int, message: str) -> None:
    one = problems(text)[0]
    assert message in one.message
    assert one.line == line


def test_an_alias_bomb_is_refused_before_it_is_expanded() -> None:
    lines = ["x-a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [
        f"x-{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    assert "expand to, more than" in problems("\n".join([*lines, "backends: [127.0.0.1:1]"]))[0].message


def test_a_block_used_twice_is_wrong_once() -> None:
    one = problem("""\
x-check: &check {path: /ready, interval: 1}
services:
  a: {pools: {x: [127.0.0.1:1]}, readiness: *check}
  b: {pools: {x: [127.0.0.1:2]}, readiness: {<<: *check}}
routes: [{service: a}, {service: b, path: /b}]
""")
    assert (one.line, one.message) == (1, "interval: '1' is not a duration")


def test_several_services_need_routes_and_several_pools_an_active_one() -> None:
    found = problems("""\
services:
  a: {pools: {x: [127.0.0.1:1], y: [127.0.0.1:2]}}
  b: {pools: {x: [127.0.0.1:1]}}
""")
    assert [one.message for one in found] == [
        "'routes' is missing: there are 2 services, and nothing says which request is for which",
        "'active' is missing: a has several pools, and one must serve first",
    ]


def test_the_same_address_twice_in_a_pool_by_any_spelling() -> None:
    assert (
        "is in pool x already, as targets[0]"
        in problem("services: {a: {pools: {x: ['http://[::1]:80', 'http://[0:0::1]']}}}").message
    )
    load_text("services: {a: {pools: {x: [127.0.0.1:1], y: [127.0.0.1:1]}, active: x}}")


def test_an_ipv6_address_in_a_flow_list_needs_quotes() -> None:
    assert "in quotes" in problem("backends: [http://127.0.0.1:1, https://[::1]:8]").hint


def test_a_refinement_is_judged_together_with_what_it_refines() -> None:
    text = """\
services:
  a:
    pools:
      x: {targets: [{url: 127.0.0.1:1, readiness: {expect: 204}}], readiness: {interval: 1s}}
      y: {targets: [127.0.0.1:2], readiness: {grpc_service: s, path: /x}}
    active: x
    readiness: /ready
"""
    assert problem(text).path == "services.a.pools.y.readiness.path"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "cannot be read: is a directory"),
        (lambda path: path.write_bytes(b"a: \xff\n"), "the byte 0xff is not UTF-8"),
        (lambda path: path.write_bytes(b"#" * (4 * 2**20 + 1)), "the file is larger than 4 MiB"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, make: object, message: str) -> None:
    file = tmp_path / "f.yaml"
    make(file)  # type: ignore[operator]
    with pytest.raises(ConfigError) as refused:
        load(file, {})
    assert refused.value.problems[0].message == message
    assert str(file) in str(refused.value)


def test_files_that_it_names_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("abc\n")
    (tmp_path / "noise.pem").write_text("no certificate\n")
    file = tmp_path / "f.yaml"
    file.write_text("""\
backends: [127.0.0.1:1]
admin: {token_file: short}
listeners:
  - {bind: 127.0.0.1:0, tls: {cert_file: gone.pem, key_file: noise.pem}}
  - {bind: 127.0.0.1:0, tls: {cert_file: noise.pem, key_file: noise.pem, client_ca_file: noise.pem}}
""")
    with pytest.raises(ConfigError) as refused:
        load(file, {})
    messages = [one.message.replace(f"{tmp_path}/", "") for one in refused.value.problems]
    assert messages[0] == "short must hold one token of at least 16 printable characters, without spaces"
    assert messages[1] == "the certificate cannot be read from gone.pem: no such file or directory"
    assert messages[2] == "noise.pem holds no certificate in PEM form"
    assert messages[3].startswith("noise.pem holds no certificates")
    load(file, {}, check_files=False)


def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    for name in ("one", "two"):
        issued = authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    file = tmp_path / "f.yaml"
    line = "backends: [127.0.0.1:1]\nlisteners: [{bind: 127.0.0.1:0, tls: {cert_file: one.pem, key_file: %s.key}}]\n"
    file.write_text(line % "two")
    with pytest.raises(ConfigError) as refused:
        load(file, {})
    assert "is not the key of" in str(refused.value.problems[0])
    file.write_text(line % "one")
    load(file, {})


def test_keys_that_are_swapped_or_locked_are_named_so(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    for name, form in (("locked", PrivateFormat.PKCS8), ("locked-old", PrivateFormat.TraditionalOpenSSL)):
        locked = key.private_bytes(Encoding.PEM, form, serialization.BestAvailableEncryption(b"secret"))
        (tmp_path / f"{name}.pem").write_bytes(locked)
    line = "backends: [127.0.0.1:1]\nlisteners: [{bind: 127.0.0.1:0, tls: {cert_file: %s.pem, key_file: %s.pem}}]\n"
    file = tmp_path / "f.yaml"
    for cert, private, place, message, hint in (
        ("key", "cert", "cert_file", "is a key, and", "Swap"),
        ("cert", "locked", "key_file", "has a passphrase", "openssl pkey -in"),
        ("cert", "locked-old", "key_file", "has a passphrase", "openssl pkey -in"),
        ("cert", "cert", "key_file", "holds no private key", "openssl pkey"),
    ):
        file.write_text(line % (cert, private))
        with pytest.raises(ConfigError) as refused:
            load(file, {})
        (one,) = refused.value.problems
        assert one.path == f"listeners[0].tls.{place}"
        assert message in one.message
        assert hint in one.hint


def test_a_misspelt_key_hides_no_error_below_it() -> None:
    found = problems("""\
servces:
  greeting:
    pools: {blue: [http://127.0.0.1:5001x, 127.0.0.1:2]}
    balnce: ip_hash
routes: [{servce: greeting}]
""")
    assert [(one.line, one.message.partition(":")[0]) for one in found] == [
        (1, "unknown key 'servces'"),
        (3, "url"),
        (4, "unknown key 'balnce'"),
        (4, "policy"),
        (5, "unknown key 'servce'"),
    ]


def test_a_key_that_only_resembles_another_is_not_taken_for_it() -> None:
    one = problem("service: {pools: {blue: [127.0.0.1:1]}, active: blue}\nservices: {s: {pools: {a: [127.0.0.1:1]}}}")
    assert one.message == "unknown key 'service'"


def test_an_error_in_a_list_that_stands_for_a_pool_points_at_the_element() -> None:
    text = "services: {s: {pools: {blue: [127.0.0.1:1, 'http://127.0.0.1:2/x']}}}"
    assert marked(text) == "'http://127.0.0.1:2/x'"


def test_a_variable_that_is_not_set_is_one_error_in_every_form() -> None:
    for form in ("[%s]", "{targets: [%s]}", "[{url: %s}]"):
        one = problem("services: {s: {pools: {blue: %s}}}" % (form % '"http://${HOST}:1"'))
        assert one.message == "the environment variable HOST is not set"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "services: {s: {pools: {blue: [a:1], green: [b:1], active: blue}}}",
            "'active' stands among the names of pools",
            "active belongs one level up: services.s.active.",
        ),
        (
            "services: {s: {pools: {blue: {targets: [a:1], retries: {attempts: 1}}}}}",
            "unknown key 'retries'",
            "retries belongs further up: services.s.retries.",
        ),
        ("defaults: &d {interval: 1s}\nbackends: [a:1]", "unknown key 'defaults'", "begins with `x-`: x-defaults."),
        ("backends: [a:1]\nbalance: ip_hash", "policy: ip_hash is not one of the choices", "Did you mean ring?"),
        ("backends: [a:1]\nbalance: least_conn", "policy: least_conn is not", "Did you mean least_request?"),
        ("backends: [a:1]\nbalance: Round-Robin", "policy: Round-Robin is not", "Did you mean round_robin?"),
        ("backends: [a:1]\nstrip_prefix: /a", "unknown key 'strip_prefix'", "`steps` change paths"),
        ("backends: [a:1]\nmiddlewares: [a]", "unknown key 'middlewares'", "stands in its `steps`"),
        ("backends: [a:1]\nroutes: [{service: default, gzip: on}]", "unknown key 'gzip'", "`steps: [{compress: {}}]`"),
        ("backends: [a:1]\nroutes: [{service: default, auth_basic: x}]", "unknown key 'auth_basic'", "[{basic_auth: {"),
        ("backends: [a:1]\nroutes: [{service: default, cors: {}}]", "unknown key 'cors'", "cors"),
        ("backends: [a:1]\nproxy_cache: on", "unknown key 'proxy_cache'", "lb does not cache"),
        (
            "backends: [a:1]\nroutes: [{service: default, path: ~ ^/api}]",
            "path: '~ ^/api' is a regular expression; a route's path is a prefix",
            "Did you mean /api?",
        ),
        (
            "backends: [a:1]\nroutes: [{service: default, host: _}]",
            "host: '_' would match no host; a route without `host` matches any",
            "a host name without port",
        ),
        (
            "backends: [a:1]\nlisteners: [127.0.0.1:18080, 0.0.0.0:18080]",
            "0.0.0.0:18080 and 127.0.0.1:18080 (listeners[0]) overlap, and the kernel gives an address once",
            "different ports",
        ),
        (
            "backends: [a:1]\nlisteners: ['[::]:18080', '[::1]:18080']",
            "[::1]:18080 and [::]:18080 (listeners[0]) overlap, and the kernel gives an address once",
            "different ports",
        ),
    ],
)
def test_what_newcomers_write_is_answered(text: str, message: str, hint: str) -> None:
    one = problem(text)
    assert one.message.replace("'", "").startswith(message.replace("'", ""))
    assert hint in one.hint


def test_both_families_may_have_the_same_port() -> None:
    load_text("backends: [a:1]\nlisteners: ['[::]:18080', 0.0.0.0:18080]")


def test_errors_are_summed_up_in_one_whole_line() -> None:
    with pytest.raises(ConfigError) as refused:
        load_text(
            "backends: [a:1]\nbalnce: a\nroutes: [{service: b, path: no-path-at-all-but-long-enough-to-wrap}]", "f"
        )
    assert "\n" not in refused.value.brief
    assert refused.value.brief.endswith("(and 2 more errors; `lb check` shows all)")


def test_errors_read_well_in_80_columns() -> None:
    with pytest.raises(ConfigError) as refused:
        load_text(
            SERVICE + "    readiness: {protocol: htpp, headers: {X-Long: " + "y" * 200 + "}, intervall: 2s}\n", "f.yaml"
        )
    shown = str(refused.value)
    assert all(len(line) <= 80 for line in shown.splitlines()), shown
    assert "f.yaml:7:27: protocol: 'htpp' is not one of the choices" in shown
    caret = shown.splitlines()[2]
    assert caret.endswith("^^^^")
    assert shown.splitlines()[1][caret.index("^") :].startswith("htpp")


# --- anything at all -------------------------------------------------------------------------------------------------

BASE = SERVICE + "    readiness: {path: /x, interval: 2s, expect: 200-299}\nroutes: [{path: /, service: greeting}]\n"
SPICE = st.sampled_from(
    [*"{}[]:,&*#?|-<>=!%@`'\"\\\n\t $", "${A}", "${", "*a", "&a ", "<<: ", "!!x ", "\x00", "é", "1:30"]
)


def outcome(text: str) -> Config | list[Problem]:
    try:
        return load_text(text, "f.yaml", {})
    except ConfigError as error:
        str(error)
        return error.problems


@given(st.text())
@settings(max_examples=200)
def test_random_text_ends_in_errors_only(text: str) -> None:
    assert outcome(text)


@given(
    st.lists(st.tuples(st.integers(0, len(BASE)), st.integers(0, 12), SPICE | st.text(string.printable, max_size=4)))
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_a_file_that_was_damaged_ends_in_errors_only(cuts: list[tuple[int, int, str]]) -> None:
    text = BASE
    for at, length, put in cuts[:4]:
        text = text[:at] + put + text[at + length :]
    found = outcome(text)
    assert isinstance(found, Config) or all(one.line <= len(text.splitlines()) + 1 for one in found)
