"""Any valid model goes to YAML and comes back the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from lb.config.model import coerce
from lb.config.model.config import Config
from lb.config.model.fields import Bounds
from lb.config.model.section import Section
from lb.config.model.structure import inner
from lb.config.output.write import write
from lb.config.yaml.source import read
from lb.core.quorum import Quorum

words = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
#: Texts that some YAML reads as something else, or that could end a scalar too early.
tricky = st.sampled_from(
    ["on", "no", "null", "~", "1:30", "010", "1e3", "0x1f", ".inf", "true", "1_000", "3.10", "a: b", "# x", "$HOME",
     "${X}", "$$", "- a", "'q'", '"', "[a]", "{b}", "*c", "&d", "!e", "%f", "é", "\\", "<<", "=", "a,b", "?"]
)  # fmt: skip
texts = tricky | st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x2FF, exclude_categories=["Cc", "Zs"]), max_size=12
)
addresses = st.sampled_from(["127.0.0.1", "[::1]", "example.org", "h"]).flatmap(
    lambda host: st.integers(0, 65535).map(lambda port: f"{host}:{port}")
)
seconds = st.integers(1, 10**9).map(lambda n: n / 1000) | st.floats(0.001, 10**7)

BY_READER: dict[Any, st.SearchStrategy[Any]] = {
    coerce.read_flag: st.booleans(),
    coerce.read_whole: st.integers(2, 200),
    coerce.read_number: st.floats(1, 10),
    coerce.read_duration: seconds,
    coerce.read_percent: st.floats(0, 1),
    coerce.read_size: st.integers(1024, 2**40),
    coerce.read_moment: st.sampled_from([1.8e9, 1.9e9 + 0.5]),
    coerce.read_rate: st.sampled_from([(10, 1.0), (5, 60.0), (1000, 3600.0)]),
    coerce.read_statuses: st.lists(st.integers(100, 599), min_size=1, max_size=4, unique=True).map(
        lambda codes: tuple(sorted((code, code) for code in codes))
    ),
    coerce.read_quorum: st.builds(Quorum, st.just(0.0), st.integers(1, 9)) | st.builds(Quorum, st.floats(0.001, 1)),
    coerce.read_text: texts.filter(bool),
}
BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "name": words.filter(lambda word: word != "none") | st.sampled_from(["no", "on", "1.10", "010", "1e3"]),
    "not_empty": texts.filter(bool),
    "path": st.sampled_from(["/", "/a?b=1", "/%7Ex", "/$x"]),
    "route_path": st.sampled_from(["/", "/a", "/a/b$"]),
    "route_host": st.sampled_from(["a.org", "*.a.org", "[::1]"]),
    "header_name": st.sampled_from(["X-A", "on", "1", "~", "no", "Host"]),
    "header_value": texts.map(str.strip),
    "route_pattern": st.sampled_from(["/users/[0-9]+", "/a(/.*)?", "/[ab]{2}"]),
    "condition_value": texts.filter(lambda text: not text.startswith("/")) | st.sampled_from(["*", "/a+/", "on"]),
    "cookie_name": st.sampled_from(["a", "on", "1"]),
    "request_method": st.sampled_from(["GET", "NO"]),
    "header_template": st.sampled_from(["{client_ip}", "{{a}} $x", "on", "1.10"]),
    "redirect_to": st.sampled_from(["https://a.org", "/x?y={path}", "http://[::1]:8/?"]),
    "method": st.sampled_from(["GET", "HEAD", "NO"]),
    "url": st.sampled_from(["https://h/x?y=$1", "http://[::1]:8/"]),
    "auth_url": st.sampled_from(["http://127.0.0.1:9091/verify", "https://[::1]:8443", "h2c://a.org:1/?x=$1"]),
    "origin": st.sampled_from(["*", "null", "https://a.org", "https://*.a.org:8443"]),
    "media_type": st.sampled_from(["text/*", "application/json", "image/svg+xml"]),
    "body": texts | st.just("/^ok$/"),
    "hash_key": st.sampled_from(["client", "path", "header:X", "cookie:no"]),
    "client_key": st.sampled_from(["client", "header:X"]),
    "limit_key": st.sampled_from(["client", "route", "header:x", "cookie:no"]),
    "bind": addresses | st.just("unix:/run/a b.sock"),
    "target": addresses.map(lambda address: f"http://{address}") | st.just("unix:/x"),
    "network": st.sampled_from(["10.0.0.0/8", "fd00::/8"]),
    "client_network": st.sampled_from(["10.0.0.0/8", "fd00::/8", "unix"]),
    "server_host": st.sampled_from(["h", "10.0.0.1", "::1"]),
    "domain": st.sampled_from(["a.test", "_http._tcp.a.test", "no", "1e3", "010"]),
    "engine": st.sampled_from(["unix:///run/a b.sock", "http://127.0.0.1:2375", "tcp://e.test:2376"]),
    "agent": st.sampled_from(["unix:///run/a b.sock", "http://127.0.0.1:8500", "https://[::1]:8501"]),
    "function_name": st.sampled_from(["registry:targets", "a.b:C.d"]),
    "dns_label": st.sampled_from(["greeting-blue", "no", "1e3", "010"]),
    "service_port": st.sampled_from(["", "http", "no", "8080"]),
    "resolver": st.sampled_from(["127.0.0.1:53", "[::1]:5353"]),
    "file": st.sampled_from(["/a", "b", "no", "${X}", "1.10"]),
    "log_file": st.sampled_from(["-", "/a"]),
}
ERROR_PAGES = st.dictionaries(st.sampled_from(["404", "503", "4xx"]), st.just("/a"), max_size=2)
SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    "Config.error_pages": ERROR_PAGES,
    "Route.error_pages": ERROR_PAGES,
    "Service.error_pages": ERROR_PAGES,
    "Consul.wait": st.sampled_from([1.0, 90.0, 600.0]),
    "Rollout.steps": st.sampled_from([[100], [1, 100], [5, 25, 50, 100]]),
    "Fault.abort": st.sampled_from([400, 503, 599]),
    "Fault.delay": st.sampled_from([0.5, 2.0]),
    "FixedAnswer.status": st.sampled_from([200, 204, 599]),
    "UrlChange.prefix": st.sampled_from(["/", "http://app/", "on"]),
    "Retries.statuses": st.lists(st.sampled_from([502, 503, 504]), max_size=3),
}


def values(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    kind, what = inner(annotation)
    if kind == "section":
        return sections(what)
    if kind == "list":
        least = 1 if any(getattr(one, "min_length", 0) for one in metadata) else 0
        return st.lists(values(what, parts(what)), min_size=least, max_size=2)
    if kind == "mapping":
        names = words if "texts.name" in repr(metadata) else BY_NAME["name"] | words
        return st.dictionaries(names, values(what, parts(what)), min_size=1, max_size=2)
    if kind == "choice":
        return st.sampled_from(what)
    found = st.nothing()
    for one in metadata:
        function = getattr(one, "func", None)
        if function in BY_READER:
            found = BY_READER[function]
        elif getattr(function, "__name__", "") in BY_NAME:
            found = BY_NAME[function.__name__]
        elif isinstance(one, Bounds) and one.most is not None and one.most < 200:
            found = st.integers(int(one.least) + 1, int(one.most)) if one.least == int(one.least) else st.just(1.0)
    return found


def parts(annotation: Any) -> list[Any]:
    return list(getattr(annotation, "__metadata__", ()))


def of_field(section: type[Section], name: str, field: FieldInfo) -> st.SearchStrategy[Any]:
    special = SPECIAL.get(f"{section.__name__}.{name}")
    if special is not None:
        return special
    metadata = list(field.metadata)
    for part in getattr(field.annotation, "__args__", ()):
        for one in getattr(part, "__metadata__", ()):
            metadata += one.metadata if isinstance(one, FieldInfo) else [one]
    return values(field.annotation, metadata)


def sections(section: type[Section]) -> st.SearchStrategy[Any]:
    """Data for a section: all it needs, some of the rest."""
    needed, rest = {}, {}
    for name, field in section.model_fields.items():
        (needed if field.is_required() else rest)[name] = st.deferred(
            lambda name=name, field=field: of_field(section, name, field)
        )
    return st.fixed_dictionaries(needed, optional=rest)


@pytest.mark.slow
@given(sections(Config))
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_valid_model_survives_yaml(data: dict[str, Any]) -> None:
    config = Config.model_validate(data)
    text = write(config)
    source = read(text, "written", {})
    assert not source.problems, "\n".join(map(str, source.problems)) + text
    assert Config.model_validate(source.root.data()) == config
