"""Steps of a route that ask who sends a request."""

from __future__ import annotations

import warnings
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from lb.config.model.addresses import parse_target
from lb.config.model.fields import (
    AuthUrl,
    Duration,
    FilePath,
    Flag,
    HeaderName,
    HeaderValue,
    Period,
    Reference,
    RequestTarget,
    Text,
    Url,
)
from lb.config.model.section import Section
from lb.config.model.units import Unreadable
from lb.core import guards as core
from lb.core.auth_urls import auth_service, auth_urls, split_auth_url

# `BaseModel.copy` is deprecated, and nothing here calls it.
warnings.filterwarnings("ignore", message='Field name "copy" in "ForwardAuth" shadows', category=UserWarning)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


#: Texts; one alone may stand without a list.
OneOrMore = Annotated[list[Text], BeforeValidator(_listed, json_schema_input_type=str | list[str])]


class BasicAuth(Section):
    """Lets clients in by name and password. Everybody else gets 401."""

    users_file: FilePath
    """File of users, `NAME:HASH` a line, as `htpasswd -B` writes it. Hashes are bcrypt or argon2. It is read with the
    configuration: `lb reload` takes changes in."""
    realm: HeaderValue = "restricted"
    """What browsers show when they ask for the password."""
    user_header: HeaderName | None = None
    """Field that tells the target the user, such as `Remote-User`. What a client sends under any spelling of it is
    removed."""
    remove_authorization: Flag = False
    """Keep the password from the target."""

    def value(self) -> core.BasicAuth:
        """Its value for the data plane."""
        return core.BasicAuth(self.realm, self.user_header or "", self.remove_authorization)


class ApiKeys(Section):
    """Lets clients in by a key. Everybody else gets 401."""

    keys_file: FilePath
    """File of keys, `NAME:KEY` or `NAME:sha256:HEX` a line. It is read with the configuration."""
    header: HeaderName = "X-Api-Key"
    """Field that holds the key. With `Authorization` it is a bearer token."""
    name_header: HeaderName | None = None
    """Field that tells the target whose key it is, such as `X-Client`. What a client sends under any spelling of it is
    removed."""
    remove_key: Flag = False
    """Keep the key from the target."""

    def value(self) -> core.ApiKeys:
        """Its value for the data plane."""
        return core.ApiKeys(self.header, self.name_header or "", self.remove_key)


class ForwardAuth(Section):
    """Asks another server about each request, and lets it pass if that answers with 2xx.

    The question is a GET without a body, with the request's header fields, X-Forwarded-Method and X-Forwarded-Uri. The
    client gets an answer with 401, 403 or a redirect as it is. Anything else, and no answer in time, is 503."""

    url: AuthUrl | None = None
    """URL of the question. Its server becomes a service of its own, with a TCP check, named `auth-HOST-PORT`."""
    service: Reference | None = None
    """A service of this file that is asked, instead of `url`: with its checks, targets and TLS."""
    path: RequestTarget = "/"
    """Path of the question to `service`, with a query or not."""
    copy: list[HeaderName] = Field(default_factory=list)  # type: ignore[assignment]  # see above
    """Fields of its answer that the target gets, such as `Remote-User`. What a client sends under any spelling of them
    is removed, whether the answer has them or not."""
    timeout: Period = 5.0
    """Longest time for the answer."""

    def asked(self) -> tuple[str, str]:
        """(name of the service, path and query of the question)."""
        if self.url is None:
            return self.service or "", self.path
        _, target = split_auth_url(self.url)
        return auth_service(self.url), target

    def value(self) -> core.ForwardAuth:
        """Its value for the data plane."""
        return core.ForwardAuth(*self.asked(), tuple(self.copy), self.timeout)


class Jwt(Section):
    """Lets clients in by a signed token (JWT). Everybody else gets 401. A token without an end (`exp`) is refused."""

    jwks: Url | None = None
    """URL of the keys (JWKS). lb fetches them each `refresh`, and at most once a minute when a token names a key that
    is unknown. While they cannot be fetched, the former ones stay."""
    jwks_file: FilePath | None = None
    """File of the keys, instead of `jwks`. It is read with the configuration."""
    refresh: Period = 300.0
    """Time between two fetches of `jwks`."""
    issuer: OneOrMore = Field(default_factory=list)
    """Issuers, one of which a token must have (`iss`). Left out: any."""
    audience: OneOrMore = Field(default_factory=list)
    """Audiences, one of which a token must be for (`aud`). Left out: any."""
    algorithms: list[
        Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
    ] = Field(default_factory=list)
    """Algorithms that are taken. Left out: the ones that the keys are for. Shared secrets (HS256) and `none` never
    are."""
    claims: dict[HeaderName, Text] = Field(default_factory=dict)
    """Fields that tell the target of claims: `{X-User: sub}`. Dots lead into objects: `realm_access.roles`. What a
    client sends under any spelling of these fields is removed."""
    header: HeaderName = "Authorization"
    """Field that holds the token; in `Authorization` the word Bearer comes before it."""
    remove_token: Flag = False
    """Keep the token from the target."""
    leeway: Duration = 60.0
    """By how much clocks may differ."""

    def source(self) -> str:
        """Where its keys come from."""
        return self.jwks or self.jwks_file or ""

    def value(self) -> core.Jwt:
        """Its value for the data plane."""
        return core.Jwt(
            tuple(self.issuer),
            tuple(self.audience),
            tuple(self.algorithms),
            tuple(self.claims.items()),
            self.header,
            self.remove_token,
            self.leeway,
        )


def with_auth_services(data: dict[Any, Any]) -> dict[Any, Any]:
    """A file with the services that URLs of `forward_auth` stand for."""
    found: dict[str, Any] = {}
    for url in auth_urls(data):
        try:
            parse_target(split_auth_url(url)[0])
        except Unreadable:
            continue  # the field says so
        found[auth_service(url)] = {"pools": {"auth": {"targets": [split_auth_url(url)[0]]}}}
    services = data.get("services")
    if not found or not isinstance(services, dict):
        return data
    return {**data, "services": {**services, **{name: made for name, made in found.items() if name not in services}}}
