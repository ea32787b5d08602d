"""A file → its `Config`, or all of its errors at once.

Pure but for one read of the file (and a look at the files it names). A value that pydantic refuses is taken out of the
tree and the rest is validated again. So an error in one line does not hide errors of a whole block, or of the whole
file.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath

from pydantic import ValidationError

from lb.config.check import consistency, files, messages, misspelt
from lb.config.check.consistency import Finding, Known
from lb.config.model.config import DEFAULT, SHORT, Config, origin
from lb.config.yaml.problems import ConfigError, Problem
from lb.config.yaml.source import MAX_BYTES, read
from lb.config.yaml.tree import MISSING, Path, Source

#: Times that a broken tree is pruned and validated again. Each takes out at least one value.
_ROUNDS = 12


#: Certificates of listeners, as files of certificate and key.
Served = Collection[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid file: its values, and its text with places for `lint`."""

    config: Config
    source: Source
    short: bool

    def problem(self, finding: Finding) -> Problem:
        """A finding with its place."""
        return _placed(self.source, finding, self.short)


def load(
    path: FilePath, environ: Mapping[str, str] = os.environ, *, check_files: bool = True, served: Served = ()
) -> Config:
    """The configuration in `path`; raises `ConfigError` with all that is wrong."""
    return load_with_source(path, environ, check_files=check_files, served=served).config


def load_again(path: FilePath, served: Served) -> Config:
    """As `load`, for a running lb: certificates that are served already are no errors when their files are broken."""
    return load(path, served=served)


def load_text(
    text: str,
    name: str = "backends.yaml",
    environ: Mapping[str, str] = os.environ,
    *,
    base: str = "",
    check_files: bool = False,
    served: Served = (),
) -> Config:
    """The configuration in `text`. Relative paths in it begin at `base`."""
    return examine(text, name, environ, base=base, check_files=check_files, served=served).config


def load_with_source(
    path: FilePath, environ: Mapping[str, str] = os.environ, *, check_files: bool = True, served: Served = ()
) -> Loaded:
    text = read_text(path)
    return examine(text, str(path), environ, base=str(path.resolve().parent), check_files=check_files, served=served)


def read_text(path: FilePath) -> str:
    """The file's text; raises `ConfigError` when it has none."""
    name = str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        hint = "Name the file after the command. Or begin with one of one line:\nbackends: [http://127.0.0.1:5001]"
        raise ConfigError([Problem(name, 0, 0, "there is no such file", hint=hint)]) from None
    except OSError as error:
        raise ConfigError([Problem(name, 0, 0, f"cannot be read: {(error.strerror or str(error)).lower()}")]) from None
    if len(raw) > MAX_BYTES:
        raise ConfigError([Problem(name, 0, 0, f"the file is larger than {MAX_BYTES // 1024 // 1024} MiB")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        message = f"the byte 0x{raw[error.start]:02x} is not UTF-8"
        raise ConfigError([Problem(name, line, column, message, hint="Save the file as UTF-8.")]) from None


def examine(
    text: str,
    name: str,
    environ: Mapping[str, str],
    *,
    base: str = "",
    check_files: bool = False,
    served: Served = (),
) -> Loaded:
    """The values and places of `text`; raises `ConfigError` with all that is wrong.

    `served`: the certificates of listeners that are served already, as files of certificate and key. Each may be broken
    on the disk: it is served on as it was."""
    source = read(text, name, environ)
    problems = list(source.problems)
    if source.root.entries is None:
        said = "a list" if source.root.items is not None else "a text"
        hint = "It begins with `backends:`, or with `services:`."
        raise ConfigError([*problems, source.problem(source.root.place, f"the file is {said}, not a mapping", hint)])
    problems.extend(misspelt.mend(source))
    short = "backends" in source.root.entries and "services" not in source.root.entries
    problems.extend(_both_forms(source))
    known = _names(source, short)
    config, pruned, refused = _validated(source, base, short)
    problems.extend(refused)
    if config is not None:
        findings = consistency.errors(config, known)
        problems.extend(_unless_pruned(source, findings, pruned, short))
    if problems:
        raise ConfigError(_distinct(problems))
    assert config is not None
    if check_files:
        problems = [_placed(source, finding, short) for finding in files.errors(config, served)]
        if problems:
            raise ConfigError(_distinct(problems))
    return Loaded(config, source, short)


def _both_forms(source: Source) -> list[Problem]:
    entries = source.root.entries or {}
    if "services" not in entries:
        return []
    found = []
    for key in SHORT:
        if key in entries:
            place = source.find((key,), key=True)
            message = f"{key!r} belongs to the short form, and there is `services` already"
            hint = "Write it under services.NAME." if key != "backends" else "Make it a pool under services.NAME.pools."
            found.append(source.problem(place, message, hint, key))
            del entries[key]
    return found


def _names(source: Source, short: bool) -> Known:
    """Names as they stand in the file, whether their definitions are right or not."""
    authorities = source.root.child("acme")
    acme = tuple((authorities.entries if authorities else None) or ())

    def line(path: Path) -> int:
        return source.find(path).line

    if short:
        return Known({DEFAULT: (DEFAULT,)}, acme, line)
    services = source.root.child("services")
    names: dict[str, tuple[str, ...]] = {}
    for name, entry in ((services.entries if services else None) or {}).items():
        pools = entry.node.child("pools")
        pool_entries = (pools.entries if pools else None) or {}
        names[name] = tuple(
            pool
            for pool in pool_entries
            if not messages.too_deep(("services", name, "pools", pool))
            or pool_entries[pool].node.items is not None
            or pool_entries[pool].node.entries is not None
        )
    return Known(names, acme, line)


def _validated(source: Source, base: str, short: bool) -> tuple[Config | None, list[Path], list[Problem]]:
    """The model of what can be used, what had to be left out of it, and why."""
    pruned: list[Path] = []
    problems: list[Problem] = []
    for _ in range(_ROUNDS):
        try:
            config = Config.model_validate(source.root.data(), context={"base": base})
        except ValidationError as error:
            found = error.errors(include_url=False)
        else:
            return config, pruned, problems
        left_out: list[Path] = []
        for one in found:
            _, path, problem = messages.problem(source, one, short)
            follows = path in pruned or (
                one["type"] != "extra_forbidden" and any(gone[: len(path)] == path for gone in pruned)
            )
            if not follows and not _reported(source, path):
                problems.append(problem)
            if messages.too_deep(path) and one["type"] == "model_type":
                pruned.append((*path[:-2], path[-1]))  # it is given, in the wrong place: nothing is missing
            left_out.append(path[:-1] if one["type"] == "missing" and path in pruned else path)
            if one["type"] == "missing":
                left_out.append(path[:-1])
        if not _prune(source, left_out):
            break
        pruned.extend(left_out)
    return None, pruned, problems


def _reported(source: Source, path: Path) -> bool:
    """Whether `source` has found fault with the value already."""
    node = source.root
    for step in path:
        child = node.below(step)
        if child is None:
            break  # a shorthand: the scalar stands for the whole of it
        node = child
    return node is MISSING or node.broken


def _prune(source: Source, paths: Iterable[Path]) -> bool:
    """Take the values out of the tree; lists from their end, so that positions hold. Whether anything was there."""
    anything = False
    for path in sorted(set(paths), key=lambda path: [(isinstance(step, int), step) for step in path], reverse=True):
        node = source.root
        while path:
            step, path = path[0], path[1:]
            child = node.below(step) if path else node.child(step)
            if child is None:
                break
            if not path or (child.entries is None and child.items is None):
                if node.entries is not None and isinstance(step, str):
                    del node.entries[step]
                elif node.items is not None and isinstance(step, int):
                    del node.items[step]
                anything = True
                break
            node = child
    return anything


def _unless_pruned(source: Source, findings: Iterable[Finding], pruned: list[Path], short: bool) -> list[Problem]:
    """Findings with their places, but for findings that only follow from what was left out."""
    problems = []
    for finding in findings:
        path = origin(finding[0]) if short else finding[0]
        if any(gone == path[: len(gone)] or path == gone[: len(path)] for gone in pruned):
            continue
        problems.append(_placed(source, finding, short))
    return problems


def _placed(source: Source, finding: Finding, short: bool) -> Problem:
    path, message, hint = finding
    path = origin(path) if short else path
    return source.problem(source.find(path), message, hint, messages.dotted(path))


def _distinct(problems: Iterable[Problem]) -> list[Problem]:
    """One block that is used by several aliases is wrong once."""
    seen: dict[tuple[int, int, str], Problem] = {}
    for problem in problems:
        seen.setdefault((problem.line, problem.column, problem.message), problem)
    return list(seen.values())
