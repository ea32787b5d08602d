"""How the API server of Kubernetes is reached: with the account of lb's own pod, or as a kubeconfig file says.

All files are read again before each request: tokens of pods are replaced every hour, and certificates are renewed. What
is not supported is refused by name: programs that make tokens (`exec`), `auth-provider`, passwords and proxies.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml

from lb.core.targets import TlsClient
from lb.discovery.credentials import read_octets, read_text
from lb.discovery.source import NoAnswer

#: Where a pod has its account.
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """An API server, and what it is to be shown."""

    server: str  # URL, without a slash at its end
    namespace: str  # of the pod or context; empty: it names none
    token: str = field(default="", repr=False)
    tls: TlsClient | None = None  # None: the server is spoken to without TLS
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # of certificates, by their digests


def access_of_pod(environ: Mapping[str, str], account: Path = ACCOUNT) -> Access:
    """With the account of the pod that lb runs in. Raises `NoAnswer`. Blocks."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise NoAnswer(
            "lb does not run in a pod of Kubernetes (KUBERNETES_SERVICE_HOST is not set): `kubeconfig: FILE` says how "
            "the API server is reached"
        )
    token = read_text(account / "token", "the token of the pod's account")
    namespace = ""
    if (account / "namespace").exists():
        namespace = read_text(account / "namespace", "the pod's namespace")
    ca = read_octets(account / "ca.crt", "the authority of the API server")
    tls, contents = _tls(str(account / "ca.crt"), ca)
    return Access(f"https://{f'[{host}]' if ':' in host else host}:{port}", namespace, token, tls, contents)


def access_of_file(path: Path, context: str = "") -> Access:
    """As a kubeconfig file says. `context`: empty is the current one. Raises `NoAnswer`. Blocks."""
    try:
        document = yaml.load(read_octets(path, "the kubeconfig file"), Loader=_LOADER)
        config = msgspec.convert(document if document is not None else {}, _Kubeconfig)
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise NoAnswer(f"{path} is no kubeconfig file: {' '.join(str(error).split())}") from None
    name = context or config.current_context
    if not name:
        raise NoAnswer(f"{path} has no current-context: `context: NAME` chooses one")
    chosen = _named(path, config.contexts, "context", name).context or _Context()
    cluster = _named(path, config.clusters, "cluster", chosen.cluster).cluster or _Cluster()
    user = (_named(path, config.users, "user", chosen.user).user if chosen.user else None) or _User()
    for unsupported, given in (
        ("exec", user.exec),
        ("auth-provider", user.auth_provider),
        ("username", user.username),
        ("as", user.as_user),
        ("proxy-url", cluster.proxy_url),
    ):
        if given:
            hint = "a token, a token file or a client certificate is used"
            owner = f"user {chosen.user}" if unsupported != "proxy-url" else f"cluster {chosen.cluster}"
            raise NoAnswer(f"{path}: `{unsupported}` of {owner} is not supported: {hint}")
    server = cluster.server.rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise NoAnswer(f"{path}: cluster {chosen.cluster} has the server {cluster.server!r}, which is no URL")
    token = read_text(_beside(path, user.token_file), "the token") if user.token_file else user.token
    if not server.startswith("https://"):
        return Access(server, chosen.namespace, token)
    tls, contents = _tls(
        *_content(path, cluster.certificate_authority, cluster.certificate_authority_data, "the authority"),
        *_content(path, user.client_certificate, user.client_certificate_data, "the client certificate"),
        *_content(path, user.client_key, user.client_key_data, "the client's key"),
        verify=not cluster.insecure_skip_tls_verify,
        server_name=cluster.tls_server_name,
    )
    if bool(tls.cert_file) != bool(tls.key_file):
        raise NoAnswer(f"{path}: user {chosen.user} has a client certificate or a key, and not both")
    return Access(server, chosen.namespace, token, tls, contents)


# --- the file's parts ------------------------------------------------------------------------------------------------


class _Cluster(msgspec.Struct, frozen=True, rename="kebab"):
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""


class _User(msgspec.Struct, frozen=True, rename="kebab"):
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = msgspec.field(name="tokenFile", default="")
    username: str = ""
    as_user: str = msgspec.field(name="as", default="")
    exec: Any = None
    auth_provider: Any = None


class _Context(msgspec.Struct, frozen=True):
    cluster: str = ""
    user: str = ""
    namespace: str = ""


class _Entry(msgspec.Struct, frozen=True):
    """An entry of one of the file's three lists."""

    name: str = ""
    cluster: _Cluster | None = None
    user: _User | None = None
    context: _Context | None = None


class _Kubeconfig(msgspec.Struct, frozen=True, rename="kebab"):
    current_context: str = ""
    clusters: list[_Entry] | None = None
    users: list[_Entry] | None = None
    contexts: list[_Entry] | None = None


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _named(path: Path, entries: list[_Entry] | None, kind: str, name: str) -> _Entry:
    for each in entries or ():
        if each.name == name:
            return each
    known = ", ".join(each.name for each in entries or ()) or "none"
    raise NoAnswer(f"{path} has no {kind} {name!r}; it has {known}")


def _content(path: Path, file: str, data: str, what: str) -> tuple[str, bytes]:
    """The name of a file and its content: what stands in the file itself comes before another file."""
    if data:
        try:
            return f"{path} ({what})", base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise NoAnswer(f"{path}: {what} is no base64") from None
    return (str(_beside(path, file)), read_octets(_beside(path, file), what)) if file else ("", b"")


def _tls(
    ca_file: str,
    ca: bytes,
    cert_file: str = "",
    cert: bytes = b"",
    key_file: str = "",
    key: bytes = b"",
    *,
    verify: bool = True,
    server_name: str = "",
) -> tuple[TlsClient, dict[str, bytes]]:
    digests = tuple(hashlib.sha256(each).hexdigest() if each else "" for each in (ca, cert, key))
    contents = {digest: data for digest, data in zip(digests, (ca, cert, key), strict=True) if digest}
    return TlsClient(verify, server_name, ca_file, cert_file, key_file, digests), contents


def _beside(path: Path, file: str) -> Path:
    """Relative paths begin at the kubeconfig file's folder."""
    return path.parent / file
