"""`python -m lb.control.reference` writes docs/metrics.md and docs/api.md from what the code itself goes by."""

from __future__ import annotations

from pathlib import Path

from lb.control.api.app import ENDPOINTS
from lb.control.api.openapi import TAGS
from lb.control.api.problems import KINDS
from lb.control.metrics import METRICS, STATES
from lb.core.report import BUCKETS
from lb.core.roles import ROLES

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "metrics.md"
API_PAGE = DOCS / "api.md"

API_BEGINNING = """\
# Admin API

Everything the dashboard and the `lb` command know comes from here: JSON over HTTP on the admin port, by default
`http://127.0.0.1:9900`. The port describes itself at `/openapi.json` (OpenAPI 3.1), and `/docs` shows that description
in a browser and tries requests. This page is made from the code by `make docs`.

<!-- test: beside lb run backends.yaml --demo -->
```sh
curl http://127.0.0.1:9900/api/v1/status
curl http://127.0.0.1:9900/api/v1/explain/greeting
curl -X POST http://127.0.0.1:9900/api/v1/services/greeting/switch \\
  -H 'Content-Type: application/json' -d '{"to": "green", "steps": [5, 25, 100], "step_time": "60s"}'
```

A target is named `service/pool/host:port`, or by any ending that matches exactly one target. Slashes in the name need
no escaping in a path.

## Who may ask

- **Token.** With `admin: token_file:` or `admin: tokens:` every request needs `Authorization: Bearer TOKEN`. Exempt are
  paths that tell nothing about the configuration: `/livez`, `/readyz`, `/openapi.json`, `/problems/…` and the files of
  the pages. A bind that is not loopback needs a token. Tokens are compared in constant time.
- **Roles.** The token of `token_file` allows everything. Each of `tokens` has a name and roles, and an operation needs
  one of the roles in its row below; else it is refused with 403, and the answer names the roles. None includes another
  one. A reload takes files that were replaced: the former tokens count no more, and their event streams end.
- **TLS.** With `admin: tls:` the port speaks HTTPS. A reload takes a certificate that was renewed, for new connections.
- **Host.** The `Host` header must be there once. It must be an IP address, `localhost`, the name in `admin: bind:`, or
  one of `admin: allowed_hosts:`. A site that lets its own name resolve to this machine (DNS rebinding) gets 421.
- **Pages of other sites.** An `Origin` must be this port itself (`null` is not). A browser that says in
  `Sec-Fetch-Site` that another site asks is refused with 403, also for images and frames. Other sites may link to the
  pages. No answer has CORS headers.
- **Commands.** Without a token, `PUT /api/v1/config` refuses new commands to run and new files to write. Else any
  client of the port could run programs as lb's user. Commands and files that the file has already may stay.

## Changes

Each answer carries an `ETag`. An order with that in `If-Match` is refused with 412 when anything was changed since: a
switch, a drain, a weight, a reload. The answer names the change and the operator. Without `If-Match`, or
with `*`, an order stands as it is; only `PUT /api/v1/config` must have one. It and `POST /api/v1/reload` compare the
text of the configuration alone (the ETag of `GET /api/v1/config`). `If-None-Match` with the same ETags works for `GET`.

`…/preview` beside an order says what it would do, or why it would be refused and whether `force` would help. Nothing is
changed, and no event is logged. `lines` say it in words. `changes` say the same to programs. Each has a `kind`, such as
`share` or `unserved`, with the service, pool or target, and the values before and after.

`PUT /api/v1/config` with `{"text": "…"}` makes a text the configuration, whole or not at all. It is validated and new
listeners are opened; then the file is replaced in one step and the text is in force. The former text stays beside the
file as `FILE~`. When the file was edited since it was loaded, replacing it takes `"force": true`.

An answer to a change means that every worker serves by it.

## Events

`GET /api/v1/events` lists the newest 5000 events: state changes, switches, drains, reloads. Each order's event has
its operator (`actor`: the token's name, the value of `X-LB-Actor`, and the address), its time, and the values `before`
and `after`. `since`, `after`, `limit`, `kind` and `subject` choose.

`text` is for people. Programs compare `kind`, `service`, `pool`, `target`, `before`, `after` and `cause`. For example,
`cause` tells a target that refused (`refused`) from one that was too slow (`timeout`). Two events are alike when all
these fields but `target` are equal. An explanation's `predicate` is its `summary` without the subject.

With `Accept: text/event-stream` the same comes as server-sent events, as it happens. A client that comes again with
`Last-Event-ID`, as browsers do, misses nothing; if events are not known any more, a note says which. A comment comes
every 15 seconds when nothing else does. A client that does not read is let go after 10 seconds, or when 1000 events
wait for it. 100 streams can be open.

<!-- test: background -->
```sh
curl -N -H 'Accept: text/event-stream' 'http://127.0.0.1:9900/api/v1/events?kind=switch,rollout'
```

## Status for many

Each request for a status asks all workers. A client that polls should send `Cache-Control: max-age=1`: all such clients
share one status that is at most a second old.
"""


def page() -> str:
    """The whole page."""
    bounds = ", ".join(f"{bound:g}" for bound in BUCKETS)
    lines = [
        "# Metrics",
        "",
        "`/metrics` on the admin port, in the Prometheus text format. This page is made from the code by `make docs`.",
        "",
        "Workers count on plain integers. A scrape asks every worker for its newest ones and adds them up. Counts of",
        "workers that have ended are included, so that sums are exact. Durations are seconds. Labels are bounded by",
        "the configuration, by status codes, and by reasons that the code knows.",
        "",
        "Removed parts of the configuration are counted together. So no sum goes backwards, and names that come and go",
        "leave nothing behind. A pool's former targets count as target `removed`, a service's former pools as pool",
        "`removed`, former services as service `removed`. That is one more for each service, and one service more. For",
        'a rate by name, leave them out: `{pool!="removed"}`. Retries, copies, probes and switches of removed parts',
        "are dropped.",
        "",
        f"Histograms have these bounds: {bounds}.",
        "",
        f"A target's `state` is one of {', '.join(f'`{state}`' for state in STATES)}.",
        "",
        "| metric | type | labels | what it says |",
        "| --- | --- | --- | --- |",
    ]
    for name, (kind, labels, text) in METRICS.items():
        shown = ", ".join(f"`{label}`" for label in labels) or "–"
        lines.append(f"| `{name}` | {kind} | {shown} | {text} |")
    return "\n".join([*lines, ""])


def api_page() -> str:
    """The whole page about the admin API."""
    lines = [API_BEGINNING, "## Operations", "", "| role | allows |", "| --- | --- |"]
    lines += [*(f"| `{role}` | {text} |" for role, text in ROLES.items()), ""]
    for tag, text in TAGS.items():
        lines += [f"**{tag.capitalize()}.** {text}", "", "| request | does | role | answers |"]
        lines.append("| --- | --- | --- | --- |")
        for endpoint in ENDPOINTS:
            if endpoint.tag == tag:
                refused = {kind.status for kind in endpoint.refusals}
                codes = ", ".join(map(str, sorted({*endpoint.answers, *refused})))
                roles = " or ".join(endpoint.roles) or "–"
                lines.append(f"| `{endpoint.method} {endpoint.path}` | {endpoint.summary} | {roles} | {codes} |")
        lines.append("")
    lines += [
        "Any operation may also be answered with 400, 401, 403, 421 and 500. An operation with a body adds 408, 413,",
        "415 and 422, one with a name in the path adds 404, and 409 when the name is ambiguous. A change adds 412.",
        "",
        "## Problems",
        "",
        "Refusals are `application/problem+json` (RFC 9457). `type` is the address of the kind on this port, always",
        "the same for one kind; `title` is the kind in words; `detail` says what happened this time; `reasons` names",
        "each target, field or place that is in the way; `problems` lists the errors of a configuration text with",
        "line, column, quote and hint.",
        "",
        "| type | status | what it means |",
        "| --- | --- | --- |",
        *(f"| `{kind.type}` | {kind.status} | {kind.text} |" for kind in KINDS),
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    API_PAGE.write_text(api_page(), encoding="utf-8")
