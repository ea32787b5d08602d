"""Texts with a grammar: names, paths, hosts, headers, URLs. Each function passes a text on, or refuses it."""

from __future__ import annotations

import contextlib
import ipaddress
import posixpath
import re

from pydantic_core.core_schema import ValidationInfo

from lb.config.model import addresses
from lb.config.model.coerce import parsed, refuse
from lb.config.model.units import Unreadable
from lb.core.auth_urls import split_auth_url
from lb.core.linear_pattern import BadLinearPattern, LinearPattern
from lb.core.matching import is_pattern
from lb.http.template import VARIABLES, BadTemplate, Template

NAME_PATTERN = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(NAME_PATTERN)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")  # RFC 9110 section 5.5
_PATH = re.compile(r"/[\x21\x22\x24-\x7e]*")  # visible ASCII but `#`, which never reaches a server
_ROUTE_PATH = re.compile(r"/[\x21\x22\x24-\x3e\x40-\x7e]*")  # nor `?`: a route matches the path alone
_ROUTE_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]")
_DOMAIN = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")
_URL = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?(?:[/?][\x21-\x7e]*)?")

#: No host from a variable, and no path that begins with `//`: a client must not choose the site.
_REDIRECT = re.compile(
    r"(?:https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?)?(?:/(?!/)[\x21\x22\x24-\x3e\x40-\x7e]*)?"
    r"(?:\?[\x21\x22\x24-\x7e]*)?"
)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"))

#: "none" labels requests that no service, pool or target answered.
_RESERVED = frozenset(("none",))


def name(value: str) -> str:
    if value in _RESERVED:
        refuse(f"the name {value!r} is taken: metrics use it for requests that nobody answered", "another name")
    if not _NAME.fullmatch(value):
        meant = re.sub(r"[^A-Za-z0-9._-]+", "-", value)[:63].strip("._-")
        refuse(
            f"{value!r} is not a name",
            "letters, digits, `.`, `_` and `-`, at most 63, a letter or digit at both ends",
            meant,
        )
    return value


def path(value: str) -> str:
    if not _PATH.fullmatch(value):
        meant = "" if value.startswith("/") or not _PATH.fullmatch(f"/{value}") else f"/{value}"
        refuse(
            f"{value!r} is not a path", "a path that begins with /, without spaces, percent-encoded where needed", meant
        )
    return value


def route_path(value: str) -> str:
    if value.startswith(("~", "^")):
        prefix = re.sub(r"^~?\*?\s*\^?", "", value).rstrip("$")
        refuse(
            f"{value!r} is a regular expression; a route's path is a prefix",
            "a path that begins with /, without query or spaces; `match: {path_regex: …}` takes a regular expression",
            prefix if _ROUTE_PATH.fullmatch(prefix) and re.fullmatch(r"[\w/.~%-]+", prefix) else "",
        )
    if not _ROUTE_PATH.fullmatch(value):
        meant = "" if value.startswith("/") else f"/{value}"
        if value.startswith("/") and value.endswith("*"):
            meant = value.rstrip("*")
        refuse(f"{value!r} is not a path prefix", "a path that begins with /, without query or spaces", meant)
    if "*" in value:
        refuse(f"{value!r} has a `*`, but a path is a prefix already", "a path prefix", value.partition("*")[0] or "/")
    return value


def route_pattern(value: str) -> str:
    """A regular expression for a whole path."""
    try:
        pattern = LinearPattern(value)
    except BadLinearPattern as error:
        refuse(f"{value!r} cannot be matched: {error}", "a regular expression of one pass, for the whole path")
    if not pattern.matches_some_below(b"/"):
        meant = f"/{value}" if not value.startswith("/") else ""
        refuse(f"{value!r} matches no path: a path begins with / and has no query", "/…", meant)
    return value


def condition_value(value: str) -> str:
    """A value that a request must have: exact, `*`, or a regular expression between slashes."""
    header_value(value)
    if is_pattern(value):
        try:
            LinearPattern(value[1:-1])
        except BadLinearPattern as error:
            refuse(f"{value!r} is no regular expression here: {error}", "a value, `*`, or /regular expression/")
    return value


def header_template(value: str) -> str:
    """A header value with variables."""
    header_value(value)
    return template(value)


def template(value: str) -> str:
    try:
        Template(value)
    except BadTemplate as error:
        refuse(f"{value!r}: {error}", f"variables: {', '.join(f'{{{name}}}' for name in VARIABLES)}")
    return value


def redirect_to(value: str) -> str:
    """A URL, a path, or both; its path and query are templates."""
    if value and not _REDIRECT.fullmatch(value):
        meant = f"https://{value}" if _REDIRECT.fullmatch(f"https://{value}") else ""
        refuse(f"{value!r} is no goal of a redirect", "https://host[:port][/path][?query], or /path[?query]", meant)
    return template(value)


def cookie_name(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        refuse(f"{value!r} is not a cookie's name", "letters, digits and !#$%&'*+-.^_`|~ (RFC 6265 section 4.1.1)")
    return value


def request_method(value: str) -> str:
    if not _TOKEN.fullmatch(value) or value == "CONNECT":
        refuse(f"{value!r} is not a method of a request", "GET, POST or another method")
    if value != value.upper() and value.upper() in _METHODS:
        refuse(f"{value!r} is not a method: methods are case-sensitive", "GET, POST …", value.upper())
    return value


def route_host(value: str) -> str:
    lowered = value.lower().rstrip(".")
    if lowered in ("_", "*", "default", "default_server"):
        refuse(
            f"{value!r} would match no host; a route without `host` matches any",
            "a host name without port, or *.suffix",
        )
    if not _ROUTE_HOST.fullmatch(lowered):
        meant = re.sub(r":[0-9]+$", "", re.sub(r"^https?://", "", lowered).partition("/")[0])
        with contextlib.suppress(UnicodeError):
            meant = meant.encode("idna").decode()  # what clients send of a name that is not ASCII
        meant = meant if _ROUTE_HOST.fullmatch(meant) else ""
        refuse(f"{value!r} is not a host", "a host name without port, or *.suffix", meant)
    return lowered


def header_name(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        refuse(f"{value!r} is not a header name", "letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 section 5.6.2)")
    return value


def header_value(value: str) -> str:
    if not _FIELD_VALUE.fullmatch(value) or value != value.strip(" \t"):
        refuse(f"{value!r} is not a header value", "one line without control characters or outer white space")
    return value


def method(value: str) -> str:
    if not _TOKEN.fullmatch(value) or value == "CONNECT":
        refuse(f"{value!r} is not a method for a check", "GET, HEAD, OPTIONS or another method")
    if value != value.upper() and value.upper() in ("GET", "HEAD", "OPTIONS", "POST", "PUT"):
        refuse(f"{value!r} is not a method: methods are case-sensitive", "GET, HEAD, OPTIONS …", value.upper())
    return value


def url(value: str) -> str:
    if not _URL.fullmatch(value):
        meant = f"https://{value}" if "://" not in value and _URL.fullmatch(f"https://{value}") else ""
        refuse(f"{value!r} is not a URL", "http://… or https://…", meant)
    return value


def expected(value: str) -> str:
    """A text, or a regular expression between slashes: what an answer to a probe must hold."""
    if len(value) > 2 and value.startswith("/") and value.endswith("/"):
        from lb.core.patterns import BadPattern, Pattern  # few files have one, and its package is large

        try:
            Pattern(value)
        except BadPattern as error:
            refuse(f"{value!r} is not a regular expression: {error}", "a text, or a /regular expression/")
    return value


def hash_key(value: str) -> str:
    kind, colon, name = value.partition(":")
    if kind in ("client", "path") and not colon:
        return value
    if kind not in ("header", "cookie") or not _TOKEN.fullmatch(name):
        refuse(f"{value!r} is not a key", "client, path, header:NAME or cookie:NAME")
    return value


def limit_key(value: str) -> str:
    """Header names in lower case, since they are the same in any."""
    kind, colon, name = value.partition(":")
    if kind in ("client", "route") and not colon:
        return value
    if kind not in ("header", "cookie") or not _TOKEN.fullmatch(name):
        refuse(f"{value!r} is not a key", "client, route, header:NAME or cookie:NAME")
    return f"header:{name.lower()}" if kind == "header" else value


def client_key(value: str) -> str:
    if value == "path":
        refuse("'path' does not tell clients apart", "client, header:NAME or cookie:NAME")
    return hash_key(value)


def bind(value: str) -> str:
    return str(parsed(addresses.parse_bind, value).text)


def target(value: str) -> str:
    return str(parsed(addresses.parse_target, value).url)


def network(value: str) -> str:
    return str(parsed(addresses.parse_network, value))


def client_network(value: str) -> str:
    """As `core.networks` has it: all clients of Unix sockets are one network."""
    return value if value == "unix" else network(value)


def auth_url(value: str) -> str:
    """A server as targets are written, and a path with a query or not."""
    try:
        server, request_target = split_auth_url(value)
    except ValueError:
        refuse(f"{value!r} is not the URL of a server", "http://HOST:PORT/PATH, or https, h2, h2c")
    target(server)
    path(request_target)
    return value


_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://(?:\*\.)?(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?"
)


def origin(value: str) -> str:
    if value not in ("*", "null") and not _ORIGIN.fullmatch(value):
        refuse(f"{value!r} is no origin", "SCHEME://HOST or SCHEME://HOST:PORT, with `*.` before the host, or `*`")
    return value


_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/(?:[A-Za-z0-9!#$&^_.+-]+|\*)")


def media_type(value: str) -> str:
    if not _MEDIA_TYPE.fullmatch(value):
        refuse(f"{value!r} is no media type", "TYPE/SUBTYPE or TYPE/*, such as application/json or text/*")
    return value.lower()


def server_host(value: str) -> str:
    try:
        address = addresses.parse_target(f"http://[{value}]:1" if ":" in value else f"http://{value}:1")
    except Unreadable:
        refuse(f"{value!r} is not a host", "a host name or an IP address, without port")
    return address.host


def file(value: str, info: ValidationInfo) -> str:
    """Relative to the configuration file's folder, which the loader gives as context."""
    if not value or "\0" in value:
        refuse(f"{value!r} is not a file's path", "a path; relative ones begin at this file's folder")
    base = (info.context or {}).get("base", "")
    return posixpath.normpath(f"{base}/{value}" if base and not value.startswith("/") else value)


def page_status(value: str) -> str:
    """A status of errors, or a class of them."""
    if re.fullmatch(r"[45](?:[0-9]{2}|xx)", value) is None:
        refuse(f"{value!r} is no status of an error", "400 to 599, or 4xx or 5xx")
    return value


def log_file(value: str, info: ValidationInfo) -> str:
    return value if value == "-" else file(value, info)


def not_empty(value: str) -> str:
    if not value:
        refuse("the text is empty", "a text")
    return value


_DNS_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


def domain(value: str) -> str:
    name = value.removesuffix(".").lower()
    if len(name) > 253 or not _DOMAIN.fullmatch(name):
        refuse(f"{value!r} is not a domain name", "a name such as blue.internal or _http._tcp.blue.internal")
    return name


_AUTHORITY = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}"
_ENGINE = re.compile(rf"unix:///[^\0]+|(?:tcp|https?)://{_AUTHORITY}")
_AGENT = re.compile(rf"unix:///[^\0]+|https?://{_AUTHORITY}")


def agent(value: str) -> str:
    """The address of a Consul agent."""
    if not _AGENT.fullmatch(value):
        refuse(f"{value!r} is not the address of an agent", "http://host:port, https://host:port or unix:///PATH")
    return value


def engine(value: str) -> str:
    """The address of a Docker engine."""
    if not _ENGINE.fullmatch(value):
        refuse(f"{value!r} is not the address of an engine", "unix:///PATH or tcp://host:port")
    return value


def dns_label(value: str) -> str:
    """A name of Kubernetes: of a Service, or a namespace."""
    if not _DNS_LABEL.fullmatch(value):
        refuse(f"{value!r} is not a name of Kubernetes", "63 of a-z, 0-9 and - at most, such as greeting-blue")
    return value


def service_port(value: str) -> str:
    """A port's name or number; empty is none."""
    if value.isdecimal() and value.isascii():
        if not 1 <= int(value) <= 65535:
            refuse(f"{value} is no port", "a number from 1 to 65535, or a port's name")
        return str(int(value))
    if value and not _DNS_LABEL.fullmatch(value):
        refuse(f"{value!r} is no port's name", "a name such as http, or a number from 1 to 65535")
    return value


def function_name(value: str) -> str:
    """A function of a Python module."""
    module, colon, attribute = value.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        refuse(f"{value!r} is not the name of a function", "MODULE:FUNCTION, such as registry:targets")
    return value


def resolver(value: str) -> str:
    """`host:port` of a DNS server; its port is 53 where none is given."""
    with_port = value if value.rpartition(":")[2].isdigit() else f"{value}:53"
    with contextlib.suppress(ValueError):
        with_port = f"[{value}]:53" if ipaddress.ip_address(value).version == 6 else f"{value}:53"
    address = parsed(addresses.parse_bind, with_port)
    try:
        found = ipaddress.ip_address(address.host)
    except ValueError:
        refuse(f"{value!r} is not the address of a DNS server", "an IP address, with a port or without")
    if found.is_unspecified:
        refuse(f"{address.text} is every address, and no server's", "an IP address, with a port or without")
    return str(address.text)
