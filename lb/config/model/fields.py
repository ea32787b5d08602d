"""The types of the model's fields: how each is read (`coerce`), checked (`validators`), written, and shown to
editors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from lb.config.model import coerce, units, validators
from lb.config.model.units import Ranges
from lb.core.quorum import Quorum


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
            coerce.refuse(f"{value:g} is out of range", f"{kind}, {self}")
        return value

    def __str__(self) -> str:
        return f"{self.least:g} or more" if self.most is None else f"{self.least:g} to {self.most:g}"


def _schema(pattern: str, *more: dict[str, Any], examples: list[Any], kind: str = "") -> WithJsonSchema:
    """`kind`: `duration`, `size` or `percent`, so that forms show its units. Validators ignore the keyword `x-kind`."""
    text = {"type": "string", "pattern": f"^(?:{pattern})$", **({"x-kind": kind} if kind else {})}
    return WithJsonSchema({"anyOf": [text, *more], "examples": examples} if more else {**text, "examples": examples})


Flag = Annotated[bool, BeforeValidator(coerce.read_flag)]
Whole = Annotated[int, BeforeValidator(coerce.read_whole)]
Number = Annotated[float, BeforeValidator(coerce.read_number)]
Text = Annotated[str, BeforeValidator(coerce.read_text, json_schema_input_type=str | int | float | bool)]
Word = Annotated[str, BeforeValidator(coerce.read_text)]

_DURATION_SCHEMA = _schema(units.DURATION_PATTERN, {"const": 0}, examples=["250ms", "2s", "1m"], kind="duration")
_WRITE_DURATION = PlainSerializer(units.format_duration, return_type=str)
#: Seconds; 0 is allowed and means what the field says.
Duration = Annotated[float, BeforeValidator(coerce.read_duration), _WRITE_DURATION, _DURATION_SCHEMA]
#: Seconds, more than 0.
Period = Annotated[
    float, BeforeValidator(coerce.read_duration), AfterValidator(coerce.above_zero), _WRITE_DURATION, _DURATION_SCHEMA
]
Size = Annotated[
    int,
    BeforeValidator(coerce.read_size),
    Bounds(0),
    PlainSerializer(units.format_size, return_type=str),
    _schema(units.SIZE_PATTERN, {"type": "integer", "minimum": 0}, examples=["64KiB", "10MiB"], kind="size"),
]
Percent = Annotated[
    float,
    BeforeValidator(coerce.read_percent),
    AfterValidator(coerce.at_most_all),
    PlainSerializer(units.format_percent, return_type=str),
    _schema(units.PERCENT_PATTERN, {"const": 0}, examples=["20%"], kind="percent"),
]
Rate = Annotated[
    tuple[int, float],
    BeforeValidator(coerce.read_rate),
    PlainSerializer(units.format_rate, return_type=str),
    _schema(units.RATE_PATTERN, examples=["10/s", "5/m"]),
]
Moment = Annotated[
    float,
    BeforeValidator(coerce.read_moment),
    PlainSerializer(units.format_moment, return_type=str),
    _schema(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ].*", examples=["2026-12-24T00:00:00Z"]),
]
_ONE_STATUS = {"type": "string", "pattern": f"^(?:{units.STATUS_PATTERN})$"}
_STATUS_NUMBER = {"type": "integer", "minimum": 100, "maximum": 599}
Statuses = Annotated[
    Ranges,
    BeforeValidator(coerce.read_statuses),
    PlainSerializer(units.format_statuses, return_type=str),
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
    BeforeValidator(coerce.read_quorum),
    PlainSerializer(coerce.write_quorum),
    _schema(units.PERCENT_PATTERN, {"type": "integer", "minimum": 1}, examples=["100%", 2], kind="percent"),
]

Name = Annotated[
    Word,
    AfterValidator(validators.name),
    WithJsonSchema({"type": "string", "pattern": f"^(?:{validators.NAME_PATTERN})$"}),
]
#: A name that is defined elsewhere in the file; whether it is, `consistency` says.
Reference = Annotated[Word, AfterValidator(validators.not_empty)]
CheckPath = Annotated[Word, AfterValidator(validators.path), _schema(r"/.*", examples=["/health/readiness"])]
RoutePath = Annotated[Word, AfterValidator(validators.route_path), _schema(r"/[^?#*]*", examples=["/", "/greeting"])]
AuthUrl = Annotated[
    Word, AfterValidator(validators.auth_url), _schema(r"(https?|h2c?)://.+", examples=["http://127.0.0.1:9091/verify"])
]
RequestTarget = Annotated[Word, AfterValidator(validators.path), _schema(r"/.*", examples=["/verify"])]
Origin = Annotated[Word, AfterValidator(validators.origin)]
MediaType = Annotated[Word, AfterValidator(validators.media_type)]
RoutePattern = Annotated[
    Word, AfterValidator(validators.route_pattern), _schema(r"[\x20-\x7e]+", examples=["/users/[0-9]+"])
]
RouteHost = Annotated[Word, AfterValidator(validators.route_host)]
HeaderName = Annotated[Word, AfterValidator(validators.header_name)]
HeaderValue = Annotated[Text, AfterValidator(validators.header_value)]
HeaderTemplate = Annotated[Text, AfterValidator(validators.header_template)]
RedirectTo = Annotated[Word, AfterValidator(validators.redirect_to)]
AnswerStatus = Annotated[Whole, Bounds(200, 599)]
ParameterName = Annotated[Text, AfterValidator(validators.not_empty)]
CookieName = Annotated[Word, AfterValidator(validators.cookie_name)]
ConditionValue = Annotated[Text, AfterValidator(validators.condition_value)]
RequestMethod = Annotated[Word, AfterValidator(validators.request_method)]
Method = Annotated[Word, AfterValidator(validators.method)]
Url = Annotated[
    Word, AfterValidator(validators.url), _schema(r"https?://.+", examples=["https://hooks.example.org/restart"])
]
ExpectedText = Annotated[Text, AfterValidator(validators.expected)]
ExpectedValue = Annotated[Text, AfterValidator(validators.header_value), AfterValidator(validators.expected)]
HashKey = Annotated[
    Word, AfterValidator(validators.hash_key), _schema(r"client|path|(?:header|cookie):.+", examples=["client"])
]
ClientKey = Annotated[
    Word, AfterValidator(validators.client_key), _schema(r"client|(?:header|cookie):.+", examples=["client"])
]
LimitKey = Annotated[
    Word, AfterValidator(validators.limit_key), _schema(r"client|route|(?:header|cookie):.+", examples=["client"])
]
Bind = Annotated[Word, AfterValidator(validators.bind)]
TargetUrl = Annotated[Word, AfterValidator(validators.target)]
Network = Annotated[Word, AfterValidator(validators.network)]
ClientNetwork = Annotated[Word, AfterValidator(validators.client_network)]
ServerHost = Annotated[Word, AfterValidator(validators.server_host)]
Domain = Annotated[Word, AfterValidator(validators.domain)]
AgentUrl = Annotated[Word, AfterValidator(validators.agent)]
EngineUrl = Annotated[Word, AfterValidator(validators.engine)]
Resolver = Annotated[Word, AfterValidator(validators.resolver)]
ServicePort = Annotated[Text, AfterValidator(validators.service_port)]
FunctionName = Annotated[Word, AfterValidator(validators.function_name)]
FilePath = Annotated[Word, AfterValidator(validators.file)]
LogPath = Annotated[Word, AfterValidator(validators.log_file)]
#: `503`, or `5xx` for a whole class.
PageStatus = Annotated[Text, AfterValidator(validators.page_status)]
Argument = Annotated[Text, AfterValidator(validators.not_empty)]
