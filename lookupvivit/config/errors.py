"""The error of an invalid configuration."""

from __future__ import annotations

from typing import Any

from lookupvivit.errors import UserError


class ConfigError(UserError):
    """A configuration that cannot be run. The message is one line: source, key, what was found, what is expected."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))  # keys, paths and messages of libraries may contain newlines


def require(condition: object, key: str, found: Any, expected: str) -> None:
    """Raise a ConfigError unless ``condition`` is true."""
    if not condition:
        raise ConfigError(f"{key}: found {found!r}, expected {expected}")
