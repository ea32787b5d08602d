"""One setting of a YAML text changed in place: comments, order, quotes and indentation of the rest stay as they are.

`edit` finds the value by the positions of its parts (`outline`), replaces these characters alone, and then reads the
result once more. Unless the result means exactly the old text with that one change, the change is refused. So a way of
writing that is not foreseen here costs an error, never a wrong file.

Outside its scope: changing the value of an anchor, as other places would change with it, or of an alias or `<<`. That
is said, with the line.
"""

from __future__ import annotations

from typing import Any, Final

from lb.config.edit.yaml_cst import Part, Unwritable, outline, shape, shape_of
from lb.config.yaml import yaml_format
from lb.config.yaml.environment import veil

Path = tuple[str | int, ...]


class _Remove:
    __slots__ = ()

    def __repr__(self) -> str:
        return "REMOVE"


#: In the place of a value: take the setting out.
REMOVE: Final = _Remove()


def edit(text: str, path: Path, value: Any) -> str:
    """`text` with the setting at `path` changed, added (with the parents that are missing) or removed.

    List entries are numbers from 0; the number behind the last one appends. Raises `Unwritable`.
    """
    if not path:
        raise Unwritable("the path names no setting")
    _check(value)
    mark = text[:1] if text.startswith("\ufeff") else ""
    text = text.removeprefix(mark)
    change = _Change(text)
    before = shape(change.root)
    if value is REMOVE:
        change.remove(path)
        after = _without(before, tuple(veil(step) if isinstance(step, str) else step for step in path))
    else:
        change.put(path, value)
        after = _with(before, tuple(veil(step) if isinstance(step, str) else step for step in path), shape_of(value))
    edited = change.result()
    try:
        right = shape(outline(edited)) == after
    except Unwritable:
        right = False
    if not right:
        raise Unwritable(f"{_named(path)} is written in a way that cannot be changed from here; edit the text itself")
    return mark + edited


def _check(value: Any) -> None:
    if isinstance(value, dict):
        for key, one in value.items():
            if not isinstance(key, str):
                raise Unwritable("a key is not a text")
            _check(one)
    elif isinstance(value, list):
        for one in value:
            _check(one)


class _Change:
    """A text, its parts, and the pieces of it to be replaced."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.root = outline(text)
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._step = _step(self.root, self._column)
        self._pieces: list[tuple[int, int, str]] = []
        parts = list(self.root.below()) if self.root is not None else []
        self._aliases = [part for part in parts if part.kind == "alias"]
        self._anchors = {part.anchor: part for part in parts if part.anchor is not None}

    def result(self) -> str:
        text = self.text
        for start, end, new in sorted(self._pieces, reverse=True):
            text = text[:start] + new + text[end:]
        return text

    # --- what is asked for -------------------------------------------------------------------------------------------

    def put(self, path: Path, value: Any) -> None:
        chain, part, rest = self._walk(path)
        if part is None or (part.null and not chain and rest):
            self._begin(_wrapped(path, value))
            return
        if not rest or part.null:
            self._free(part, path)
            self._replace(chain, part, _wrapped(rest, value))
            return
        step, value = rest[0], _wrapped(rest[1:], value)
        if part.kind == "mapping" and isinstance(step, str):
            self._add(chain, part, step, value)
        elif part.kind == "list" and step == len(part.items):
            self._add(chain, part, None, value)
        elif part.kind == "list" and isinstance(step, int):
            raise Unwritable(f"{_named(path)}: the list has {len(part.items)} entries")
        else:
            kind = {"mapping": "a mapping", "list": "a list"}.get(part.kind, "a single value")
            raise Unwritable(f"{_named(path[: len(path) - len(rest)]) or 'the file'} is {kind}: no {step!r} in it")

    def remove(self, path: Path) -> None:
        chain, part, rest = self._walk(path)
        if part is None or rest:
            if part is not None and len(rest) == 1 and rest[0] in self._merged(_merges(part)):
                raise Unwritable(f"{_named(path)} comes in by `<<`; change it where it stands")
            return
        self._free(part, path)
        container, index = chain[-1]
        if len(container.children()) == 1:
            self._replace(chain[:-1], container, {} if container.kind == "mapping" else [])
        elif container.flow:
            self._remove_inline(container, index)
        else:
            self._remove_lines(container, index)

    # --- finding -----------------------------------------------------------------------------------------------------

    def _walk(self, path: Path) -> tuple[list[tuple[Part, int]], Part | None, Path]:
        """As far as the path exists: the containers with the position taken in each, the value, and what is left."""
        chain: list[tuple[Part, int]] = []
        part = self.root
        for at, step in enumerate(path):
            if part is None:
                return chain, None, path[at:]
            if part.kind == "alias":
                raise Unwritable(
                    f"{_named(path[:at])} is *{part.text} in line {self._line(part.start)}, which stands for what "
                    f"&{part.text} names; change it there"
                )
            found = _position(part, step)
            if found is None:
                self._not_merged(part, path, at)
                if part.anchor is not None:
                    self._free(part, path[:at], from_within=True)
                return chain, part, path[at:]
            if part.anchor is not None:
                self._free(part, path[:at], from_within=True)
            chain.append((part, found))
            part = part.children()[found]
        return chain, part, ()

    def _not_merged(self, part: Part, path: Path, at: int) -> None:
        """A key of its own beside a merge overrides it; what the merge brings cannot be changed in part."""
        if path[at] == "<<":
            raise Unwritable("`<<` is not a setting")
        merges = _merges(part)
        if merges and at + 1 < len(path) and path[at] in self._merged(merges):
            where = self._line(merges[0].start)
            raise Unwritable(f"{_named(path[: at + 1])} comes in by `<<` in line {where}; change it where it stands")

    def _merged(self, parts: list[Part], depth: int = 0) -> set[str]:
        keys: set[str] = set()
        for part in parts:
            if part.kind == "alias" and part.text in self._anchors and depth < 8:
                keys |= self._merged([self._anchors[part.text]], depth + 1)
            elif part.kind == "list":
                keys |= self._merged(part.items, depth + 1)
            for key, value in part.entries:
                keys |= self._merged([value], depth + 1) if key.text == "<<" else {key.text}
        return keys

    def _free(self, part: Part, path: Path, from_within: bool = False) -> None:
        """Refuse what would change other places as well, or leave them with an alias of nothing."""
        inside = {id(one) for one in part.below()}
        anchors = {part.anchor} if from_within else {one.anchor for one in part.below()}
        for alias in self._aliases:
            if alias.text in anchors and (from_within or id(alias) not in inside):
                raise Unwritable(
                    f"{_named(path)} is (or holds) &{alias.text}, which line {self._line(alias.start)} uses as well; "
                    "edit the text itself"
                )

    # --- replacing ---------------------------------------------------------------------------------------------------

    def _replace(self, chain: list[tuple[Part, int]], part: Part, value: Any) -> None:
        brackets = part.flow and bool(part.children())
        if any(above.flow for above, _ in chain) or brackets or not isinstance(value, dict | list) or not value:
            self._replace_inline(chain, part, value)
        else:
            self._replace_lines(chain, part, value)

    def _replace_inline(self, chain: list[tuple[Part, int]], part: Part, value: Any) -> None:
        if isinstance(value, dict | list):
            new = yaml_format.inline(value)
        else:
            new = yaml_format.scalar(value, flow=any(above.flow for above, _ in chain), style=part.style)
        start, end = part.start, self._end(part)
        if part.null and start == end:
            self._fill(chain, start, new)
        elif part.block and chain and self._lead(chain) is not None:
            self._piece(self._after_lead(chain), self._after_lead(chain), f" {new}")
            self._piece(self._line_start(start), self._next_line(end), "")
        else:
            self._piece(start, end, new)

    def _fill(self, chain: list[tuple[Part, int]], at: int, new: str) -> None:
        """A value where there is none."""
        if chain and chain[-1][0].kind == "mapping":
            key = chain[-1][0].entries[chain[-1][1]][0]
            colon = self.text[key.end : at]
            if ":" not in colon:
                self._piece(key.end, key.end, f": {new}")
                return
            at = key.end + colon.index(":") + 1
        self._piece(at, at, new if self.text[at - 1 : at].isspace() else f" {new}")

    def _replace_lines(self, chain: list[tuple[Part, int]], part: Part, value: Any) -> None:
        start, end = part.start, self._end(part)
        if not chain:
            self._piece(start, end, self._newline.join(yaml_format.lines(value, 0, self._step)))
            return
        container, index = chain[-1]
        if container.kind == "list":
            indent = self._column(start) if part.start < part.end else self._dash(container, index)[1] + 2
            first, *more = yaml_format.lines(value, indent, self._step)
            if part.start == part.end:
                self._fill(chain, start, first)
            elif part.block:
                self._piece(start, end, self._newline.join([first, *more]))
                return
            else:
                self._piece(start, end, first)
            self._insert_lines(end, more)
            return
        indent = self._column(container.entries[index][0].start) + self._step
        if part.block and self._lead(chain) is not None:
            if (part.kind == "list") == isinstance(value, list):
                indent = self._column(part.start) if part.kind == "list" else self._column(part.entries[0][0].start)
            first, *more = yaml_format.lines(value, indent, self._step)
            self._piece(self._line_start(start), self._next_line(end), "")
            self._insert_lines(end, [" " * indent + first, *more])
            return
        first, *more = yaml_format.lines(value, indent, self._step)
        self._piece(self._after_lead(chain), end, "")
        self._insert_lines(end, [" " * indent + first, *more])

    def _lead(self, chain: list[tuple[Part, int]]) -> int | None:
        """Where the colon is that a block in lines of its own stands under; None when it begins in the same line."""
        container, index = chain[-1]
        if container.kind != "mapping":
            return None
        key, value = container.entries[index]
        colon = self.text.find(":", key.end, value.start)
        if colon < 0 or self._line(colon) == self._line(value.start):
            return None
        return colon

    def _after_lead(self, chain: list[tuple[Part, int]]) -> int:
        container, index = chain[-1]
        key, value = container.entries[index]
        return self.text.find(":", key.end, max(value.start, key.end + 1) + 1) + 1

    # --- adding ------------------------------------------------------------------------------------------------------

    def _begin(self, value: Any) -> None:
        """The first value of a text that has none, behind its comments."""
        text = self.text
        at = text.find("\n...")
        at = at + 1 if at >= 0 else len(text)
        lead = self._newline if text[:at] and not text[:at].endswith("\n") else ""
        self._piece(at, at, lead + self._newline.join([*yaml_format.lines(value, 0, self._step), ""]))

    def _add(self, chain: list[tuple[Part, int]], container: Part, key: str | None, value: Any) -> None:
        new = value if key is None else {key: value}
        whole = [value] if key is None else new
        if not container.children():
            if any(above.flow for above, _ in chain) or len(yaml_format.inline(whole)) <= 60:
                self._piece(container.start, container.end, self._keep_anchor(container) + yaml_format.inline(whole))
            else:
                self._replace_lines(chain, container, whole)
        elif container.flow:
            self._add_inline(container, yaml_format.inline(value) if key is None else yaml_format.inline(new)[1:-1])
        elif key is None:
            indent = self._dash(container, 0)[1]
            self._insert_lines(self._end(container), yaml_format.item(value, indent, self._step))
        else:
            indent = self._column(container.entries[0][0].start)
            self._insert_lines(self._end(container), yaml_format.entry(key, value, indent, self._step))

    def _keep_anchor(self, container: Part) -> str:
        return f"&{container.anchor} " if container.anchor else ""

    def _add_inline(self, container: Part, new: str) -> None:
        last = container.children()[-1]
        start = container.entries[-1][0].start if container.kind == "mapping" else last.start
        end = max(self._end(last), start)
        close = container.end - 1
        rest = self.text[end:close]
        own_line = not self.text[self._line_start(start) : start].strip()
        if "\n" not in rest or not own_line:
            self._piece(end, end, f", {new}")
            return
        comma = rest.lstrip().startswith(",")
        if not comma:
            self._piece(end, end, ",")
        self._insert_lines(end, [" " * self._column(start) + new + ("," if comma else "")])

    # --- removing ----------------------------------------------------------------------------------------------------

    def _remove_inline(self, container: Part, index: int) -> None:
        starts = [key.start for key, _ in container.entries] or [item.start for item in container.items]
        ends = [max(self._end(part), start) for part, start in zip(container.children(), starts, strict=True)]
        start, end = starts[index], ends[index]
        line, after = self._line_start(start), self._next_line(end)
        rest = self.text[end:after].strip()
        if not self.text[line:start].strip() and (rest in ("", ",") or rest.lstrip(", ").startswith("#")):
            self._piece(line, after, "")
        elif index + 1 < len(starts):
            self._piece(start, starts[index + 1], "")
        else:
            self._piece(ends[index - 1], end, "")

    def _remove_lines(self, container: Part, index: int) -> None:
        starts = (
            [key.start for key, _ in container.entries]
            if container.kind == "mapping"
            else [self._dash(container, at)[0] for at in range(len(container.items))]
        )
        start, end = starts[index], self._end(container.children()[index])
        line = self._line_start(start)
        if self.text[line:start].strip():
            self._piece(start, starts[index + 1], "")
        else:
            self._piece(line, self._next_line(end), "")

    # --- places ------------------------------------------------------------------------------------------------------

    def _piece(self, start: int, end: int, new: str) -> None:
        self._pieces.append((start, end, new))

    def _insert_lines(self, behind: int, new: list[str]) -> None:
        """Whole lines after the line that `behind` is in."""
        if not new:
            return
        at = self._next_line(behind)
        joined = self._newline.join(new)
        if at == len(self.text) and not self.text.endswith("\n"):
            self._piece(at, at, self._newline + joined)
        else:
            self._piece(at, at, joined + self._newline)

    def _end(self, part: Part) -> int:
        """Behind its last character that is not a line break."""
        if part.block:
            return max((self._end(one) for one in part.children()), default=part.end)
        end = part.end
        if part.style in ("|", ">"):
            end = part.start + len(self.text[part.start : end].rstrip())
        return end

    def _dash(self, container: Part, index: int) -> tuple[int, int]:
        """Where an entry's dash is, and its column."""
        item = container.items[index]
        at = self.text.rfind("-", 0, max(item.start, 1)) if container.anchor or index else container.start
        column = self._column(container.start) if not container.anchor else self._column(at)
        while at > 0 and self._column(at) != column:
            at = self.text.rfind("-", 0, at)
        return at, column

    def _line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    def _line_start(self, at: int) -> int:
        return self.text.rfind("\n", 0, at) + 1

    def _next_line(self, at: int) -> int:
        found = self.text.find("\n", at)
        return len(self.text) if found < 0 else found + 1

    def _column(self, at: int) -> int:
        return at - self._line_start(at)


def _position(part: Part, step: str | int) -> int | None:
    if part.kind == "mapping" and isinstance(step, str):
        hidden = veil(step)
        return next((at for at, (key, _) in enumerate(part.entries) if key.text == hidden), None)
    if part.kind == "list" and isinstance(step, int) and 0 <= step < len(part.items):
        return step
    return None


def _merges(part: Part) -> list[Part]:
    return [value for key, value in part.entries if key.text == "<<"]


def _step(root: Part | None, column: Any) -> int:
    """By how much the text indents: as its first nested mapping does, else by two."""
    for part in root.below() if root is not None else ():
        for key, value in part.entries if part.block else ():
            if value.block and value.kind == "mapping" and not value.anchor:
                found = int(column(value.entries[0][0].start) - column(key.start))
                if found > 0:
                    return found
    return 2


def _wrapped(path: Path, value: Any) -> Any:
    for step in reversed(path):
        if isinstance(step, str):
            value = {step: value}
        elif step == 0:
            value = [value]
        else:
            raise Unwritable(f"{_named(path)}: there is no entry {step} to change")
    return value


def _with(shaped: Any, path: Path, value: Any) -> Any:
    """A shape with a value set in it."""
    if not path:
        return value
    step = path[0]
    if isinstance(step, str):
        inside = shaped if isinstance(shaped, dict) else {}
        return {**inside, step: _with(inside.get(step), path[1:], value)}
    items = list(shaped) if isinstance(shaped, list) else []
    items[step : step + 1] = [_with(items[step] if step < len(items) else None, path[1:], value)]
    return items


def _without(shaped: Any, path: Path) -> Any:
    step = path[0]
    if isinstance(step, str) and isinstance(shaped, dict) and step in shaped:
        if len(path) == 1:
            return {key: one for key, one in shaped.items() if key != step}
        return {**shaped, step: _without(shaped[step], path[1:])}
    if isinstance(step, int) and isinstance(shaped, list) and 0 <= step < len(shaped):
        if len(path) == 1:
            return [*shaped[:step], *shaped[step + 1 :]]
        return [*shaped[:step], _without(shaped[step], path[1:]), *shaped[step + 1 :]]
    return shaped


def _named(path: Path) -> str:
    return ".".join(map(str, path))
