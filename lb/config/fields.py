"""The types that fields of the configuration have: how each reads what YAML gave, and what it says when it cannot.

YAML 1.1 and 1.2 disagree about plain texts such as `yes`, `010`, `1_000` and `1:30`. Here it is the field that decides:
`source` hands over every plain scalar as a `Scalar`, the text as it stands in the file, and a field of whole numbers
reads a number from it while a field of texts keeps it as it is. What the two versions read differently is refused with
both readings named, never guessed.

Python values are taken as well, so that a model can be built in code.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

from pydantic import (
    AfterValidator,
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema
from pydantic_core.core_schema import ValidationInfo

from lb.config import addresses, quantities
from lb.config.quantities import Ranges, Unreadable
from lb.core.quorum import Quorum


class Scalar(str):
    """A plain scalar that some YAML reads as something else than text: `3`, `1.5`, `true`, `null`."""

    __slots__ = ()


WHOLE = re.compile(r"[+-]?(?:0|[1-9][0-9]*)")
DECIMAL = re.compile(r"[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_ODD_WHOLE = re.compile(r"[+-]?(?:0[0-7_]+|0[xX][0-9a-fA-F_]+|0o[0-7]+|0b[01_]+|[0-9][0-9_]*)")
_YES = frozenset(("yes", "on", "y"))
_NO = frozenset(("no", "off", "n"))
QUORUM_ALLOWED = "a percentage above 0%, or a number of targets"


def refuse(message: str, allowed: str = "", suggestion: str = "") -> NoReturn:
    """Raise what `wording` turns into a problem with its place."""
    raise refusal(message, allowed, suggestion)


def refusal(message: str, allowed: str = "", suggestion: str = "") -> PydanticCustomError:
    context = {"message": message, "allowed": allowed, "suggestion": suggestion}
    return PydanticCustomError("refused", "{message}", context)


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return repr(str(value)) if isinstance(value, str) else repr(value)


def _spelled(value: object, wanted: str) -> str:
    """The text of a scalar, for the readers below."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    refuse(f"{_kind(value)} is not {wanted}", wanted)


# --- plain values ----------------------------------------------------------------------------------------------------


def read_flag(value: object) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        lowered = value.lower()
        if isinstance(value, Scalar) and lowered in ("true", "false"):
            return lowered == "true"
        if lowered in ("true", "false"):
            refuse(f"{str(value)!r} in quotes is a text", "true or false, without quotes", lowered)
        if lowered in _YES or lowered in _NO:
            refuse(
                f"{str(value)!r} is a truth value in YAML 1.1 and a text in YAML 1.2",
                "true or false",
                "true" if lowered in _YES else "false",
            )
    refuse(f"{_kind(value)} is neither true nor false", "true or false")


def read_whole(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        if WHOLE.fullmatch(value) and len(value) <= 18:
            if isinstance(value, Scalar):
                return int(value)
            refuse(f"{str(value)!r} in quotes is a text", "a whole number, without quotes", str(value))
        if _ODD_WHOLE.fullmatch(value) and len(value) <= 18:
            digits = value.replace("_", "").lstrip("+")
            plain = digits.lstrip("0") if digits.isdigit() else ""
            refuse(f"{str(value)!r} is read in two ways by YAML 1.1 and 1.2", "a whole number in plain digits", plain)
    refuse(f"{_kind(value)} is not a whole number", "a whole number")


def read_number(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and DECIMAL.fullmatch(value) and len(value) <= 40:
        if isinstance(value, Scalar):
            return float(value)
        refuse(f"{str(value)!r} in quotes is a text", "a number, without quotes", str(value))
    refuse(f"{_kind(value)} is not a number", "a number, such as 1 or 1.5")


def read_text(value: object) -> object:
    """Plain numbers and truth values are texts here as they stand: `X-Version: 1.10` keeps its zero."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    refuse(f"{_kind(value)} is not a text", "a text")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except Unreadable as error:
        refuse(str(error), error.allowed, error.suggestion)


def read_duration(value: object) -> object:
    """Python numbers are seconds; the file must name the unit."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value <= quantities.LONGEST:
            refuse(f"{value!r} is not a duration", quantities.DURATIONS_ALLOWED)
        return float(value)
    return _parsed(quantities.parse_duration, _spelled(value, "a duration"))


def read_percent(value: object) -> object:
    """Python numbers are shares of 1; the file must write percents."""
    return value if _number(value) else _parsed(quantities.parse_percent, _spelled(value, "a percentage"))


def read_size(value: object) -> object:
    """Python numbers are bytes, and so are bare ones of the file."""
    return value if _number(value) else _parsed(quantities.parse_size, _spelled(value, "a size"))


def read_statuses(value: object) -> object:
    """Python tuples are ranges already."""
    if isinstance(value, tuple):
        return value
    parts = value if isinstance(value, list) else [value]
    return _parsed(quantities.parse_statuses, ",".join(_spelled(part, "a status code or range") for part in parts))


def read_quorum(value: object) -> object:
    """`75%` or a number of targets."""
    if isinstance(value, Quorum):
        return value
    text = _spelled(value, QUORUM_ALLOWED)
    if WHOLE.fullmatch(text) and len(text) <= 9:
        if int(text) < 1:
            refuse(f"{text!r} targets are none", QUORUM_ALLOWED, "1")
        return Quorum(share=0.0, count=int(text))
    share = _parsed(quantities.parse_percent, text)
    if not 0 < share <= 1:
        refuse(f"{text!r} is out of range", QUORUM_ALLOWED)
    return Quorum(share=share)


def write_quorum(quorum: Quorum) -> str | int:
    return quorum.count or quantities.format_percent(quorum.share)


def above_zero(value: float) -> float:
    if value <= 0:
        refuse("0 is not enough here", "a duration above 0")
    return value


def at_most_all(value: float) -> float:
    if not 0 <= value <= 1:
        refuse(f"{quantities.format_percent(value)} is out of range", "0% to 100%")
    return value


@dataclass(frozen=True, slots=True)
class Bounds:
    """Annotates a field of numbers: from `least` to `most`, both included."""

    least: float
    most: float | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        if json_schema.get("type") in ("integer", "number"):
            json_schema["minimum"] = self.least
            if self.most is not None:
                json_schema["maximum"] = self.most
        return json_schema

    def _check(self, value: float) -> float:
        if value < self.least or (self.most is not None and value > self.most):
            kind = "a whole number" if isinstance(value, int) else "a number"
            refuse(f"{value:g} is out of range", f"{kind}, {self}")
        return value

    def __str__(self) -> str:
        return f"{self.least:g} or more" if self.most is None else f"{self.least:g} to {self.most:g}"


# --- texts with a grammar --------------------------------------------------------------------------------------------

NAME_PATTERN = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(NAME_PATTERN)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")  # RFC 9110 section 5.5
_PATH = re.compile(r"/[\x21\x22\x24-\x7e]*")  # visible ASCII but `#`, which never reaches a server
_ROUTE_PATH = re.compile(r"/[\x21\x22\x24-\x3e\x40-\x7e]*")  # nor `?`: a route matches the path alone
_ROUTE_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]")
_URL = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?(?:[/?][\x21-\x7e]*)?")

#: "none" labels requests that no service, pool or target answered.
_RESERVED = frozenset(("none",))


def _name(value: str) -> str:
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


def _path(value: str) -> str:
    if not _PATH.fullmatch(value):
        meant = "" if value.startswith("/") or not _PATH.fullmatch(f"/{value}") else f"/{value}"
        refuse(
            f"{value!r} is not a path", "a path that begins with /, without spaces, percent-encoded where needed", meant
        )
    return value


def _route_path(value: str) -> str:
    if not _ROUTE_PATH.fullmatch(value):
        meant = "" if value.startswith("/") else f"/{value}"
        if value.startswith("/") and value.endswith("*"):
            meant = value.rstrip("*")
        refuse(f"{value!r} is not a path prefix", "a path that begins with /, without query or spaces", meant)
    if "*" in value:
        refuse(f"{value!r} has a `*`, but a path is a prefix already", "a path prefix", value.partition("*")[0] or "/")
    return value


def _route_host(value: str) -> str:
    lowered = value.lower().rstrip(".")
    if not _ROUTE_HOST.fullmatch(lowered):
        bare = re.sub(r"^https?://", "", lowered).partition("/")[0]
        bare = re.sub(r":[0-9]+$", "", bare)
        refuse(
            f"{value!r} is not a host",
            "a host name without port, or *.suffix",
            bare if _ROUTE_HOST.fullmatch(bare) else "",
        )
    return lowered


def _header_name(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        refuse(f"{value!r} is not a header name", "letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 section 5.6.2)")
    return value


def _header_value(value: str) -> str:
    if not _FIELD_VALUE.fullmatch(value) or value != value.strip(" \t"):
        refuse(f"{value!r} is not a header value", "one line without control characters or outer white space")
    return value


def _method(value: str) -> str:
    if not _TOKEN.fullmatch(value) or value == "CONNECT":
        refuse(f"{value!r} is not a method for a check", "GET, HEAD, OPTIONS or another method")
    if value != value.upper() and value.upper() in ("GET", "HEAD", "OPTIONS", "POST", "PUT"):
        refuse(f"{value!r} is not a method: methods are case-sensitive", "GET, HEAD, OPTIONS …", value.upper())
    return value


def _url(value: str) -> str:
    if not _URL.fullmatch(value):
        meant = f"https://{value}" if "://" not in value and _URL.fullmatch(f"https://{value}") else ""
        refuse(f"{value!r} is not a URL", "http://… or https://…", meant)
    return value


def _body(value: str) -> str:
    if len(value) > 1 and value.startswith("/") and value.endswith("/"):
        try:
            re.compile(value[1:-1].encode())
        except re.error as error:
            refuse(f"{value!r} is not a regular expression: {error}", "a substring, or a /regular expression/")
    return value


def _hash_key(value: str) -> str:
    kind, colon, name = value.partition(":")
    if kind in ("client", "path") and not colon:
        return value
    if kind in ("header", "cookie") and _TOKEN.fullmatch(name):
        return value
    refuse(f"{value!r} is not a key", "client, path, header:NAME or cookie:NAME")


def _client_key(value: str) -> str:
    if value == "path":
        refuse("'path' does not tell clients apart", "client, header:NAME or cookie:NAME")
    return _hash_key(value)


def _bind(value: str) -> str:
    return str(_parsed(addresses.parse_bind, value).text)


def _target(value: str) -> str:
    return str(_parsed(addresses.parse_target, value).url)


def _network(value: str) -> str:
    return str(_parsed(addresses.parse_network, value))


def _server_host(value: str) -> str:
    try:
        address = addresses.parse_target(f"http://[{value}]:1" if ":" in value else f"http://{value}:1")
    except Unreadable:
        refuse(f"{value!r} is not a host", "a host name or an IP address, without port")
    return address.host


def _file(value: str, info: ValidationInfo) -> str:
    """Relative to the configuration file's folder, which the loader gives as context."""
    if not value or "\0" in value:
        refuse(f"{value!r} is not a file's path", "a path; relative ones begin at this file's folder")
    base = (info.context or {}).get("base", "")
    return posixpath.normpath(f"{base}/{value}" if base and not value.startswith("/") else value)


def _log_file(value: str, info: ValidationInfo) -> str:
    return value if value == "-" else _file(value, info)


def _not_empty(value: str) -> str:
    if not value:
        refuse("the text is empty", "a text")
    return value


# --- the types -------------------------------------------------------------------------------------------------------


def _schema(pattern: str, *more: dict[str, Any], examples: list[Any]) -> WithJsonSchema:
    text = {"type": "string", "pattern": f"^(?:{pattern})$"}
    return WithJsonSchema({"anyOf": [text, *more], "examples": examples} if more else {**text, "examples": examples})


Flag = Annotated[bool, BeforeValidator(read_flag)]
Whole = Annotated[int, BeforeValidator(read_whole)]
Number = Annotated[float, BeforeValidator(read_number)]
Text = Annotated[str, BeforeValidator(read_text, json_schema_input_type=str | int | float | bool)]
Word = Annotated[str, BeforeValidator(read_text)]

_DURATION_SCHEMA = _schema(quantities.DURATION_PATTERN, {"const": 0}, examples=["250ms", "2s", "1m"])
_WRITE_DURATION = PlainSerializer(quantities.format_duration, return_type=str)
#: Seconds; 0 is allowed and means what the field says.
Duration = Annotated[float, BeforeValidator(read_duration), _WRITE_DURATION, _DURATION_SCHEMA]
#: Seconds, more than 0.
Period = Annotated[float, BeforeValidator(read_duration), AfterValidator(above_zero), _WRITE_DURATION, _DURATION_SCHEMA]
Size = Annotated[
    int,
    BeforeValidator(read_size),
    Bounds(0),
    PlainSerializer(quantities.format_size, return_type=str),
    _schema(quantities.SIZE_PATTERN, {"type": "integer", "minimum": 0}, examples=["64KiB", "10MiB"]),
]
Percent = Annotated[
    float,
    BeforeValidator(read_percent),
    AfterValidator(at_most_all),
    PlainSerializer(quantities.format_percent, return_type=str),
    _schema(quantities.PERCENT_PATTERN, {"const": 0}, examples=["20%"]),
]
_ONE_STATUS = {"type": "string", "pattern": f"^(?:{quantities.STATUS_PATTERN})$"}
_STATUS_NUMBER = {"type": "integer", "minimum": 100, "maximum": 599}
Statuses = Annotated[
    Ranges,
    BeforeValidator(read_statuses),
    PlainSerializer(quantities.format_statuses, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                _ONE_STATUS,
                _STATUS_NUMBER,
                {"type": "array", "items": {"anyOf": [_ONE_STATUS, _STATUS_NUMBER]}, "minItems": 1},
            ],
            "examples": ["200-299", "200-299,304"],
        }
    ),
]

MinReady = Annotated[
    Quorum,
    BeforeValidator(read_quorum),
    PlainSerializer(write_quorum),
    _schema(quantities.PERCENT_PATTERN, {"type": "integer", "minimum": 1}, examples=["100%", 2]),
]

Name = Annotated[Word, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^(?:{NAME_PATTERN})$"})]
#: A name that is defined elsewhere in the file; whether it is, `consistency` says.
Reference = Annotated[Word, AfterValidator(_not_empty)]
CheckPath = Annotated[Word, AfterValidator(_path), _schema(r"/.*", examples=["/health/readiness"])]
RoutePath = Annotated[Word, AfterValidator(_route_path), _schema(r"/[^?#*]*", examples=["/", "/greeting"])]
RouteHost = Annotated[Word, AfterValidator(_route_host)]
HeaderName = Annotated[Word, AfterValidator(_header_name)]
HeaderValue = Annotated[Text, AfterValidator(_header_value)]
Method = Annotated[Word, AfterValidator(_method)]
Url = Annotated[Word, AfterValidator(_url), _schema(r"https?://.+", examples=["https://hooks.example.org/restart"])]
Body = Annotated[Text, AfterValidator(_body)]
HashKey = Annotated[Word, AfterValidator(_hash_key), _schema(r"client|path|(?:header|cookie):.+", examples=["client"])]
ClientKey = Annotated[Word, AfterValidator(_client_key), _schema(r"client|(?:header|cookie):.+", examples=["client"])]
Bind = Annotated[Word, AfterValidator(_bind)]
TargetUrl = Annotated[Word, AfterValidator(_target)]
Network = Annotated[Word, AfterValidator(_network)]
ServerHost = Annotated[Word, AfterValidator(_server_host)]
FilePath = Annotated[Word, AfterValidator(_file)]
LogPath = Annotated[Word, AfterValidator(_log_file)]
Argument = Annotated[Text, AfterValidator(_not_empty)]
