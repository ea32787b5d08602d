"""The admin API's part about certificates: what each name gets, and why."""

from __future__ import annotations

from aiohttp import web

from lb.control.api import problems
from lb.control.api.endpoint import LOOKING, OPERATING, Answer, Endpoint
from lb.control.api.http import OPERATIONS, Body, actor, as_json, query, send, view
from lb.control.certificate_models import AuthorityView, NameView, RenewResult


async def certificates(request: web.Request) -> web.Response:
    query(request, ())
    return _send(request, request.app[OPERATIONS].certificates())


async def certificates_of(request: web.Request) -> web.Response:
    query(request, ())
    return _send(request, request.app[OPERATIONS].certificates_of(request.match_info["name"]))


async def renew(request: web.Request) -> web.Response:
    query(request, ())
    found = request.app[OPERATIONS].renew_certificate(request.match_info["name"], actor(request))
    return view(request, found, 202)


async def authority(request: web.Request) -> web.Response:
    query(request, ())
    return view(request, await request.app[OPERATIONS].certificate_authority())


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
    Endpoint(
        "POST", "/api/v1/certificates/{name}/renew", renew, "renewCertificate", OPERATING, "configuration",
        "Renew a certificate that lb gets by itself",
        {202: Answer("It is ordered, or issued.", RenewResult)},
        "Let's Encrypt issues five certificates for the same names in seven days.",
        refusals=(problems.NO_SUCH_CERTIFICATE,), acts=True,
    ),
    Endpoint(
        "GET", "/api/v1/certificate-authority", authority, "getCertificateAuthority", LOOKING, "looking",
        "lb's own certificate authority",
        {200: Answer("Its certificate, for whoever is to trust it.", AuthorityView)},
        refusals=(problems.NO_SUCH_CERTIFICATE,),
    ),
)  # fmt: skip
