"""From a YAML file and a command line to the schema of `lookupvivit.config`, and back."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from lookupvivit.config import ConfigError, RunConfig, check

RENAMED_SECTIONS = {"engine": "runtime"}


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file and apply ``key=value`` overrides with dotted keys, such as ``optim.lr=0.05``.

    A file may name another one beside it as its ``base`` and state only what differs from that. Mappings are laid over
    each other key by key, on the command line as in files; ``{}`` empties one.

    Raises:
        ConfigError: in one line, where, which key, what was found and what would be right.
    """
    settings = _read_with_base(Path(path))
    _rename_sections(settings, str(path))
    overridden = []  # for the messages
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"command line: {override!r} is no override, must be key=value, such as optim.lr=0.05")
        given = _parse(text, f"command line: {key}")
        for part in reversed(key.split(".")):
            given = {part: given}
        _rename_sections(given, f"command line: {key}")
        settings = _laid_over(given, settings)
        overridden.append(key)
    try:
        return _build(RunConfig, settings, "")
    except ConfigError as error:
        key = str(error).partition(":")[0]
        named = any(f"{key}.".startswith(f"{said}.") or said.startswith(f"{key}.") for said in overridden)
        source = "command line" if named else path
        raise ConfigError(f"{source}: {error}") from None


def _rename_sections(settings: dict[str, Any], source: str) -> None:
    """Read the section names of earlier releases, with a one-line notice on standard error."""
    for old, new in RENAMED_SECTIONS.items():
        if old in settings:
            print(f"{source}: the section {old!r} is now called {new!r}", file=sys.stderr)
            settings[new] = _laid_over(settings.get(new, {}), settings.pop(old))


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain dicts, lists and scalars."""
    return _plain(dataclasses.asdict(config))


def to_yaml(config: RunConfig) -> str:
    """The whole configuration, defaults included; `load_config` reads it back."""
    return yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def changes(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two configurations or descriptions, such as ``optim.lr: 0.1 -> 0.05``, in order."""
    told = []
    for key in {**before, **after}:
        one, other = before.get(key), after.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            told += changes(one, other, f"{prefix}{key}.")
        elif _plain(one) != _plain(other):
            told.append(f"{prefix}{key}: {_short(one)} -> {_short(other)}")
    return told


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} characters)"


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as a number (YAML 1.1 wants 1.0e-3) and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for i, (key_node, _) in enumerate(node.value):
            key = keys[i]
            if key in keys[:i]:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Safe YAML that quotes text which _Loader would read as a number."""


for _yaml in (_Loader, _Dumper):
    _yaml.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def _read_with_base(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A file's settings laid over those of its base, section by section and key by key; ``{}`` empties a key."""
    settings = read_yaml(path)
    base = settings.pop("base", None)
    if base is None:
        return settings
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: found {base!r}, must be the name of a YAML file beside this one")
    if path.resolve() in above:
        raise ConfigError(f"{path}: base: {base} leads back to this file, must end somewhere")
    return _laid_over(settings, _read_with_base(path.parent / base, (*above, path.resolve())))


def _laid_over(settings: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    both = {**base, **settings}
    for key in base.keys() & settings.keys():
        if isinstance(base[key], dict) and isinstance(settings[key], dict) and settings[key]:
            both[key] = _laid_over(settings[key], base[key])
    return both


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, whatever its keys; ConfigError where it is none."""
    if not path.is_file():
        found = "found a directory" if path.is_dir() else "no such file"
        raise ConfigError(f"{path}: {found}, must be a YAML configuration, such as configs/camera_motion.yaml")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: found bytes that are not UTF-8, must be a text file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read, {error.strerror}") from None
    settings = _parse(text, str(path))
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: found {type(settings).__name__} at the top, must be a mapping of keys to values")
    return settings


def _parse(text: str, where: str) -> Any:
    try:
        return _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{line}: not valid YAML, {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that cannot be
        raise ConfigError(f"{where}: not valid YAML, {' '.join(str(error).split())}") from None


def _build(schema: type, settings: Any, prefix: str) -> Any:
    if not isinstance(settings, dict):
        raise ConfigError(f"{prefix[:-1]}: found {settings!r}, must be a section with {', '.join(_names(schema))}")
    for key in settings:
        if key not in _names(schema):
            raise ConfigError(f"{prefix}{key}: no such key{_suggest(prefix, key, schema)}")
    for entry in dataclasses.fields(schema):
        optional = entry.default is not dataclasses.MISSING or entry.default_factory is not dataclasses.MISSING
        if not optional and entry.name not in settings:
            raise ConfigError(f"{prefix}{entry.name}: missing, must be given")
    hints = get_type_hints(schema)
    return schema(**{key: _convert(hints[key], value, f"{prefix}{key}") for key, value in settings.items()})


def _convert(hint: Any, value: Any, key: str) -> Any:
    """``value`` as ``hint`` wants it, or a ConfigError; only int -> float and list -> tuple are converted."""
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{key}.")
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(argument for argument in arguments if argument is not type(None)), value, key)
    if origin is Literal:
        check(value in arguments, key, value, f"one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        right = isinstance(value, list | tuple) and len(value) == len(arguments)
        check(right, key, value, f"a list of {len(arguments)} values")
        return tuple(_convert(argument, item, key) for argument, item in zip(arguments, value, strict=True))
    if origin is list:
        check(isinstance(value, list) and value, key, value, "a list of values")
        return [_convert(arguments[0], item, key) for item in value]
    if origin is dict:
        value = {} if value is None else value
        check(isinstance(value, dict), key, value, "a mapping of keys to values")
        return {_convert(arguments[0], k, key): _convert(arguments[1], v, f"{key}.{k}") for k, v in value.items()}
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    right = isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool)
    wanted = {str: "text, in quotes where it looks like something else", int: "a whole number", float: "a number"}
    check(right, key, value, wanted.get(hint, hint.__name__))
    check(hint is not float or math.isfinite(value), key, value, "finite")
    return value


def _names(schema: type) -> list[str]:
    return [entry.name for entry in dataclasses.fields(schema)]


def _suggest(prefix: str, key: Any, schema: type) -> str:
    """The closest known key, by its whole path or by its last word; else all that could stand in its place."""
    known = list(_dotted(RunConfig, ""))
    by_path = difflib.get_close_matches(f"{prefix}{key}", known, n=1, cutoff=0.75)
    words = difflib.get_close_matches(str(key), [name.rpartition(".")[2] for name in known], n=1, cutoff=0.75)
    by_word = [name for name in known if words and name.rpartition(".")[2] == words[0]]
    found = by_path or by_word
    if found:
        return f", did you mean {found[0]}?"
    return f"; {f'the keys of {prefix[:-1]}' if prefix else 'the sections'} are {', '.join(_names(schema))}"


def _dotted(schema: type, prefix: str) -> Iterator[str]:
    for name, hint in typing.get_type_hints(schema).items():
        yield f"{prefix}{name}"
        if dataclasses.is_dataclass(hint):
            yield from _dotted(hint, f"{prefix}{name}.")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
