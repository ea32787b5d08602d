"""Conditions of a route beyond host and path: method, header, query, cookie, client network, scheme, protocol.

A value is compared byte for byte. `*` stands for any value, and a text between slashes is a regular expression for all
of the value (`core.linear_pattern`). All conditions of a route must hold.

Routes of the same host and path are ordered as Gateway API orders them: a route with methods first, then the one with
more headers, then with more query parameters. The order goes on by cookies, client networks, scheme and protocols.
Where all of that is equal, an exact value comes before a pattern, fewer methods before more, and a smaller network
before a larger one. What is equal then is in the order of the file.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from lb.core.linear_pattern import LinearPattern, pattern_of
from lb.core.native import mypyc_attr
from lb.core.networks import in_networks, network_of
from lb.core.targets import Match

ANY: Final = "*"
# Kinds of named values.
HEADER: Final = 0
QUERY: Final = 1
COOKIE: Final = 2
KINDS: Final = ("header", "query parameter", "cookie")


@mypyc_attr(allow_interpreted_subclasses=True)
class Asked:
    """A request, as conditions ask about it. What costs something to know is a method."""

    __slots__ = ("method",)

    method: bytes

    def value(self, kind: int, name: bytes) -> bytes | None:
        """The value of a header (its lines joined by commas), of a query parameter (the first one, decoded) or of a
        cookie (the first one). None: there is none."""
        raise NotImplementedError

    def client(self) -> bytes:
        """The client's address, behind trusted proxies the one that they name."""
        raise NotImplementedError

    def scheme(self) -> bytes:
        """`http` or `https`, as the client has it."""
        raise NotImplementedError

    def protocols(self) -> tuple[bytes, ...]:
        """What the request may be called: its version of HTTP, and grpc or websocket."""
        raise NotImplementedError


class ValueCondition:
    """A named value that a request must have."""

    __slots__ = ("exact", "kind", "name", "pattern", "text")

    def __init__(self, kind: int, name: str, text: str) -> None:
        self.kind = kind
        self.name = name.lower().encode() if kind == HEADER else name.encode()
        self.text = text
        self.exact: bytes | None = None
        self.pattern: LinearPattern | None = None
        if is_pattern(text):
            self.pattern = pattern_of(text[1:-1])
        elif text != ANY:
            self.exact = text.encode()

    def holds(self, asked: Asked) -> bool:
        value = asked.value(self.kind, self.name)
        if value is None:
            return False
        if self.exact is not None:
            return value == self.exact
        return self.pattern is None or self.pattern.matches(value)

    def implied_by(self, other: ValueCondition) -> bool:
        """Whether every value that the other one allows is allowed here."""
        if (self.kind, self.name) != (other.kind, other.name):
            return False
        if self.text in (ANY, other.text):
            return True
        return self.pattern is not None and other.exact is not None and self.pattern.matches(other.exact)

    def excludes(self, other: ValueCondition) -> bool:
        """Whether no value is allowed by both."""
        if (self.kind, self.name) != (other.kind, other.name):
            return False
        if self.exact is not None and other.exact is not None:
            return self.exact != other.exact
        if self.exact is not None:
            return other.pattern is not None and not other.pattern.matches(self.exact)
        return other.exact is not None and self.pattern is not None and not self.pattern.matches(other.exact)


@lru_cache(maxsize=16384)
def conditions_of(match: Match) -> Conditions:
    """The conditions, once for all equal ones: a worker makes the table anew for each snapshot."""
    return Conditions(match)


def is_pattern(text: str) -> bool:
    """Whether a value is a regular expression."""
    return len(text) > 2 and text.startswith("/") and text.endswith("/")


class Conditions:
    """All conditions of one route."""

    __slots__ = ("clients", "methods", "protocols", "rank", "scheme", "values")

    def __init__(self, match: Match) -> None:
        self.methods = frozenset([method.encode() for method in match.methods])
        self.values = [ValueCondition(HEADER, name, text) for name, text in match.headers]
        self.values += [ValueCondition(QUERY, name, text) for name, text in match.query]
        self.values += [ValueCondition(COOKIE, name, text) for name, text in match.cookies]
        self.clients = match.clients
        self.scheme = match.scheme.encode()
        self.protocols = frozenset([protocol.encode() for protocol in match.protocols])
        exact = 0
        for condition in self.values:
            exact += condition.exact is not None
        #: The smallest comes first.
        self.rank: tuple[int, ...] = (
            0 if self.methods else 1,
            -len(match.headers),
            -len(match.query),
            -len(match.cookies),
            0 if self.clients else 1,
            0 if self.scheme else 1,
            0 if self.protocols else 1,
            -exact,
            len(self.methods),
            -min([_size_of(network) for network in self.clients], default=0),
            len(self.protocols),
        )

    def without(self, known: ValueCondition) -> Conditions:
        """The other ones, for requests that are known to fulfil this one."""
        made = Conditions(Match())
        made.methods, made.clients, made.scheme, made.protocols = (
            self.methods,
            self.clients,
            self.scheme,
            self.protocols,
        )
        made.values = [condition for condition in self.values if condition is not known]
        made.rank = self.rank
        return made

    @property
    def any(self) -> bool:
        """Whether there is any."""
        return bool(self.methods or self.values or self.clients or self.scheme or self.protocols)

    def hold(self, asked: Asked) -> bool:
        """Whether all of them hold."""
        if self.methods and asked.method not in self.methods:
            return False
        for condition in self.values:
            if not condition.holds(asked):
                return False
        if self.clients and not in_networks(self.clients, asked.client()):
            return False
        if self.scheme and asked.scheme() != self.scheme:
            return False
        return not self.protocols or not self.protocols.isdisjoint(asked.protocols())

    def failures(self, asked: Asked) -> list[str]:
        """A sentence for each that does not hold."""
        found: list[str] = []
        if self.methods and asked.method not in self.methods:
            found.append(f"method {_text(asked.method)} is not {_either(self.methods)}")
        for condition in self.values:
            if not condition.holds(asked):
                value = asked.value(condition.kind, condition.name)
                what = f"{KINDS[condition.kind]} {_text(condition.name)}"
                found.append(
                    f"{what} is missing" if value is None else f"{what} is {_text(value)!r}, not {condition.text}"
                )
        if self.clients and not in_networks(self.clients, asked.client()):
            found.append(f"client {_text(asked.client())} is not in {' or '.join(self.clients)}")
        if self.scheme and asked.scheme() != self.scheme:
            found.append(f"scheme {_text(asked.scheme())} is not {_text(self.scheme)}")
        if self.protocols and self.protocols.isdisjoint(asked.protocols()):
            spoken = ", ".join([_text(name) for name in asked.protocols()])
            found.append(f"protocol {spoken} is not {_either(self.protocols)}")
        return found

    def implied_by(self, other: Conditions) -> bool:
        """Whether every request that the other ones let pass passes here, too."""
        if self.methods and not (other.methods and other.methods <= self.methods):
            return False
        if self.protocols and not (other.protocols and other.protocols <= self.protocols):
            return False
        if self.scheme and self.scheme != other.scheme:
            return False
        if self.clients and not (other.clients and all(_within(each, self.clients) for each in other.clients)):
            return False
        return all(any(mine.implied_by(each) for each in other.values) for mine in self.values)

    def exclude(self, other: Conditions) -> bool:
        """Whether it is certain that no request passes both."""
        if self.methods and other.methods and self.methods.isdisjoint(other.methods):
            return True
        if self.scheme and other.scheme and self.scheme != other.scheme:
            return True
        if (
            self.clients
            and other.clients
            and not any(_within(one, (two,)) or _within(two, (one,)) for one in self.clients for two in other.clients)
        ):
            return True
        return any(mine.excludes(each) for mine in self.values for each in other.values)


def _size_of(network: str) -> int:
    return 128 if network == "unix" else network_of(network).prefixlen


def _within(network: str, networks: tuple[str, ...]) -> bool:
    """Whether a network lies in one of these."""
    if network in networks:
        return True
    if network == "unix":
        return False
    inner = network_of(network)
    for name in networks:
        if name != "unix":
            outer = network_of(name)
            if (
                outer.version == inner.version
                and outer.prefixlen <= inner.prefixlen
                and (inner.network_address in outer)
            ):
                return True
    return False


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _either(values: frozenset[bytes]) -> str:
    return " or ".join(sorted([_text(value) for value in values]))
