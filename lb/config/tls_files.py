"""The contents of the TLS files that a configuration names, as part of what it resolves to.

A certificate or authority that is renewed in place leaves the text of the configuration as it was. So the contents are
read with each load, digests of them become part of the resolved values, and a reload sees what was renewed.

A listener's certificate that is broken on the disk takes no other one along: the certificate that was served before is
kept, and the fault is part of the world.
"""

from __future__ import annotations

import datetime
import hashlib
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from lb.config.certificate_sources import list_directory
from lb.config.check import certificates
from lb.config.model.config import Config
from lb.config.resolve import UnusablePair, World, resolve
from lb.config.tls_values import clients, digests, servers, with_clients, with_settings
from lb.config.yaml.problems import ConfigError, Problem
from lb.core.certificates import REQUIRED, Certificate, ClientAuth, Policy, Source, TlsServer
from lb.core.step_files import step_files, with_step_files
from lb.core.targets import TlsClient
from lb.net.tls import contexts

#: Bytes of one file that are read at most. The largest bundles of authorities have a quarter of a MiB.
LARGEST = 4 << 20
#: Contents of files that lb keeps in memory, by path: the disk may not have taken them.
Held = Mapping[str, bytes]
NONE_HELD: Held = {}


def load_world(config: Config, former: World | None = None, held: Held = NONE_HELD) -> World:
    """The world of `config`, with the contents of its TLS files as they are now. Blocks.

    A file that cannot be read is left to be opened when it is needed: loading has refused it already, or it has gone
    since. Of a listener's certificates, the ones of `former` stay where the new ones cannot be used.
    """
    reading = _Reading(former, held)
    world = with_settings(resolve(config, 0), reading.client, reading.server)
    world = replace(world, snapshot=with_step_files(world.snapshot, reading.digest))
    return replace(world, files=reading.files, unusable=tuple(reading.unusable))


def with_certificates_read_again(world: World, held: Held = NONE_HELD) -> World:
    """The same world with listeners' certificates, authorities and lists as they are on the disk now. Blocks."""
    reading = _Reading(world, held)
    renewed = with_settings(world, lambda tls: tls, reading.server)
    # Files of steps are read with the configuration alone, which checks them. What comes from a URL was checked.
    of_step = {
        path: reading.digest(path) or former if "://" in path else former
        for path, former in step_files(world.snapshot).items()
    }
    renewed = replace(renewed, snapshot=with_step_files(renewed.snapshot, of_step.__getitem__))
    files = {**world.files, **reading.files}
    used = digests(renewed)
    kept = {digest: data for digest, data in files.items() if digest in used}
    return replace(renewed, files=kept, unusable=tuple(reading.unusable))


def check_renewed(before: World, after: World, file: str) -> None:
    """Raise `ConfigError` where contents that are new cannot be used: they may have changed since they were checked."""
    try:
        known = {each for server in servers(before) for each in server.certificates}
        for server in servers(after) - servers(before):
            for certificate in set(server.certificates) - known:
                contexts.server_context((certificate,), Policy(), after.files)
            for verified in server.clients():
                contexts.server_context((), Policy(client=verified), after.files)
        for client in clients(after) - clients(before):
            contexts.client_context(client, (), after.files)
    except (OSError, ValueError) as error:
        reason = contexts.in_words(contexts.openssl_reason(error))
        text = f"a TLS file changed while it was read, and cannot be used: {reason}"
        raise ConfigError([Problem(file, 0, 0, text, hint="Reload again when all files are in place.")]) from None


class _Reading:
    """One reading of all files: each is read once, however many settings name it."""

    def __init__(self, former: World | None, held: Held) -> None:
        self.files: dict[str, bytes] = {}  # by digest
        self.unusable: list[UnusablePair] = []
        self._held = held
        self._now = time.time()
        self._digests: dict[str, str] = {}  # by path
        self._clients: dict[TlsClient, TlsClient] = {}
        self._certificates: dict[tuple[str, str], Certificate | None] = {}
        self._former_files = former.files if former is not None else {}
        formers = servers(former) if former is not None else set()
        self._former_clients = {
            (client.ca_file, client.crl_file): client for each in formers for client in each.clients()
        }
        self._former: dict[tuple[str, str], Certificate] = {
            (each.cert_file, each.key_file): each for server in formers for each in server.certificates
        }

    def client(self, tls: TlsClient) -> TlsClient:
        known = self._clients.get(tls)
        if known is None:
            ca = self.digest(tls.ca_file) if tls.ca_file else _stamp_of_system() if tls.verify else ""
            pair = self.digest(tls.cert_file), self.digest(tls.key_file)
            known = self._clients[tls] = replace(tls, digests=(ca, *pair))
        return known

    def server(self, tls: TlsServer) -> TlsServer:
        found = [each for position, source in enumerate(tls.sources) for each in self._of_source(position, source)]
        return with_clients(replace(tls, certificates=tuple(dict.fromkeys(found))), self._client_auth)

    def _client_auth(self, client: ClientAuth) -> ClientAuth:
        if not client.ca_file:
            return client
        read = replace(client, digests=(self.digest(client.ca_file), self.digest(client.crl_file)))
        former = self._former_clients.get((client.ca_file, client.crl_file))
        if former is None or former.digests == read.digests or not former.digests[0]:
            return read
        reason = self._authorities_fault(read)
        if not reason:
            return read
        # Nobody comes in by what cannot be read; whoever came in by the former authorities still does.
        self._unusable(UnusablePair(client.ca_file, client.crl_file, reason, True))
        self.files |= {digest: self._former_files[digest] for digest in former.digests if digest in self._former_files}
        return replace(client, digests=former.digests)

    def _authorities_fault(self, client: ClientAuth) -> str:
        """Why clients cannot be verified by these authorities and lists; empty: they can."""
        named = zip((client.ca_file, client.crl_file), client.digests, strict=True)
        missing = [path for path, digest in named if path and not digest]
        if missing:
            return f"{' and '.join(missing)} cannot be read"
        try:
            contexts.server_context((), Policy(client=replace(client, mode=REQUIRED)), self.files)
        except (OSError, ValueError) as error:
            files = " and ".join(filter(None, (client.ca_file, client.crl_file)))
            return f"{files} cannot be used: {contexts.in_words(contexts.openssl_reason(error))}"
        return ""

    def _unusable(self, pair: UnusablePair) -> None:
        if pair not in self.unusable:
            self.unusable.append(pair)

    def _of_source(self, position: int, source: Source) -> Iterator[Certificate]:
        for pair in self._pairs(source):
            if pair not in self._certificates:
                self._certificates[pair] = self._certificate(*pair, required=bool(source.cert_file))
            certificate = self._certificates[pair]
            if certificate is not None:
                yield replace(certificate, source=position)

    def _pairs(self, source: Source) -> list[tuple[str, str]]:
        if source.directory:
            return self._listed(source.directory)
        if source.cert_file:
            return [(source.cert_file, source.key_file)]
        # Certificates that lb gets by itself have no file before the first one.
        return [(path, path) for path in source.stored if self.digest(path) or (path, path) in self._former]

    def _listed(self, directory: str) -> list[tuple[str, str]]:
        """A directory's pairs, and pairs that it had and of which one file is gone."""
        try:
            pairs = list(list_directory(directory).pairs)
        except OSError as error:
            kept = [pair for pair in self._former if str(Path(pair[0]).parent) == directory]
            # Certificates that lb gets by itself have no directory before the first one.
            if kept or not isinstance(error, FileNotFoundError):
                reason = f"the directory {directory} cannot be read: {(error.strerror or str(error)).lower()}"
                self._unusable(UnusablePair(directory, "", reason, bool(kept)))
            return kept
        halves = [
            pair
            for pair in self._former
            if str(Path(pair[0]).parent) == directory
            and pair not in pairs
            and Path(pair[0]).exists() != Path(pair[1]).exists()
        ]
        return sorted({*pairs, *halves})

    def _certificate(self, cert_file: str, key_file: str, required: bool) -> Certificate | None:
        """The certificate of a pair; the former one where the pair cannot be used; None: it has none.

        `required`: without a former one, the pair is left to be opened when it is needed."""
        former = self._former.get((cert_file, key_file))
        read = (self.digest(cert_file), self.digest(key_file))
        if former is not None and read == former.digests and all(read):
            return former
        leaf = certificates.parse(self.files[read[0]]) if read[0] else None
        pair = Certificate(cert_file, key_file, digests=read if all(read) else ())
        if leaf is not None:
            pair = replace(
                pair,
                names=leaf.names,
                algorithm=leaf.algorithm,
                not_before=leaf.not_before,
                not_after=leaf.not_after,
            )
        reason = self._fault(pair) or self._worse(pair, former)
        if not reason:
            return pair
        kept = former is not None and all(digest in self._former_files for digest in former.digests)
        self._unusable(UnusablePair(cert_file, key_file, reason, kept))
        if former is not None and kept:
            self.files |= {digest: self._former_files[digest] for digest in former.digests}
            return former
        return pair if required else None

    def _fault(self, pair: Certificate) -> str:
        """Why a pair cannot be served; empty: it can."""
        if not pair.digests:
            missing = [path for path in (pair.cert_file, pair.key_file) if not self.digest(path)]
            return f"{' and '.join(missing)} cannot be read"
        cert, key = (self.files[digest] for digest in pair.digests)
        fault = certificates.contents_fault(pair.cert_file, pair.key_file, cert, key)
        if fault is not None:
            return fault[1]
        try:
            contexts.server_context((pair,), Policy(), self.files)
        except (OSError, ValueError) as error:
            reason = contexts.openssl_reason(error)
            if reason == "KEY_VALUES_MISMATCH":
                return f"{pair.key_file} is not the key of {pair.cert_file}"
            return f"{pair.cert_file} and {pair.key_file} cannot be used: {contexts.in_words(reason)}"
        return "" if pair.not_after else f"{pair.cert_file} cannot be read as a certificate"

    def _worse(self, pair: Certificate, former: Certificate | None) -> str:
        """Why a pair is worse than the one that is served: that one is valid now, and this one is not."""
        if former is None or pair.is_valid(self._now) or not former.is_valid(self._now):
            return ""
        if pair.not_before > self._now:
            return f"the certificate in {pair.cert_file} is not valid before {_moment(pair.not_before)}"
        return f"the certificate in {pair.cert_file} ended at {_moment(pair.not_after)}"

    def digest(self, path: str) -> str:
        """Of a file's contents; empty: it cannot be read."""
        if not path:
            return ""
        if path not in self._digests:
            data = self._held.get(path) or _contents(path)
            digest = hashlib.sha256(data).hexdigest()[:32] if data and len(data) <= LARGEST else ""
            self._digests[path] = digest
            if digest:
                self.files[digest] = data
        return self._digests[path]


def _contents(path: str) -> bytes:
    """Empty: the file cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(LARGEST + 1)
    except OSError:
        return b""


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


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
