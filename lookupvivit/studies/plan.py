"""The file that describes a study, and the jobs that it stands for."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, InstanceOf, PlainSerializer, WithJsonSchema, model_validator
from typing_extensions import Self

from lookupvivit.config import ConfigError, RunConfig, require
from lookupvivit.config.loading import load_config
from lookupvivit.config.section import Mapping, NonEmpty, Section, list_to_tuple
from lookupvivit.config.validation import validate
from lookupvivit.config.yaml_files import find_config, read_yaml
from lookupvivit.sizes import TokenSetting, as_size, parse_token_setting


def _parse_test_size(value: Any) -> TokenSetting:
    if isinstance(value, TokenSetting):
        return value
    return parse_token_setting(value) if isinstance(value, str) else TokenSetting(as_size(value))


TestSize = Annotated[
    InstanceOf[TokenSetting],
    BeforeValidator(_parse_test_size),
    PlainSerializer(str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "title": "TxHxW, @KEEP or TxHxW@KEEP such as 4x5x5@0.5"},
                {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 3, "maxItems": 3},
            ]
        }
    ),
]
Settings = Mapping[Any]  # dotted keys of the configuration and their values


class Search(Section):
    """A setting that each variant chooses for itself: the value with the highest score of one seed."""

    key: str
    """Dotted key, such as optim.lr."""
    values: NonEmpty[Any]
    """The values that are tried."""
    seed: int = 1000
    """Seed of the trials; the study's seeds must differ from it."""


class Study(Section):
    """A study: `base`, changed by `overrides` and by one variant's settings, trained with every seed."""

    title: str
    """Title of table and figure."""
    base: str
    """Configuration that all variants share: a path relative to the study's file, or a name such as k400_9x9x8."""
    output_dir: str
    """Folder of the results, and of the runs unless `runs_dir` is set."""
    runs_dir: str | None = None
    """Folder of the runs. Studies with the same folder share the runs of variants with the same name and settings."""
    overrides: Settings = Field(default_factory=dict)
    """Settings of all variants."""
    variants: Annotated[dict[str, Settings], Field(min_length=1)]
    """Settings of each variant by its name in the table."""
    seeds: NonEmpty[int] = (0, 1, 2)
    """Seeds of the runs of each variant."""
    search: Search | None = None
    """A setting that each variant chooses for itself before its runs."""
    test_sizes: Annotated[tuple[TestSize, ...], BeforeValidator(list_to_tuple)] = ()
    """Compressed sizes and shares of kept tokens of further tests, such as 4x4x4, @0.5 or 4x4x4@0.5."""
    groups: Mapping[str] = Field(default_factory=dict)
    """The curve of the figure that a variant belongs to; by default a curve of its own."""

    @model_validator(mode="after")
    def _validate(self) -> Self:
        require(len(set(self.seeds)) == len(self.seeds), "seeds", self.seeds, "different seeds")
        if self.search:
            require(self.search.seed not in self.seeds, "search.seed", self.search.seed, "a seed that is not in seeds")
        for name in self.groups:
            require(name in self.variants, "groups", name, f"one of {', '.join(self.variants)}")
        return self


@dataclass(frozen=True)
class Job:
    """One run: training, and a test at each size.

    Attributes:
        variant: name in the table.
        seed: of the run.
        settings: all overrides of the base, by dotted key.
        folder: the run directory.
    """

    variant: str
    seed: int
    settings: dict[str, Any]
    folder: Path

    @property
    def overrides(self) -> list[str]:
        """The settings as arguments of the command line."""
        settings = {**self.settings, "seed": self.seed, "output_dir": str(self.folder)}
        return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]

    def config(self, base: Path) -> RunConfig:
        """The complete configuration; raises ConfigError."""
        return load_config(base, self.overrides)


def read_study(file: Path) -> Study:
    """Read a study.

    Raises:
        ConfigError: the file does not describe one; names the key.
    """
    try:
        return validate(Study, read_yaml(file))
    except ConfigError as error:
        prefix = "" if str(error).startswith(str(file)) else f"{file}: "
        raise ConfigError(f"{prefix}{error}") from None


def base_of(study: Study, file: Path) -> Path:
    """The path of the base configuration."""
    return find_config(study.base, file.parent)


def search_jobs(study: Study) -> dict[str, list[Job]]:
    """The trials of each variant, one per value of the search; they are validated but not tested."""
    if study.search is None:
        return {}
    key, seed = study.search.key, study.search.seed
    return {
        name: [_job(study, name, seed, {key: value}, f"search_{_slug(str(value))}") for value in study.search.values]
        for name in study.variants
    }


def study_jobs(study: Study, chosen: dict[str, dict[str, Any]]) -> list[Job]:
    """The runs of all variants and seeds, seed by seed, so that an interrupted study has results of all variants.

    Args:
        chosen: by variant, the setting that its search chose.
    """
    return [
        _job(study, name, seed, chosen.get(name, {}), f"seed_{seed}") for seed in study.seeds for name in study.variants
    ]


def _job(study: Study, name: str, seed: int, chosen: dict[str, Any], run: str) -> Job:
    settings = {**study.overrides, **study.variants[name], **chosen}
    return Job(name, seed, settings, Path(study.runs_dir or study.output_dir) / _slug(name) / run)


def _slug(name: str) -> str:
    """A folder name."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("_")
