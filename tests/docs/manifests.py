"""The Kubernetes manifests of a page: each by itself, and whether they fit each other, the configuration and the image.

No cluster is asked. The shapes are those of the fields that the pages use, and a field that is not among them is an
error, so that a mistyped one (which a cluster drops without a word) is found. What fits together is what a reader would
otherwise find out by a pod that does not start: names of volumes, labels and their selectors, ports, the addresses of
pods, the paths that the image reads and writes, and the time that a stop may take.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import jsonschema

from lb.config.load import load_text

Json = dict[str, Any]
TEXT, WHOLE, YES_NO = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}


def shape(required: str = "", /, **fields: Any) -> Json:
    """An object with these fields and no other; `required` are the names of those that must be there."""
    return {"type": "object", "properties": fields, "additionalProperties": False, "required": required.split()}


def listed(of: Json) -> Json:
    return {"type": "array", "items": of, "minItems": 1}


META = shape("name", name=TEXT, labels=TEXTS, annotations=TEXTS)
PROBE = shape(
    "httpGet",
    httpGet=shape("path port", path=TEXT, port=WHOLE),
    periodSeconds=WHOLE,
    timeoutSeconds=WHOLE,
    failureThreshold=WHOLE,
    successThreshold=WHOLE,
    initialDelaySeconds=WHOLE,
)
LIFECYCLE = shape(preStop=shape("exec", exec=shape("command", command=listed(TEXT))))
QUANTITIES = {"type": "object", "properties": {"cpu": TEXT, "memory": TEXT}, "additionalProperties": False}
CONTAINER = shape(
    "name image",
    name=TEXT,
    image=TEXT,
    args=listed(TEXT),
    env=listed(shape("name value", name=TEXT, value=TEXT)),
    ports=listed(shape("containerPort", containerPort=WHOLE, name=TEXT)),
    livenessProbe=PROBE,
    readinessProbe=PROBE,
    startupProbe=PROBE,
    lifecycle=LIFECYCLE,
    resources=shape(requests=QUANTITIES, limits=QUANTITIES),
    securityContext=shape(
        readOnlyRootFilesystem=YES_NO, allowPrivilegeEscalation=YES_NO, capabilities=shape(drop=listed(TEXT))
    ),
    volumeMounts=listed(shape("name mountPath", name=TEXT, mountPath=TEXT, readOnly=YES_NO)),
)
POD = shape(
    "containers",
    containers=listed(CONTAINER),
    terminationGracePeriodSeconds=WHOLE,
    serviceAccountName=TEXT,
    securityContext=shape(runAsNonRoot=YES_NO, fsGroup=WHOLE, seccompProfile=shape(type=TEXT)),
    volumes=listed(
        shape("name", name=TEXT, configMap=shape("name", name=TEXT),
              secret=shape("secretName", secretName=TEXT, defaultMode=WHOLE), emptyDir=shape()),
    ),
)  # fmt: skip
CLAIM = shape(
    "metadata spec",
    metadata=META,
    spec=shape("accessModes", accessModes=listed(TEXT), resources=shape(requests=shape(storage=TEXT))),
)
WORKLOAD = shape(
    "selector template",
    serviceName=TEXT,
    replicas=WHOLE,
    podManagementPolicy={"enum": ["Parallel", "OrderedReady"]},
    selector=shape("matchLabels", matchLabels=TEXTS),
    template=shape("metadata spec", metadata=shape("labels", labels=TEXTS, annotations=TEXTS), spec=POD),
    volumeClaimTemplates=listed(CLAIM),
)
PORT = shape("port", name=TEXT, port=WHOLE, targetPort=WHOLE)
RULE = shape("apiGroups resources verbs", apiGroups=listed(TEXT), resources=listed(TEXT), verbs=listed(TEXT))
KINDS: dict[tuple[str, str], Json] = {
    ("v1", "ServiceAccount"): {},
    ("rbac.authorization.k8s.io/v1", "Role"): {"rules": listed(RULE)},
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): {
        "roleRef": shape("apiGroup kind name", apiGroup=TEXT, kind=TEXT, name=TEXT),
        "subjects": listed(shape("kind name", kind=TEXT, name=TEXT, namespace=TEXT)),
    },
    ("v1", "Service"): {
        "spec": shape("selector ports", clusterIP={"const": "None"}, publishNotReadyAddresses=YES_NO, selector=TEXTS,
                      ports=listed(PORT))
    },
    ("v1", "ConfigMap"): {"data": TEXTS},
    ("apps/v1", "StatefulSet"): {"spec": WORKLOAD},
    ("apps/v1", "Deployment"): {"spec": WORKLOAD},
}  # fmt: skip


def is_manifest(document: object) -> bool:
    return isinstance(document, dict) and "apiVersion" in document and "kind" in document


def check_shape(document: Json) -> None:
    """One manifest by itself. Raises `AssertionError` with the place."""
    kind = (document["apiVersion"], document["kind"])
    assert kind in KINDS, f"nobody checks manifests of the kind {kind}"
    whole = shape("metadata", apiVersion=TEXT, kind=TEXT, metadata=META, **KINDS[kind])
    _hold(document, {**whole, "required": ["metadata", *KINDS[kind]]}, "/".join((*kind, document["metadata"]["name"])))


def check_lifecycle(document: Json) -> None:
    """A piece of a container."""
    _hold(document, shape(**{name: CONTAINER["properties"][name] for name in ("lifecycle",)}), "a piece of a container")


def _hold(document: object, against: Json, name: str) -> None:
    problems = [
        f"{name}: {'.'.join(map(str, problem.absolute_path))}: {problem.message}"
        for problem in jsonschema.Draft202012Validator(against).iter_errors(document)
    ]
    assert not problems, "\n".join(problems)


def check_together(documents: list[Json]) -> None:
    """All manifests of a page, as they would run side by side."""
    services = {one["metadata"]["name"]: one["spec"] for one in documents if one["kind"] == "Service"}
    maps = {one["metadata"]["name"]: one["data"] for one in documents if one["kind"] == "ConfigMap"}
    workloads = {
        one["metadata"]["name"]: one["spec"] for one in documents if one["kind"] in ("StatefulSet", "Deployment")
    }
    for name, spec in workloads.items():
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"] == labels, f"{name} selects other pods than it makes"
        if "serviceName" in spec:
            assert spec["serviceName"] in services, (
                f"{name} names the Service {spec['serviceName']}, which is not there"
            )
        pod = spec["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ())}
        for container in pod["containers"]:
            mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
            assert mounted == {*volumes, *claims}, f"{name} mounts {sorted(mounted)}"
            ports = {port["containerPort"] for port in container["ports"]}
            for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
                if probe in container:
                    assert container[probe]["httpGet"]["port"] in ports, f"{name}: {probe}"
        for volume in volumes.values():
            assert volume.get("configMap", {"name": None})["name"] in {*maps, None}, f"{name}: {volume}"
    for name, spec in services.items():
        chosen = [
            one
            for one in workloads.values()
            if spec["selector"].items() <= one["template"]["metadata"]["labels"].items()
        ]
        assert chosen, f"the Service {name} selects nothing"
        open_ports = {
            port["containerPort"]
            for one in chosen
            for c in one["template"]["spec"]["containers"]
            for port in c["ports"]
        }
        for port in spec["ports"]:
            assert port.get("targetPort", port["port"]) in open_ports, f"the Service {name} leads to port {port}"
    named = {(one["kind"], one["metadata"]["name"]) for one in documents}
    for binding in (one for one in documents if one["kind"] == "RoleBinding"):
        for reference in (binding["roleRef"], *binding["subjects"]):
            assert (reference["kind"], reference["name"]) in named, f"a binding leads to no {reference}"
    for name, data in maps.items():
        if "backends.yaml" in data:
            _check_lb(name, data["backends.yaml"], services, workloads)


def _check_lb(config_map: str, text: str, services: dict[str, Json], workloads: dict[str, Json]) -> None:
    """lb's own pod: what the file says is where the image, the volumes and the Services say it is."""
    config = load_text(text, "the ConfigMap's file", check_files=False)
    running = [
        (spec, container)
        for spec in workloads.values()
        for container in spec["template"]["spec"]["containers"]
        if container["image"] == "lb"
    ]
    assert len(running) == 1, "one pod runs the image"
    spec, container = running[0]
    pod = spec["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    places = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    # The image's command is `lb run /etc/lb/backends.yaml` (test_container.py holds it against the Dockerfile).
    assert volumes[places["/etc/lb"]]["configMap"]["name"] == config_map
    assert str(config.state_dir) in places, f"the state in {config.state_dir} would not outlive the pod"
    tokens = [file for _, file in config.admin.token_files()]
    assert tokens
    for token in tokens:
        assert token.rpartition("/")[0] in places, f"nothing is mounted where {token} is"
    assert pod["terminationGracePeriodSeconds"] > config.lame_duck + config.drain, "killed before it has drained"
    bound = {int(listener.bind.rpartition(":")[2]) for listener in config.listeners}
    admin = int(config.admin.bind.rpartition(":")[2])
    assert {port["containerPort"] for port in container["ports"]} == {*bound, admin}
    probes = {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
    assert probes == {"/livez", "/readyz"}
    assert all(container[probe]["httpGet"]["port"] == admin for probe in ("livenessProbe", "readinessProbe"))
    # Pods that the file sends requests to: blue is on the page, green is "the same with green for blue".
    for service in config.services.values():
        for pool_name, pool in service.pools.items():
            for target in pool.targets:
                url = urlsplit(target.url.replace(pool_name, "blue"))
                host, _, domain = str(url.hostname).partition(".")
                workload, _, number = host.rpartition("-")
                assert workload in workloads and domain in services, f"{target.url} leads nowhere"
                assert int(number) < workloads[workload]["replicas"], f"{target.url}: there are not so many pods"
                assert services[domain]["ports"][0]["port"] == url.port, target.url
