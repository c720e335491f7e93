"""Reading the configuration file: YAML with the place of each node, and faults in words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from mcp_server.settings.model import SettingsError
from mcp_server.settings.secret import Secret

__all__ = ["Document", "parse_document", "read_document", "validated"]

_M = TypeVar("_M", bound=BaseModel)

# Values that messages repeat: numbers, names and addresses; nothing long, and no user in a URL.
_SHOWN = re.compile(r"[\w .:/*\[\]+-]{0,40}")
_UNITS = {"s": "seconds", "ms": "milliseconds", "bytes": "bytes", "port": "a port number"}


@dataclass(frozen=True, slots=True)
class Document:
    """A configuration file.

    Attributes:
        path: the file, for messages.
        text: its content.
        root: the YAML node, which has the places in `text`.
        data: the parsed content.
    """

    path: Path
    text: str
    root: yaml.MappingNode
    data: dict[str, Any]


def read_document(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        SettingsError: see `parse_document`, or the file cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not valid YAML: {error}") from None
    return parse_document(path, text)


def parse_document(path: Path, text: str) -> Document:
    """Parse YAML.

    Raises:
        SettingsError: the text is not YAML, has a key twice, or is not a mapping. The message has the
            line, and no part of the text, which may contain a secret.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is not None:
            _require_unique_keys(path, root, set())
        data = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise SettingsError(f"{path} is not valid YAML: {_fault_in(error)}") from None
    except (yaml.YAMLError, ValueError) as error:
        reason = getattr(error, "reason", "a value cannot be parsed")
        raise SettingsError(f"{path} is not valid YAML: {reason}") from None
    if not isinstance(data, dict) or not isinstance(root, yaml.MappingNode):
        raise SettingsError(f"{path} must hold a mapping of settings, not {type(data).__name__}")
    return Document(path, text, root, data)


def validated(document: Document, model: type[_M]) -> _M:
    """Return the document as a model.

    Raises:
        SettingsError: the message lists every fault.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise SettingsError("\n".join(_faults(document.path, error, model))) from None


def _fault_in(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    if error.problem and r"'\t'" in error.problem:
        return f"{where}a tab; YAML is indented with spaces only"
    if isinstance(error, yaml.constructor.ConstructorError):
        return f"{where}a tag or a key that is not accepted"  # its own text may repeat the value
    return where + (error.problem or "it cannot be parsed")


def _require_unique_keys(path: Path, node: yaml.Node, seen: set[int]) -> None:
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _require_unique_keys(path, item, seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    raise SettingsError(
                        f"{path}: {key.value} is there twice, on lines {lines[key.value]} and {line}; "
                        "keep one of them"
                    )
                lines[key.value] = line
            _require_unique_keys(path, value, seen)


def _faults(path: Path, error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        location = [str(part) for part in fault["loc"]]
        where = ".".join(location)
        if fault["type"] == "extra_forbidden":
            known = _keys_at(location[:-1], model)
            near = difflib.get_close_matches(location[-1], known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}"
            yield f"{path}: {where} is not a setting{hint}"
        else:
            value = _shown(fault["input"]) if _may_be_shown(location, model) else ""
            unit = _unit(location, fault)
            yield f"{path}: {where}: {fault['msg']}{value}{unit}"


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float):
        return f", not {yaml.safe_dump(value).splitlines()[0]}"
    if isinstance(value, str) and _SHOWN.fullmatch(value):
        return f", not {value!r}"
    return ""


def _unit(location: Sequence[str], fault: Any) -> str:
    """Return the unit of a number that was given as text, such as `5s`."""
    if not location or not fault["type"].endswith("_parsing"):
        return ""
    unit = _UNITS.get(location[-1].rpartition("_")[2])
    return f"; give the number alone: its unit is {unit}" if unit else ""


def _may_be_shown(location: Sequence[str], model: type[BaseModel]) -> bool:
    """Return whether a value is certainly no part of a secret."""
    found = model
    for number, part in enumerate(location):
        following = _model_at(location[: number + 1], model)
        if following is Secret:
            return False
        if following is None and part not in found.model_fields and not part.isdigit():
            return False
        found = following or found
    return True


def _keys_at(location: Sequence[str], model: type[BaseModel]) -> list[str]:
    return sorted((_model_at(location, model) or model).model_fields)


def _model_at(location: Sequence[str], model: type[BaseModel]) -> type[BaseModel] | None:
    """Return the model of the value at a location; None: the value is none."""
    found: type[BaseModel] | None = model
    annotation: Any = model
    for part in location:
        if get_origin(annotation) is dict:
            # A name chosen by the operator; the type of the mapping's values describes what follows.
            annotation = get_args(annotation)[1]
        elif get_origin(annotation) is tuple:
            # The number of an entry of a list.
            annotation = get_args(annotation)[0]
        elif found is not None and part in found.model_fields:
            annotation = found.model_fields[part].annotation
        else:
            return None
        found = next(
            (
                candidate
                for candidate in (annotation, *get_args(annotation))
                if isinstance(candidate, type) and issubclass(candidate, BaseModel)
            ),
            None,
        )
    return found
