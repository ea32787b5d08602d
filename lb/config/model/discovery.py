"""Where a pool's targets are found, besides the ones that the file names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lb.config.model import validators
from lb.config.model.checks import ClientTls
from lb.config.model.fields import (
    AgentUrl,
    Bounds,
    Domain,
    Duration,
    EngineUrl,
    FilePath,
    Flag,
    FunctionName,
    ParameterName,
    Period,
    Resolver,
    ServicePort,
    Text,
    Whole,
    Word,
)
from lb.config.model.section import Section


class Consul(Section):
    """Instances of a service that is registered with Consul, by the HTTP API of an agent."""

    service: Annotated[Word, AfterValidator(validators.not_empty)]
    """Name of the service. The meta of an instance may hold `lb_weight` and `lb_check` (the path of an HTTP check)."""
    address: AgentUrl = "http://127.0.0.1:8500"
    """The agent's HTTP API: `http://host:port`, `https://host:port` or `unix:///PATH`."""
    tags: list[Annotated[Word, AfterValidator(validators.not_empty)]] = []
    """Tags that an instance must have, all of them."""
    filter: Word = ""
    """Expression that instances must fulfil, in Consul's filter language: `Service.Meta.color == blue`."""
    datacenter: Word = ""
    """Datacenter whose instances are meant. Left out: the agent's."""
    namespace: Word = ""
    """Namespace of the service, in Consul Enterprise. Left out: the token's."""
    partition: Word = ""
    """Admin partition of the service, in Consul Enterprise. Left out: the agent's."""
    token_file: FilePath | None = None
    """File with the ACL token that lb shows. A replaced token is used with the next query."""
    tls: ClientTls | None = None
    """Authorities that the agent's certificate is verified with, and the certificate that lb shows. A renewed file is
    used with the next query."""
    wait: Annotated[Duration, Bounds(1, 600)] = 30.0
    """Longest time for which the agent holds a query while nothing changes. Changes are told at once, whatever it is. A
    connection that is dead without a word is noticed after it. Consul: 5m."""
    warning: Flag = True
    """Use instances with a check in the state `warning`, with the weight that they have for it."""
    stale: Flag = False
    """Let any server answer, not the leader alone: also while Consul has no leader, and then maybe with what is old."""
    scheme: Literal["http", "https", "h2c", "h2"] = "http"
    """How the instances are spoken to, as in a target's URL."""


class Dns(Section):
    """Addresses that a name has in DNS. Each is a target of its own. The time to live decides when lb asks again."""

    name: Domain
    """The name to ask for: `blue.internal`, or `_http._tcp.blue.internal` with `type: SRV`."""
    type: Literal["A", "AAAA", "A+AAAA", "SRV"] | None = None
    """Records to ask for. `SRV` gives ports, weights and priorities: a target of a higher priority number gets requests
    when none of a lower one passes its checks. Left out: `SRV` where the name begins with `_`, else `A+AAAA`."""
    port: Annotated[Whole, Bounds(1, 65535)] | None = None
    """Port of all targets. Needed for addresses; services (`SRV`) have their own."""
    scheme: Literal["http", "https", "h2c", "h2"] = "http"
    """How the targets are spoken to, as in a target's URL."""
    resolvers: list[Resolver] = []
    """DNS servers to ask, the next one when one does not answer: IP addresses, with a port or without. Left out: the
    servers of `/etc/resolv.conf`."""
    timeout: Period = 1.0
    """Longest wait for one server's answer."""
    min_refresh: Period = 1.0
    """The name is asked for again after its time to live, but no sooner than this."""
    max_refresh: Period = 60.0
    """…and no later than this."""

    def kind(self) -> str:
        """The records to ask for."""
        return self.type or ("SRV" if self.name.startswith("_") else "A+AAAA")


class Docker(Section):
    """Running containers with a label, of a Docker engine or one that speaks its API."""

    label: Annotated[Word, AfterValidator(validators.not_empty)]
    """Which containers: `NAME=VALUE`, or the name of a label alone. Their labels `lb.port`, `lb.weight`, `lb.network`
    and `lb.check` (the path of an HTTP check) say more."""
    socket: EngineUrl = "unix:///var/run/docker.sock"
    """The engine's API: `unix:///PATH`, or `tcp://host:port`, over TLS where `tls` is given. Whoever can use it is root
    on the engine's machine."""
    tls: ClientTls | None = None
    """Authorities that the engine's certificate is verified with, and the certificate that lb shows: `ca_file`,
    `cert_file` and `key_file`, which Docker calls ca.pem, cert.pem and key.pem. A renewed file is used at once."""
    port: Annotated[Whole, Bounds(1, 65535)] | None = None
    """Port of the containers without a label `lb.port`. Left out: the one port that a container exposes."""
    network: Word = ""
    """The network whose address is used. `host`: the containers are in the host's network, at 127.0.0.1. Left out: the
    only network that a container is in."""
    scheme: Literal["http", "https", "h2c", "h2"] = "http"
    """How the containers are spoken to, as in a target's URL."""


class Kubernetes(Section):
    """Endpoints of a Service of Kubernetes, by its EndpointSlices. lb needs a role that may list and watch them."""

    service: Annotated[Word, AfterValidator(validators.dns_label)]
    """Name of the Service."""
    namespace: Annotated[Word, AfterValidator(validators.dns_label)] | None = None
    """Namespace of the Service. Left out: the one of lb's own pod, or of the kubeconfig file's context."""
    port: ServicePort = ""
    """Port of the pods, by the name that the Service gives it or by its number. Left out: the only one."""
    kubeconfig: FilePath | None = None
    """File that says how the API server is reached: with a token, a token file or a client certificate. Left out: with
    the account of the pod that lb runs in."""
    context: Word = ""
    """Context of the kubeconfig file. Left out: its current one."""
    scheme: Literal["http", "https", "h2c", "h2"] = "http"
    """How the endpoints are spoken to, as in a target's URL."""


class Python(Section):
    """A function of your own that returns targets. It runs in a process of its own, with lb's user and environment."""

    source: FunctionName
    """The function: `MODULE:FUNCTION`. It returns what `targets` of a pool holds, as a list, and may be `async`."""
    path: FilePath | None = None
    """Folder in which the module is looked for, after installed packages; `.` is this file's folder."""
    arguments: dict[ParameterName, Text] = Field(default_factory=dict)
    """Texts that the function is called with, by the names of its parameters."""
    interval: Period = 2.0
    """From the end of one call to the start of the next."""
    timeout: Period = 10.0
    """Longest time of one call. A call that takes longer is ended, and the function's process is started again."""


class Discover(Section):
    """A source of targets: one of these. What it names is probed as any target, and gets requests after its first
    passed check. A source that does not answer changes nothing."""

    consul: Consul | None = None
    """Instances of a service that is registered with Consul."""
    dns: Dns | None = None
    """The addresses of a name in DNS."""
    docker: Docker | None = None
    """Containers of a Docker engine."""
    file: FilePath | None = None
    """A file, or a directory of files, that holds what `targets` does: a list, or a mapping with `targets`, in YAML or
    JSON. It is read again when it changes. Replace it by a rename."""
    kubernetes: Kubernetes | None = None
    """Endpoints of a Service of Kubernetes."""
    python: Python | None = None
    """What a function of your own returns."""

    def given(self) -> list[str]:
        """The sources that are given: one, or the configuration is wrong."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]

    def over_tls(self) -> list[tuple[str, ClientTls]]:
        """The provider's name and its settings for TLS, where it has any."""
        asked = (("consul", self.consul), ("docker", self.docker))
        return [(name, each.tls) for name, each in asked if each is not None and each.tls is not None]

    def kind(self) -> str:
        """The provider's name."""
        return self.given()[0]

    def title(self) -> str:
        """The source, for people."""
        if self.consul is not None:
            return f"consul {self.consul.service}"
        if self.dns is not None:
            return f"dns {self.dns.name}"
        if self.docker is not None:
            return f"docker {self.docker.label}"
        if self.kubernetes is not None:
            return f"kubernetes {'/'.join(filter(None, (self.kubernetes.namespace, self.kubernetes.service)))}"
        if self.python is not None:
            return f"python {self.python.source}"
        return f"file {self.file}"
