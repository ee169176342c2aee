"""A YAML file as fields that know where they stand, so that every complaint names file, line and field.

Read as YAML 1.2: only `true` and `false` are booleans, so a parameter named `on` keeps its name
(YAML 1.1, which PyYAML's own constructors follow, makes it the boolean true). Aliases are
refused: nothing here needs them, and they let a short file expand without bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import yaml

from tpstream.errors import ConfigurationError

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}


class Field(NamedTuple):
    """A value and its place: `path` is the field's name from the top, dotted; `line` counts from 1."""

    file: str
    line: int
    path: str
    value: Any
    """str, int, float, bool, None, list of Field, or dict of str to Field."""

    def error(self, what: str, remedy: str) -> ConfigurationError:
        """The complaint about this field: one line with place, what and remedy."""
        return complaint(self.file, self.line, self.path, what, remedy)

    def fields(self, required: Iterable[str], optional: Iterable[str] = ()) -> Mapping[str, Field]:
        """The fields of an object; raises on an unknown and on a missing one."""
        if not isinstance(self.value, dict):
            raise self.error(f"must be an object, is {self.kind()}", f"give it {_join(required)}")
        known = [*required, *optional]
        for name, field in self.value.items():
            if name not in known:
                raise field.error("is unknown", f"known here: {_join(known)}")
        for name in required:
            if name not in self.value:
                path = f"{self.path}.{name}" if self.path else name
                raise complaint(self.file, self.line, path, "is missing", "add it")
        return self.value

    def text(self) -> str:
        """A non-empty text."""
        if not isinstance(self.value, str) or not self.value:
            raise self.error(f"must be a text, is {self.kind()}", "write a word, in quotes if it looks like a number")
        return self.value

    def number(self) -> float:
        """A finite number."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self.error(f"must be a number, is {self.kind()}", "write it like 30 or 27.5")
        return float(self.value)

    def integer(self, least: int, most: int) -> int:
        """A whole number within bounds."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not least <= self.value <= most:
            raise self.error(
                f"must be a whole number from {least} to {most}, is {self.kind()}", f"write it like {least}"
            )
        return self.value

    def plain(self) -> Any:
        """The value without places, as JSON could hold it."""
        if isinstance(self.value, dict):
            return {name: field.plain() for name, field in self.value.items()}
        if isinstance(self.value, list):
            return [field.plain() for field in self.value]
        return self.value

    def kind(self) -> str:
        """What the value is, in words."""
        match self.value:
            case None:
                return "empty"
            case dict():
                return "an object"
            case list():
                return "a list"
            case str():
                return f"the text {self.value!r}"
            case bool():
                return f"the boolean {str(self.value).lower()}"
            case _:
                return str(self.value)


def complaint(file: str, line: int, path: str, what: str, remedy: str) -> ConfigurationError:
    """`file:line: field …: what; remedy`, as every error in a definition reads."""
    return ConfigurationError(f"{file}:{line}: field {path or '(top)'}: {what}; {remedy}")


def read(text: str, file: str) -> Field:
    """The one document of a YAML text; ConfigurationError where it is not YAML."""
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigurationError(f"{file}:{line}: not YAML: {error.problem}; mend that line") from None
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"{file}:1: not YAML: {reason}; mend it") from None
    except RecursionError:
        raise ConfigurationError(f"{file}:1: nested too deeply; flatten it") from None
    if node is None:
        raise ConfigurationError(f"{file}:1: the file is empty; write a definition or remove the file")
    return _field(file, "", node)


class _Loader(yaml.SafeLoader):
    """Composes nodes only; no Python object is ever constructed from a file."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # type: ignore[no-untyped-call]
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not taken", problem_mark=event.start_mark)
        return super().compose_node(parent, index)  # type: ignore[no-untyped-call]


def _field(file: str, path: str, node: Any) -> Field:
    line = node.start_mark.line + 1
    if not node.tag.startswith("tag:yaml.org,2002:"):
        raise complaint(file, line, path, f"has the tag {node.tag}", "remove the tag")
    if isinstance(node, yaml.SequenceNode):
        return Field(file, line, path, [_field(file, f"{path}[{n}]", child) for n, child in enumerate(node.value)])
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Field] = {}
        for key, child in node.value:
            at = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise complaint(file, at, path, "has a key that is no text", "write the key as a word")
            below = f"{path}.{key.value}" if path else key.value
            if key.value in found:
                raise complaint(file, at, below, "stands there twice", "remove one")
            found[key.value] = _field(file, below, child)._replace(line=at)
        return Field(file, line, path, found)
    return Field(file, line, path, _scalar(node.value) if node.style is None else node.value)


def _scalar(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text) and len(text) <= 18:
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if abs(number) != float("inf") else text
    return text


def _join(names: Iterable[str]) -> str:
    return ", ".join(names)
