"""Which route a request takes: the most specific host that has a matching path, and there the longest path.

A route matches when both its host and its path match. Of the matching ones the order is: exact host, longest wildcard,
any host; then the longest path. `*.example.org` matches any name below example.org, not example.org itself. So `{host:
api.example.org, path: /greeting}` beside `{path: /}` leaves api.example.org/other to the latter, as Traefik and an
HAProxy ACL do, and nginx's separate server blocks do not.

A path is a prefix that ends at a segment's border: /a matches /a and /a/b, not /ab; /a/ matches /a/ and /a/b, not /a.
Paths are compared byte for byte as they came, without decoding. The forwarded path is the matched path, so an encoded
path cannot pass one rule here and another one in the target.

One dict by host and one by path in each. The cost depends on the segments of the longest configured path, not on the
number of routes. `match` is pure, so its answers may be remembered by (host, path).
"""

from __future__ import annotations

from collections.abc import Sequence

from lb.core.targets import Route


def host_matches(pattern: bytes, host: bytes) -> bool:
    """Whether `host` (lower case, no port) is the host `pattern`, or one below it (`*.example.org`)."""
    if pattern.startswith(b"*."):
        return host.endswith(pattern[1:]) and len(host) >= len(pattern)
    return pattern in (host, b"*")


class _Paths:
    """The routes of one host."""

    __slots__ = ("exact", "longest", "under")

    def __init__(self) -> None:
        self.exact: dict[bytes, int] = {}  # the whole path → route
        self.under: dict[bytes, int] = {}  # a prefix with its closing slash → route
        self.longest = 0  # bytes of the longest key of `under`

    def add(self, path: bytes, index: int) -> None:
        if path.endswith(b"/"):
            if self.exact.get(path[:-1]) == self.under.get(path):
                # None there yet, or only the less specific one of the same path without the slash.
                self.under[path] = index
            self.exact.setdefault(path, index)
        else:
            self.exact.setdefault(path, index)
            self.under.setdefault(path + b"/", index)
        self.longest = max(self.longest, len(path) + 1)

    def find(self, path: bytes) -> int | None:
        index = self.exact.get(path)
        if index is not None:
            return index
        under = self.under
        border = path.rfind(b"/", 0, self.longest)
        while border >= 0:
            index = under.get(path[: border + 1])
            if index is not None:
                return index
            border = path.rfind(b"/", 0, border)
        return None


class RouteTable:
    """All routes, ready to be asked. Built once per snapshot."""

    __slots__ = ("_any", "_exact", "_longest_suffix", "_suffixes")

    def __init__(self, exact: dict[bytes, _Paths], suffixes: dict[bytes, _Paths], anywhere: _Paths) -> None:
        self._exact = exact
        self._suffixes = suffixes
        self._any = anywhere
        self._longest_suffix = max(map(len, suffixes), default=0)

    @classmethod
    def build(cls, routes: Sequence[Route]) -> RouteTable:
        """The table of `routes`. Of two with the same host and path the first one counts."""
        exact: dict[bytes, _Paths] = {}
        suffixes: dict[bytes, _Paths] = {}
        anywhere = _Paths()
        for index, route in enumerate(routes):
            host = route.host.lower().encode()
            if not host or host == b"*":
                paths = anywhere
            elif host.startswith(b"*."):
                paths = suffixes.setdefault(host[1:], _Paths())
            else:
                paths = exact.setdefault(host, _Paths())
            paths.add(route.path.encode(), index)
        return cls(exact, suffixes, anywhere)

    def match(self, host: bytes, path: bytes) -> int | None:
        """The index of the route for `host` (lower case, no port) and `path` (no query); None: no route."""
        paths = self._exact.get(host)
        if paths is not None:
            index = paths.find(path)
            if index is not None:
                return index
        if self._suffixes:
            # Only a suffix as long as the longest configured one can match: a name of a thousand dots costs no more.
            dot = host.find(b".", max(0, len(host) - self._longest_suffix))
            while dot >= 0:
                # The star stands for one character at least.
                paths = self._suffixes.get(host[dot:]) if dot else None
                if paths is not None:
                    index = paths.find(path)
                    if index is not None:
                        return index
                dot = host.find(b".", dot + 1)
        return self._any.find(path)
