"""Every kind of refusal the admin API knows, and how one becomes a problem document (RFC 9457).

Operations raise `Refused` with a constant of `core.refusals`; the port itself raises `Rejected` with a kind. A kind's
`type`, an address on this port, is made of its title. The meaning of a kind and its remedy are here, for `/problems/…`,
the OpenAPI document and the docs. HTTP statuses of refusals are here alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lb.config.yaml.problems import Problem as FileProblem
from lb.control.models import ConfigProblem, Problem, Reason
from lb.control.operations import InvalidFile
from lb.core.refusals import Obstacle, Refusal, Refused

#: Where the kinds are explained.
PLACE = "/problems/"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of refusal."""

    status: int
    title: str
    text: str  # what it means, and what to do
    refusal: Refusal | None = None  # of operations; None: the port itself refuses so

    @property
    def name(self) -> str:
        """The last part of its `type`."""
        return "-".join(self.title.lower().split())

    @property
    def type(self) -> str:
        """Its address."""
        return PLACE + self.name


_kinds: list[Kind] = []


def _kind(status: int, title: str, text: str, refusal: Refusal | None = None) -> Kind:
    kind = Kind(status, title, text, refusal)
    _kinds.append(kind)
    return kind


# About the request.
BAD_REQUEST = _kind(400, "Bad request", "The request cannot be read, or its Host header is missing or there twice.")
BAD_PARAMETER = _kind(400, "Bad parameter", "A parameter of the query is unknown, given twice, or not what it may be.")
BAD_IF_MATCH = _kind(400, "Bad If-Match", "If-Match must be an ETag of an earlier answer, or `*`.")
TOKEN_NEEDED = _kind(
    401,
    "Token needed",
    "Send `Authorization: Bearer TOKEN` with the token of `admin: token_file:`, or one of `admin: tokens:`.",
)
ROLE_NEEDED = _kind(
    403, "Role needed", "The token lacks a role that this operation needs: `admin: tokens:` says what each one may do."
)
FOREIGN_ORIGIN = _kind(403, "Foreign origin", "A page of another site sent this; only this port's own pages may.")
FOREIGN_PAGE = _kind(403, "Foreign page", "A page of another site asked for this, as its Sec-Fetch-Site header says.")
TOKEN_NEEDED_FOR_COMMANDS = _kind(
    403,
    "Token needed for commands",
    "The text runs other commands, writes other files or finds targets in other ones than the configuration does now. "
    "Without `admin: token_file:` anybody on this machine can reach the port: edit the file itself, or set a token.",
    Refusal.TOKEN_NEEDED_FOR_COMMANDS,
)
NOT_FOUND = _kind(404, "Not found", "There is nothing at this address; /openapi.json lists what there is.")
NO_SUCH_SERVICE = _kind(
    404, "No such service", "The configuration has no service of that name.", Refusal.NO_SUCH_SERVICE
)
NO_SUCH_POOL = _kind(404, "No such pool", "The service has no pool of that name.", Refusal.NO_SUCH_POOL)
NO_SUCH_TARGET = _kind(
    404,
    "No such target",
    "The configuration has no target of that name; an id is `service/pool/host:port`.",
    Refusal.NO_SUCH_TARGET,
)
NO_SUCH_CERTIFICATE = _kind(
    404,
    "No such certificate",
    "lb gets no certificate of that name by itself: neither from an ACME authority nor from its own.",
    Refusal.NO_SUCH_CERTIFICATE,
)
NO_SUCH_ROUTE = _kind(
    404,
    "No such route",
    "The configuration has no route of that name. A route without a `name` is called by its host and path, with `=` "
    "before an exact path and `~` before a regular expression.",
    Refusal.NO_SUCH_ROUTE,
)
METHOD_NOT_ALLOWED = _kind(405, "Method not allowed", "The Allow header says what can be done with this address.")
BODY_TOO_SLOW = _kind(408, "Body too slow", "The body did not come in time.")
BODY_TOO_LARGE = _kind(413, "Body too large", "A body may have 4 MiB.")
UNSUPPORTED_MEDIA_TYPE = _kind(
    415, "Unsupported media type", "The body must be `application/json`, and not compressed."
)
MISDIRECTED_REQUEST = _kind(
    421,
    "Misdirected request",
    "The Host header names another machine. IP addresses, `localhost`, the name in "
    "`admin: bind:` and those in `admin: allowed_hosts:` are taken.",
)
INVALID_REQUEST = _kind(
    422, "Invalid request", "The body does not say what is wanted; `reasons` say where.", Refusal.INVALID_REQUEST
)
CANNOT_BE_CHANGED = _kind(
    422,
    "Cannot be changed from here",
    "The setting is written in a way that cannot be changed by itself, or the "
    "text is not YAML; `detail` says which, and where. Change the text.",
)
FILE_INVALID = _kind(
    422,
    "The file is invalid",
    "The configuration has errors; `problems` lists all of them. Nothing changed.",
    Refusal.FILE_INVALID,
)
# About the state of things.
AMBIGUOUS_TARGET = _kind(
    409, "Ambiguous target", "The name fits several targets: say more of it.", Refusal.AMBIGUOUS_TARGET
)
AMBIGUOUS_ROUTE = _kind(
    409,
    "Ambiguous route",
    "Several routes have this host and path: give each a `name` in the file.",
    Refusal.AMBIGUOUS_ROUTE,
)
NOT_READY = _kind(
    409,
    "Not ready",
    "Too few targets of the pool are ready (`min_ready`); `reasons` say why for each. Wait, "
    "repair them, or send `force`.",
    Refusal.NOT_READY,
)
TOO_FEW_LEFT = _kind(
    409,
    "Too few would be left",
    "Without this target, or with it while it is not ready, its pool would have "
    "too few ready ones (`min_ready`, `panic_threshold`). "
    "Wait until others are ready, or send `force`.",
    Refusal.TOO_FEW_LEFT,
)
ROLLOUT_UNDER_WAY = _kind(
    409, "A rollout is under way", "Roll it back, or complete it, first.", Refusal.ROLLOUT_UNDER_WAY
)
OTHER_ORDER_UNDER_WAY = _kind(
    409,
    "Another order is under way",
    "Somebody is switching this service right now: look again, then decide.",
    Refusal.OTHER_ORDER_UNDER_WAY,
)
SERVICE_HAS_CHANGED = _kind(
    409,
    "The service has changed",
    "While the pre hook ran the service was switched, or a reload took a pool away. Look again, then decide.",
    Refusal.SERVICE_HAS_CHANGED,
)
PRE_HOOK_FAILED = _kind(
    409, "The pre hook failed", "The release's `pre` hook said no; nothing has changed.", Refusal.PRE_HOOK_FAILED
)
NOTHING_TO_ROLL_BACK_TO = _kind(
    409,
    "Nothing to roll back to",
    "The service was not switched: there is no previous pool.",
    Refusal.NOTHING_TO_ROLL_BACK_TO,
)
NOT_PROBED = _kind(
    409, "Not probed", "The target has `protocol: none`: it is never probed, and taken as ready.", Refusal.NOT_PROBED
)
NOT_NOW = _kind(
    409, "Not now", "An upgrade or the stop of lb is under way, and changes would be lost.", Refusal.NOT_NOW
)
NO_UPGRADE = _kind(409, "No upgrade", "This lb cannot be upgraded in place.", Refusal.NO_UPGRADE)
BACKED_OUT = _kind(409, "Backed out", "The new lb did not get ready; this one goes on.", Refusal.BACKED_OUT)
CANNOT_LISTEN = _kind(
    409, "Cannot listen", "An address of the new configuration cannot be had. Nothing changed.", Refusal.CANNOT_LISTEN
)
NO_TARGET_COULD_SERVE = _kind(
    409,
    "No target could serve",
    "With this file, a service that is served now would have no target that can "
    "serve: its clients would get 503. `reasons` say why for each target. Make one ready, change the file, or "
    "send `force` (with a text: `force_unserved`).",
    Refusal.NO_TARGET_COULD_SERVE,
)
FILE_NOT_WRITTEN = _kind(
    409,
    "The file cannot be written",
    "The configuration file cannot be replaced. Nothing changed.",
    Refusal.FILE_NOT_WRITTEN,
)
FILE_EDITED = _kind(
    409,
    "The file was edited",
    "The file is not what was loaded: somebody has edited it since. Reload it, or "
    "send `force` to replace it; the copy FILE~ keeps that edit.",
    Refusal.FILE_EDITED,
)
BASE_OUTDATED = _kind(
    412,
    "Somebody was faster",
    "What the order is based on (If-Match) is no longer so. Look again, then decide.",
    Refusal.BASE_OUTDATED,
)
IF_MATCH_NEEDED = _kind(
    428,
    "If-Match needed",
    "Replacing the configuration needs If-Match with the ETag of `GET /api/v1/config`, "
    "so that nobody's edit is lost; `*` replaces whatever there is.",
)
INTERNAL_ERROR = _kind(500, "Internal error", "A fault of lb itself; its log has the details.")
TOO_MANY_STREAMS = _kind(503, "Too many streams", "More event streams are open than lb allows; close some.")
NOT_CONFIRMED = _kind(
    504,
    "Not confirmed",
    "The change is decided and kept, but a worker has not confirmed it in time; it will, or "
    "be replaced. `reasons` names the worker and why.",
    Refusal.NOT_CONFIRMED,
)
#: All of them, in the order of their statuses' families: about the request, then about the state of things.
KINDS = tuple(_kinds)

BY_NAME = {kind.name: kind for kind in KINDS}
#: The kinds of operations' refusals.
BY_REFUSAL = {kind.refusal: kind for kind in KINDS if kind.refusal is not None}
#: The kinds of what the HTTP server itself refuses.
BY_STATUS = {
    kind.status: kind for kind in (BAD_REQUEST, NOT_FOUND, METHOD_NOT_ALLOWED, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE)
}


class Rejected(Exception):  # noqa: N818 - it says what happened
    """The port does not take a request, whatever an operation would say."""

    def __init__(self, kind: Kind, detail: str, obstacles: Iterable[Obstacle] = ()) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.obstacles = tuple(obstacles)


def problem(error: Refused | Rejected) -> Problem:
    """The document of a refusal."""
    kind = error.kind if isinstance(error, Rejected) else BY_REFUSAL[error.refusal]
    return Problem(
        type=kind.type,
        title=kind.title,
        status=kind.status,
        detail=error.detail,
        reasons=[
            Reason(target=each.target or None, where=each.where or None, reason=each.reason) for each in error.obstacles
        ],
        problems=[config_problem(each) for each in error.problems] if isinstance(error, InvalidFile) else [],
    )


def of_status(status: int, detail: str) -> Rejected:
    """A refusal of the HTTP server, as one of our kinds."""
    return Rejected(BY_STATUS.get(status, BAD_REQUEST if status < 500 else INTERNAL_ERROR), detail)


def config_problem(found: FileProblem) -> ConfigProblem:
    """An error or a warning of a configuration file, as it is sent."""
    return ConfigProblem(
        line=found.line,
        column=found.column,
        message=found.message,
        hint=found.hint,
        hints=found.hint.splitlines(),
        quote=found.quote,
        width=found.width,
        path=found.path,
    )


def explained(kind: Kind) -> str:
    """A kind in plain text."""
    return f"{kind.title} ({kind.status})\n\n{kind.text}\n"
