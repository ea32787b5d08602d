"""The two kinds of address in the file: where a listener binds, and where a target is.

A bind is `host:port`, `[v6]:port`, `:port` (all addresses) or `unix:/path`. A target is `http://host:port`,
`https://host:port`, `h2c://host:port`, `h2://host:port`, `host:port` or `unix:/path`. A target's id ends in
`host:port` or `unix:/path`, whatever the scheme: one address has one name. Port 0 is allowed everywhere: a listener
gets a free port then, and a demo target likewise.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

from lb.config.model.units import Unreadable

BINDS_ALLOWED = "host:port, [IPv6]:port, :port or unix:/path"
TARGETS_ALLOWED = "http://host:port, https://host:port, h2c://host:port, h2://host:port, host:port or unix:/path"
NETWORKS_ALLOWED = "an IP address or network, such as 10.0.0.0/8, 192.0.2.7 or fd00::/8"

_HOST_PORT = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:/\[\]@?#]*))(?::(?P<port>[0-9]{1,6}))?")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)

#: (TLS, HTTP/2, default port) of a target, by the scheme of its URL.
_SCHEMES = {"http": (False, False, 80), "https": (True, False, 443), "h2c": (False, True, 80), "h2": (True, True, 443)}

#: The kernel's bound on a Unix socket's path, less the closing zero (unix(7)).
_LONGEST_PATH = 107


@dataclass(frozen=True, slots=True)
class Address:
    """`host` is a name, an IP address without brackets, or `unix:/path` (then `port` is 0)."""

    host: str
    port: int
    tls: bool = False
    http2: bool = False

    @property
    def unix(self) -> bool:
        return self.host.startswith("unix:")

    @property
    def text(self) -> str:
        """As in a target's id: `host:port`, `[v6]:port`, `unix:/path`."""
        if self.unix:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        if self.unix:
            return self.host
        return f"{scheme_of(self.tls, self.http2)}://{self.text}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it. A name counts only if it is `localhost`."""
        if self.unix or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def scheme_of(tls: bool, http2: bool) -> str:
    """The scheme of a target's URL."""
    return next(scheme for scheme, (secure, second, _) in _SCHEMES.items() if (secure, second) == (tls, http2))


def parse_bind(text: str) -> Address:
    if text.startswith("unix:"):
        return Address(_unix(text, BINDS_ALLOWED), 0)
    if _SCHEME.fullmatch(text):
        raise Unreadable(
            f"{text!r} is a URL; a bind address is not", BINDS_ALLOWED, text.partition("://")[2].strip("/")
        )
    if text.isdigit():
        raise Unreadable(f"{text!r} is a port without an address", BINDS_ALLOWED, f"127.0.0.1:{text}")
    host, port = _host_port(text, BINDS_ALLOWED)
    if port is None:
        raise Unreadable(f"{text!r} has no port", BINDS_ALLOWED, f"{text}:8080" if text else "0.0.0.0:8080")
    if host in ("", "*"):
        host = "0.0.0.0"
    return Address(host, port)


@lru_cache(maxsize=32_768)  # each is read by the model, the consistency rules and `resolve`
def parse_target(text: str) -> Address:
    if text.startswith("unix:"):
        return Address(_unix(text, TARGETS_ALLOWED), 0)
    tls, http2, rest, default = False, False, text, None
    if match := _SCHEME.fullmatch(text):
        scheme, rest = match[1].lower(), match[2]
        if scheme not in _SCHEMES:
            raise Unreadable(f"{text!r} has the scheme {scheme!r}", TARGETS_ALLOWED, f"http://{rest}")
        tls, http2, default = _SCHEMES[scheme]
        rest, _, path = rest.partition("/")
        if path or "?" in rest or "#" in rest:
            bare = f"{scheme}://{re.split(r'[?#]', rest)[0]}"
            raise Unreadable(
                f"{text!r} has a path; a target is an address, and the client's path goes on as it came",
                TARGETS_ALLOWED,
                bare,
            )
    if "@" in rest:
        raise Unreadable(
            f"{text.rpartition('@')[2]!r} is given with a user name or password, which are not sent to targets",
            TARGETS_ALLOWED,
        )
    host, port = _host_port(rest, TARGETS_ALLOWED)
    if port is None:
        port = default
    if not host:
        raise Unreadable(f"{text!r} has no host", TARGETS_ALLOWED, f"http://127.0.0.1:{port or 8080}")
    if host in ("0.0.0.0", "::"):
        raise Unreadable(f"{text!r} is an address to listen on, not one to connect to", TARGETS_ALLOWED)
    if port is None:
        raise Unreadable(f"{text!r} has no port", TARGETS_ALLOWED, f"{text}:8080")
    return Address(host, port, tls, http2)


def parse_network(text: str) -> str:
    """The network in its canonical spelling; a single address is a network of one."""
    try:
        return str(ipaddress.ip_network(text, strict=True))
    except ValueError:
        pass
    try:
        meant = str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise Unreadable(f"{text!r} is not a network", NETWORKS_ALLOWED) from None
    raise Unreadable(f"{text!r} has bits set beyond its prefix", NETWORKS_ALLOWED, meant)


def _host_port(text: str, allowed: str) -> tuple[str, int | None]:
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        try:
            bare = ipaddress.IPv6Address(text.rpartition(":")[0]) if text.count(":") > 1 else None
        except ValueError:
            bare = None
        meant = f"[{bare}]:{text.rpartition(':')[2]}" if bare is not None and text.rpartition(":")[2].isdigit() else ""
        raise Unreadable(f"{text!r} is not an address", allowed, meant)
    six, host, port = match["six"], match["host"], match["port"]
    if port is not None and int(port) > 65535:
        raise Unreadable(f"{text!r} has port {port}; the highest is 65535", allowed)
    if six is not None:
        try:
            host = str(ipaddress.IPv6Address(six))
        except ValueError:
            raise Unreadable(f"{six!r} is not an IPv6 address", allowed) from None
    elif host not in ("", "*") and not _valid_host(host):
        raise Unreadable(f"{host!r} is not a host name or IPv4 address", allowed)
    return host.lower() if six is None else host, None if port is None else int(port)


def _valid_host(host: str) -> bool:
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return False
        return True
    return _HOST_NAME.fullmatch(host) is not None


def _unix(text: str, allowed: str) -> str:
    path = text.removeprefix("unix:")
    if path.startswith("//"):
        raise Unreadable(f"{text!r} has two slashes too many", allowed, f"unix:/{path.lstrip('/')}")
    if not path.startswith("/"):
        raise Unreadable(f"{text!r} is a relative path; the socket's path must be absolute", allowed)
    if "\0" in path or len(path.encode()) > _LONGEST_PATH:
        raise Unreadable(f"the socket's path {path!r} is longer than {_LONGEST_PATH} bytes", allowed)
    return f"unix:{path}"
