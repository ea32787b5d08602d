"""The admin API, as the client commands use it: one request, one JSON answer, and errors that help.

`http.client` because it is quick to import: `lb status` must answer in the time a person does not notice.
The address comes from `--admin` (before or after the command), then `$LB_ADMIN`, then the default; the token from
`--token-file` or `$LB_TOKEN_FILE`. Every request has a timeout. Nothing is retried: the operator sees what happened.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import click

DEFAULT_ADMIN = "http://127.0.0.1:9900"
TIMEOUT = 10.0  # seconds for an answer; commands that wait longer ask again instead

Json = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """Refused or failed: the reason goes to stderr, the exit code is 1."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        click.echo(f"lb: {self.message}", err=True)


class Refusal(Failure):
    """The admin API said no (RFC 9457 problem); `problem` holds its whole answer."""

    def __init__(self, status: int, problem: Json) -> None:
        self.status = status
        self.problem = problem
        super().__init__(told(status, problem))


def told(status: int, problem: Json) -> str:
    """A problem document as lines a person reads: what, why, and each reason on a line of its own."""
    title = str(problem.get("title") or http.client.responses.get(status, f"status {status}"))
    detail = str(problem.get("detail") or "")
    lines = [f"{title}: {detail}" if detail and detail != title else title]
    reasons = problem.get("reasons") or problem.get("errors") or []
    lines += [f"  {line_of(reason)}" for reason in reasons]
    if status == 401:
        lines.append("  This admin port wants a token: give the file that holds it with --token-file FILE.")
    return "\n".join(lines)


def line_of(reason: object) -> str:
    if not isinstance(reason, dict):
        return str(reason)
    subject = reason.get("target") or reason.get("where") or reason.get("loc") or ""
    text = reason.get("reason") or reason.get("message") or reason.get("detail") or ""
    return f"{subject}: {text}" if subject and text else str(subject or text or reason)


class Client:
    """One admin port. `where` is its URL as given, for messages."""

    def __init__(self, where: str, token_file: str = "", timeout: float = TIMEOUT) -> None:
        self.where = where if "://" in where else f"http://{where}"
        url = urlsplit(self.where)
        try:
            self.host, self.port = url.hostname or "", url.port
        except ValueError as error:
            raise Failure(f"{where!r} is no address of an admin port: {error}") from None
        if url.scheme not in ("http", "https") or not self.host:
            raise Failure(f"{where!r} is no address of an admin port; it looks like {DEFAULT_ADMIN}")
        self.tls = url.scheme == "https"
        self.prefix = url.path.rstrip("/")
        self.timeout = timeout
        self.token = self._read_token(token_file) if token_file else ""

    @staticmethod
    def _read_token(path: str) -> str:
        try:
            return Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(f"cannot read the token file {path}: {error}") from None

    def get(self, path: str) -> Any:
        return self.ask("GET", path)

    def post(self, path: str, body: Json | None = None, *, headers: dict[str, str] | None = None) -> Any:
        return self.ask("POST", path, body if body is not None else {}, headers=headers)

    def put(self, path: str, body: Json, *, headers: dict[str, str] | None = None) -> Any:
        return self.ask("PUT", path, body, headers=headers)

    def ask(self, method: str, path: str, body: Json | None = None, *, headers: dict[str, str] | None = None) -> Any:
        """One request; the parsed JSON of a 2xx answer. Raises `Refusal` for the rest, `Failure` when unreachable."""
        with_headers = {"Accept": "application/json", **self._authority(), **(headers or {})}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            with_headers["Content-Type"] = "application/json"
        connection = self._connection(self.timeout)
        try:
            connection.request(method, self.prefix + path, body=data, headers=with_headers)
            answer = connection.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        finally:
            connection.close()
        if answer.status // 100 != 2:
            raise Refusal(answer.status, problem_of(raw))
        if not raw:
            return {}
        try:
            return json.loads(raw)
        except ValueError:
            raise Failure(f"{self.where} answered something that is not JSON: is it lb's admin port?") from None

    def stream(self, path: str, last_id: str = "") -> Iterator[tuple[str, str]]:
        """Server-sent events: (id, data) as they come. A silence of a minute means the connection is gone."""
        connection = self._connection(60.0)
        headers = {"Accept": "text/event-stream", **self._authority()}
        if last_id:
            headers["Last-Event-ID"] = last_id
        try:
            connection.request("GET", self.prefix + path, headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise Refusal(answer.status, problem_of(answer.read()))
            identity = ""
            data: list[str] = []
            for raw in answer:
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                if not line and data:
                    yield identity, "\n".join(data)
                    data = []
                elif line.startswith("id:"):
                    identity = line[3:].strip()
                elif line.startswith("data:"):
                    data.append(line[5:].removeprefix(" "))
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        finally:
            connection.close()

    def target(self, tail: str) -> str:
        """The full id of the target that `tail` names. Raises `Failure` when none or several match."""
        status = self.get("/api/v1/status")
        return match_target(tail, target_ids(status))

    def _authority(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self.tls:
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def _unreachable(self, error: Exception) -> Failure:
        if isinstance(error, ssl.SSLCertVerificationError):
            why = f"its certificate is not trusted ({error.verify_message})"
        elif isinstance(error, socket.gaierror):
            why = f"no such host ({self.host})"
        elif isinstance(error, TimeoutError):
            why = f"no answer within {self.timeout:g} s"
        elif isinstance(error, ConnectionRefusedError):
            why = "connection refused"
        else:
            why = str(error) or type(error).__name__
        return Failure(
            f"no admin port answers at {self.where}: {why}.\n"
            "  Is `lb run` up there? Say where it is with --admin URL or LB_ADMIN=URL;\n"
            f"  the file's `admin: bind:` sets it (default {DEFAULT_ADMIN})."
        )


def problem_of(raw: bytes) -> Json:
    try:
        parsed = json.loads(raw)
    except ValueError:
        return {"detail": " ".join(raw[:300].decode("utf-8", "replace").split())}
    return parsed if isinstance(parsed, dict) else {"detail": str(parsed)}


def target_ids(status: Json) -> list[str]:
    return [target["id"] for service in status["services"] for pool in service["pools"] for target in pool["targets"]]


def match_target(tail: str, ids: list[str]) -> str:
    """The one id that `tail` is, or ends, at the border of a word if possible: `5001`, `127.0.0.1:5001`, `blue/…`."""
    exact = [known for known in ids if known == tail]
    at_border = [known for known in ids if known.endswith(("/" + tail, ":" + tail))]
    anywhere = [known for known in ids if known.endswith(tail)]
    for found in (exact, at_border, anywhere):
        if len(found) == 1:
            return found[0]
        if found:
            raise Failure(f"{tail!r} could be any of these; say more of it:\n  " + "\n  ".join(found))
    listed = "\n  ".join(ids[:20]) + ("\n  …" if len(ids) > 20 else "")
    raise Failure(f"no target ends in {tail!r}. There are:\n  {listed}" if ids else "this lb has no targets at all")


def in_path(name: str) -> str:
    """`name` as part of a URL path; the slashes of a target's id stay."""
    return quote(name, safe="/:@!$&'()*+,;=~")


def admin_options(function: F) -> F:
    """Gives a command `--admin` and `--token-file`, and a `Client` as its first argument."""

    @click.option("--admin", metavar="URL", help=f"Admin port ($LB_ADMIN; default {DEFAULT_ADMIN}).")
    @click.option("--token-file", metavar="FILE", help="File with the admin token ($LB_TOKEN_FILE).")
    @click.pass_context
    @functools.wraps(function)
    def with_client(ctx: click.Context, /, *args: Any, admin: str | None, token_file: str | None, **kw: Any) -> Any:
        given = ctx.obj or {}
        where = admin or given.get("admin") or os.environ.get("LB_ADMIN") or DEFAULT_ADMIN
        token = token_file or given.get("token_file") or os.environ.get("LB_TOKEN_FILE") or ""
        return function(Client(where, token), *args, **kw)

    return with_client  # type: ignore[return-value]


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")(function)
