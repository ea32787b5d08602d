"""Whether error pages can be used. They are looked at while loading, since no request is to find one missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from lb.config.check.consistency import Finding
from lb.config.model.config import Config
from lb.config.yaml.tree import Path

#: Bytes of one page, and of all pages together, at most.
LARGEST = 256 << 10
IN_ALL = 8 << 20
_BASE = "Relative paths begin at this file's folder."


def errors(config: Config) -> Iterator[Finding]:
    """Faults of all pages. One that several places name is at fault in each."""
    places: list[tuple[Path, Mapping[str, str] | None]] = [((), config.error_pages)]
    places += [(("services", name), service.error_pages) for name, service in config.services.items()]
    places += [(("routes", index), route.error_pages) for index, route in enumerate(config.routes)]
    sizes: dict[str, int] = {}
    for at, pages in places:
        for status, file in (pages or {}).items():
            path = (*at, "error_pages", status)
            fault, hint = _fault(file, sizes)
            if fault:
                yield path, fault, hint
            elif sum(sizes.values()) > IN_ALL:
                yield path, f"the error pages have more than {IN_ALL >> 20} MiB together", "Use fewer or smaller ones."
                return


def _fault(file: str, sizes: dict[str, int]) -> tuple[str, str]:
    """Why a page cannot be used, and what to do; empty: it can. `sizes` gets its size."""
    try:
        with FilePath(file).open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError as error:
        return f"the page cannot be read from {file}: {(error.strerror or str(error)).lower()}", _BASE
    if len(data) > LARGEST:
        return f"{file} is larger than {LARGEST >> 10} KiB", "Let it load its pictures from elsewhere."
    if not data.strip():
        return f"{file} is empty", "Clients would see nothing: write a page, or leave the status out."
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"{file} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}", "Save the page as UTF-8."
    sizes[file] = len(data)
    return "", ""
