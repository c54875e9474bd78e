"""Configuration files: safe YAML in which 1e-3 is a number and duplicate keys are errors; files may have a ``base``."""

from __future__ import annotations

import re
from collections.abc import Hashable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from data_pipelines.io.errors import DataError
from data_pipelines.io.text import require_regular
from lookupvivit.config.errors import ConfigError

PACKAGED = Path(__file__).parents[1] / "configs"
MAX_DIGITS = 300  # of a number
MAX_LENGTH = 2**20  # characters of a file
MAX_BYTES = 4 * MAX_LENGTH  # UTF-8 has at most four bytes per character


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as a number (YAML 1.1 requires 1.0e-3) and rejects duplicate keys and aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # a few nested aliases stand for more values than fit into memory
            event = self.peek_event()
            raise yaml.MarkedYAMLError(problem=f"found the alias *{event.anchor}", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if not isinstance(key, Hashable):
                break  # SafeLoader reports it
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"duplicate key {key!r}", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """A number that can be printed; Python neither prints longer integers nor reads them in linear time."""
        if len(node.value) > MAX_DIGITS:
            problem = f"found a number of {len(node.value)} characters, expected at most {MAX_DIGITS}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        is_float = node.tag.endswith("float")
        return self.construct_yaml_float(node) if is_float else self.construct_yaml_int(node)


class _Dumper(yaml.SafeDumper):
    """Safe YAML without aliases that quotes text which `_Loader` would read as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def parse_yaml(text: str, source: str) -> Any:
    """Parse one YAML document.

    Raises:
        ConfigError: names ``source`` and, where known, the line.
    """
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"{source}: found {len(text)} characters, expected at most {MAX_LENGTH}")
    try:
        return _Loader(text).get_single_data()
    except RecursionError:
        raise ConfigError(f"{source}: not valid YAML, nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{source}{line}: not valid YAML, {error.problem}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: an impossible date or number
        raise ConfigError(f"{source}: not valid YAML, {' '.join(str(error).split())}") from None


def dump_yaml(settings: dict[str, Any]) -> str:
    """Write plain dicts, lists and scalars, keeping the order of keys."""
    return yaml.dump(settings, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def find_config(path: str | Path, folder: Path = Path()) -> Path:
    """Return a path in ``folder``; a name such as k400_9x9x8, unless there is such a file, is one of `PACKAGED`."""
    packaged, file = PACKAGED / f"{path}.yaml", folder / path
    return packaged if not file.exists() and packaged.is_file() else file


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file, whatever its keys.

    Raises:
        ConfigError: no such file, or another content.
    """
    if not path.is_file():
        found = "found a directory" if path.is_dir() else "no such file"
        names = get_close_matches(path.name, [file.stem for file in PACKAGED.glob("*.yaml")], n=1)
        hint = f", did you mean {names[0]}?" if names and not path.suffix else ""
        raise ConfigError(f"{path}: {found}, expected a YAML configuration, such as configs/camera_motion.yaml{hint}")
    try:
        require_regular(path, MAX_BYTES)
        text = path.read_text(encoding="utf-8")
    except DataError as error:
        raise ConfigError(str(error)) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: found bytes that are not UTF-8, expected a text file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read, {error.strerror}") from None
    settings = parse_yaml(text, str(path))
    if not isinstance(settings, dict):
        found = type(settings).__name__
        raise ConfigError(f"{path}: found {found} at the top level, expected a mapping of keys to values")
    return settings


def read_with_base(path: Path, including: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a file and merge it into its ``base``, if it names one.

    Args:
        including: the files whose bases lead to this one.

    Raises:
        ConfigError: a file that cannot be read, or a base that leads back to itself.
    """
    settings = read_yaml(path)
    base = settings.pop("base", None)
    if base is None:
        return settings
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: found {base!r}, expected a YAML file, relative to this file, or a name")
    if path.resolve() in including:
        raise ConfigError(f"{path}: base: found {base}, which leads back to this file")
    return merge(read_with_base(find_config(base, path.parent), (*including, path.resolve())), settings)


def merge(base: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Merge ``settings`` into ``base`` key by key, nested mappings likewise; an empty mapping replaces a full one."""
    merged = {**base, **settings}
    for key in base.keys() & settings.keys():
        if isinstance(base[key], dict) and isinstance(settings[key], dict) and settings[key]:
            merged[key] = merge(base[key], settings[key])
    return merged
