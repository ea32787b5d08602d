"""What each name gets of listeners' certificates, why, until when, and which routes its requests take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import lru_cache

from lb.config.check import certificates as contents_of
from lb.config.check.certificates import Chain
from lb.config.resolve import UnusablePair
from lb.control.certificate_models import AuthorityView, CertificateView, LinkView, NameView, RenewalView, RouteView
from lb.core.certificates import Certificate, CertificateTable, Choice, TlsServer, covers, folded
from lb.core.refusals import Refusal, Refused
from lb.core.targets import EXACT, REGEX
from lb.supervisor.certificates import Certificates
from lb.supervisor.issuing import Issuing
from lb.supervisor.state import State

_REASONS = {
    "exact": "a certificate has this name",
    "wildcard": "a certificate covers it by {matched}",
    "default": "no certificate has this name, so that it gets the default",
    "first": "no certificate has this name and there is no default, so that it gets the first certificate",
}


class CertificateViews:
    """The views of one supervisor's certificates."""

    def __init__(
        self, state: State, certificates: Certificates, issuing: Issuing, wall: Callable[[], float] = time.time
    ) -> None:
        self._state = state
        self._certificates = certificates
        self._issuing = issuing
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

    def renewals(self) -> dict[tuple[str, str], int]:
        """Orders by name and result."""
        known = {each.wanted.names[0] for each in self._issuing.fates()}
        results = self._issuing.results()
        return {(name, result): results.get((name, result), 0) for name in known for result in ("ok", "failed")}

    def failing(self) -> dict[str, bool]:
        """Name → whether its last order failed, or the first certificate has not come yet."""
        return {
            each.wanted.names[0]: bool(each.failures or each.waiting_since or each.in_memory)
            for each in self._issuing.fates()
        }

    def names(self) -> list[NameView]:
        """Every name that a listener has a certificate for, and the names that are waited for."""
        found = []
        for bind, tls in self._listeners():
            chosen = CertificateTable(tls, self._wall()).names()
            for name, certificates in chosen.items():
                choice = Choice(certificates, "wildcard" if name.startswith("*.") else "exact", name)
                found.append(self._name_view(bind, tls, name, choice))
            ordered = dict.fromkeys(folded(name) for source in tls.sources if source.acme for name in source.names)
            found += [self._name_view(bind, tls, name, None) for name in ordered if name not in chosen]
        return found

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
        if any(host in map(folded, source.names) for tls in self._servers() for source in tls.sources):
            return True
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
        renewal = self._renewals().get(name)
        if choice is None and renewal is not None:
            why = f"its first certificate has not come from {renewal.authority} yet: it is refused with the alert 112"
        return NameView(
            renewal=renewal,
            name=name,
            listener=bind,
            reason=reason,
            why=why,
            not_after=min((each.not_after for each in certificates), default=None),
            certificates=certificates,
            client_certificates=tls.client.mode,
            routes=self.routes(name),
        )

    def _renewals(self) -> dict[str, RenewalView]:
        return {folded(each.name): each for each in renewal_views(self._issuing)}

    def renew(self, name: str) -> list[str]:
        """Have a certificate renewed that lb gets by itself. Raises `Refused` where there is none."""
        under_way = self._issuing.renew(folded(name), self._state.config)
        if not under_way:
            detail = f"lb gets no certificate for {name} by itself, neither by `acme` nor by `internal`"
            raise Refused(Refusal.NO_SUCH_CERTIFICATE, detail)
        return under_way

    def authority(self) -> AuthorityView:
        """lb's own authority. Raises `Refused` where it is not used. Blocks."""
        found = self._issuing.root()
        if found is None:
            detail = "no listener takes certificates from the internal authority: `certificates: [internal]`"
            raise Refused(Refusal.NO_SUCH_CERTIFICATE, detail)
        root, file = found
        certificate = root.certificate
        return AuthorityView(
            file=str(file),
            subject=certificate.subject.rfc4514_string(),
            not_after=certificate.not_valid_after_utc.timestamp(),
            fingerprint=root.fingerprint(),
            pem=root.pem().decode(),
        )

    def routes(self, name: str) -> list[RouteView]:
        """The routes that a host's requests may take: the routes of the most specific host."""
        name, routes = folded(name), self._state.world.snapshot.routes
        hosts = {route.host for route in routes}
        exact = name if name in hosts else ""
        wild = max((host for host in hosts if host.startswith("*.") and name.endswith(host[1:])), key=len, default="")
        host = exact or wild
        found = (route for route in routes if route.host == host)
        signs = {EXACT: "=", REGEX: "~"}
        return [
            RouteView(
                host=route.host,
                path=signs.get(route.kind, "") + route.path,
                service=" or ".join(route.services()) or "none",
            )
            for route in found
        ]

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


def renewal_views(issuing: Issuing) -> list[RenewalView]:
    """Every certificate that lb orders."""
    return [
        RenewalView(
            name=each.wanted.names[0],
            authority=each.wanted.authority.name,
            not_after=each.not_after or None,
            waiting_since=each.waiting_since or None,
            next_attempt=each.next_attempt,
            why=each.why,
            under_way=each.under_way,
            failures=each.failures,
            failed_at=each.failed_at or None,
            failure=each.failure,
            in_memory=each.in_memory,
            window_start=each.window[0] or None,
            window_end=each.window[1] or None,
        )
        for each in issuing.fates()
    ]


@lru_cache(maxsize=1024)
def _chain(data: bytes) -> Chain:
    return contents_of.chain(data) or Chain(())
