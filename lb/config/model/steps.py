"""What a route checks and changes, and what it answers by itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lb.config.model.compress import Compress
from lb.config.model.cors import Cors
from lb.config.model.fields import (
    AnswerStatus,
    Bounds,
    ClientNetwork,
    Duration,
    Flag,
    HeaderName,
    HeaderTemplate,
    HeaderValue,
    LimitKey,
    Moment,
    Name,
    Percent,
    Rate,
    RedirectTo,
    RoutePath,
    RoutePattern,
    ServerHost,
    Size,
    Text,
    Whole,
)
from lb.config.model.guards import ApiKeys, BasicAuth, ForwardAuth, Jwt
from lb.config.model.hsts import Hsts
from lb.config.model.section import Section
from lb.config.model.security_headers import SecurityHeaders
from lb.core import targets as core


class HeaderChanges(Section):
    """Header fields to set, add and remove, in this order. A name stands for all spellings that servers take for it.

    Values may have variables: `{client_ip}`, `{host}`, `{method}`, `{path}`, `{query}`, `{request_id}`, `{scheme}`,
    `{tls.version}`, `{tls.cipher}` and `{tls.server_name}`, of the request as the client sent it. `{{` is a brace."""

    set: dict[HeaderName, HeaderTemplate] = Field(default_factory=dict)
    """Fields that get this value instead of all that they have."""
    add: dict[HeaderName, HeaderTemplate] = Field(default_factory=dict)
    """Fields that get this value beside what they have."""
    remove: list[HeaderName] = Field(default_factory=list)
    """Fields that are removed."""


class PrefixChange(Section):
    """One prefix of a path instead of another."""

    prefix: RoutePath
    """The prefix to be replaced; it ends at a segment's border. A path without it stays as it is."""
    to: RoutePath
    """What stands there instead; `/` leaves nothing of it."""


class Rewrite(Section):
    """Another path by a regular expression."""

    pattern: RoutePattern
    """Regular expression for the whole path, as in `match.path_regex`. A path that it does not match stays as it is.
    From the left, each group and each part between groups takes as much as it can."""
    to: Text
    """The path instead. `{1}` stands for the first group, `{0}` for the whole path, and `{{` for a brace. A group is
    one that stands within no other group, repetition (but `?`) or alternatives. The query stays."""


class RateLimit(Section):
    """How often requests may come. Each key has a bucket of tokens, and a request takes one; without one it gets 429
    with `Retry-After`. All workers have the same buckets."""

    rate: Rate
    """Tokens that come: `10/s`, `5/m`, `1000/h` or `1000/d`."""
    burst: Annotated[Whole, Bounds(1, 1_000_000)] | None = None
    """Tokens that a bucket holds: so many requests may come at once. Left out: the number of `rate`."""
    key: LimitKey = "client"
    """What has a bucket of its own: `client` (the address, IPv6 by its network of 64 bits), `header:NAME`,
    `cookie:NAME`, or `route` for all requests together. Requests without the header or cookie share one."""
    name: Name = "default"
    """Its name in the RateLimit fields."""
    fields: Flag = True
    """Tell clients in each answer what is left (`RateLimit-Policy`, `RateLimit`)."""
    dry_run: Flag = False
    """Only count and log the requests that it would refuse."""

    def value(self) -> core.RateLimit:
        """Its value for the data plane."""
        number, seconds = self.rate
        return core.RateLimit(
            number, seconds, self.burst or number, self.key, self.name, self.fields, dry_run=self.dry_run
        )


class Concurrency(Section):
    """How many requests may be under way at one time, over all workers. One more gets 503, or 429 where each client,
    header or cookie has a count of its own."""

    limit: Annotated[Whole, Bounds(1, 1_000_000)]
    """Requests, and tunnels such as WebSockets."""
    key: LimitKey = "route"
    """What has a count of its own, as for `rate_limit`."""
    dry_run: Flag = False
    """Only count and log the requests that it would refuse."""

    def value(self) -> core.Concurrency:
        """Its value for the data plane."""
        return core.Concurrency(self.limit, self.key, self.dry_run)


class Bandwidth(Section):
    """How fast an answer goes to its client."""

    rate: Annotated[Size, Bounds(1024)]
    """Bytes a second."""
    after: Size = 0
    """Bytes that go at full speed before."""

    def value(self) -> core.Bandwidth:
        """Its value for the data plane."""
        return core.Bandwidth(self.rate, self.after)


class Fault(Section):
    """A fault on purpose, for drills: a share of the requests is delayed, answered by lb, or both. Log and metrics mark
    them."""

    percent: Percent
    """Share of the requests."""
    until: Moment
    """When it ends by itself: `2026-12-24T00:00:00Z`."""
    delay: Annotated[Duration, Bounds(0, 300)] = 0.0
    """Wait before the request goes on, or is answered."""
    abort: Annotated[Whole, Bounds(400, 599)] | None = None
    """Status that lb answers with, 400 to 599."""

    def value(self) -> core.Fault:
        """Its value for the data plane."""
        return core.Fault(self.percent, self.until, self.delay, self.abort or 0)


class UrlChange(Section):
    """Another beginning of a URL or path."""

    prefix: Annotated[HeaderValue, Field(min_length=1)]
    """The beginning as the target has it, such as `http://app.internal/` or `/`."""
    to: HeaderValue
    """What stands there instead, such as `/v1/`."""


class DomainChange(Section):
    """Another domain."""

    domain: ServerHost
    """The domain as the target has it."""
    to: ServerHost
    """The domain for clients."""


class Step(Section):
    """One step of a route: an entry has one key."""

    allow: Annotated[list[ClientNetwork], Field(min_length=1)] | None = None
    """Networks of the clients that may come; all others get 403. `unix` stands for clients of a Unix socket. Behind
    `trusted_proxies` the client is found as for `match.clients`."""
    deny: Annotated[list[ClientNetwork], Field(min_length=1)] | None = None
    """Networks of clients that get 403."""
    basic_auth: BasicAuth | None = None
    """Only for clients with a name and a password."""
    api_keys: ApiKeys | None = None
    """Only for clients with a key."""
    forward_auth: ForwardAuth | None = None
    """Only for requests that another server lets pass."""
    jwt: Jwt | None = None
    """Only for clients with a signed token."""
    location: UrlChange | None = None
    """Another beginning of the URLs that the target's answers name in Location and Content-Location: the way back of a
    changed path or host."""
    cookie_path: UrlChange | None = None
    """Another beginning of the paths of the target's cookies."""
    cookie_domain: DomainChange | None = None
    """Another domain of the target's cookies."""
    security_headers: SecurityHeaders | None = None
    """Fields of answers that make browsers careful. `{}` stands for its defaults."""
    hsts: Hsts | None = None
    """Strict-Transport-Security in answers to requests that came by https for a host name; by http browsers ignore it.
    It comes before a listener's `hsts`, and a target's own field stays. `{}` stands for its defaults."""
    cors: Cors | None = None
    """Lets pages of other origins read answers."""
    compress: Compress | None = None
    """Answers in a coding that the client takes. `{}` stands for its defaults."""
    strip_prefix: RoutePath | None = None
    """Prefix of the path that the target does not get: `/v1` sends `/v1/x` as `/x`, and `/v1` as `/`."""
    replace_prefix: PrefixChange | None = None
    """Another prefix of the path for the target."""
    replace_path: RoutePath | None = None
    """The path that the target gets, whatever the request's. The query stays."""
    rewrite: Rewrite | None = None
    """Another path for the target, by a regular expression with groups."""
    host: ServerHost | None = None
    """Host that the target gets, instead of the client's and the service's `host_header`."""
    request_headers: HeaderChanges | None = None
    """Header fields of requests. Framing, fields of one connection and lb's own fields cannot be changed."""
    response_headers: HeaderChanges | None = None
    """Header fields of answers, lb's own among them. Interim answers and those that open a tunnel pass as they are."""

    rate_limit: RateLimit | None = None
    """How often requests may come; more get 429."""
    concurrency: Concurrency | None = None
    """How many requests may be under way at one time."""
    bandwidth: Bandwidth | None = None
    """How fast each answer goes to its client."""
    fault: Fault | None = None
    """A fault on purpose, for drills."""

    def kinds(self) -> list[str]:
        """The keys that it has."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]

    def rule(self) -> core.StepRule:
        """Its value for the data plane."""
        if self.allow is not None:
            return core.StepRule(core.ALLOW, networks=tuple(dict.fromkeys(self.allow)))
        if self.deny is not None:
            return core.StepRule(core.DENY, networks=tuple(dict.fromkeys(self.deny)))
        if self.basic_auth is not None:
            rule = self.basic_auth
            return core.StepRule(core.BASIC_AUTH, file=rule.users_file, basic_auth=rule.value())
        if self.api_keys is not None:
            return core.StepRule(core.API_KEYS, file=self.api_keys.keys_file, api_keys=self.api_keys.value())
        if self.forward_auth is not None:
            return core.StepRule(core.FORWARD_AUTH, forward_auth=self.forward_auth.value())
        if self.jwt is not None:
            return core.StepRule(core.JWT, file=self.jwt.source(), jwt=self.jwt.value())
        if self.location is not None:
            return core.StepRule(core.LOCATION, self.location.prefix, self.location.to)
        if self.cookie_path is not None:
            return core.StepRule(core.COOKIE_PATH, self.cookie_path.prefix, self.cookie_path.to)
        if self.cookie_domain is not None:
            return core.StepRule(core.COOKIE_DOMAIN, self.cookie_domain.domain, self.cookie_domain.to)
        if self.security_headers is not None:
            return core.StepRule(core.SECURITY_HEADERS, added=self.security_headers.fields())
        if self.hsts is not None:
            return core.StepRule(core.HSTS, to=self.hsts.value())
        if self.cors is not None:
            return core.StepRule(core.CORS, cors=self.cors.value())
        if self.compress is not None:
            return core.StepRule(core.COMPRESS, compression=self.compress.value())
        if self.strip_prefix is not None:
            return core.StepRule(core.STRIP_PREFIX, self.strip_prefix, "/")
        if self.replace_prefix is not None:
            return core.StepRule(core.REPLACE_PREFIX, self.replace_prefix.prefix, self.replace_prefix.to)
        if self.replace_path is not None:
            return core.StepRule(core.REPLACE_PATH, to=self.replace_path)
        if self.rewrite is not None:
            return core.StepRule(core.REWRITE, self.rewrite.pattern, self.rewrite.to)
        if self.host is not None:
            return core.StepRule(core.REWRITE_HOST, to=self.host)
        if self.rate_limit is not None:
            return core.StepRule(core.RATE_LIMIT, rate=self.rate_limit.value())
        if self.concurrency is not None:
            return core.StepRule(core.CONCURRENCY, concurrency=self.concurrency.value())
        if self.fault is not None:
            return core.StepRule(core.FAULT, fault=self.fault.value())
        if self.bandwidth is not None:
            return core.StepRule(core.BANDWIDTH, bandwidth=self.bandwidth.value())
        changes = self.request_headers or self.response_headers or HeaderChanges()
        kind = core.REQUEST_HEADERS if self.request_headers is not None else core.RESPONSE_HEADERS
        named = tuple(changes.set.items()), tuple(changes.add.items()), tuple(changes.remove)
        return core.StepRule(kind, "", "", *named)


class RouteRedirect(Section):
    """A redirect, instead of a service. What is not named stays as the client has it: scheme, host, port, path, query.

    The host never comes from the path, so that no path leads to another site."""

    to: RedirectTo = ""
    """A URL, a path, or both, each with a query or not: `https://www.example.org`, `/new`, `https://a.example/x?y={path}`.
    Path and query may have the variables of header fields."""
    scheme: Literal["http", "https"] | None = None
    """Another scheme. The port is then the scheme's own, unless `port` names one."""
    port: Annotated[Whole, Bounds(1, 65535)] | None = None
    """Another port. A scheme's own port is left out of the URL."""
    replace_prefix: PrefixChange | None = None
    """Another prefix of the path."""
    status: Annotated[Whole, Field(json_schema_extra={"enum": [301, 302, 303, 307, 308]})] = 302
    """301, 302, 303, 307 or 308. With 307 and 308 method and body stay the same."""

    def value(self) -> core.Redirect:
        """Its value for the data plane."""
        scheme, host, port, path, query = split_url(self.to)
        change = self.replace_prefix
        return core.Redirect(
            status=self.status,
            scheme=self.scheme or scheme,
            host=host,
            port=self.port or port,
            path=path,
            query=query,
            prefix=change.prefix if change is not None else "",
            to=change.to if change is not None else "",
        )


def split_url(to: str) -> tuple[str, str, int, str, str | None]:
    """(scheme, host, port, path, query) of what `validators.redirect_to` has passed."""
    scheme, host, port = "", "", ""
    rest = to
    if "://" in to.partition("?")[0]:
        scheme, _, rest = to.partition("://")
        end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
        authority, rest = rest[:end], rest[end:]
        host, colon, port = authority.rpartition(":")
        if not colon or port.endswith("]"):
            host, port = authority, ""
    path, mark, query = rest.partition("?")
    return scheme, host, int(port or 0), path, query if mark else None


class FixedAnswer(Section):
    """An answer of the route's own, instead of a service."""

    status: AnswerStatus = 200
    """Its status, 200 to 599."""
    body: Text = ""
    """Its body. 204 and 304 have none."""
    content_type: HeaderValue = "text/plain; charset=utf-8"
    """What the body is."""

    def value(self) -> core.Answer:
        """Its value for the data plane."""
        return core.Answer(self.status, self.body, self.content_type)
