"""Configurations of earlier releases: renamed sections and keys, and sections that experiments own today."""

from __future__ import annotations

import sys
from typing import Any

from lookupvivit.config.errors import ConfigError
from lookupvivit.config.schema import RunConfig
from lookupvivit.config.yaml_files import merge
from lookupvivit.experiments import DATASETS, PACKAGES, experiment

RENAMED_SECTIONS = {"engine": "runtime"}
RENAMED_KEYS = {("data", "max_broken"): "max_failed"}


def rename_old_keys(settings: dict[str, Any], source: str | None) -> None:
    """Replace old names in ``settings``.

    Args:
        source: where the settings are from, for a notice on standard error per name; None prints nothing.
    """

    def notify(old: str, new: str) -> None:
        if source is not None:
            print(f"{source}: {old} is now called {new}", file=sys.stderr)

    for old, new in RENAMED_SECTIONS.items():
        if old in settings:
            notify(old, new)
            value = settings.pop(old)
            settings[new] = merge(value, settings.get(new, {})) if isinstance(value, dict) else value
    for (section, old), new in RENAMED_KEYS.items():
        keys = settings.get(section)
        if isinstance(keys, dict) and old in keys:
            notify(f"{section}.{old}", f"{section}.{new}")
            keys.setdefault(new, keys.pop(old))


def drop_foreign_defaults(settings: dict[str, Any], schema: type[RunConfig]) -> None:
    """Remove sections of experiments that ``schema`` does not have, if they hold defaults only.

    Earlier releases wrote these sections into every config.yaml.

    Raises:
        ConfigError: such a section holds another value.
    """
    unknown = settings.keys() - schema.model_fields.keys()
    for name in PACKAGES if unknown else ():
        config_class: type[RunConfig] = experiment(name).Config
        for section in settings.keys() & unknown & config_class.model_fields.keys():
            found, default = settings.pop(section), config_class.default(section).model_dump()
            if not isinstance(found, dict) or {**default, **found} != default:
                datasets = " or ".join(dataset for dataset, owner in DATASETS.items() if owner == name)
                raise ConfigError(f"{section}: found {found!r}, expected no value unless data.dataset is {datasets}")
