"""Every kind of refusal the admin API knows, and how one becomes a problem document (RFC 9457).

A kind is known by its title: the supervisor raises `Refused` with it. Its `type`, an address on this port, is made of
the title. What a kind means and what to do about it is here, for `/problems/…`, the OpenAPI document and the docs.
"""

from __future__ import annotations

from dataclasses import dataclass

from lb.control.models import Problem, Reason
from lb.control.operations import Refused

#: Where the kinds are explained.
PLACE = "/problems/"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of refusal."""

    status: int
    title: str
    text: str  # what it means, and what to do

    @property
    def name(self) -> str:
        """The last part of its `type`."""
        return "-".join(self.title.lower().split())

    @property
    def type(self) -> str:
        """Its address."""
        return PLACE + self.name


KINDS: tuple[Kind, ...] = (
    # About the request.
    Kind(400, "Bad request", "The request cannot be read, or its Host header is missing or there twice."),
    Kind(400, "Bad parameter", "A parameter of the query is unknown, given twice, or not what it may be."),
    Kind(400, "Bad If-Match", "If-Match must be an ETag of an earlier answer, or `*`."),
    Kind(401, "Token needed", "Send `Authorization: Bearer TOKEN` with the token of `admin: token_file:`."),
    Kind(403, "Foreign origin", "A page of another site sent this; only this port's own pages may."),
    Kind(403, "Foreign page", "A page of another site asked for this, as its Sec-Fetch-Site header says."),
    Kind(403, "Token needed for commands", "The text runs other commands than the configuration does now. Without "
         "`admin: token_file:` anybody on this machine can reach the port: edit the file itself, or set a token."),
    Kind(404, "Not found", "There is nothing at this address; /openapi.json lists what there is."),
    Kind(404, "No such service", "The configuration has no service of that name."),
    Kind(404, "No such pool", "The service has no pool of that name."),
    Kind(404, "No such target", "The configuration has no target of that name; an id is `service/pool/host:port`."),
    Kind(405, "Method not allowed", "The Allow header says what can be done with this address."),
    Kind(408, "Body too slow", "The body did not come in time."),
    Kind(413, "Body too large", "A body may have 4 MiB."),
    Kind(415, "Unsupported media type", "The body must be `application/json`, and not compressed."),
    Kind(421, "Misdirected request", "The Host header names another machine. IP addresses, `localhost`, the name in "
         "`admin: bind:` and those in `admin: allowed_hosts:` are taken."),
    Kind(422, "Invalid request", "The body does not say what is wanted; `reasons` say where."),
    Kind(422, "Cannot be changed from here", "The setting is written in a way that cannot be changed by itself, or the "
         "text is not YAML; `detail` says which, and where. Change the text."),
    Kind(422, "The file is invalid", "The configuration has errors; `problems` lists all of them. Nothing changed."),
    # About the state of things.
    Kind(409, "Ambiguous target", "The name fits several targets: say more of it."),
    Kind(409, "Not ready", "Too few targets of the pool are ready (`min_ready`); `reasons` say why for each. Wait, "
         "repair them, or send `force`."),
    Kind(409, "Too few would be left", "Without this target, or with it while it is not ready, its pool would have "
         "too few ready ones (`min_ready`, `panic_threshold`). "
         "Wait until others are ready, or send `force`."),
    Kind(409, "A rollout is under way", "Roll it back, or complete it, first."),
    Kind(409, "Another order is under way", "Somebody is switching this service right now: look again, then decide."),
    Kind(409, "The service has changed", "While the pre hook ran the service was switched, or a reload took a pool "
         "away. Look again, then decide."),
    Kind(409, "The pre hook failed", "The release's `pre` hook said no; nothing has changed."),
    Kind(409, "Nothing to roll back to", "The service was not switched: there is no previous pool."),
    Kind(409, "Not probed", "The target has `protocol: none`: it is never probed, and taken as ready."),
    Kind(409, "Not now", "An upgrade or the stop of lb is under way, and changes would be lost."),
    Kind(409, "No upgrade", "This lb cannot be upgraded in place."),
    Kind(409, "Backed out", "The new lb did not get ready; this one goes on."),
    Kind(409, "Cannot listen", "An address of the new configuration cannot be had. Nothing changed."),
    Kind(409, "No target could serve", "With this file, a service that is served now would have no target that can "
         "serve: its clients would get 503. `reasons` say why for each target. Make one ready, change the file, or "
         "send `force` (with a text: `force_unserved`)."),
    Kind(409, "The file cannot be read", "The configuration file is gone or unreadable; what runs goes on."),
    Kind(409, "The file cannot be written", "The configuration file cannot be replaced. Nothing changed."),
    Kind(409, "The file was edited", "The file is not what was loaded: somebody has edited it since. Reload it, or "
         "send `force` to replace it; the copy FILE~ keeps that edit."),
    Kind(412, "Somebody was faster", "What the order is based on (If-Match) is no longer so. Look again, then decide."),
    Kind(428, "If-Match needed", "Replacing the configuration needs If-Match with the ETag of `GET /api/v1/config`, "
         "so that nobody's edit is lost; `*` replaces whatever there is."),
    Kind(500, "Internal error", "A fault of lb itself; its log has the details."),
    Kind(503, "Too many streams", "More event streams are open than lb allows; close some."),
    Kind(504, "Not confirmed", "The change is decided and kept, but a worker has not confirmed it in time; it will, or "
         "be replaced. `reasons` names the worker and why."),
)  # fmt: skip

BY_TITLE = {kind.title: kind for kind in KINDS}
BY_NAME = {kind.name: kind for kind in KINDS}

#: The kinds of what the HTTP server itself refuses.
BY_STATUS = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    413: "Body too large",
    415: "Unsupported media type",
}


def problem(refused: Refused) -> Problem:
    """The document of a refusal."""
    kind = BY_TITLE.get(refused.title)
    return Problem(
        type=kind.type if kind is not None else "about:blank",
        title=refused.title,
        status=refused.status,
        detail=refused.detail,
        reasons=[Reason(**reason) for reason in refused.reasons],
        problems=list(refused.problems),
    )


def of_status(status: int, detail: str) -> Refused:
    """What the HTTP server refused, as one of our kinds."""
    kind = BY_TITLE[BY_STATUS.get(status, "Bad request" if status < 500 else "Internal error")]
    return Refused(kind.status, kind.title, detail)


def explained(kind: Kind) -> str:
    """A kind in plain text."""
    return f"{kind.title} ({kind.status})\n\n{kind.text}\n"
