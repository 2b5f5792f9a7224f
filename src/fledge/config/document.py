"""YAML text as a plain tree, with the place of every key, and every fault of the text told at once."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from fledge.errors import Problem

Key = tuple[str | int, ...]

MAX_BYTES = 65_536
"""A recipe is read, checked and answered in under a second; this is far above any that a person writes."""
_MAX_NODES = 20_000
_MAX_DEPTH = 40

# The core schema of YAML 1.2 (yaml.org/spec/1.2.2, 10.3.2): `1e-4` is a number and `yes` is text.
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NO_SPACE = re.compile(r"([A-Za-z_]\w*):(\S+)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_TYPES = ("null", "bool", "int", "float", "timestamp", "merge", "map", "seq")
_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in _TYPES)
_TEXT_TAG = "tag:yaml.org,2002:str"
_MERGE = "<<"
_BY_EXAMPLE = "`fledge init` writes a recipe to compare with"
# What ruamel says of a fault, and what to do about it.
_CURES = (
    (r"document start", "write one mapping, key: value on each line; neither TOML nor several objects are read"),
    (r"alias", "put text that begins with * in quotes"),
    (r"while parsing a flow mapping|expected ',' or '}'", "close the brace: { ... }"),
    (r"while parsing a flow (sequence|node)|expected ',' or '\]'", "close the bracket: [ ... ]"),
    (r"double-quoted scalar|escape", "write it between single quotes, where \\ stands for itself"),
    (r"quoted scalar", "close the quotes, or write the value without any"),
    (r"cannot start any token|plain scalar", "put the value in quotes"),
    (r"could not find expected ':'", "write key: value on each line, with a space after the colon"),
    (r"<block end>|block mapping|block (collection|sequence)", "indent all options of one section alike"),
)
_HALF_A_CHARACTER, _WRITE_IT = "half of a character (a lone surrogate)", "write the character itself"


@dataclass(slots=True)
class Document:
    """A tree of dict, tuple, str, int, float, bool and None; `marks` says where each of its keys was written."""

    tree: Any
    marks: dict[Key, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unreadable: dict[Key, Problem] = field(default_factory=dict)
    """Keys whose value is among the problems already; None stands in the tree."""
    written: dict[Key, str] = field(default_factory=dict)
    """What stands in the file for each unquoted scalar that is not text: `1.0`, `6e12345`, `true`."""

    def where(self, key: Key) -> str:
        """Where `key` was written, or the nearest thing around it that was."""
        while key not in self.marks and key:
            key = key[:-1]
        return self.marks.get(key, "")

    def replace(self, key: Key, other: "Document") -> None:
        """Forget what was noted of `key` and all below it, faults of its values too, and note what `other` knows."""
        for notes in (self.marks, self.written, self.unreadable):
            for old in [noted for noted in notes if noted[: len(key)] == key]:
                gone = notes.pop(old)
                if isinstance(gone, Problem):
                    self.problems.remove(gone)
        self.marks |= other.marks
        self.written |= other.written


def read_document(content: bytes, name: str) -> Document:
    """Read the bytes of a YAML file called `name`; faults are in the document's `problems`."""
    document = Document(None, {(): name})
    text = _decode(content, name, document.problems)
    if text is not None:
        document.tree = _parse(text, document, mark=lambda line: f"{name}:{line}")
    return document


def read_value(text: str, key: Key, *, where: str) -> Document:
    """Read one value as YAML, for a setting on the command line; every part of it lies at `where`, below `key`."""
    document = Document(None, {key: where})
    document.tree = _parse(text, document, mark=lambda _: where, top=key)
    return document


def _decode(content: bytes, name: str, problems: list[Problem]) -> str | None:
    if len(content) > MAX_BYTES:
        what = f"larger than {MAX_BYTES // 1024} KB, so it is no recipe"
        problems.append(Problem(what, name, "give the recipe's YAML file; data are named in it by path"))
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.append(Problem("not UTF-8 text", f"{name}:{line}", "save the file as UTF-8"))
        return None
    return text


def _parse(text: str, document: Document, *, mark: Callable[[int], str], top: Key = ()) -> Any:
    """The tree of `text`, or None where the text is no YAML at all."""
    try:
        node = YAML(typ="safe", pure=True).compose(text)
        return None if node is None else _Reader(document, mark).value(node, top)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        document.problems.append(_syntax_problem(error, mark(line), text))
    except (RecursionError, _TooMuchError):
        document.problems.append(Problem("nested too deeply, or aliases that unfold without end", mark(1)))
    except (YAMLError, ValueError, AssertionError, IndexError) as error:
        # ruamel raises the last three on some malformed escapes and directives
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 1
        is_sign = position is not None or "surrogate" in str(error)
        what = "a character that YAML does not allow" if is_sign else f"not valid YAML ({error})"
        cure = "remove it, or write it as an escape inside double quotes" if is_sign else _BY_EXAMPLE
        document.problems.append(Problem(what, mark(line), cure))
    return None


def _syntax_problem(error: MarkedYAMLError, where: str, text: str) -> Problem:
    what = str(error.problem)
    if "'\\t'" in what:
        return Problem("a tab where YAML wants spaces", where, "indent with spaces")
    number = error.problem_mark.line if error.problem_mark else 0
    above = text.splitlines()[: number + 1]
    if any(line.lstrip().startswith("//") for line in above):
        return Problem("not valid YAML: a line that begins with //", where, "begin a comment with #")
    glued = next(
        (line.strip() for line in reversed(above[-2:]) if re.fullmatch(r"\s*[A-Za-z_]\w*:[^\s/].*", line)), None
    )
    if glued is not None:
        return Problem("not valid YAML: no space after the colon", where, f"write {glued.replace(':', ': ', 1)}")
    if "another document" in what:
        return Problem("a second document (after ---)", where, "keep one recipe in one file")
    if "mapping values are not allowed" in what or what.endswith("but got ':'"):
        if len(re.findall(r":(\s|$)", above[-1] if above else "")) > 1 or "\n" not in text.strip():
            return Problem("not valid YAML: a second ': ' in one value", where, "put the value in quotes")
        return Problem("not valid YAML: a wrong indent", where, "indent all options of one section alike")
    whole = f"{what} {error.context}" if error.context else what
    cure = next((cure for sign, cure in _CURES if re.search(sign, whole)), _BY_EXAMPLE)
    return Problem(f"not valid YAML: {whole}", where, cure)


class _TooMuchError(Exception):
    """More nodes than any recipe has: aliases of aliases."""


class _Reader:
    """Turns composed nodes into plain values, noting marks and problems in the document."""

    def __init__(self, document: Document, mark: Callable[[int], str]) -> None:
        self._document = document
        self._mark = mark
        self._num_nodes = 0

    def value(self, node: Node, key: Key) -> Any:
        self._num_nodes += 1
        if self._num_nodes > _MAX_NODES or len(key) > _MAX_DEPTH:
            raise _TooMuchError
        self._document.marks.setdefault(key, self._where(node))
        if str(node.tag) not in _TAGS | {_TEXT_TAG}:
            return self._refuse(node, key, f"the tag {node.tag} has no meaning in a recipe", "write the plain value")
        if isinstance(node, MappingNode):
            return self._mapping(node, key)
        if isinstance(node, SequenceNode):
            return tuple(self.value(item, (*key, index)) for index, item in enumerate(node.value))
        assert isinstance(node, ScalarNode), "YAML has three kinds of nodes"
        if node.style is None and node.tag != _TEXT_TAG and _LEADING_ZERO.fullmatch(node.value):
            cure = (
                f"write {node.value.lstrip('+-0') or '0'}, or 0o... for an octal number, or quote it where it is text"
            )
            return self._refuse(node, key, f"{node.value} can be read as octal or as decimal", cure)
        value = _scalar(node)
        if not isinstance(value, str):
            self._document.written[key] = node.value
            return value
        whole = _joined(value)
        return self._refuse(node, key, _HALF_A_CHARACTER, _WRITE_IT) if whole is None else whole

    def _refuse(self, node: Node, key: Key, what: str, cure: str) -> None:
        self._complain(node, what, cure)
        self._document.unreadable[key] = self._document.problems[-1]

    def _mapping(self, node: MappingNode, key: Key) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for name_node, value_node in node.value:
            if _is_merge(name_node):
                merged = self._merge(value_node, key) | merged
        for name_node, value_node in node.value:
            if _is_merge(name_node):
                continue
            name = name_node.value if isinstance(name_node, ScalarNode) else None
            if name is None or not isinstance(_scalar(name_node), str):
                is_number = isinstance(name_node, ScalarNode)
                cure = "name an option here; a list stands in brackets" if is_number else "put text in braces in quotes"
                self._complain(name_node, "a key must be text", cure)
                continue
            if (name := _joined(name)) is None:
                self._complain(name_node, _HALF_A_CHARACTER, _WRITE_IT)
                continue
            if glued := _glued(name_node, value_node):
                name, value_node = glued[1], ScalarNode(_TEXT_TAG, glued[2], name_node.start_mark, style=None)
                self._complain(name_node, f"no space after the colon of {glued[0]}", f"write {name}: {glued[2]}")
            if name[:1].isspace() and name_node.style is None:
                self._complain(name_node, "a space of another kind where YAML wants spaces", "indent with spaces")
                continue
            if name in lines:
                both = ", with the options of both" if isinstance(value_node, MappingNode) else ""
                cure = f"the first is in line {lines[name]}; keep one{both}"
                self._complain(name_node, f"{name} is given twice", cure)
                continue
            lines[name] = name_node.start_mark.line + 1
            self._document.marks[(*key, name)] = self._where(name_node)
            found[name] = self.value(value_node, (*key, name))
        return merged | found

    def _merge(self, node: Node, key: Key) -> dict[str, Any]:
        """The mapping (or list of mappings, the first one winning) that `<<` puts in."""
        parts = node.value if isinstance(node, SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for part in parts:
            if not isinstance(part, MappingNode):
                self._complain(node, "<< needs a mapping", "write << : *name, where &name is a mapping")
                return {}
            merged = self._mapping(part, key) | merged
        return merged

    def _where(self, node: Node) -> str:
        return self._mark(node.start_mark.line + 1)

    def _complain(self, node: Node, what: str, cure: str = "") -> None:
        self._document.problems.append(Problem(what, self._where(node), cure))


def _scalar(node: ScalarNode) -> Any:
    text: str = node.value
    return text if node.style is not None or node.tag == _TEXT_TAG else plain_scalar(text)


def _joined(text: str) -> str | None:
    """Text whose surrogate pairs, which JSON writes for an emoji, are one character each; None where one is alone."""
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        return None


def _glued(name: Node, value: Node) -> re.Match[str] | None:
    """A key and its value without a space between them, which YAML takes for a key alone."""
    if not isinstance(name, ScalarNode) or not isinstance(value, ScalarNode) or name.style or value.style:
        return None
    return None if value.value else _NO_SPACE.fullmatch(name.value)


def _is_merge(name: Node) -> bool:
    return isinstance(name, ScalarNode) and name.style is None and name.value == _MERGE


def plain_scalar(text: str) -> str | int | float | bool | None:
    """An unquoted scalar by the core schema of YAML 1.2; what is no number, boolean or null is text."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
