"""The contents of the TLS files that a configuration names, as part of what it resolves to.

A certificate or authority that is renewed in place leaves the text of the configuration as it was. So the contents are
read with each load, digests of them become part of the resolved values, and a reload sees what was renewed.
"""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import replace
from pathlib import Path

from lb.config.model.config import Config
from lb.config.resolve import World, resolve
from lb.config.tls_values import clients, paths_of, servers, with_settings
from lb.config.yaml.problems import ConfigError, Problem
from lb.core.targets import TlsClient, TlsServer
from lb.net.tls import contexts

#: Bytes of one file that are read at most. The largest bundles of authorities have a quarter of a MiB.
LARGEST = 4 << 20


def load_world(config: Config) -> World:
    """The world of `config`, with the contents of its TLS files as they are now. Blocks.

    A file that cannot be read is left to be opened when it is needed: loading has refused it already, or it has gone
    since.
    """
    reading = _Reading()
    return replace(with_settings(resolve(config, 0), reading.client, reading.server), files=reading.files)


def check_renewed(before: World, after: World, file: str) -> None:
    """Raise `ConfigError` where contents that are new cannot be used: they may have changed since they were checked."""
    try:
        for server in servers(after) - servers(before):
            contexts.server_context(server, after.files)
        for client in clients(after) - clients(before):
            contexts.client_context(client, (), after.files)
    except (OSError, ValueError) as error:
        reason = contexts.in_words(contexts.openssl_reason(error))
        text = f"a TLS file changed while it was read, and cannot be used: {reason}"
        raise ConfigError([Problem(file, 0, 0, text, hint="Reload again when all files are in place.")]) from None


class _Reading:
    """One reading of all files: each is read once, however many settings name it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}  # by digest
        self._digests: dict[str, str] = {}  # by path
        self._clients: dict[TlsClient, TlsClient] = {}

    def client(self, tls: TlsClient) -> TlsClient:
        known = self._clients.get(tls)
        if known is None:
            ca = self._digest(tls.ca_file) if tls.ca_file else _stamp_of_system() if tls.verify else ""
            pair = self._digest(tls.cert_file), self._digest(tls.key_file)
            known = self._clients[tls] = replace(tls, digests=(ca, *pair))
        return known

    def server(self, tls: TlsServer) -> TlsServer:
        digests = tuple(self._digest(path) for path in paths_of(tls))
        return replace(tls, digests=digests)

    def _digest(self, path: str) -> str:
        if not path:
            return ""
        if path not in self._digests:
            try:
                with Path(path).open("rb") as stream:
                    data = stream.read(LARGEST + 1)
            except OSError:
                data = b""
            digest = hashlib.sha256(data).hexdigest()[:32] if data and len(data) <= LARGEST else ""
            self._digests[path] = digest
            if digest:
                self.files[digest] = data
        return self._digests[path]


def _stamp_of_system() -> str:
    """Changes when the system's bundle of authorities does. Its contents are too large to be sent around."""
    bundle = ssl.get_default_verify_paths().cafile
    if bundle is None:
        return ""
    try:
        found = Path(bundle).stat()
    except OSError:
        return ""
    return f"{bundle}:{found.st_mtime_ns}:{found.st_size}"
