"""Routes: which requests go to which service."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from lb.config.model.fields import (
    Bounds,
    ClientKey,
    ClientNetwork,
    ConditionValue,
    CookieName,
    Duration,
    FilePath,
    Flag,
    HeaderName,
    Name,
    PageStatus,
    ParameterName,
    Reference,
    RequestMethod,
    RouteHost,
    RoutePath,
    RoutePattern,
    Size,
    Whole,
)
from lb.config.model.section import Section
from lb.config.model.steps import FixedAnswer, RouteRedirect, Step
from lb.core import targets as core


class Match(Section):
    """What a request must have to take the route; all of it must hold. A header, query parameter or cookie has to have
    the value, or any with `"*"`; between slashes it is a regular expression for the whole value."""

    host: RouteHost = ""
    """Exact host, without port, or `*.suffix`. Left out: any host."""
    path: RoutePath | None = None
    """Path prefix that ends at a segment's border, as `path` of the route."""
    path_exact: RoutePath | None = None
    """The whole path."""
    path_regex: RoutePattern | None = None
    """Regular expression for the whole path. It is matched in one pass, whatever the path: look-around and
    back-references are not supported."""
    method: Annotated[list[RequestMethod], Field(min_length=1)] | None = None
    """Methods, one of which the request must have."""
    headers: dict[HeaderName, ConditionValue] = Field(default_factory=dict)
    """Headers. Lines of one name count as one, joined by commas."""
    query: dict[ParameterName, ConditionValue] = Field(default_factory=dict)
    """Query parameters, decoded. Of a repeated one the first counts."""
    cookies: dict[CookieName, ConditionValue] = Field(default_factory=dict)
    """Cookies. Of a repeated one the first counts."""
    clients: list[ClientNetwork] = Field(default_factory=list)
    """Networks, one of which the client must be in; `unix` for clients of a Unix socket. Behind `trusted_proxies` the
    client is the first address from the right of X-Forwarded-For that is no trusted proxy's."""
    scheme: Literal["http", "https"] | None = None
    """The scheme of the client's URL. Behind `trusted_proxies` their X-Forwarded-Proto counts."""
    protocol: list[Literal["http/1.0", "http/1.1", "h2", "grpc", "websocket"]] = Field(default_factory=list)
    """Protocols, one of which the request must have: a version of HTTP, gRPC (by its content type), or a WebSocket
    handshake."""

    def paths(self) -> list[str]:
        """The keys of paths that it has."""
        return [key for key in ("path", "path_exact", "path_regex") if getattr(self, key) is not None]


class Route(Section):
    """Which service answers. The most specific route wins, whatever the order of the file: by host, then by path, then
    by the other conditions."""

    name: Name | None = None
    """Its name, where logs and `lb route test` speak of it. Left out: its host and path."""
    service: Reference | None = None
    """Name of the service. A route has one of `service`, `split`, `redirect` and `answer`."""
    split: dict[Reference, Annotated[Whole, Bounds(0, 1_000_000)]] | None = None
    """Services and their weights, instead of `service`: `{shop: 95, shop-next: 5}`. Shares are exact to a hundredth.
    The share of a service that has no target goes to the other ones."""
    split_by: ClientKey | None = None
    """What keeps a client at one service of the `split`: `client`, `header:NAME` or `cookie:NAME`. Left out: each
    request is dealt out anew."""
    fallback: Reference | None = None
    """Service that gets the requests while no other one of the route has a target that can serve."""
    redirect: RouteRedirect | None = None
    """Where clients are sent."""
    answer: FixedAnswer | None = None
    """What lb answers by itself."""
    host: RouteHost = ""
    """Exact host, without port, or `*.suffix`. Left out: any host."""
    path: RoutePath = "/"
    """Path prefix that ends at a segment's border: `/a` matches `/a` and `/a/b`, not `/ab`."""
    match: Match | None = None
    """More conditions; `host` and `path` may stand here as well."""
    steps: list[Step] = Field(default_factory=list)
    """What is checked and changed on the way, step by step in this order. Checks of the route, such as `max_body`,
    come before."""
    max_body: Size = 0
    """Bytes of a request's body, without the framing of chunks; a longer one gets 413. 0: no limit. nginx: 1 MiB."""
    max_response: Size = 0
    """Bytes of an answer's body, as the target sends it. A longer one becomes a 502 while nothing of it was passed on,
    else it is cut. 0: no limit."""
    timeout: Duration = 0.0
    """Longest time for the whole request, instead of the service's `timeouts.total`; `0s`: that one counts."""
    error_pages: dict[PageStatus, FilePath] | None = None
    """HTML pages for lb's own answers, by status or class: `{503: sorry.html, 5xx: error.html}`. What is missing here,
    the service's and the file's `error_pages` have."""
    grpc_web: Flag = False
    """Take calls of gRPC-Web (`application/grpc-web`, and `-text`), which browsers make, as calls of gRPC."""
    client_certificate: Flag = False
    """Only for clients that have shown a certificate; all others get 403. A listener must verify clients: with
    `client: {mode: optional, ca_file: …}`, the host's other routes are for everybody."""

    def for_host(self) -> str:
        """Its host, wherever it stands."""
        return self.host or (self.match.host if self.match is not None else "")

    def for_path(self) -> tuple[str, str]:
        """(kind, path), wherever they stand."""
        match = self.match
        if match is not None:
            if match.path_exact is not None:
                return core.EXACT, match.path_exact
            if match.path_regex is not None:
                return core.REGEX, match.path_regex
            if match.path is not None:
                return core.PREFIX, match.path
        return core.PREFIX, self.path

    def conditions(self) -> core.Match:
        """Its conditions besides host and path."""
        match = self.match
        if match is None:
            return core.Match()
        return core.Match(
            methods=tuple(dict.fromkeys(match.method or ())),
            headers=tuple((name.lower(), value) for name, value in match.headers.items()),
            query=tuple(match.query.items()),
            cookies=tuple(match.cookies.items()),
            clients=tuple(dict.fromkeys(match.clients)),
            scheme=match.scheme or "",
            protocols=tuple(dict.fromkeys(match.protocol)),
        )

    def goal(self) -> str:
        """Where its requests go."""
        if self.split is not None:
            return " and ".join(f"{name} ({weight})" for name, weight in self.split.items())
        return self.service or ("a redirect" if self.redirect is not None else "an answer of its own")

    def services(self) -> list[str]:
        """The services that its requests may go to."""
        named = (self.service, *(self.split or ()), self.fallback)
        return list(dict.fromkeys(name for name in named if name))

    def title(self) -> str:
        """Its name, or its host and path; see `core.targets.Route.title`."""
        kind, path = self.for_path()
        return core.Route("", self.for_host(), path, kind=kind, name=self.name or "").title()

    def identity(self) -> Any:
        """What tells it from every other route: equal values match the same requests with the same precedence."""
        made = self.conditions()
        values = [tuple(sorted(each)) for each in (made.headers, made.query, made.cookies, made.methods)]
        values += [tuple(sorted(made.clients)), tuple(sorted(made.protocols))]
        return self.for_host(), self.for_path(), made.scheme, *values
