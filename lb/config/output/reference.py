"""docs/configuration.md, made from the model: `python -m lb.config.output.reference > docs/configuration.md`.

A test holds the page against what this makes.
"""

from __future__ import annotations

import re
import sys
from typing import Any, get_args

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lb.config.model import coerce
from lb.config.model.config import Config
from lb.config.model.described import descriptions
from lb.config.model.fields import Bounds
from lb.config.model.section import Section
from lb.config.model.structure import inner
from lb.config.output.schema import default_of

#: The kind of a field, by the function that reads or checks it; the more telling ones last.
_KINDS: dict[str, str] = {
    "read_text": "text",
    "read_flag": "true or false",
    "read_whole": "whole number",
    "read_number": "number",
    "read_duration": "duration",
    "read_size": "size",
    "read_rate": "rate",
    "read_moment": "date and time",
    "read_percent": "percentage",
    "read_statuses": "statuses",
    "read_quorum": "percentage or number",
    "name": "name",
    "not_empty": "text",
    "path": "path",
    "route_path": "path",
    "route_host": "host",
    "header_name": "header name",
    "header_value": "text",
    "method": "method",
    "request_method": "method",
    "route_pattern": "regex",
    "condition_value": "text or /regex/",
    "cookie_name": "cookie name",
    "header_template": "text with variables",
    "redirect_to": "URL or path",
    "url": "URL",
    "expected": "text or /regex/",
    "hash_key": "key",
    "client_key": "key",
    "limit_key": "key",
    "bind": "address",
    "target": "target URL",
    "network": "network",
    "client_network": "network",
    "server_host": "host",
    "domain": "domain name",
    "resolver": "address",
    "agent": "URL",
    "engine": "URL",
    "file": "file",
    "log_file": "file",
}

INTRODUCTION = """\
# Configuration

One YAML file describes everything; `lb run FILE` serves it, `lb check FILE` judges it, `lb plan FILE` says what a
reload with it would change, and `lb schema` prints its JSON Schema for editors.

This page is made from the model that reads the file (`python -m lb.config.output.reference`).

## The smallest file

```yaml
# backends.yaml
backends: [http://127.0.0.1:5001, http://127.0.0.1:5002]
```

It means one service `default` with one pool `default`, a route `/`, round robin, and a TCP readiness check. The listener
is `0.0.0.0:8080`, the admin port `127.0.0.1:9900`. `readiness`, `liveness` and `balance` may stand beside
`backends` and belong to that service; everything that is not about a service may as well. Anything more takes the long
form:

```yaml
# backends.yaml
listeners:
  - bind: 0.0.0.0:8080
services:
  greeting:
    pools:
      blue: {targets: [http://127.0.0.1:5001, {url: http://127.0.0.1:5002, weight: 2}]}
      green: {targets: [http://127.0.0.1:5003, http://127.0.0.1:5004]}
    active: blue
    readiness: {path: /health/readiness, interval: 2s, timeout: 1s, rise: 2, fall: 3}
    liveness: {path: /health/liveness, interval: 10s}
routes:
  - {path: /, service: greeting}
```

## How values are written

| kind | written as | notes |
| --- | --- | --- |
| duration | `250ms`, `2s`, `1m`, `1h30m` | a number without a unit is an error: peers disagree about what it means |
| size | `64KiB`, `10MiB`, `512` | a bare number counts bytes; `kB`, `MB` are powers of ten |
| percentage | `20%`, `0.5%` | |
| statuses | `200`, `200-299`, `200-299,304` | a list of them will do as well; with a comma inside `{ }` put it in quotes |
| target URL | `http://host:port`, `https://host:port`, `h2c://host:port` (HTTP/2), `h2://host:port` (HTTP/2 over TLS), `host:port`, `unix:/path` | without a path; an IPv6 address in brackets, and in quotes inside `[ ]` |
| address | `host:port`, `[IPv6]:port`, `:port`, `unix:/path` | port 0 takes a free one |
| file | a path | relative ones begin at the configuration file's folder |
| name | letters, digits, `.`, `_`, `-`; at most 63 | `none` is taken |

- `${NAME}` and `${NAME:-default}` read the environment, inside any value, quoted or not; `$$` is a dollar sign. A
  variable that is not set and has no default is an error. The value of a variable can never change the structure of the
  file.
- An unknown key is an error, and so is a key that is given twice, or has no value. All errors of a file are reported at
  once, each with its line and column.
- Anchors, aliases and `<<` merges work. Keys at the top that begin with `x-` are not read: a place for anchors.
- Where YAML 1.1 and 1.2 read a value differently, it is refused: write `true` and `false` (not `yes`, `on`), `10` (not
  `010`), `1m30s` (not `1:30`). In a text all of these are just text.
- A check may be refined: options of a pool's `readiness` stand over the service's, and a target's over its pool's.

## What a reload changes

`lb reload` (or SIGHUP, or `watch: true`) reads the file again. An invalid one changes nothing. Targets whose address is
unchanged keep their health, connections and counters. Under another name they keep health, drains and connections.
Removed targets drain. `admin`, `workers` and `state_dir` are read at the start only; `lb plan` says so.
"""  # noqa: E501 - the rows of a table


def page() -> str:
    """The whole page."""
    homes = _homes()
    parts = [INTRODUCTION, "# Reference\n"]
    for section, path in homes.items():
        title = f"### `{path}`" if path else "## The file"
        text = " ".join((section.__doc__ or "").split())
        rows = ["| key | takes | default | |", "| --- | --- | --- | --- |"]
        rows += [
            f"| `{name}` | {_takes(field, homes)} | {_default(field)} | {_meaning(section, name)} |"
            for name, field in section.model_fields.items()
        ]
        parts.append("\n\n".join((title, text, "\n".join(rows))) + "\n")
    return "\n".join(parts)


def _homes() -> dict[type[Section], str]:
    """Each section, and the path where it is described: the shortest one that leads to it."""
    homes: dict[type[Section], str] = {Config: ""}
    waiting: list[type[Section]] = [Config]
    while waiting:
        section = waiting.pop(0)
        for name, field in section.model_fields.items():
            path = f"{homes[section]}.{name}" if homes[section] else name
            kind, what = inner(field.annotation)
            while kind in ("list", "mapping"):
                path += "[]" if kind == "list" else ".NAME"
                kind, what = inner(what)
            if kind == "section" and what not in homes:
                homes[what] = path
                waiting.append(what)
    return homes


def _takes(field: FieldInfo, homes: dict[type[Section], str]) -> str:
    kind, what = inner(field.annotation)
    if kind == "section":
        return _link(what, homes)
    if kind == "list":
        return f"list of {_item(what, homes)}"
    if kind == "mapping":
        return f"name: {_item(what, homes)}"
    if kind == "choice":
        return ", ".join(f"`{value}`" for value in what)
    metadata = [*field.metadata]
    for part in get_args(field.annotation):  # `FilePath | None` keeps what it is made of one level down
        metadata += getattr(part, "__metadata__", ())
    return _of_metadata(metadata) or "text"


def _item(annotation: Any, homes: dict[type[Section], str]) -> str:
    kind, what = inner(annotation)
    if kind == "section":
        return _link(what, homes)
    item = _of_metadata(list(getattr(annotation, "__metadata__", ()))) or "text"
    return item if item.endswith(("s", "/")) else f"{item}s"


def _link(section: type[Section], homes: dict[type[Section], str]) -> str:
    anchor = re.sub(r"[^a-z0-9_-]", "", homes[section].lower())
    return f"[mapping](#{anchor})"


def _of_metadata(metadata: list[Any]) -> str:
    kind, bounds = "", ""
    for one in metadata:
        if isinstance(one, Bounds):
            bounds = f", {one}"
        elif getattr(one, "func", None) is coerce.above_zero:
            bounds = ", above 0"
        else:
            name = getattr(getattr(one, "func", None), "__name__", "")
            if name in _KINDS:
                kind = _KINDS[name]
    return f"{kind}{bounds}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    default = default_of(field)
    if default is PydanticUndefined or default in ("", [], {}):
        return ""
    written = yaml.safe_dump(default, default_flow_style=True, width=200).removesuffix("...\n").strip().strip("'")
    return f"`{written}`"


def _meaning(section: type[Section], name: str) -> str:
    return " ".join(descriptions(section).get(name, "").split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page())
