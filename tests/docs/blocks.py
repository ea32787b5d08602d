"""Reads the code blocks of a page and carries them out, in order, in a directory of their own.

What a block is follows from its language:

- `sh`: commands; each block is run by bash and must succeed. Of `make` only what it would run is looked at, since a
  test must not build the environment it runs in; `make run` is then started as the Makefile says.
- `console`: lines that begin with `$ ` are commands, the lines under one are what it prints; `…` stands for anything.
- `yaml` whose first line is a comment with a file name: that file, and a valid one, as the program says that reads it;
  or manifests for Kubernetes, which must fit together (manifests.py).
- `nginx`, `haproxy`: a configuration that the program itself accepts; `traefik`: one whose names lead somewhere.
- `promql`: queries that `promtool` accepts; `json`, `toml`: must parse; `python`: must run.
- `text`: a drawing or a formula; a command in it is an error, because nobody would run it.

Everything else is an error, as are a directive that is not known and a block that carries nothing out: no block of a
page goes unchecked. A comment in front of a block says what the reader is told in words: `<!-- test: background -->` (a
command that goes on in a terminal of its own), `<!-- test: exit 1 -->`, `<!-- test: eventually -->` (repeat until it is
as shown), `<!-- test: file NAME -->` (a block that is saved under that name), `<!-- test: docker -->` (looked at, not
run), `<!-- test: container -->` (a piece of a Kubernetes container, whose commands are run),
`<!-- test: beside COMMAND -->` (the running lb that a reference page speaks of; it is ready before the block begins).
Ports of the pages are replaced by free ones, here and in what is expected.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.docs import manifests
from tests.support.ports import free_ports

REPO = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ ]*$", re.M | re.S)
DIRECTIVE = re.compile(r"<!-- test: (?P<what>[^>]*?) -->\s*\Z")
DIRECTIVES = {"background": 0, "exit": 1, "eventually": 0, "file": 1, "docker": 0, "container": 0}
#: A line of a drawing that is a command after all.
COMMAND = re.compile(r"^\s*(\$ |lb |curl |make |python |docker |kubectl )", re.M)
#: Ports that the pages use.
PORTS = ("5001", "5002", "5003", "5004", "5005", "5006", "8080", "8081", "8443", "9090", "9900")
PORT = re.compile(r"(?<![\d.])(?:" + "|".join(PORTS) + r")(?!\d)")
#: System directories of the pages; here they lie in the reader's own.
PLACES = re.compile(r"(?<![\w.-])/(?:etc/lb|var/lib/lb)")
#: Whose name begins so is checked by this command, as a reader would.
CHECKERS = (
    ("backends", "lb check"),
    ("prometheus", "promtool check config --syntax-only"),
    ("alerts", "promtool check rules"),
)
#: Seconds for one command, and for something to become as shown.
COMMAND_TIME = 120.0
EVENTUALLY = 40.0


@dataclass(frozen=True, slots=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    directive: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path, root: Path = REPO) -> list[Block]:
    source = page.read_text()
    found = []
    for match in FENCE.finditer(source):
        before = source[: match.start()]
        directive = DIRECTIVE.search(before)
        indent = len(match["indent"])
        text = "".join(line[indent:] if line.strip() else line for line in match["text"].splitlines(keepends=True))
        name = str(page.relative_to(root))
        found.append(
            Block(name, before.count("\n") + 1, match["language"], text, directive["what"] if directive else "")
        )
    return found


#: Taken once: pages are read in threads, and pytest changes the environment while it runs.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(("LB_", "MAKE", "MFLAGS"))}


class Desk:
    """A reader's directory, with the repository's files in it, and the programs the reader started."""

    def __init__(self, directory: Path, root: Path = REPO) -> None:
        self.directory = directory
        self.root = root
        self.ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        self.running: list[subprocess.Popen[str]] = []
        self.manifests: list[dict[str, Any]] = []
        for name in ("examples", "contrib"):
            shutil.copytree(REPO / name, directory / name)
        self.write("backends.yaml", (REPO / "backends.yaml").read_text())
        for holder in ("operators", "prometheus", "pods"):
            self.write(f"etc/lb-tokens/{holder}", f"a-token-of-the-{holder}\n")
        self.write("etc/lb-token/token", "a-token-of-the-pods\n")
        self.environment = {
            **ENVIRONMENT,
            "PATH": f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}:/usr/sbin",
            "LB_ADMIN": f"http://127.0.0.1:{self.ports['9900']}",
            "NO_COLOR": "1",
            "COLUMNS": "80",
        }

    def local(self, text: str) -> str:
        """`text` with this desk's ports and places, and on loopback only."""
        text = PORT.sub(lambda match: self.ports[match[0]], text).replace("0.0.0.0:", "127.0.0.1:")
        return PLACES.sub(lambda match: f"{self.directory}{match[0]}", text)

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.local(text))

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.local(command)],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIME,
            check=False,
        )

    def start(self, command: str) -> None:
        """Run it as in a terminal of its own, until the page is over."""
        log = (self.directory / f"terminal-{len(self.running)}.log").open("w")
        self.running.append(
            subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", self.local(command)],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.running:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)

    def read(self, page: Path) -> None:
        """Carry out a page from its first block to its last."""
        source = page.read_text()
        found = blocks(page, self.root)
        fences = len(re.findall(r"^\s*(?:```|~~~)", source, re.M))
        assert fences == 2 * len(found), f"{page}: {fences} fences, but {len(found)} blocks"
        indented = re.search(r"\n\n(?:\t| {4,})\S.*", FENCE.sub("", source))
        assert not indented, f"{page}: a block without a fence: {indented[0].strip()}"
        for block in found:
            self.carry_out(block)
        if self.manifests:
            manifests.check_together(self.manifests)

    def carry_out(self, block: Block) -> None:
        words = block.directive.split()
        if words[:1] == ["beside"]:
            self.start_beside(block, words[1:])
            words = []
        self.check_directive(block, words)
        assert block.text.strip(), f"{block}: an empty block"
        if block.language == "sh":
            if block.text.startswith("make "):
                self.make(block)
            elif "docker" in words:
                self.check_docker(block)
            elif "background" in words:
                self.start(block.text)
            else:
                self.repeat(block, lambda: self.check_run(block, block.text, None, wanted_exit(words)), words)
        elif block.language == "console":
            assert block.text.startswith("$ "), f"{block}: it does not begin with a command"
            for command, expected in dialogue(block.text):
                self.repeat(block, lambda c=command, e=expected: self.check_run(block, c, e, wanted_exit(words)), words)
        elif block.language == "yaml":
            self.check_yaml(block, words)
        elif block.language == "json":
            json.loads(block.text)
            if "file" in words:
                self.write(words[words.index("file") + 1], block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language in ("nginx", "haproxy", "traefik"):
            self.check_peer(block)
        elif block.language == "promql":
            self.check_queries(block)
        elif block.language == "python":
            self.write("block.py", block.text)
            self.check_run(block, "python block.py", None, wanted_exit(words))
        elif block.language == "text":
            assert not COMMAND.search(block.text), f"{block}: a command in a drawing is run by nobody"
        else:
            raise AssertionError(f"{block}: nobody checks blocks of the language {block.language!r}")

    def start_beside(self, block: Block, command: list[str]) -> None:
        """A page that speaks of a running lb without saying which: this one, and everything in it is ready."""
        self.start(shlex.join(command))
        done = self.shell(
            "for i in {1..300}; do curl -sf http://127.0.0.1:9900/readyz && exit; sleep 0.1; done; exit 1"
        )
        assert done.returncode == 0, f"{block}: {shlex.join(command)}{self.terminals()}"

    def check_directive(self, block: Block, words: list[str]) -> None:
        rest = list(words)
        while rest:
            word = rest.pop(0)
            assert word in DIRECTIVES, f"{block}: {word!r} is none of {', '.join(DIRECTIVES)}"
            assert len(rest) >= DIRECTIVES[word], f"{block}: {word} of what?"
            del rest[: DIRECTIVES[word]]

    def check_docker(self, block: Block) -> None:
        """No engine runs here (test_container.py looks at the Dockerfile's steps): what is named must be there."""
        for command in block.text.replace("\\\n", " ").splitlines():
            words = command.split()
            if words[0] == "curl":  # a container of the example answers: its code has that path
                path = urlsplit(next(word for word in words if word.startswith("http://"))).path
                app = (REPO / "examples/greeting-service/app.py").read_text(encoding="utf-8")
                assert f'("{path}")' in app, f"{block}: {command}"
                continue
            assert words[0] == "docker" and words[1] in ("build", "run", "stop", "compose"), f"{block}: {command}"
            for file in (word for before, word in pairwise(words) if before == "-f"):
                services = yaml.safe_load((REPO / file).read_text())["services"]
                if "exec" in words:
                    service, *inside = words[words.index("exec") + 1 :]
                    assert service in services, f"{block}: {command}"
                    done = self.shell(f"{inside[0]} {inside[1]} --help")
                    assert done.returncode == 0, f"{block}: {command}"

    def make(self, block: Block) -> None:
        """Each line is a target that exists; what `make run` starts is started here."""
        for line in block.text.splitlines():
            target = line.split("#")[0].split()[1]
            done = subprocess.run(
                ["make", "--dry-run", "--no-print-directory", target],
                cwd=REPO,
                capture_output=True,
                text=True,
                timeout=COMMAND_TIME,
                check=False,
            )
            assert done.returncode == 0, f"{block}: make {target}\n{done.stderr}"
            if target == "run":
                started = done.stdout.splitlines()[-1].strip()
                assert started.endswith("lb run backends.yaml --demo"), started
                self.start("lb run backends.yaml --demo")

    def repeat(self, block: Block, step: object, words: list[str]) -> None:
        assert callable(step)
        end = time.monotonic() + (EVENTUALLY if "eventually" in words else 0)
        while True:
            try:
                step()
            except AssertionError:
                if time.monotonic() >= end:
                    raise
                time.sleep(0.1)
            else:
                return

    def check_run(self, block: Block, command: str, expected: str | None, code: int) -> None:
        done = self.shell(command)
        told = f"{block}: {command.strip()}\nexit {done.returncode}, printed:\n{done.stdout}{self.terminals()}"
        assert done.returncode == code, told
        if expected is not None:
            assert matches(self.local(expected), done.stdout), f"{told}\nexpected:\n{self.local(expected)}"

    def terminals(self) -> str:
        logs = sorted(self.directory.glob("terminal-*.log"))
        return "".join(f"\n--- {path.name}\n{path.read_text()[-3000:]}" for path in logs)

    def check_yaml(self, block: Block, words: list[str]) -> None:
        named = re.match(r"# (?P<name>[\w./-]+\.ya?ml)\b", block.text)
        documents = list(yaml.safe_load_all(block.text))
        if named:
            self.check_file(block, named["name"], words)
        elif "container" in words:
            manifests.check_lifecycle(documents[0])
            self.check_stop(block, documents[0]["lifecycle"]["preStop"]["exec"]["command"])
        else:
            for document in documents:
                assert manifests.is_manifest(document), f"{block}: neither a named file nor a manifest"
                manifests.check_shape(document)
                self.manifests.append(document)
                if document["kind"] == "ConfigMap":
                    for name, text in document["data"].items():
                        self.check_file(block, f"configmap/{name}", words, text)

    def check_file(self, block: Block, name: str, words: list[str], text: str = "") -> None:
        """Save the block, and let the program look at it that reads such files."""
        self.write(name, text or block.text)
        commands = [command for beginning, command in CHECKERS if Path(name).name.startswith(beginning)]
        assert commands, f"{block}: nobody checks a file called {name}"
        done = self.shell(f"{commands[0]} {name}")
        assert done.returncode == wanted_exit(words), f"{block}: {commands[0]} {name}\n{done.stdout}"

    def check_stop(self, block: Block, command: list[str]) -> None:
        """What a pod of blue runs before it is stopped, beside lb with the page's file."""
        self.start("lb run configmap/backends.yaml")
        script = command[-1].replace("//lb:", "//127.0.0.1:")
        assert command[:-1] == ["sh", "-c"] and script != command[-1], f"{block}: {command}"
        stateful = [one["metadata"]["name"] for one in self.manifests if one["kind"] == "StatefulSet"]
        pod = next(name for name in stateful if name.endswith("-blue"))
        once = Block(block.page, block.line, "sh", f"HOSTNAME={pod}-0 sh -c {shlex.quote(script)}", "")

        def stopped() -> None:
            self.check_run(once, once.text, '…"safe":…true…', 0)

        self.repeat(once, stopped, ["eventually"])

    def check_peer(self, block: Block) -> None:
        path = self.directory / f"{block.language}.conf"
        if block.language == "traefik":
            check_traefik(yaml.safe_load(block.text)["http"], str(block))
            return
        if block.language == "nginx":
            frame = "pid {}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{}\n}}\n"
            path.write_text(frame.format(self.directory, self.local(block.text)))
            done = self.shell(f"nginx -t -p {self.directory} -c {path}")
        else:
            path.write_text(self.local(block.text))
            done = self.shell(f"haproxy -c -f {path}")
        assert done.returncode == 0, f"{block}: {done.stdout}"

    def check_queries(self, block: Block) -> None:
        rules = {"groups": [{"name": "page", "rules": [{"record": f"q{n}", "expr": q} for n, q in queries(block)]}]}
        self.write("rules.yaml", yaml.safe_dump(rules))
        done = self.shell("promtool check rules rules.yaml")
        assert done.returncode == 0, f"{block}: {done.stdout}"


def check_traefik(http: dict[str, Any], name: str) -> None:
    """Traefik is not at hand: every name must lead somewhere, and nothing be there that nobody names."""
    services, middlewares = set(http["services"]), set(http.get("middlewares", {}))
    named = {router["service"] for router in http["routers"].values()}
    for service in http["services"].values():
        assert len(service) == 1 and set(service) <= {"loadBalancer", "weighted"}, f"{name}: {service}"
        named |= {one["name"] for one in service.get("weighted", {}).get("services", ())}
    assert named == services, f"{name}: services {services}, named are {named}"
    used = {one for router in http["routers"].values() for one in router.get("middlewares", ())}
    assert used == middlewares, f"{name}: middlewares {middlewares}, used are {used}"


def queries(block: Block) -> Iterator[tuple[int, str]]:
    for number, part in enumerate(re.split(r"\n\s*\n", block.text)):
        query = "\n".join(line for line in part.splitlines() if not line.startswith("#")).strip()
        if query:
            yield number, query


def dialogue(text: str) -> Iterator[tuple[str, str]]:
    """(command, what it prints) of each `$ ` line; a command may go on after a backslash."""
    command, printed = "", []
    continued = False
    for line in text.splitlines():
        if continued:
            command += "\n" + line
            continued = line.endswith("\\")
        elif line.startswith("$ "):
            if command:
                yield command, "\n".join(printed)
            command, printed = line[2:], []
            continued = line.endswith("\\")
        else:
            printed.append(line)
    if command:
        yield command, "\n".join(printed)


def matches(expected: str, printed: str) -> bool:
    """Whether `printed` is `expected`, in which … stands for anything; runs of blanks count as one."""
    pattern = ".*?".join(
        r"\s+".join(re.escape(word) for word in re.split(r"\s+", part)) for part in expected.strip().split("…")
    )
    return re.fullmatch(pattern, printed.strip(), re.S) is not None


def wanted_exit(words: list[str]) -> int:
    return int(words[words.index("exit") + 1]) if "exit" in words else 0
