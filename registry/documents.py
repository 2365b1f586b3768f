"""Documents: YAML or JSON text to objects, each with where it stands, and what could not be read.

YAML is read as version 1.2's core schema has it: `no` and `12:30` are text. What could be used to exhaust or confuse a
reader is refused before any object is made: anchors and aliases, deep nesting, very many nodes, duplicate keys.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import yaml

DEPTH_MAX = 64
NODES_MAX = 500_000
BYTES_MAX = 32 << 20
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_ONLY_IN_1_2 = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+|0o[0-7]+")
"""Plain text that YAML 1.1, which the loader knows, takes for a string, and 1.2 for a number."""
_TAG = "tag:yaml.org,2002:"
_TAGS = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge"))
NUMBER_MAX = 400
"""Longest text that is read as a number."""
_BRACKETS = re.compile(r"[\[\]{}]")
_SEGMENT = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")

Path = tuple[str | int, ...]


class Problem(msgspec.Struct, frozen=True):
    """Something of a text that cannot be used."""

    source: str
    """`file.yaml:12`."""
    message: str
    path: str = ""
    """Of the field, as `spec.http[0].match`; empty: the whole document."""

    def __str__(self) -> str:
        return f"{self.source}: {self.path + ': ' if self.path else ''}{self.message}"


class Lines:
    """The line of each field of a document; its text is read again for them, since only errors ask."""

    __slots__ = ("_below", "_first_line", "_number", "_text")
    _last: tuple[Lines, dict[Path, int]] | None = None
    """The one read last: a document with many errors is asked for many lines."""

    def __init__(self, text: str, first_line: int, number: int, below: Path = ()) -> None:
        self._text = text
        self._first_line = first_line
        self._number = number
        """Of the document in its text."""
        self._below = below
        """The fields of what stands at this path only."""

    def item(self, number: int) -> Lines:
        return Lines(self._text, self._first_line, self._number, ("items", number))

    def read(self) -> dict[Path, int]:
        if Lines._last is not None and Lines._last[0] is self:
            return Lines._last[1]
        lines: dict[Path, int] = {}
        _load_one(self._text, self._first_line, self._number, lines)
        if below := len(self._below):
            own = self._below
            lines = {path[below:]: at for path, at in lines.items() if path[:below] == own and len(path) > below}
        Lines._last = (self, lines)
        return lines


class Document:
    """One object as written."""

    __slots__ = ("api_version", "body", "file", "kind", "line", "lines", "name", "namespace")

    def __init__(self, body: dict[str, Any], file: str, line: int, lines: Lines | None, default_namespace: str) -> None:
        self.body = body
        self.file = file
        self.line = line
        """Of its first field; 0: not from a text."""
        self.lines = lines
        """None: not from a text, or from one in JSON, whose reader does not tell lines."""
        self.api_version = _text(body.get("apiVersion"))
        self.kind = _text(body.get("kind"))
        metadata = body.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        self.name = _text(metadata.get("name"))
        self.namespace = _text(metadata.get("namespace")) or default_namespace
        """Of a kind that has none, the caller makes it empty."""

    @property
    def source(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    @classmethod
    def of(cls, body: dict[str, Any], source: str, default_namespace: str = "default") -> Document:
        """An object that did not come from a text, `source` saying where from."""
        return cls(body, source, 0, None, default_namespace)

    def line_of(self, path: str, lines: dict[Path, int] | None = None) -> int | None:
        """The line of a field by its path, or of the nearest field above it; None: not from a text.

        `lines`: as `self.lines.read()` gave them, for who asks for many.
        """
        if self.lines is None:
            return None
        line, lines = self.line, self.lines.read() if lines is None else lines
        steps: Path = ()
        for bracket, name in _SEGMENT.findall(path):
            index: Path = (*steps, int(bracket)) if bracket.isdecimal() and len(bracket) < 9 else ()
            steps = index if index in lines else (*steps, bracket or name)
            if steps not in lines:
                break
            line = lines[steps]
        return line

    def at(self, path: str) -> str:
        """`file.yaml:14` of a field."""
        line = self.line_of(path)
        return f"{self.file}:{line}" if line else self.file


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


class _Refused(Exception):
    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def load(text: bytes | str, source: str, default_namespace: str = "default") -> tuple[list[Document], list[Problem]]:
    """All documents of a text in order, and what of it could not be read. Never raises."""
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    if len(text) > BYTES_MAX:
        return [], [Problem(source, f"the file is larger than {BYTES_MAX >> 20} MiB")]
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        return [], [Problem(f"{source}:{line}", f"not UTF-8 text: {error.reason} at byte {error.start}")]
    documents: list[Document] = []
    problems: list[Problem] = []
    for first_line, part in _split(decoded):
        try:
            loaded = _load_one(part, first_line)
        except _Refused as refused:
            json_value = _load_json(part)
            if json_value is not None:
                _take(json_value, first_line, None, source, default_namespace, documents, problems)
                continue
            problems.append(Problem(f"{source}:{refused.line}", str(refused)))
            continue
        for number, (value, line) in enumerate(loaded):
            _take(value, line, Lines(part, first_line, number), source, default_namespace, documents, problems)
    return documents, problems


def load_mapping(text: str, source: str) -> dict[str, Any]:
    """The one object of a text in YAML or JSON that is no resource (settings). Raises ValueError."""
    try:
        loaded = _load_one(text, 1)
    except _Refused as refused:
        raise ValueError(f"{source}:{refused.line}: {refused}") from None
    if len(loaded) != 1 or not isinstance(loaded[0][0], dict):
        raise ValueError(f"{source}: expected one object")
    found: dict[str, Any] = loaded[0][0]
    return found


def _split(text: str) -> list[tuple[int, str]]:
    """(line, text) of each document, so that a broken one does not take the others with it.

    Only a line that begins with `---` separates (YAML 1.2, section 9.2); in a block scalar such a line cannot stand.
    """
    parts: list[tuple[int, str]] = []
    current: list[str] = []
    start = 1
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if line.startswith("---") and (len(line.rstrip()) == 3 or line[3:4] in (" ", "\t")):
            parts.append((start, "".join(current)))
            current, start = [line], number
        else:
            current.append(line)
    parts.append((start, "".join(current)))
    return [(line, part) for line, part in parts if part.strip()]


def _load_one(
    text: str, first_line: int, wanted: int = -1, lines: dict[Path, int] | None = None
) -> list[tuple[Any, int]]:
    """(value, line) of each document; the lines of the fields of the one `wanted` go into `lines`."""
    import yaml  # 0.8 MB that a sidecar with a control plane has no use for

    try:
        _guard(text, first_line)
        loader = yaml.CSafeLoader(text)
        try:
            found: list[tuple[Any, int]] = []
            while loader.check_node():
                node: Any = loader.get_node()
                value = _construct(node, (), lines if len(found) == wanted else None, first_line)
                found.append((value, node.start_mark.line + first_line))
            return found
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        last = len(text.splitlines()) - 1  # libyaml puts what is missing at the end on the line after it
        line = min(mark.line if mark else 0, last) + first_line
        said = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise _Refused(f"not YAML: {said}", line) from error
    except yaml.YAMLError as error:
        line = first_line
        if isinstance(error, yaml.reader.ReaderError):
            line += text.count("\n", 0, min(error.position, len(text)))
        raise _Refused(f"not YAML: {error}".split("\n")[0], line) from error


def _load_json(text: str) -> dict[str, Any] | None:
    """A JSON object that the YAML reader does not take (escaped surrogate pairs, tabs); None where it is none either.

    Without lines, since Python's reader does not tell them.
    """
    if not text.lstrip().startswith("{") or not depth_is_bounded(text):
        return None
    try:
        value = json.loads(text, object_pairs_hook=_unique)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text: nothing could print it
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice in one place")
    return made


def depth_is_bounded(text: str) -> bool:
    """Whether brackets nest no deeper than we read, strings not told apart: refuses more than it must, never less."""
    depth = 0
    for bracket in _BRACKETS.findall(text):
        depth += 1 if bracket in "{[" else -1
        if depth > DEPTH_MAX:
            return False
    return True


def _guard(text: str, first_line: int) -> None:
    """Walk the events before any node is made: the C loader itself dies of deep nesting (measured)."""
    import yaml

    depth = 0
    for nodes, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader), 1):
        line = (event.start_mark.line if event.start_mark else 0) + first_line
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Refused("anchors (&) and aliases (*) are not taken: write the value out", line)
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > DEPTH_MAX:
                raise _Refused(f"nested deeper than {DEPTH_MAX} levels", line)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        if nodes > NODES_MAX:
            raise _Refused(f"more than {NODES_MAX} values in one document", line)


def _construct(node: Any, path: Path, lines: dict[Path, int] | None, first_line: int) -> Any:
    if node.id == "scalar":
        return _scalar(node, first_line)
    if node.tag not in (_TAG + "seq", _TAG + "map"):
        raise _Refused(
            f"the tag {node.tag} is not known", (node.start_mark.line if node.start_mark else 0) + first_line
        )
    if node.id == "sequence":
        made = []
        for number, item in enumerate(node.value):
            if lines is not None:
                lines[(*path, number)] = item.start_mark.line + first_line
            made.append(_construct(item, path if lines is None else (*path, number), lines, first_line))
        return made
    found: dict[Hashable, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + first_line
        if key_node.id != "scalar":
            raise _Refused("a key must be plain text", line)
        if key_node.tag == "tag:yaml.org,2002:merge":
            raise _Refused("merge keys (<<) are not taken: write the fields out", line)
        key = key_node.value  # integer keys too (portLevelMtls: {8080: ...}) are text, as in JSON
        if key in found:
            raise _Refused(f"the key {key!r} stands twice in one place", line)
        if lines is not None:
            lines[(*path, key)] = line
        # The same few keys stand in every object: one text for each.
        found[sys.intern(key)] = _construct(value_node, path if lines is None else (*path, key), lines, first_line)
    return found


def _scalar(node: yaml.ScalarNode, first_line: int) -> Any:
    text: str = node.value
    if node.tag not in _TAGS:
        raise _Refused(f"the tag {node.tag} is not known", node.start_mark.line + first_line)
    if node.style or (node.tag == _TAG + "str" and not _ONLY_IN_1_2.fullmatch(text)):
        # Words such as Service, http, TCP stand in every object, too; names and addresses stand once.
        return sys.intern(text) if text.isalpha() or text.endswith("/v1") else text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if len(text) <= NUMBER_MAX:
        if _INTEGER.fullmatch(text):
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def _take(
    value: Any,
    line: int,
    lines: Lines | None,
    source: str,
    namespace: str,
    documents: list[Document],
    problems: list[Problem],
) -> None:
    if value is None:
        return  # nothing between two `---`
    if not isinstance(value, dict):
        problems.append(Problem(f"{source}:{line}", "expected an object with apiVersion, kind and metadata"))
        return
    items = value.get("items")
    if _text(value.get("kind")).endswith("List") and isinstance(items, list):
        known = lines.read() if lines is not None else {}
        for number, item in enumerate(items):
            at = known.get(("items", number), line)
            if isinstance(item, dict):
                inner = lines.item(number) if lines is not None else None
                documents.append(Document(item, source, at, inner, namespace))
            else:
                problems.append(Problem(f"{source}:{at}", "expected an object in the list"))
        return
    documents.append(Document(value, source, line, lines, namespace))
