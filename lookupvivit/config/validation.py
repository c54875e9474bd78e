"""Validate settings against a schema. Pydantic's errors become one line: key, what was found, what is expected."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lookupvivit.config.errors import ConfigError
from lookupvivit.config.json_schema import JsonSchema, NestedKeys, describe, dotted_keys, find_node

Schema = TypeVar("Schema", bound=BaseModel)
UNKNOWN_KEY = ("extra_forbidden", "invalid_key")  # invalid_key: a key that is not a string, such as 1 or yes
SIMILARITY = 0.75  # minimum between an unknown key and a suggestion, in [0, 1]


def validate(schema: type[Schema], settings: dict[str, Any]) -> Schema:
    """Build a configuration from nested dicts, lists and scalars.

    Raises:
        ConfigError: an unknown or missing key, or an impossible value.
    """
    try:
        return schema.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(_message(schema.model_json_schema(), settings, error.errors())) from None


def _message(root: JsonSchema, settings: dict[str, Any], errors: Sequence[ErrorDetails]) -> str:
    """Describe one error, preferably an unknown key: if it is a misspelling, it also makes another key missing."""
    error = next((error for error in errors if error["type"] in UNKNOWN_KEY), errors[0])
    location = error["loc"]
    rule = error.get("ctx", {}).get("error")
    if isinstance(rule, ConfigError):
        return str(rule)
    if error["type"] == "invalid_key":
        location = (*location[:-1], str(error["input"]))  # the location contains 1 instead of True
    if error["type"] in UNKNOWN_KEY:
        return f"{dotted(location)}: no such key{_suggestion(root, location)}"
    if location[-1] == "[key]":
        return f"{dotted(location[:-2])}: found the key {error['input']!r}, expected a string in quotes"
    key, node = find_node(root, location)
    expected = describe(root, node)
    if error["type"] == "missing" and key == location:
        return f"{dotted(key)}: missing, expected {expected}"
    return f"{dotted(key)}: found {_value(settings, key)!r}, expected {expected}"


def _suggestion(root: JsonSchema, location: NestedKeys) -> str:
    """Suggest the most similar known key, by its path or its last part; otherwise list the keys of the section."""
    known = list(dotted_keys(root, root))
    by_path = difflib.get_close_matches(dotted(location), known, n=1, cutoff=SIMILARITY)
    if by_path:
        return f", did you mean {by_path[0]}?"
    last_words = {key.rpartition(".")[2]: key for key in reversed(known)}
    by_word = difflib.get_close_matches(str(location[-1]), last_words, n=1, cutoff=SIMILARITY)
    if by_word:
        return f", did you mean {last_words[by_word[0]]}?"
    section = location[:-1]
    _, node = find_node(root, section)
    keys = ", ".join(node["properties"])
    return f"; {f'the keys of {dotted(section)}' if section else 'the sections and keys'} are {keys}"


def dotted(location: NestedKeys) -> str:
    """Join nested keys by dots, as on the command line: ``optim.lr``."""
    return ".".join(map(str, location))


def _value(settings: Any, location: NestedKeys) -> Any:
    for key in location:
        settings = settings[key]
    return settings
