"""Validation of arguments: short messages and bounded work, whatever the client sends."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

__all__ = ["InvalidArguments", "TextFormat", "not_blank", "validate"]

_MAX_REPORTED = 10
_MAX_NAME_LENGTH = 64
# More than any tool takes. A request body has room for 100,000 members, each of them an error.
_MAX_MEMBERS = 64
_MAX_ITEMS = 1000

_ModelT = TypeVar("_ModelT", bound=BaseModel)


class InvalidArguments(Exception):
    """The arguments are invalid; the message names the errors and quotes no backend.

    An argument that a backend rejects is a ToolError instead.
    """


@dataclass(frozen=True, slots=True)
class TextFormat:
    """Format of a string argument, for `Annotated`.

    The schemas in `tools/list` omit patterns, and pydantic's error message only repeats the pattern: a
    message in words helps the caller more.

    Attributes:
        pattern: regular expression that matches the whole text; part of the full schemas.
        message: error message for other texts, such as `must be letters only`.
    """

    pattern: str
    message: str

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
            raise ValueError(self.message)
        return text


def not_blank(text: str) -> str:
    """Return `text`.

    Raises:
        ValueError: the text is empty or all whitespace.
    """
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def validate(model: type[_ModelT], arguments: Mapping[str, Any]) -> _ModelT:
    """Return raw arguments validated and typed, with defaults filled in.

    Raises:
        InvalidArguments: names the first ten errors, and the known arguments if one is unknown.
    """
    _check_size(model, arguments)
    try:
        return model.model_validate(dict(arguments))
    except ValidationError as error:
        errors = list(_errors(model, error))
    if len(errors) > _MAX_REPORTED:
        errors = [*errors[:_MAX_REPORTED], f"and {len(errors) - _MAX_REPORTED} more errors"]
    raise InvalidArguments("; ".join(errors))


def _check_size(model: type[BaseModel], arguments: Mapping[str, Any]) -> None:
    """Refuse more members or items than any tool takes, before validation looks at each.

    Raises:
        InvalidArguments: an object or a list is too large.
    """
    waiting: list[Any] = [arguments]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            if len(value) > _MAX_MEMBERS:
                raise InvalidArguments(
                    f"an object has {len(value)} members; at most {_MAX_MEMBERS} are accepted; "
                    f"known arguments: {_known(model)}"
                )
            waiting += value.values()
        elif isinstance(value, list):
            if len(value) > _MAX_ITEMS:
                raise InvalidArguments(
                    f"a list has {len(value)} items; at most {_MAX_ITEMS} are accepted"
                )
            waiting += value


def _errors(model: type[BaseModel], error: ValidationError) -> Iterator[str]:
    for detail in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part)[:_MAX_NAME_LENGTH] for part in detail["loc"]) or "arguments"
        if detail["type"] == "extra_forbidden":
            known = _known(_model_at(model, detail["loc"]))
            yield f"{where}: unknown argument; known arguments: {known}"
        elif detail["type"] == "value_error":
            # Raised by our own validators: pydantic would put words before the message.
            yield f"{where}: {detail['ctx']['error']}"
        else:
            yield f"{where}: {detail['msg']}"


def _known(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields) or "none"


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the model that the last part of `location` is a field of."""
    for part in location[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models_in(model.model_fields[part].annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
