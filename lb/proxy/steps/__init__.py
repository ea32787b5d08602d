"""Steps of a route: decisions on a request before it goes to a target, one file each.

A step has `before(exchange)`, which returns a `Reply` to answer with, or None to go on (`services.Step`). A route has
the steps that its settings ask for, in one tuple; a route without any pays nothing. Steps about rare fields of a head
are asked only where the head has such a field.

A listener that redirects to https has steps, too: its requests take no route, and its last step answers them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.proxy.steps.body_limit import BodyLimit
from lb.proxy.steps.client_certificate import ClientCertificate
from lb.proxy.steps.grpc_deadline import GrpcDeadline
from lb.proxy.steps.grpc_web import GrpcWeb
from lb.proxy.steps.https_redirect import HttpsRedirect
from lb.proxy.steps.max_forwards import MaxForwards
from lb.proxy.steps.overload import Overload
from lb.proxy.steps.websocket import WebSocketHandshake

if TYPE_CHECKING:
    from lb.core.targets import Route
    from lb.proxy.services import LiveService, Step


def steps_of(route: Route, service: LiveService) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The steps of a route: for requests without rare fields, and for requests with one."""
    first: tuple[Step, ...] = (GrpcWeb(),) if route.grpc_web else ()
    first += (ClientCertificate(),) if route.client_certificate else ()
    first += (BodyLimit(route.max_body),) if route.max_body else ()
    deadline: tuple[Step, ...] = (GrpcDeadline(),) if route.grpc_web else ()  # the step before may have made one
    last: tuple[Step, ...] = (Overload(),) if service.bounded else ()
    return (*first, *deadline, *last), (*first, GrpcDeadline(), MaxForwards(), WebSocketHandshake(), *last)


def steps_of_redirect(port: int) -> tuple[Step, ...]:
    """The steps of a listener that redirects to https. What has to be answered without TLS comes before the redirect:
    the challenges of a certificate authority, which asks at port 80."""
    return (HttpsRedirect(port),)
