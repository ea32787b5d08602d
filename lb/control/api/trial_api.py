"""The admin API's part that tries a request without any traffic, as `lb route test` does."""

from __future__ import annotations

from aiohttp import web

from lb.control.api.endpoint import CONFIGURING, Answer, Endpoint
from lb.control.api.http import OPERATIONS, body, query, view
from lb.control.trial_models import Trial, TrialRequest


async def try_request(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, TrialRequest)
    return view(request, await request.app[OPERATIONS].try_request(wanted))


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "POST", "/api/v1/routes/test", try_request, "testRoute", CONFIGURING, "looking",
        "Which route a request would take, and what would become of it",
        {200: Answer("Nothing was sent.", Trial)},
        "The request goes through the code that serves, by the configuration that runs: with the active pools and the "
        "routes in maintenance. The answer shows what steps would tell a target, secrets among it; so it is for the "
        "role that reads the configuration.",
        takes=TrialRequest,
    ),
)  # fmt: skip
