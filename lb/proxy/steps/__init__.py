"""Steps of a route: decisions on a request before it goes to a target, one file each.

A step has `before(exchange)`, which returns a `Reply` to answer with, or None to go on (`services.Step`). A route has
the steps that its settings ask for, in one tuple; a route without any pays nothing. Steps about rare fields of a head
are asked only where the head has such a field.

A listener that redirects to https has steps, too: its requests take no route, and its last step answers them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.core.targets import (
    ALLOW,
    COOKIE_DOMAIN,
    COOKIE_PATH,
    DENY,
    HSTS,
    LOCATION,
    RATE_LIMIT,
    REPLACE_PATH,
    REPLACE_PREFIX,
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    REWRITE,
    REWRITE_HOST,
    SECURITY_HEADERS,
    STRIP_PREFIX,
)
from lb.http.changed_fields import FieldChanges
from lb.proxy.steps.affinity import AffinityStep
from lb.proxy.steps.api_keys import ApiKeysStep
from lb.proxy.steps.bandwidth import BandwidthStep
from lb.proxy.steps.basic_auth import BasicAuthStep
from lb.proxy.steps.body_limit import BodyLimit
from lb.proxy.steps.client_certificate import ClientCertificate
from lb.proxy.steps.client_networks import ClientNetworks
from lb.proxy.steps.compress import CompressStep
from lb.proxy.steps.concurrency import ConcurrencyStep
from lb.proxy.steps.cors import CorsStep
from lb.proxy.steps.fault import FaultStep
from lb.proxy.steps.fixed_answer import FixedAnswer
from lb.proxy.steps.forward_auth import ForwardAuthStep
from lb.proxy.steps.grpc_deadline import GrpcDeadline
from lb.proxy.steps.grpc_web import GrpcWeb
from lb.proxy.steps.host_change import HostChange
from lb.proxy.steps.hsts import Hsts
from lb.proxy.steps.https_redirect import HttpsRedirect
from lb.proxy.steps.json_web_token import JwtStep
from lb.proxy.steps.maintenance import MaintenanceStep
from lb.proxy.steps.max_forwards import MaxForwards
from lb.proxy.steps.overload import Overload
from lb.proxy.steps.path_change import PathChange
from lb.proxy.steps.rate_limit import RateLimitStep
from lb.proxy.steps.redirect import RedirectStep
from lb.proxy.steps.request_headers import RequestHeaders
from lb.proxy.steps.response_headers import ResponseHeaders
from lb.proxy.steps.response_limit import ResponseLimit
from lb.proxy.steps.rewrite import Rewrite
from lb.proxy.steps.security_headers import SecurityHeaders
from lb.proxy.steps.service_choice import ServiceChoice
from lb.proxy.steps.way_back import WayBack
from lb.proxy.steps.websocket import WebSocketHandshake

if TYPE_CHECKING:
    from lb.core.targets import Route, StepRule
    from lb.proxy.context import Context
    from lb.proxy.services import LiveService, Step


def has_steps(route: Route) -> bool:
    """Whether the file asks for any step of this route: then logs name them."""
    return bool(
        route.steps
        or route.redirect
        or route.answer
        or route.grpc_web
        or route.client_certificate
        or route.max_body
        or route.max_response
        or route.maintenance
        or route.split
        or route.fallback
    )


def steps_of(
    route: Route, choice: ServiceChoice | None, service: LiveService, context: Context
) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The steps of a route: for requests without rare fields, and for requests with one.

    What may refuse a request comes before what changes it, and an answer of the route's own comes last.
    """
    first: tuple[Step, ...] = (GrpcWeb(),) if route.grpc_web else ()
    if route.maintenance is not None:
        first += (MaintenanceStep(route.maintenance, _has_page_of_its_own(route, service)),)
    first += (ClientCertificate(),) if route.client_certificate else ()
    first += (BodyLimit(route.max_body),) if route.max_body else ()
    deadline: tuple[Step, ...] = (GrpcDeadline(),) if route.grpc_web else ()  # the step before may have made one
    last: tuple[Step, ...] = () if choice is None else (choice,)
    if service.bounded or (choice is not None and choice.bounded):
        last += (Overload(),)
    title = route.title()
    first += (ResponseLimit(route.max_response, title, context),) if route.max_response else ()
    last += tuple([_step(rule, title, context) for rule in route.steps])
    if service.cookie is not None or (choice is not None and choice.affine):
        last += (AffinityStep(),)
    if route.redirect is not None:
        last += (RedirectStep(route.redirect),)
    if route.answer is not None:
        last += (FixedAnswer(route.answer),)
    return (*first, *deadline, *last), (*first, GrpcDeadline(), MaxForwards(), WebSocketHandshake(), *last)


def _has_page_of_its_own(route: Route, service: LiveService) -> bool:
    """Whether the route's error pages have one for a service that cannot serve."""
    for level in (route.error_pages, service.rules.error_pages, service.live.error_pages):
        if level is not None and level.find(503) is not None:
            return True
    return False


def _step(rule: StepRule, route: str, context: Context) -> Step:
    if rule.kind == RATE_LIMIT and rule.rate is not None:
        return RateLimitStep(rule.rate, route, context)
    if rule.concurrency is not None:
        return ConcurrencyStep(rule.concurrency, route, context)
    if rule.fault is not None:
        return FaultStep(rule.fault, route, context)
    if rule.bandwidth is not None:
        return BandwidthStep(rule.bandwidth, route, context)
    if rule.kind in (ALLOW, DENY):
        return ClientNetworks(rule.kind, rule.networks, rule.kind == ALLOW)
    if rule.basic_auth is not None:
        return BasicAuthStep(rule.basic_auth, context.guards.users(rule.digest), context.guards.passwords)
    if rule.api_keys is not None:
        return ApiKeysStep(rule.api_keys, context.guards.api_keys(rule.digest))
    if rule.forward_auth is not None:
        return ForwardAuthStep(rule.forward_auth)
    if rule.jwt is not None:
        return JwtStep(rule.jwt, context.guards.key_set(rule.digest), rule.file, context.guards)
    if rule.kind in (LOCATION, COOKIE_PATH, COOKIE_DOMAIN):
        return WayBack(rule.kind, rule.prefix, rule.to)
    if rule.kind == SECURITY_HEADERS:
        return SecurityHeaders(rule.added)
    if rule.kind == HSTS:
        return Hsts(rule.to)
    if rule.cors is not None:
        return CorsStep(rule.cors)
    if rule.compression is not None:
        return CompressStep(rule.compression, context.offload)
    if rule.kind == REWRITE_HOST:
        return HostChange(rule.to)
    if rule.kind == REQUEST_HEADERS:
        return RequestHeaders(FieldChanges(rule.replaced, rule.added, rule.removed))
    if rule.kind == RESPONSE_HEADERS:
        return ResponseHeaders(FieldChanges(rule.replaced, rule.added, rule.removed))
    if rule.kind == REWRITE:
        return Rewrite(rule.prefix, rule.to)
    if rule.kind in (STRIP_PREFIX, REPLACE_PREFIX, REPLACE_PATH):
        return PathChange(rule.kind, rule.prefix, rule.to, rule.kind == REPLACE_PATH)
    raise ValueError(f"a step of an unknown kind: {rule.kind}")  # it may be a guard: nothing passes without it


def steps_of_redirect(port: int) -> tuple[Step, ...]:
    """The steps of a listener that redirects to https. What has to be answered without TLS comes before the redirect:
    the challenges of a certificate authority, which asks at port 80."""
    return (HttpsRedirect(port),)
