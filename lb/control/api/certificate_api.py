"""The admin API's part about certificates: what each name gets, and why."""

from __future__ import annotations

from aiohttp import web

from lb.control.api.endpoint import LOOKING, Answer, Endpoint
from lb.control.api.http import OPERATIONS, Body, as_json, query, send
from lb.control.certificate_models import NameView


async def certificates(request: web.Request) -> web.Response:
    query(request, ())
    return _send(request, request.app[OPERATIONS].certificates())


async def certificates_of(request: web.Request) -> web.Response:
    query(request, ())
    return _send(request, request.app[OPERATIONS].certificates_of(request.match_info["name"]))


def _send(request: web.Request, found: list[NameView]) -> web.Response:
    return send(request, Body(b"[%s]" % b",".join(as_json(each) for each in found)))


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "GET", "/api/v1/certificates", certificates, "listCertificates", LOOKING, "looking", "What each name gets",
        {200: Answer("Every name of a certificate, by listener.", NameView, many=True)},
        "A name that several certificates have gets one for each key algorithm: the one that ends last.",
    ),
    Endpoint(
        "GET", "/api/v1/certificates/{name}", certificates_of, "getCertificate", LOOKING, "looking",
        "What one host name gets, and why",
        {200: Answer("One entry for each listener with TLS.", NameView, many=True)},
    ),
)  # fmt: skip
