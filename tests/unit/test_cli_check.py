"""`lb check`, `lb schema`, `lb plan`, `lb import marathon` as commands: what they print and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lb.cli.main import group

GOOD = """\
services:
  greeting:
    pools:
      blue: {targets: [http://127.0.0.1:5001, http://127.0.0.1:5002]}
      green: {targets: [http://127.0.0.1:5003, {url: http://127.0.0.1:5004, readiness: {interval: 5s}}]}
    active: blue
    readiness: {path: /health/readiness, interval: 2s, timeout: 1s}
    liveness: {path: /health/liveness}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "backends.yaml"
    path.write_text(GOOD)
    return path


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(group, [str(one) for one in arguments], input=stdin, env={"NO_COLOR": "1"})


def test_a_valid_file_and_its_figures(file: Path) -> None:
    result = run("check", file)
    assert result.exit_code == 0
    assert "is valid: 1 service, 2 pools, 4 targets, 1 route." in result.output
    assert "a dead target is out after at worst 7s (= 2 + 2 × 2 + 1 s)," in result.output
    assert "a dead target is out after at worst 16s (= 5 + 2 × 5 + 1 s)," in result.output
    assert "doubted for 15s first (patience), and out after at worst 24s" in result.output
    assert "for greeting/green/127.0.0.1:5004" in result.output
    assert "after at worst 31s (= 10 + 2 × 10 + 1 s)" in result.output
    assert all(len(line) <= 80 for line in result.output.splitlines() if str(file) not in line)


def test_figures_for_programs(file: Path) -> None:
    result = run("check", file, "--json")
    document = json.loads(result.output)
    assert document["valid"] is True
    service = document["services"]["greeting"]
    assert service["detection"]["worst"] == 16.0
    assert [len(one["targets"]) for one in service["readiness"]] == [1, 3]
    assert service["readiness"][1]["detection"] == {"best": 3.6, "expected": 4.751, "worst": 7.0, "recovery": 5.0}
    assert [one["doubted"] for one in service["readiness"]] == [36.0, 24.0]
    assert "doubted" not in service["liveness"][0]
    assert service["probes_per_second"] == 2.1


def test_an_invalid_file_lists_everything_and_exits_1(file: Path) -> None:
    file.write_text(GOOD.replace("interval: 2s", "intervall: 2s").replace("active: blue", "active: bleu"))
    result = run("check", file)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"{file}:6:13: active: greeting has no pool 'bleu'" in result.stderr.replace("\n  ", " ")
    assert "Did you mean interval?" in result.stderr
    assert "has 2 errors." in result.stderr
    document = json.loads(run("check", file, "--json").stdout)
    assert (document["valid"], len(document["errors"])) == (False, 2)
    assert document["errors"][0]["line"] == 6
    assert document["errors"][0]["path"] == "services.greeting.active"
    assert run("check", file, "--json").exit_code == 1


def test_warnings_do_not_fail_unless_strict(file: Path) -> None:
    file.write_text(GOOD + "trusted_proxies: [0.0.0.0/0]\n")
    result = run("check", file)
    assert result.exit_code == 0
    assert "1 warning:" in result.output
    assert "anybody may forge X-Forwarded-For" in result.output
    assert run("check", file, "--strict").exit_code == 1
    assert len(json.loads(run("check", file, "--json").output)["warnings"]) == 1


def test_a_warning_that_is_meant_is_left_out_by_its_code(file: Path) -> None:
    file.write_text(GOOD + "trusted_proxies: [0.0.0.0/0]\n")
    assert "X-Forwarded-For [forwarded-open]" in run("check", file).output
    assert json.loads(run("check", file, "--json").output)["warnings"][0]["code"] == "forwarded-open"
    assert run("check", file, "--strict", "--ignore", "forwarded-open").exit_code == 0
    result = run("check", file, "--ignore", "forwarded-opn")
    assert result.exit_code == 2 and "Did you mean forwarded-open?" in result.stderr


def test_a_file_that_is_not_there() -> None:
    result = run("check", "/nonexistent/backends.yaml")
    assert result.exit_code == 1
    assert "/nonexistent/backends.yaml: there is no such file" in result.stderr


def test_stdin_and_files_it_names() -> None:
    assert run("check", "-", stdin=GOOD).exit_code == 0
    text = GOOD + "admin: {bind: 0.0.0.0:9900, token_file: /nonexistent/token}\n"
    assert "the token cannot be read" in run("check", "-", stdin=text).stderr
    assert run("check", "-", "--no-files", stdin=text).exit_code == 0


def test_never_probed_is_said() -> None:
    output = run("check", "-", stdin="backends: [h:1, h:2]\nreadiness: none\n").output
    assert "a dead target stays in rotation: nobody looks" in output
    document = json.loads(run("check", "-", "--json", stdin="backends: [h:1, h:2]\nreadiness: none\n").output)
    assert document["services"]["default"]["detection"] is None


def test_the_schema_is_json() -> None:
    assert json.loads(run("schema").output)["title"] == "lb configuration"


def test_a_plan_between_two_files(file: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.yaml"
    new.write_text(GOOD.replace("127.0.0.1:5002", "127.0.0.1:5009") + "workers: 2\n")
    result = run("plan", new, "--against", file)
    assert result.exit_code == 0
    assert "+ greeting/blue/127.0.0.1:5009: gets traffic after its first passed check" in result.output
    assert "- greeting/blue/127.0.0.1:5002" in result.output
    assert "! workers: 0 → 2; needs a restart" in result.output
    document = json.loads(run("plan", new, "--against", file, "--json").output)
    assert {change["kind"] for change in document["changes"]} == {"add", "drain", "restart"}
    assert len(document["kept"]) == 3
    assert "Nothing would change." in run("plan", file, "--against", file).output


def test_a_plan_with_an_invalid_file_or_no_lb(file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("services: {}")
    result = run("plan", bad, "--against", file)
    assert result.exit_code == 1
    assert "has 1 error:" in result.stderr
    result = run("plan", file, "--admin", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "no admin port answers at http://127.0.0.1:1" in result.stderr


def test_import_marathon(tmp_path: Path) -> None:
    app = tmp_path / "app.json"
    app.write_text(json.dumps({"id": "/greeting", "healthChecks": [{"path": "/h", "delaySeconds": 1}]}))
    result = run("import", "marathon", app, "--target", "http://10.0.0.1:80", "--target", "http://10.0.0.2:80")
    assert result.exit_code == 0
    assert "delaySeconds: 1 has no equivalent." in result.stderr
    made = tmp_path / "made.yaml"
    made.write_text(result.stdout)
    assert run("check", made).exit_code == 0
    assert "http://10.0.0.2:80" in result.stdout


@pytest.mark.parametrize(
    ("text", "target", "said"),
    [
        ("{", "h:1", "line 1, column 2: this is not JSON"),
        ('{"id": "a", "healthChecks": [{"protocol": "UDP"}]}', "h:1", "'UDP' is none of"),
        ('{"id": "a", "healthChecks": []}', "http://h:1/path", "leads to a file that is not valid"),
    ],
)
def test_import_marathon_refuses(tmp_path: Path, text: str, target: str, said: str) -> None:
    app = tmp_path / "app.json"
    app.write_text(text)
    result = run("import", "marathon", app, "--target", target)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert run("import", "marathon", tmp_path / "none.json").exit_code == 1


def test_summaries_are_those_of_the_table() -> None:
    from lb.cli.main import COMMANDS

    for commands in COMMANDS.values():
        for name, (_, summary) in commands.items():
            if name in ("check", "plan", "schema", "import"):
                command = group.get_command(None, name)  # type: ignore[arg-type]
                assert command is not None and command.help is not None
                assert command.help.splitlines()[0] == summary
