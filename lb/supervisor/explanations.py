"""Explains services, targets and requests: the reason for the state of each, and the conditions for a change."""

from __future__ import annotations

import time

from lb.control.certificate_models import NameView, RenewalView, RouteView
from lb.control.models import Explanation
from lb.control.probe_history import ProbeHistory
from lb.core.explain import explain, span, trial_text
from lb.core.refusals import Refused
from lb.core.renames import split_id
from lb.core.report import RequestRecord
from lb.core.rotation import given_shares, is_served, rules_of
from lb.core.targets import Pool, Service, Target
from lb.health.monitor import Monitor
from lb.process.channel import Command
from lb.supervisor.certificate_views import CertificateViews
from lb.supervisor.desired import DesiredState
from lb.supervisor.discoveries import Discoveries, Watched
from lb.supervisor.handovers import Handovers
from lb.supervisor.lookup import pool_of, service_of, target_of
from lb.supervisor.rollouts import Rollouts
from lb.supervisor.rotations import Rotations
from lb.supervisor.state import State
from lb.supervisor.totals import Totals
from lb.supervisor.views import probe_view, run_view
from lb.supervisor.workers import Workers

#: Targets of a pool that cannot serve which the explanation of a service names.
REASONS = 5


class Explanations:
    """The explanations of one supervisor."""

    def __init__(
        self,
        state: State,
        desired: DesiredState,
        rotations: Rotations,
        workers: Workers,
        monitor: Monitor,
        totals: Totals,
        probe_history: ProbeHistory,
        rollouts: Rollouts,
        handovers: Handovers,
        certificates: CertificateViews,
        discoveries: Discoveries,
    ) -> None:
        self._state = state
        self._desired = desired
        self._rotations = rotations
        self._workers = workers
        self._monitor = monitor
        self._totals = totals
        self._probe_history = probe_history
        self._rollouts = rollouts
        self._handovers = handovers
        self._certificates = certificates
        self._discoveries = discoveries

    async def of(self, subject: str) -> Explanation:
        """Explain a service, a target, a request by its id, or a host name. Raises `Refused`."""
        if any(service.name == subject for service in self._state.world.snapshot.services):
            return self._explain_service(service_of(self._state, subject))
        try:
            return self._explain_target(target_of(self._state, subject))
        except Refused as unknown:
            if self._certificates.knows(subject):
                return _explain_host(subject, self._certificates.of_name(subject), self._certificates.routes(subject))
            record = self._totals.records.get(subject)
            if record is None:  # the workers keep what went well themselves: it is asked for too rarely to be sent
                self._workers.send_command(Command("recall", subject=subject))
                await self._workers.poll()
                record = self._totals.records.get(subject)
            if record is None:
                raise unknown
            return _explain_request(record)

    def _explain_target(self, target: Target) -> Explanation:
        monitor, world = self._monitor, self._state.world
        readiness = world.checks[target.id].readiness
        rotation = self._rotations.current[target.service]
        seen = monitor.history(target.id)
        found = explain(
            target.id,
            monitor.health(target.id),
            rules_of(world.rules[target.service], readiness),
            readiness,
            time.monotonic(),
            seen=seen,
            next_probe=monitor.next_probe(target.id),
            trial=monitor.on_trial(target.id),
            life=monitor.liveness.get(target.id),
            weight=dict(dict(rotation.weights).get(target.pool, ())).get(target.id),
            idle=self._idle(target),
            until=self._handovers.until(target),
        )
        return Explanation(
            subject=target.id,
            kind="target",
            summary=found.summary,
            predicate=found.predicate,
            lines=[*found.lines, *_protocol(target), *self._resolved(target), *self._origin(target)],
            probes=[probe_view(each) for each in reversed(seen[-10:])],
            runs=[run_view(run) for run in reversed(self._probe_history.of(target.id))],
        )

    def _resolved(self, target: Target) -> list[str]:
        addresses = self._monitor.addresses.get(target.id, ())
        if len(addresses) < 2:
            return [f"Requests for {target.host} go to {address}." for address in addresses]
        return [f"Requests for {target.host} go to the first of {', '.join(addresses)} that accepts a connection."]

    def _origin(self, target: Target) -> list[str]:
        """Where it was found."""
        found = self._discoveries.naming(target)
        if found is None:
            return []
        watched, since = found
        lines = [f"It was found by {watched.title}, which {_last_answer(watched)}."]
        name = watched.name_of(split_id(target.id)[2])
        lines += [f"Its source calls it {name}."] if name else []
        if since is not None:
            gone = span(time.monotonic() - since)
            lines.append(
                f"Its source no longer names it, since {gone}. Too many were gone at one time, so it is kept while it "
                f"passes its checks; `lb discover --confirm {watched.name}` lets it go."
            )
        elif not target.weight and any(each.weight for each in self._pool_of(target).targets):
            lines.append("It stands by: targets of its source with a lower priority number get the requests.")
        return lines

    def _pool_of(self, target: Target) -> Pool:
        return pool_of(service_of(self._state, target.service), target.pool)

    def _idle(self, target: Target) -> str:
        """Why a target whose health lets it have requests gets none; empty: it gets some."""
        rotations = self._rotations
        reason = rotations.why_not(target)
        if reason:
            return reason
        rotation = rotations.current[target.service]
        if target.id not in dict(dict(rotation.weights).get(target.pool, ())):
            return f"too few targets of {target.pool} are ready, and `panic` gives the whole pool up"
        service = service_of(self._state, target.service)
        if given_shares(rotation).get(target.pool) or any(p.pool == target.pool for p in service.previews):
            return ""
        return f"pool {target.pool} has no share of the requests of {target.service}"

    def _explain_service(self, service: Service) -> Explanation:
        rotations = self._rotations
        rotation = rotations.current[service.name]
        given = given_shares(rotation)
        lines = []
        for pool in service.pools:
            share = given.get(pool.name, 0)
            lines.append(
                f"pool {pool.name}: {share} % of the requests, "
                f"{rotations.strength(pool)[0]} of {len(pool.targets)} targets can serve"
            )
            watched = self._discoveries.of((service.name, pool.name))
            if watched is not None:
                lines.append(f"{watched.title} names {len(watched.members.named)} of them; it {_last_answer(watched)}")
                lines += [f"a part of it cannot be used: {problem}" for problem in watched.problems]
                held = len(watched.members.held)
                lines += [f"{held} of them are no longer named, and kept while they pass their checks"] if held else []
            lines += [
                f"{each.target} cannot: {each.reason}" for each in (rotations.unable(pool)[:REASONS] if share else [])
            ]
        monitor = self._monitor
        trials = [
            (id, trial)
            for id in monitor.trials()
            if id.startswith(f"{service.name}/") and (trial := monitor.on_trial(id))
        ]
        lines += [f"{id}: {trial_text(trial)}" for id, trial in trials[:REASONS]]
        titles = {route.title() for route in self._state.world.snapshot.routes if service.name in route.services()}
        lines += [
            f"route {title} is in maintenance for {span(time.time() - wish.since)}: its clients get 503"
            for title, wish in self._desired.current.routes.items()
            if title in titles
        ]
        rollout = self._rollouts.view(service.name)
        if rollout is not None:
            lines.append(f"rollout {rollout['text']}")
        last = self._desired.current.services[service.name].last
        if last is not None:
            lines.append(f"last rollout, {span(time.time() - last.at)} ago: {last.text}")
        taken_over = given.get(rotation.fallback, 0) > dict(rotation.shares).get(rotation.fallback, 0)
        if not is_served(rotation):
            predicate = "has no target that can serve: clients get 503"
        elif taken_over:
            instead = " and ".join(pool for pool, parts in rotation.shares if parts)
            predicate = f"is served by its fallback {rotation.fallback}: no target of {instead} can serve"
        else:
            predicate = "is served"
        summary = f"{service.name} {predicate}"
        return Explanation(subject=service.name, kind="service", summary=summary, predicate=predicate, lines=lines)


def _last_answer(watched: Watched) -> str:
    """When the source answered last, as the end of a sentence about it."""
    if not watched.last_success:
        answered = "has not answered since lb started"
    else:
        answered = f"answered {span(time.time() - watched.last_success)} ago"
    return f"{answered}, and does not now: {watched.error}" if watched.error else answered


def _explain_request(record: RequestRecord) -> Explanation:
    reason = f": {record.reason}" if record.reason else ""
    what = " ".join(part for part in (record.method, record.path, record.host and f"of host {record.host}") if part)
    over = f" over {record.protocol}" if record.protocol else ""
    lines = [f"{what} from {record.client}{over}" if what else f"from {record.client}{over}"]
    if record.route:
        lines.append(f"route {record.route}: {', '.join(record.steps) or 'no step'}")
    lines += record.remarks
    if record.target != "none":
        lines.append(f"service {record.service}, pool {record.pool}, target {record.target}")
    elif record.service != "none":
        lines.append(f"service {record.service}, pool {record.pool}; lb answered by itself")
    else:
        lines.append("no service had a part in it: lb answered by itself")
    if not record.refused:
        lines += [f"try {number}: {text}" for number, text in enumerate(record.tries, 1)]
        lines.append(f"answered {record.code} after {record.seconds * 1000:.1f} ms{reason}")
    else:
        lines.append(f"refused before it was understood, with {record.code}{reason} ({record.refused})")
    predicate = f"ended with {record.code}{reason}"
    summary = f"{record.id} {predicate}"
    return Explanation(subject=record.id, kind="request", summary=summary, predicate=predicate, lines=lines)


def _explain_host(name: str, found: list[NameView], routes: list[RouteView]) -> Explanation:
    """Which certificate a host name gets, and which routes its requests take."""
    lines = []
    for each in found:
        files = " and ".join(f"{one.file} ({one.algorithm})" for one in each.certificates)
        lines.append(f"At {each.listener}, {each.why}{f': {files}' if files else ''}.")
        lines += [f"The chain in {one.file}: {one.chain_fault}." for one in each.certificates if one.chain_fault]
        lines += [
            f"{one.file} cannot be taken as it is on the disk: {one.failure}; the former one is served."
            for one in each.certificates
            if one.kept
        ]
        lines += _of_renewal(each.renewal) if each.renewal is not None else []
        if each.client_certificates != "off":
            lines.append(f"At {each.listener}, clients' certificates are {each.client_certificates}.")
    lines += [f"Requests for {each.path} go to {each.service}." for each in routes]
    if not routes:
        lines.append("No route takes its requests: they get 404.")
    ends = min((each.not_after for each in found if each.not_after is not None), default=None)
    refused = bool(found) and all(each.reason == "refused" for each in found)
    waits = next((each.renewal for each in found if each.renewal is not None and not each.renewal.not_after), None)
    if refused and waits is not None:
        predicate = f"waits for its first certificate from {waits.authority}, and is refused until then"
    elif refused:
        predicate = "is refused: no certificate covers it"
    elif not found:
        predicate = "is served without TLS"
    else:
        predicate = "is served"
        if ends is not None:
            left = ends - time.time()
            predicate += f", and its certificate {'ends in' if left > 0 else 'ended before'} {span(abs(left))}"
    return Explanation(subject=name, kind="host", summary=f"{name} {predicate}", predicate=predicate, lines=lines)


def _of_renewal(renewal: RenewalView) -> list[str]:
    """What becomes of a certificate that lb orders."""
    now = time.time()
    due = renewal.next_attempt - now
    when = f"in {span(due)}" if due > 0 else "now"
    lines = [f"It is ordered from {renewal.authority}; the next attempt is {when} ({renewal.why})."]
    if renewal.failed_at is not None:
        lines.append(f"The last attempt failed {span(now - renewal.failed_at)} ago: {renewal.failure}.")
    return lines


def _protocol(target: Target) -> list[str]:
    if not target.http2:
        return []
    how = "as the TLS handshake chooses it" if target.tls is not None else "with prior knowledge"
    return [f"Requests go to it over HTTP/2, {how}. WebSockets do not."]
