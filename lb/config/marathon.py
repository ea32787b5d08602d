"""A Marathon app definition's health checks → the text of a configuration that does the same. Pure.

Where Marathon's own pages and its source differ, the source counts (mesosphere/marathon, HealthCheckActor):

- `maxConsecutiveFailures: 3` kills a task on the *fourth* failure in a row, because it compares the count before this
  failure. So liveness gets `fall: 4`, and readiness takes the traffic away one failure earlier, at 3. The value 0 means
  "never" for HTTP, HTTPS, TCP and COMMAND. It means "at the first" for MESOS_HTTP, MESOS_HTTPS and MESOS_TCP, which
  Mesos runs.
- One pass makes a task healthy again: `rise: 1`.
- 200 to 399 is healthy. HTTPS certificates are never verified.
- Failures within `gracePeriodSeconds` do not count until the first pass: that is what `grace` means here.

One Marathon check does two things: it decides on health and it kills. Here these are two checks with the same question.
That is the common mistake that `lb check` warns of, and the file says so at the place.

A setting without an equivalent is not dropped silently: each one is a comment in the file and a note for the reader.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from lb.config.model.units import format_duration
from lb.config.output.write import write_data

PROTOCOLS = {
    "HTTP": "http", "HTTPS": "https", "TCP": "tcp", "COMMAND": "command",
    "MESOS_HTTP": "http", "MESOS_HTTPS": "https", "MESOS_TCP": "tcp",
}  # fmt: skip
#: The parts of a health check that are read.
KNOWN = frozenset(
    (
        "protocol", "path", "gracePeriodSeconds", "intervalSeconds", "timeoutSeconds", "maxConsecutiveFailures",
        "ignoreHttp1xx", "portIndex", "port", "command",
    )
)  # fmt: skip
#: Mesos gives tasks ports from here on; used where a file has to name an address that is not known yet.
FIRST_PORT = 31000
MOST_PLACEHOLDERS = 16


class NotMarathon(ValueError):  # noqa: N818 - it says what the file is not
    """The text is no app definition; the message says where and what is allowed."""


@dataclass
class Imported:
    """The file, and what its reader must know."""

    text: str
    notes: list[str] = field(default_factory=list)


@dataclass
class _App:
    """One service of the file to be."""

    name: str
    block: dict[str, Any]
    comments: list[str]  # what has no equivalent, or needs an eye
    hosts: list[str]
    path: str


def import_marathon(text: str, targets: tuple[str, ...] = ()) -> Imported:
    """The configuration for one app, a group, or the answer of `/v2/apps`; `targets` are the app's addresses."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise NotMarathon(f"line {error.lineno}, column {error.colno}: this is not JSON: {error.msg}") from None
    except RecursionError:
        raise NotMarathon("this is nested too deeply to be an app definition") from None
    definitions = _apps(document)
    if not definitions:
        raise NotMarathon("there is no app in it: an object with `id` and `healthChecks`, or `apps`, is expected")
    if targets and len(definitions) > 1:
        raise NotMarathon(f"targets can be given for one app, and there are {len(definitions)} in it")
    names: set[str] = set()
    apps = [_app(definition, targets, names) for definition in definitions]
    return _written(apps)


def _apps(document: Any) -> list[dict[str, Any]]:
    if isinstance(document, list):
        return [app for one in document for app in _apps(one)]
    if not isinstance(document, dict):
        raise NotMarathon(f"an app definition is a JSON object, not {_shown(document)}")
    if isinstance(document.get("app"), dict):
        return _apps(document["app"])
    found: list[dict[str, Any]] = []
    for key in ("apps", "groups"):
        if isinstance(document.get(key), list):
            found += [app for one in document[key] for app in _apps(one)]
    if not found and ("healthChecks" in document or "id" in document) and "apps" not in document:
        return [document]
    # A health check by itself, as the documentation shows them.
    if not found and "protocol" in document and KNOWN.issuperset(document):
        return [{"healthChecks": [document]}]
    return found


# --- one app ---------------------------------------------------------------------------------------------------------


def _app(app: dict[str, Any], given: tuple[str, ...], names: set[str]) -> _App:
    comments: list[str] = []
    name = _name(app, names)
    where = f"app {app.get('id') or name}"
    checks = _list(app, "healthChecks", where)
    block: dict[str, Any] = {}
    main = _read(checks[0], f"{where}, healthChecks[0]", comments) if checks else None
    speaks_tls = main is not None and main["protocol"] == "https" and not main["other_port"]
    targets, port = _targets(app, given, main, speaks_tls, comments)
    block["pools"] = {"default": {"targets": targets}}
    if speaks_tls:
        block["tls"] = {"verify": False}
        comments.append("Marathon never verifies certificates, so `tls: verify: false` is kept. Better: `ca_file`.")
    if main is None:
        comments.append("The app has no health checks: readiness is a TCP check, which says little.")
        block["readiness"] = "tcp"
    else:
        if port and main["protocol"] != "command":
            main["options"]["port"] = port
        if main["protocol"] == "https" and not speaks_tls:
            main["options"]["tls"] = {"verify": False}
            comments.append("Marathon never verifies certificates, so the check does not either. Better: `ca_file`.")
        block |= _two_checks(main, comments)
    for index, check in enumerate(checks[1:], 1):
        # Marathon wants all of them to pass; a service here has one readiness check.
        shown = json.dumps(check, sort_keys=True)
        comments.append(f"healthChecks[{index}] has no equivalent, a service has one readiness check: {shown}")
    if app.get("readinessChecks"):
        comments.append(
            "readinessChecks gate deployments in Marathon, and end with the first pass. Here readiness is asked all "
            "the time; if theirs is the better question, put its path into `readiness`."
        )
    hosts, path = _labels(app.get("labels"), comments)
    return _App(name, block, comments, hosts, path)


def _name(app: dict[str, Any], names: set[str]) -> str:
    given = str(app.get("id") or "").strip("/")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", given).strip("._-")[:60].rstrip("._-") or "app"
    if name == "none":
        name = "app-none"
    unique, number = name, 2
    while unique in names:
        unique, number = f"{name}-{number}", number + 1
    names.add(unique)
    return unique


def _read(check: Any, where: str, comments: list[str]) -> dict[str, Any]:
    """One health check, with Marathon's defaults."""
    if not isinstance(check, dict):
        raise NotMarathon(f"{where}: a health check is an object, not {_shown(check)}")
    given = str(check.get("protocol", "HTTP")).upper()
    if given not in PROTOCOLS:
        raise NotMarathon(f"{where}: the protocol {check.get('protocol')!r} is none of {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[given]
    options: dict[str, Any] = {"protocol": protocol}
    if protocol in ("http", "https"):
        path = str(check.get("path") or "/")
        options["path"] = path if path.startswith("/") else f"/{path}"
        options["expect"] = {"status": "200-399"}
        if _flag(check, "ignoreHttp1xx", where):
            options["ignore_1xx"] = True
            if given == "HTTPS":
                comments.append("Marathon's source ignores 1xx for HTTP only; here it holds for HTTPS as well.")
    elif protocol == "command":
        command = check.get("command")
        value = command.get("value") if isinstance(command, dict) else command
        if not isinstance(value, str) or not value.strip():
            raise NotMarathon(f"{where}: a COMMAND check needs `command: {{value: …}}`")
        options["command"] = ["/bin/sh", "-c", value]
        if re.match(r"\s*source\s", value):
            comments.append("command: `source` is bash's; where /bin/sh is another shell, write `.` in its place.")
        comments.append(
            "Marathon runs the command beside the task, lb on its own machine: it must reach the target by "
            "LB_TARGET_HOST and LB_TARGET_PORT."
        )
    if "path" in check and protocol not in ("http", "https"):
        comments.append(f"path: a {given} check has no use for it.")
    if given.startswith("MESOS_"):
        comments.append(f"{given}: Mesos asks from the task's own host; lb asks over the network, as its clients do.")
    for key in check.keys() - KNOWN:
        comments.append(f"{key}: {json.dumps(check[key])} has no equivalent.")
    interval, timeout = _seconds(check, "intervalSeconds", 60, where), _seconds(check, "timeoutSeconds", 20, where)
    if interval <= 0 or timeout <= 0:
        raise NotMarathon(f"{where}: intervalSeconds and timeoutSeconds must be above 0")
    failures = check.get("maxConsecutiveFailures", 3)
    if not isinstance(failures, int) or isinstance(failures, bool) or failures < 0:
        raise NotMarathon(f"{where}: maxConsecutiveFailures is a whole number, 0 or more, not {_shown(failures)}")
    options["interval"], options["timeout"] = format_duration(interval), format_duration(timeout)
    return {
        "protocol": protocol,
        "mesos": given.startswith("MESOS_"),
        "options": options,
        "grace": format_duration(_seconds(check, "gracePeriodSeconds", 300, where)),
        "failures": failures,
        "port": _port(check, "port", where),
        "port_index": _port(check, "portIndex", where),
        "other_port": bool(check.get("port") or check.get("portIndex")),
    }


def _two_checks(main: dict[str, Any], comments: list[str]) -> dict[str, Any]:
    """Marathon's single check as readiness and liveness."""
    failures: int = main["failures"]
    readiness = {**main["options"], "rise": 1, "fall": max(1, failures), "grace": main["grace"]}
    if failures == 0 and not main["mesos"]:
        fall = 0
        comments.append("maxConsecutiveFailures 0: Marathon never kills for it, so liveness has `fall: 0`.")
    elif main["mesos"]:
        fall = max(1, failures)
        if failures == 0:
            comments.append("maxConsecutiveFailures 0: Mesos kills at the first failure, so liveness has `fall: 1`.")
    else:
        fall = failures + 1
        comments.append(
            f"maxConsecutiveFailures {failures}: Marathon kills on failure {fall} in a row, so liveness has "
            f"`fall: {fall}`; readiness takes the traffic away at {max(1, failures)}."
        )
    liveness = {**main["options"], "rise": 1, "fall": fall, "grace": main["grace"]}
    if fall:
        comments.append(
            "Marathon kills and restarts the task itself. lb reports it, and does what `on_failure` says: "
            "on_failure: {command: [docker, restart, …]} or {webhook: URL}."
        )
    comments.append(
        "Both checks ask the same question, as in Marathon. Give liveness one of its own: /health/liveness."
    )
    return {"readiness": readiness, "liveness": liveness}


# --- where it is -----------------------------------------------------------------------------------------------------


def _targets(
    app: dict[str, Any], given: tuple[str, ...], main: dict[str, Any] | None, tls: bool, comments: list[str]
) -> tuple[list[Any], int]:
    """The targets, and the port of their check if it is another one for all of them."""
    scheme = "https" if tls else "http"
    index = (main["port_index"] or 0) if main else 0
    fixed: int = (main["port"] or 0) if main else 0
    tasks = [task for task in _list(app, "tasks", "app") if isinstance(task, dict) and task.get("host")]
    if given:
        if index:
            comments.append(f"portIndex {index}: set `readiness: port` to the port it stands for.")
        return list(given), fixed
    if tasks:
        targets: list[Any] = []
        for task in tasks:
            ports = [_whole(port) for port in _list(task, "ports", "task")]
            url = f"{scheme}://{_host(str(task['host']))}:{ports[0] if ports else FIRST_PORT}"
            own = ports[index] if 0 < index < len(ports) and not fixed else 0
            # The port of the check differs from task to task: it stands at each target.
            targets.append({"url": url, "readiness": {"port": own}, "liveness": {"port": own}} if own else url)
        comments.append("The targets are the tasks at the time of the export; Marathon moves them.")
        return targets, fixed
    known = _host_ports(app)
    if index and not fixed:
        fixed = known[index] if index < len(known) else 0
        if not fixed:
            comments.append(f"portIndex {index}: the app does not fix that port; set `readiness: port` to it.")
    instances = app.get("instances", 1)
    count = instances if isinstance(instances, int) and not isinstance(instances, bool) else 1
    count = min(max(count, 1), MOST_PLACEHOLDERS)
    comments.append(
        f"The definition does not say where its {'instance runs' if count == 1 else f'{count} instances run'}: "
        "put their addresses in place of these."
    )
    return [f"{scheme}://127.0.0.1:{FIRST_PORT + number}" for number in range(count)], fixed


def _host_ports(app: dict[str, Any]) -> list[int]:
    """Ports on the host by index, where the definition fixes them; 0: it does not."""
    container = app.get("container")
    docker = container.get("docker") if isinstance(container, dict) else None
    for holder in (container, docker):
        mappings = holder.get("portMappings") if isinstance(holder, dict) else None
        if isinstance(mappings, list):
            return [_whole(one.get("hostPort")) if isinstance(one, dict) else 0 for one in mappings]
    if app.get("requirePorts"):
        definitions = app.get("portDefinitions")
        if isinstance(definitions, list):
            return [_whole(one.get("port")) if isinstance(one, dict) else 0 for one in definitions]
        if isinstance(app.get("ports"), list):
            return [_whole(one) for one in app["ports"]]
    return []


#: Marathon-LB's labels that have no place in the file, and what to do instead.
_LABELS = {
    "HAPROXY_0_STICKY": "`affinity: {secret_file: FILE}` of the service keeps a client at its target, by a cookie.",
    "HAPROXY_0_REDIRECT_TO_HTTPS": "`redirect: https` of the plain listener does it.",
    "HAPROXY_0_SSL_CERT": "give the listener `tls: {cert_file: FILE, key_file: FILE}`.",
    "HAPROXY_0_MODE": "lb speaks HTTP alone.",
    "HAPROXY_0_BALANCE": "see `balance`.",
}
#: Labels that are read, or that say nothing about requests.
_READ = frozenset(("HAPROXY_0_VHOST", "HAPROXY_0_PATH", "HAPROXY_GROUP", "HAPROXY_0_PORT"))


def _labels(labels: Any, comments: list[str]) -> tuple[list[str], str]:
    """Hosts and path that Marathon-LB's labels give the app's first port; a comment for each label that is left out."""
    if not isinstance(labels, dict):
        return [], ""
    for label in sorted(str(name) for name in labels if str(name).startswith("HAPROXY_") and name not in _READ):
        instead = _LABELS.get(label, "it has no equivalent.")
        comments.append(f"Label {label}: {_shown(labels[label])} is left out: {instead}")
    hosts = [host.strip() for host in str(labels.get("HAPROXY_0_VHOST") or "").split(",") if host.strip()]
    hosts = [host for host in hosts if re.fullmatch(r"[A-Za-z0-9_.-]+", host)]
    path = str(labels.get("HAPROXY_0_PATH") or "")
    return hosts, path if re.fullmatch(r"/[A-Za-z0-9._~/-]*", path) else ""


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


# --- values ----------------------------------------------------------------------------------------------------------


def _seconds(check: dict[str, Any], key: str, default: int, where: str) -> float:
    value = check.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 10**8:
        raise NotMarathon(f"{where}: {key} is a number of seconds, not {_shown(value)}")
    return float(value)


def _flag(check: dict[str, Any], key: str, where: str) -> bool:
    value = check.get(key, False)
    if not isinstance(value, bool):
        raise NotMarathon(f"{where}: {key} is true or false, not {_shown(value)}")
    return value


def _port(check: dict[str, Any], key: str, where: str) -> int | None:
    value = check.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65535):
        raise NotMarathon(f"{where}: {key} is a whole number, 0 to 65535, not {_shown(value)}")
    return value


def _list(app: dict[str, Any], key: str, where: str) -> list[Any]:
    value = app.get(key) or []
    if not isinstance(value, list):
        raise NotMarathon(f"{where}: {key} is a list, not {_shown(value)}")
    return value


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535 else 0


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


# --- the file --------------------------------------------------------------------------------------------------------


def _written(apps: list[_App]) -> Imported:
    lines = ["# Made from a Marathon app definition by `lb import marathon`. `lb check` validates it.", "services:"]
    notes: list[str] = []
    for app in apps:
        lines.append(f"  {app.name}:")
        for comment in app.comments:
            lines += _comment(comment, "    # ")
            notes.append(f"{app.name}: {comment}")
        lines += [f"    {line}" for line in write_data(app.block).splitlines()]
    routes, said = _routes(apps)
    notes += said
    lines.append("routes:")
    for note in said:
        lines += _comment(note, "  # ")
    lines += [f"  {line}" for line in write_data(routes).splitlines()]
    return Imported("\n".join(lines) + "\n", notes)


def _routes(apps: list[_App]) -> tuple[list[dict[str, str]], list[str]]:
    routes: list[dict[str, str]] = []
    said: list[str] = []
    taken: set[tuple[str, str]] = set()
    for app in apps:
        wanted = [(host.lower(), app.path or "/") for host in app.hosts]
        if not wanted:
            wanted = [("", app.path or ("/" if len(apps) == 1 else f"/{app.name}"))]
            if len(apps) > 1 and not app.path:
                said.append(f"{app.name}: no label says which requests it gets; its path here is a guess.")
        for host, path in wanted:
            if (host, path) in taken:
                said.append(f"{app.name}: another app has {host}{path} already; it has no route by that.")
                continue
            taken.add((host, path))
            routes.append({**({"host": host} if host else {}), "path": path, "service": app.name})
    return routes, said


def _comment(text: str, prefix: str) -> list[str]:
    import textwrap

    return textwrap.wrap(
        text,
        100,
        initial_indent=prefix,
        subsequent_indent=f"{prefix}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
