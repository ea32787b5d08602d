"""The admin API, as the client commands use it: one request, one JSON answer, and errors that help.

The address comes from `--admin` (before or after the command), then `$LB_ADMIN`, then the default; the token from
`--token-file` or `$LB_TOKEN_FILE`. Every request has a timeout. Nothing is retried: the operator sees what happened.
An error says what was tried and what to do; with `--json` it is a document on stdout as well (see `main`).
"""

from __future__ import annotations

import functools
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

import click

from lb.cli.failure import DEFAULT_ADMIN, Failure, Json
from lb.cli.plain_http import Answer, Connection, NotHttp
from lb.cli.terminal import aside, say, working

if TYPE_CHECKING:
    import ssl

TIMEOUT = 10.0  # seconds for an answer; commands that wait longer ask again instead
#: Seconds for the answer to an order: a switch may wait for a hook, a reload for names.
ORDER_TIMEOUT = 300.0

F = TypeVar("F", bound=Callable[..., Any])


class Refusal(Failure):
    """The admin API said no (RFC 9457 problem); `problem` holds its whole answer."""

    def __init__(self, status: int, problem: Json, advice: str = "") -> None:
        self.status = status
        self.problem = problem
        super().__init__(told(status, problem) + (f"\n  {advice}" if advice else ""))

    def document(self) -> Json:
        return {"status": self.status, **self.problem}


class Unreachable(Failure):
    """No answer came, or none that could be understood; `why` is the reason in a few words."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


def told(status: int, problem: Json) -> str:
    """A problem document as lines a person reads: what, why, and each reason on a line of its own."""
    title = str(problem.get("title") or f"status {status}")
    detail = str(problem.get("detail") or "")
    lines = [f"{title}: {detail}" if detail and detail != title else title]
    reasons = problem.get("reasons") or problem.get("errors") or []
    lines += [f"  {line_of(reason)}" for reason in reasons]
    return "\n".join(lines)


def line_of(reason: object) -> str:
    if not isinstance(reason, dict):
        return str(reason)
    subject = reason.get("target") or reason.get("where") or reason.get("loc") or ""
    text = reason.get("reason") or reason.get("message") or reason.get("detail") or ""
    return f"{subject}: {text}" if subject and text else str(subject or text or reason)


class Client:
    """One admin port. `where` is its URL as given, for messages."""

    def __init__(self, where: str, token_file: str = "", timeout: float = TIMEOUT, ca_file: str = "") -> None:
        self.where = where if "://" in where else f"http://{where}"
        url = urlsplit(self.where)
        try:
            self.host, self.port = url.hostname or "", url.port
        except ValueError as error:
            why = "its port is no number" if "cast" in str(error) else str(error)
            raise Failure(f"{where!r} is no address of an admin port: {why}; it looks like {DEFAULT_ADMIN}") from None
        if url.scheme not in ("http", "https") or not self.host:
            raise Failure(f"{where!r} is no address of an admin port; it looks like {DEFAULT_ADMIN}")
        self.tls = url.scheme == "https"
        self.prefix = url.path.rstrip("/")
        self.timeout = timeout
        self.quiet = False  # no progress on stderr
        self.ca_file = ca_file
        self.token_file = token_file
        self.token = self._read_token(token_file) if token_file else ""

    @staticmethod
    def _read_token(path: str) -> str:
        try:
            with open(path) as file:  # noqa: PTH123 - pathlib takes longer to import than to read it
                return file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = (error.strerror or "").lower() if isinstance(error, OSError) else "it is no text"
            raise Failure(f"cannot read the token file {path}: {why or error}") from None

    def get(self, path: str) -> Any:
        return self.ask("GET", path)

    def post(self, path: str, body: Json | None = None, *, doing: str = "", within: float = ORDER_TIMEOUT) -> Any:
        """An order; `doing` is what a terminal shows while it takes its time."""
        with working(doing or "waiting for lb", self.quiet):
            return self.ask("POST", path, body if body is not None else {}, within=within)

    def put(self, path: str, body: Json, *, doing: str = "") -> Any:
        with working(doing or "waiting for lb", self.quiet):
            return self.ask("PUT", path, body, within=ORDER_TIMEOUT)

    def ask(self, method: str, path: str, body: Json | None = None, *, within: float = 0.0) -> Any:
        """One request; the parsed JSON of a 2xx answer. Raises `Refusal` for the rest, `Unreachable` without one.

        `within`: seconds for the answer, if it may take longer than to connect.
        """
        headers = {"Accept": "application/json", **self._authority()}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection = self._connect()
        try:
            answer = connection.ask(method, self.prefix + path, headers, data, within or self.timeout)
            raw = answer.read()
        except TimeoutError:
            raise self._silent(within or self.timeout, order=body is not None) from None
        except (OSError, NotHttp) as error:
            raise self._unreachable(error) from None
        finally:
            connection.close()
        if answer.status // 100 != 2:
            raise self._refusal(answer, raw, path)
        if not raw:
            return {}
        try:
            return json.loads(raw)
        except ValueError:
            raise self._stranger(answer, path) from None

    def stream(
        self, path: str, last_id: str = "", connected: Callable[[], object] = str, alive: Callable[[], object] = str
    ) -> Iterator[tuple[str, str]]:
        """Server-sent events: (id, data) as they come; `connected` is called once the stream stands.

        `alive` is called at each sign of life that comes when nothing else does.

        A silence of a minute means that the connection is gone: lb gives a sign of life four times as often.
        """
        headers = {"Accept": "text/event-stream", **self._authority()}
        if last_id:
            headers["Last-Event-ID"] = last_id
        connection = self._connect()
        try:
            answer = connection.ask("GET", self.prefix + path, headers, None, 60.0)
            if answer.status != 200:
                raise self._refusal(answer, answer.read(), path)
            if "event-stream" not in answer.fields.get("content-type", ""):
                raise self._stranger(answer, path)
            connected()
            identity = ""
            data: list[str] = []
            for raw in answer:
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                if line.startswith(":"):
                    alive()
                elif not line and data:
                    yield identity, "\n".join(data)
                    data = []
                elif line.startswith("id:"):
                    identity = line[3:].strip()
                elif line.startswith("data:"):
                    data.append(line[5:].removeprefix(" "))
        except BrokenPipeError:
            raise  # (of the reader of our output)
        except (OSError, NotHttp) as error:
            raise self._unreachable(error) from None
        finally:
            connection.close()

    def target(self, tail: str) -> str:
        """The full id of the target that `tail` names. Raises `Failure` when none or several match."""
        status = self.get("/api/v1/status")
        return match_target(tail, target_ids(status))

    def _authority(self) -> dict[str, str]:
        """The identity and the token of the caller."""
        name = who()
        return {
            **({"Authorization": f"Bearer {self.token}"} if self.token else {}),
            **({"X-LB-Actor": name} if name else {}),
        }

    def _connect(self) -> Connection:
        context = self._context() if self.tls else None
        try:
            return Connection(self.host, self.port or (443 if self.tls else 80), self.timeout, context)
        except OSError as error:
            raise self._unreachable(error) from None

    def _context(self) -> ssl.SSLContext:
        import ssl  # takes as long to import as all else here, and most admin ports are plain

        try:
            return ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:  # an `SSLError` as well
            why = getattr(error, "reason", None) or error.strerror or str(error)
            raise Failure(
                f"cannot use the certificates in {self.ca_file}: {str(why).lower()}; it must be a PEM file."
            ) from None

    # --- what went wrong, and what to do about it -----------------------------------------------------------------

    def _unreachable(self, error: Exception) -> Unreachable:
        advice = (
            "Is `lb run` up there? Say where it is with --admin URL or LB_ADMIN=URL;\n"
            f"  the file's `admin: bind:` sets it (default {DEFAULT_ADMIN})."
        )
        if self.tls and (found := self._tls_fault(error)) is not None:
            why, advice = found
        elif isinstance(error, socket.gaierror):
            why = f"no such host ({self.host})"
        elif isinstance(error, TimeoutError):
            why = f"no answer within {self.timeout:g} s"
        elif isinstance(error, ConnectionRefusedError):
            why = "connection refused"
        elif isinstance(error, (NotHttp, ConnectionResetError)) and not self.tls:
            why = "something listens there, but it does not answer in HTTP"
            advice = f"If it speaks TLS, try --admin {self._other_scheme()}. {advice}"
        else:
            why = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
        return Unreachable(f"no admin port answers at {self.where}: {why}.\n  {advice}", why)

    def _tls_fault(self, error: Exception) -> tuple[str, str] | None:
        """Why there is no TLS, and what to do; None: the error is not one of TLS."""
        import ssl

        if isinstance(error, ssl.SSLCertVerificationError):
            why = f"its certificate is not trusted ({error.verify_message})"
            return why, "--ca-file FILE or LB_ADMIN_CA=FILE names the authorities to trust."
        if isinstance(error, ssl.SSLError):
            advice = f"An admin port without `tls` speaks plain HTTP: try --admin {self._other_scheme()}."
            return "it does not speak TLS", advice
        return None

    def _silent(self, seconds: float, order: bool) -> Unreachable:
        why = f"no answer within {seconds:g} s"
        advice = (
            "The order may still be carried out: `lb events` tells."
            if order
            else "Is it overloaded, or stopped (Ctrl-Z)?"
        )
        return Unreachable(f"{self.where} was reached, but gave {why}.\n  {advice}", why)

    def _refusal(self, answer: Answer, raw: bytes, path: str) -> Failure:
        """An answer that is no success: the admin port's own words, or the words of another program on that port."""
        problem = problem_of(raw)
        if "title" not in problem and answer.status not in (401, 403):
            return self._stranger(answer, path)
        advice = ""
        if answer.status == 401:
            advice = (
                f"The token in {self.token_file} is not the one that it wants."
                if self.token_file
                else "This admin port wants a token: give the file that holds it with --token-file FILE\n"
                "  or LB_TOKEN_FILE=FILE; it is the `admin: token_file:` of the configuration."
            )
        elif answer.status == 403 and problem.get("type") == "/problems/role-needed":
            advice = "Give the file of a token that has it with --token-file FILE or LB_TOKEN_FILE=FILE."
        return Refusal(answer.status, problem, advice)

    def _stranger(self, answer: Answer, path: str) -> Unreachable:
        why = f"it answered {path} with {answer.status}, but not as lb's admin port does"
        return Unreachable(
            f"{self.where} is no admin port: {why}.\n"
            "  It may be a listener of lb, where clients come in, or another server. Say where\n"
            f"  the admin port is with --admin URL or LB_ADMIN=URL (default {DEFAULT_ADMIN}).",
            why,
        )

    def _other_scheme(self) -> str:
        return (
            self.where.replace("https://", "http://", 1) if self.tls else self.where.replace("http://", "https://", 1)
        )


def who() -> str:
    """Whose name the events tell: LB_ACTOR (a deployment's, say), else the user's, also behind sudo."""
    found = next(
        (os.environ[name] for name in ("LB_ACTOR", "SUDO_USER", "USER", "LOGNAME") if os.environ.get(name)), ""
    )
    if not found:
        import pwd  # cron and containers set no name

        try:
            found = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            found = f"uid {os.getuid()}"
    return found[:64] if found.isascii() and found.isprintable() else ""


def preview(client: Client, path: str, body: Json, as_json: bool) -> None:
    """What an order would do, or why it would be refused; nothing is changed. The exit code is that of the order."""
    found = client.post(f"{path}/preview", body)
    refusal = found["refusal"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        for line in found["lines"]:
            say(line)
        if refusal:
            forced = "\n  --force would do it all the same." if found["forcible"] else ""
            aside(f"lb: it would be refused. {told(refusal.get('status', 0), refusal)}{forced}")
        else:
            aside("Nothing was changed (--dry-run).")
    if not found["allowed"]:
        raise SystemExit(1)


def problem_of(raw: bytes) -> Json:
    try:
        parsed = json.loads(raw)
    except ValueError:
        return {"detail": " ".join(raw[:300].decode("utf-8", "replace").split())}
    return parsed if isinstance(parsed, dict) else {"detail": str(parsed)}


def target_ids(status: Json) -> list[str]:
    return [target["id"] for service in status["services"] for pool in service["pools"] for target in pool["targets"]]


def match_target(tail: str, ids: list[str]) -> str:
    """The single id that `tail` is, or ends, at the border of a word if possible: `5001`, `127.0.0.1:5001`,
    `blue/…`."""
    exact = [known for known in ids if known == tail]
    at_border = [known for known in ids if known.endswith(("/" + tail, ":" + tail))]
    anywhere = [known for known in ids if known.endswith(tail)]
    for found in (exact, at_border, anywhere):
        if len(found) == 1:
            return found[0]
        if found:
            raise Failure(f"{tail!r} could be any of these; say more of it:\n  " + "\n  ".join(found))
    if not ids:
        raise Failure("this lb has no targets at all")
    listed = "\n  ".join(ids[:20]) + (f"\n  … and {len(ids) - 20} more" if len(ids) > 20 else "")
    ends = {known.split("/", skipped)[-1]: known for known in ids for skipped in (0, 1, 2)}
    raise Failure(f"no target ends in {tail!r}.{did_you_mean(tail, ends)} There are:\n  {listed}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean greeting?`, or nothing."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""


def in_path(name: str) -> str:
    """`name` as part of a URL path; the slashes of a target's id stay."""
    return quote(name, safe="/:@!$&'()*+,;=~")


def client_of(given: Mapping[str, Any], timeout: float = TIMEOUT) -> Client:
    """The client by the options `admin`, `token_file` and `ca_file`, as far as they are given, then by the
    environment."""
    where = given.get("admin") or os.environ.get("LB_ADMIN") or DEFAULT_ADMIN
    token = given.get("token_file") or os.environ.get("LB_TOKEN_FILE") or ""
    return Client(where, token, timeout, given.get("ca_file") or os.environ.get("LB_ADMIN_CA") or "")


def admin_options(function: F) -> F:
    """Gives a command `--admin`, `--token-file` and `--ca-file`, and a `Client` as its first argument."""

    @click.option("--admin", metavar="URL", help=f"Admin port ($LB_ADMIN; default {DEFAULT_ADMIN}).")
    @click.option("--token-file", metavar="FILE", help="File with the admin token ($LB_TOKEN_FILE).")
    @click.option("--ca-file", metavar="FILE", help="Authorities of its certificate ($LB_ADMIN_CA).")
    @click.pass_context
    @functools.wraps(function)
    def with_client(
        ctx: click.Context, /, *args: Any, admin: str | None, token_file: str | None, ca_file: str | None, **kw: Any
    ) -> Any:
        own = {"admin": admin, "token_file": token_file, "ca_file": ca_file}
        client = client_of({key: value or (ctx.obj or {}).get(key) for key, value in own.items()})
        client.quiet = bool(kw.get("as_json"))
        return function(client, *args, **kw)

    return with_client  # type: ignore[return-value]


def dry_run_option(function: F) -> F:
    return click.option("--dry-run", "-n", is_flag=True, help="Say what would happen; change nothing.")(function)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")(function)
