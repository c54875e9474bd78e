"""From a YAML file and a command line to the schema of `lookupvivit.config`, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lookupvivit.config.earlier_releases import drop_foreign_defaults, rename_old_keys
from lookupvivit.config.errors import ConfigError
from lookupvivit.config.schema import RunConfig
from lookupvivit.config.validation import validate
from lookupvivit.config.yaml_files import dump_yaml, find_config, merge, parse_yaml, read_with_base
from lookupvivit.experiments import experiment_of_dataset

_NOT_YAML = re.compile("[\ud800-\udfff\x85\u2028\u2029]")  # in file names; YAML rejects or folds these characters
MAX_VALUE_LENGTH = 120  # characters of a value in `changes`


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file and apply ``key=value`` overrides with dotted keys, such as ``optim.lr=0.05``.

    A file may name another one as its ``base``, by a path relative to itself or by the name of a configuration of this
    package, and state only what differs from it. Mappings are merged key by key, on the command line as in files. An
    empty mapping, ``{}``, replaces one.

    Args:
        path: of the file, or the name of a configuration of this package, such as k400_9x9x8.
        overrides: of the command line.

    Returns:
        The `RunConfig`, or the subclass of the experiment that ``data.dataset`` selects.

    Raises:
        ConfigError: one line with the source, the key, what was found and what is expected.
    """
    settings = read_with_base(find_config(path))
    rename_old_keys(settings, str(path))
    overridden = []
    for override in overrides:
        key, override_settings = _parse_override(override)
        settings = merge(settings, override_settings)
        overridden.append(key)
    schema = _schema_of(settings)
    try:
        drop_foreign_defaults(settings, schema)
        return validate(schema, settings)
    except ConfigError as error:
        key = str(error).partition(":")[0]
        source = "command line" if any(_contains(key, other) or _contains(other, key) for other in overridden) else path
        raise ConfigError(f"{source}: {error}") from None


def read_settings(path: str | Path) -> dict[str, Any]:
    """Read the config.yaml of a run, possibly of an earlier release, without validating its values.

    Raises:
        ConfigError: it is no YAML mapping.
    """
    settings = read_with_base(Path(path))
    rename_old_keys(settings, None)
    drop_foreign_defaults(settings, _schema_of(settings))
    return settings


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain dicts, lists and scalars."""
    return _plain(config.model_dump())


def to_yaml(config: RunConfig) -> str:
    """The whole configuration, defaults included; `load_config` reads it."""
    return dump_yaml(to_dict(config))


def changes(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    """List the differences of two configurations or descriptions in order, such as ``optim.lr: 0.1 -> 0.05``."""
    differences: list[str] = []
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            differences += changes(old, new, f"{prefix}{key}.")
        elif _plain(old) != _plain(new):
            differences.append(f"{prefix}{key}: {_shorten(old)} -> {_shorten(new)}")
    return differences


def _parse_override(override: str) -> tuple[str, dict[str, Any]]:
    """The dotted key of a ``key=value`` argument by its current name, and the nested settings that it stands for."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"command line: found {override!r}, expected key=value, such as optim.lr=0.05")
    value: Any = text if _NOT_YAML.search(text) else parse_yaml(text, f"command line: {key}")
    parts = key.split(".")
    for part in reversed(parts):
        value = {part: value}
    rename_old_keys(value, "command line")
    return ".".join(_first_keys(value, depth=len(parts))), value


def _first_keys(settings: dict[str, Any], depth: int) -> list[str]:
    """The keys of nested mappings of one key each."""
    keys = []
    for _ in range(depth):
        ((key, settings),) = settings.items()
        keys.append(key)
    return keys


def _contains(outer: str, inner: str) -> bool:
    """Whether a dotted key is, or lies in, another one."""
    return f"{inner}.".startswith(f"{outer}.")


def _schema_of(settings: dict[str, Any]) -> type[RunConfig]:
    data = settings.get("data")
    experiment = experiment_of_dataset(data.get("dataset")) if isinstance(data, dict) else None
    return experiment.Config if experiment else RunConfig


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:100]}... ({len(text)} characters)"
