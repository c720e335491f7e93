"""What is wrong with arguments, in few words and little time whatever was sent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

__all__ = ["InvalidArguments", "Spelling", "not_blank", "validated"]

_MOST_TOLD = 10
_LONGEST_NAME = 64
# No tool takes more; a body has room for 100,000, each of them a fault to be told.
_MOST_MEMBERS = 64
_MOST_ITEMS = 1000

_ModelT = TypeVar("_ModelT", bound=BaseModel)


class InvalidArguments(Exception):
    """The arguments do not fit; the message names the faults, in words of the server alone.

    What a backend says of an argument is a ToolError.
    """


@dataclass(frozen=True, slots=True)
class Spelling:
    """What a text must look like, for `Annotated`.

    A list of tools leaves patterns out, and pydantic's error repeats them: words tell a caller more.

    Attributes:
        pattern: the whole text matches it; it stands in schemas.
        words: what a caller hears whose text does not, such as `must be letters only`.
    """

    pattern: str
    words: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), "pattern": self.pattern}

    def _checked(self, text: str) -> str:
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(self.words)
        return text


def not_blank(text: str) -> str:
    """Return a text that has more than blanks.

    Raises:
        ValueError: it has not.
    """
    if not text.strip():
        raise ValueError("it has blanks only")
    return text


def validated(model: type[_ModelT], arguments: Mapping[str, Any]) -> _ModelT:
    """Return raw arguments checked and typed, with defaults filled in.

    Raises:
        InvalidArguments: naming the first ten faults, and the known arguments where one is unknown.
    """
    _refuse_sprawl(model, arguments)
    try:
        return model.model_validate(dict(arguments))
    except ValidationError as error:
        faults = list(_faults(model, error))
    if len(faults) > _MOST_TOLD:
        faults = [*faults[:_MOST_TOLD], f"and {len(faults) - _MOST_TOLD} more faults"]
    raise InvalidArguments("; ".join(faults))


def _refuse_sprawl(model: type[BaseModel], arguments: Mapping[str, Any]) -> None:
    """Refuse more names or items than any tool takes, before each of them is looked at.

    Raises:
        InvalidArguments: saying so, with the known arguments.
    """
    waiting: list[Any] = [arguments]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            if len(value) > _MOST_MEMBERS:
                raise InvalidArguments(
                    f"an object has {len(value)} members, at most {_MOST_MEMBERS} are taken; "
                    f"known arguments: {_known(model)}"
                )
            waiting += value.values()
        elif isinstance(value, list):
            if len(value) > _MOST_ITEMS:
                raise InvalidArguments(
                    f"a list has {len(value)} items, at most {_MOST_ITEMS} are taken"
                )
            waiting += value


def _faults(model: type[BaseModel], error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part)[:_LONGEST_NAME] for part in fault["loc"]) or "arguments"
        if fault["type"] == "extra_forbidden":
            known = _known(_model_at(model, fault["loc"]))
            yield f"{where}: unknown argument; known arguments: {known}"
        elif fault["type"] == "value_error":
            # A sentence of ours, without pydantic's words before it.
            yield f"{where}: {fault['ctx']['error']}"
        else:
            yield f"{where}: {fault['msg']}"


def _known(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields) or "none"


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the model whose field the last part of `location` would be."""
    for part in location[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models_in(model.model_fields[part].annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
