"""What each name gets of listeners' certificates, why, until when, and which routes its requests take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import lru_cache

from lb.config.check import certificates as contents_of
from lb.config.check.certificates import Chain
from lb.config.resolve import UnusablePair
from lb.control.certificate_models import CertificateView, LinkView, NameView, RouteView
from lb.core.certificates import Certificate, CertificateTable, Choice, TlsServer, covers, folded
from lb.core.refusals import Refusal, Refused
from lb.supervisor.certificates import Certificates
from lb.supervisor.state import State

_REASONS = {
    "exact": "a certificate has this name",
    "wildcard": "a certificate covers it by {matched}",
    "default": "no certificate has this name, so that it gets the default",
    "first": "no certificate has this name and there is no default, so that it gets the first certificate",
}


class CertificateViews:
    """The views of one supervisor's certificates."""

    def __init__(self, state: State, certificates: Certificates, wall: Callable[[], float] = time.time) -> None:
        self._state = state
        self._certificates = certificates
        self._wall = wall

    def ends(self) -> dict[str, float]:
        """Name → the Unix time from which a client may be refused: the first end among its certificates."""
        found: dict[str, float] = {}
        for tls in self._servers():
            for name, chosen in CertificateTable(tls, self._wall()).names().items():
                end = min(each.not_after for each in chosen)
                found[name] = min(end, found.get(name, end))
        return found

    def unusable(self) -> list[UnusablePair]:
        """What is broken on the disk now."""
        return [each for each, _ in self._certificates.broken.values()]

    def names(self) -> list[NameView]:
        """Every name that a listener has a certificate for, and the names that are waited for."""
        return [
            self._name_view(bind, tls, name, Choice(chosen, "wildcard" if name.startswith("*.") else "exact", name))
            for bind, tls in self._listeners()
            for name, chosen in CertificateTable(tls, self._wall()).names().items()
        ]

    def of_name(self, name: str) -> list[NameView]:
        """What a host name gets, from each listener with TLS. Raises `Refused` where it is none."""
        wanted = folded(name)
        if not wanted or any(each in wanted for each in " /:"):
            raise Refused(Refusal.INVALID_REQUEST, f"{name!r} is not a host name")
        return [
            self._name_view(bind, tls, wanted, CertificateTable(tls, self._wall()).choose(wanted))
            for bind, tls in self._listeners()
        ]

    def knows(self, name: str) -> bool:
        """Whether a certificate covers a host name, or a route has it."""
        host = folded(name)
        certificates = (one for tls in self._servers() for each in tls.certificates for one in each.names)
        return any(covers(folded(one), host) for one in certificates) or any(
            route.host and covers(route.host, host) for route in self._state.world.snapshot.routes
        )

    def _servers(self) -> list[TlsServer]:
        return [tls for _, tls in self._listeners()]

    def _listeners(self) -> Iterator[tuple[str, TlsServer]]:
        for listener in self._state.world.snapshot.listeners:
            if listener.tls is not None:
                yield listener.bind, listener.tls

    def _name_view(self, bind: str, tls: TlsServer, name: str, choice: Choice | None) -> NameView:
        certificates = [self._view(tls, each) for each in choice.certificates] if choice is not None else []
        reason = choice.reason if choice is not None else "refused"
        why = "no certificate has this name: it is refused with the alert unrecognized_name (112)"
        if choice is not None:
            why = _REASONS[reason].format(matched=choice.matched)
        return NameView(
            name=name,
            listener=bind,
            reason=reason,
            why=why,
            not_after=min((each.not_after for each in certificates), default=None),
            certificates=certificates,
            client_certificates=tls.client.mode,
            routes=self.routes(name),
        )

    def routes(self, name: str) -> list[RouteView]:
        """The routes that a host's requests may take: the routes of the most specific host."""
        name, routes = folded(name), self._state.world.snapshot.routes
        hosts = {route.host for route in routes}
        exact = name if name in hosts else ""
        wild = max((host for host in hosts if host.startswith("*.") and name.endswith(host[1:])), key=len, default="")
        host = exact or wild
        found = (route for route in routes if route.host == host)
        return [RouteView(host=route.host, path=route.path, service=route.service) for route in found]

    def _view(self, tls: TlsServer, certificate: Certificate) -> CertificateView:
        data = self._state.world.files.get(certificate.digests[0], b"") if certificate.digests else b""
        found = _chain(data)
        failure = self._certificates.last.get(certificate.cert_file)
        return CertificateView(
            file=certificate.cert_file,
            source=str(tls.sources[certificate.source]) if certificate.source < len(tls.sources) else "",
            algorithm=certificate.algorithm,
            names=list(certificate.names),
            not_before=certificate.not_before,
            not_after=certificate.not_after,
            chain=[LinkView(subject=e.subject, issuer=e.issuer, not_after=e.not_after) for e in found.links],
            chain_fault=found.fault,
            failure=failure[0].reason if failure is not None else "",
            failed_at=failure[1] if failure is not None else None,
            kept=certificate.cert_file in self._certificates.broken,
        )


@lru_cache(maxsize=1024)
def _chain(data: bytes) -> Chain:
    return contents_of.chain(data) or Chain(())
