"""The base class of all configuration sections, and the field types that they share."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from typing_extensions import Self

from lookupvivit.config.validation import validate
from lookupvivit.sizes import parse_size


class Section(BaseModel):
    """A part of the configuration: immutable, strictly typed, without unknown keys.

    The only conversions are int -> float and list -> tuple. The docstring below a field is its description in the
    JSON schema. Rules that involve several fields are ``model_validator`` methods that use
    `lookupvivit.config.errors.require`.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values, as `dataclasses.replace` does.

        Raises:
            ConfigError: an unknown key or an impossible value.
        """
        return validate(type(self), {**dict(self), **changes})

    @classmethod
    def default(cls, field: str) -> Any:
        """The default value of a field."""
        return cls.model_fields[field].get_default(call_default_factory=True)


def list_to_tuple(value: Any) -> Any:
    """Convert a list, because YAML has no tuples."""
    return tuple(value) if isinstance(value, list) else value


def _none_to_dict(value: Any) -> Any:
    return {} if value is None else value


def _parse_size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else list_to_tuple(value)


T = TypeVar("T")
PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]
Pair = Annotated[tuple[T, T], BeforeValidator(list_to_tuple)]
NonEmpty = Annotated[tuple[T, ...], BeforeValidator(list_to_tuple), Field(min_length=1)]
Mapping = Annotated[dict[str, T], BeforeValidator(_none_to_dict)]  # a key without a value is an empty mapping
TokenSize = Annotated[
    tuple[PositiveInt, PositiveInt, PositiveInt],
    BeforeValidator(_parse_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\d+x\d+x\d+$", "title": "TxHxW such as 4x5x5"},
                {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 3, "maxItems": 3},
            ]
        }
    ),
]
