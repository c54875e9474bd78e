"""The one typed schema of a run, and how a YAML file and a command line become it.

Sections and fields below are all there is: an unknown key, a wrong type or an impossible value is a ConfigError of
one line. A configuration states only what differs from the defaults here.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml


class ConfigError(ValueError):
    """A configuration that cannot be run; one line: where, which key, what was found, what would be right."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))  # keys, paths and other libraries' words may break lines


def _check(right: bool, key: str, found: Any, wanted: str) -> None:
    if not right:
        raise ConfigError(f"{key}: found {found!r}, must be {wanted}")


@dataclass(frozen=True)
class ModelConfig:
    """Which model; the input size follows ``data.frames`` and ``data.crop``."""

    name: str  # one of lookupvivit.list_models()
    overrides: dict[str, Any] = field(default_factory=dict)  # arguments of the model's class, such as depth: 4
    # LookupViT: compressed sizes to train on, one drawn per step, such as {t: [4, 8, 16], k: [5, 6, 7, 8, 9]}
    multi_resolution: dict[str, list[int]] | None = None

    def __post_init__(self) -> None:
        sizes = self.multi_resolution
        right = sizes is None or (
            sizes.keys() == {"t", "k"} and all(sizes.values()) and min(map(min, sizes.values())) >= 1
        )
        _check(right, "model.multi_resolution", sizes, "{t: [...], k: [...]}, frames and sides of at least 1 token")


_KEYS_OF_ONE_DATASET = {
    "train_list": "kinetics", "val_list": "kinetics", "separator": "kinetics", "camera_motion": "camera_motion",
}  # fmt: skip


@dataclass(frozen=True)
class DataConfig:
    """Where the videos are and what a clip is."""

    dataset: Literal["kinetics", "something_something", "camera_motion"]
    root: str
    num_classes: int
    train_list: str = "train.csv"  # kinetics: `path label` lists, relative to root
    val_list: str = "val.csv"
    separator: str | None = None  # kinetics: between path and label; null finds it
    camera_motion: dict[str, int] = field(default_factory=dict)  # fields of data_pipelines.camera_motion.Recipe
    frames: int = 32  # per clip
    stride: int = 2  # video frames from one to the next
    short_side: int = 256  # pixels after resizing
    crop: int = 224  # pixels, square
    workers: int = 4  # loading processes per rank

    def __post_init__(self) -> None:
        for key in ("num_classes", "frames", "stride", "short_side", "crop"):
            _check(getattr(self, key) >= 1, f"data.{key}", getattr(self, key), "at least 1")
        _check(self.crop <= self.short_side, "data.crop", self.crop, f"at most data.short_side = {self.short_side}")
        _check(self.workers >= 0, "data.workers", self.workers, "0 or more")
        for entry in dataclasses.fields(self):  # nothing given is silently ignored
            owner = _KEYS_OF_ONE_DATASET.get(entry.name, self.dataset)
            default = {} if entry.default is dataclasses.MISSING else entry.default
            right = owner == self.dataset or getattr(self, entry.name) == default
            _check(right, f"data.{entry.name}", getattr(self, entry.name), f"left out unless data.dataset is {owner}")


@dataclass(frozen=True)
class AugmentConfig:
    """Training augmentation; the defaults are ViViT's for Kinetics-400."""

    scale_jitter: tuple[float, float] | None = (0.9, 1.33)  # independent factors of height and width
    horizontal_flip: float = 0.5  # probability
    flip_labels: dict[str, str] = field(default_factory=dict)  # class names that a flip turns into each other
    color_jitter: float = 0.8  # probability
    grayscale: float = 0.1  # probability
    rand_augment: tuple[int, float] | None = None  # (layers, magnitude); replaces color_jitter and grayscale
    mixup: float = 0.0  # alpha of the Beta distribution; 0 is off
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for key in ("horizontal_flip", "color_jitter", "grayscale", "label_smoothing"):
            _check(0 <= getattr(self, key) <= 1, f"augment.{key}", getattr(self, key), "between 0 and 1")
        right = self.horizontal_flip > 0 or not self.flip_labels
        _check(right, "augment.flip_labels", self.flip_labels, "left out where augment.horizontal_flip is 0")
        _check(self.mixup >= 0, "augment.mixup", self.mixup, "0 (off) or more")
        if self.scale_jitter:
            low, high = self.scale_jitter
            _check(0 < low <= high, "augment.scale_jitter", self.scale_jitter, "[low, high] with 0 < low <= high")
        if self.rand_augment:
            colourless = self.color_jitter == self.grayscale == 0
            wanted = "null, or else color_jitter and grayscale 0, which it replaces"
            _check(colourless, "augment.rand_augment", self.rand_augment, wanted)
            layers, magnitude = self.rand_augment
            right = layers >= 1 and magnitude >= 0
            _check(right, "augment.rand_augment", self.rand_augment, "[layers, magnitude], at least 1 and 0")


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer, batch and schedule: linear warmup, then a cosine to zero."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1  # peak, never rescaled by the batch size
    momentum: float = 0.9  # sgd
    betas: tuple[float, float] = (0.9, 0.999)  # adamw
    weight_decay: float = 0.0  # not on biases, norms and positions
    clip_grad: float = 1.0  # global norm; 0 is off
    batch_size: int = 64  # clips per optimizer step, of all ranks together
    micro_batch_size: int | None = None  # clips per rank and forward pass; null is batch_size / ranks
    epochs: float = 30
    warmup_epochs: float = 2.5
    max_steps: int | None = None  # optimizer steps, instead of epochs

    def __post_init__(self) -> None:
        for key in ("lr", "epochs", "batch_size", "micro_batch_size", "max_steps"):
            value = getattr(self, key)
            _check(value is None or value > 0, f"optim.{key}", value, "greater than 0")
        for key in ("momentum", "weight_decay", "clip_grad", "warmup_epochs"):
            _check(getattr(self, key) >= 0, f"optim.{key}", getattr(self, key), "0 or more")
        _check(all(0 <= b < 1 for b in self.betas), "optim.betas", self.betas, "two numbers in [0, 1)")
        for key, owner in (("momentum", "sgd"), ("betas", "adamw")):  # nothing given is silently ignored
            right = owner == self.name or getattr(self, key) == getattr(OptimConfig, key)
            _check(right, f"optim.{key}", getattr(self, key), f"left out unless optim.name is {owner}")
        if self.max_steps is None:
            _check(
                self.warmup_epochs <= self.epochs, "optim.warmup_epochs", self.warmup_epochs,
                f"at most optim.epochs = {self.epochs}",
            )  # fmt: skip


@dataclass(frozen=True)
class EngineConfig:
    """How DeepSpeed runs it."""

    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    zero_stage: int = 1  # 0 replicates; 1 shards the optimizer, 2 gradients too, 3 weights too
    threads: int | None = None  # CPU threads per rank; null leaves torch's choice

    def __post_init__(self) -> None:
        _check(self.zero_stage in (0, 1, 2, 3), "engine.zero_stage", self.zero_stage, "0, 1, 2 or 3")
        # Stage 0 keeps its float32 master weights out of reach, and they are what is saved.
        right = self.zero_stage > 0 or self.precision == "fp32"
        _check(right, "engine.zero_stage", self.zero_stage, f"1, 2 or 3 with engine.precision {self.precision}")
        _check(self.threads is None or self.threads > 0, "engine.threads", self.threads, "at least 1, or null")


@dataclass(frozen=True)
class EvalConfig:
    """Multi-view testing."""

    clips: int = 4  # evenly spaced in time
    crops: int = 3  # 1: centre; 3: along the longer side
    batch_size: int = 8  # views per rank and forward pass
    compressed_size: tuple[int, int, int] | None = None  # LookupViT: (t, h, w); null is the model's own

    def __post_init__(self) -> None:
        for key in ("clips", "batch_size"):
            _check(getattr(self, key) >= 1, f"eval.{key}", getattr(self, key), "at least 1")
        _check(self.crops in (1, 3), "eval.crops", self.crops, "1 or 3")
        size = self.compressed_size
        _check(size is None or min(size) >= 1, "eval.compressed_size", size, "[t, h, w] of at least 1, or null")

    @property
    def call(self) -> dict[str, Any]:
        """What a model's call gets besides the video."""
        return {"compressed_size": self.compressed_size} if self.compressed_size else {}


@dataclass(frozen=True)
class LogConfig:
    """What is told and kept, and how often; 0 epochs is never, the end of training always counts otherwise."""

    every: int = 10  # optimizer steps
    validate_every_epochs: float = 1.0
    checkpoint_every_epochs: float = 1.0
    keep_checkpoints: int = 2
    attention_every_epochs: float = 1.0
    attention_clips: int = 4

    def __post_init__(self) -> None:
        for key in ("every", "keep_checkpoints", "attention_clips"):
            _check(getattr(self, key) >= 1, f"log.{key}", getattr(self, key), "at least 1")
        for key in ("validate_every_epochs", "checkpoint_every_epochs", "attention_every_epochs"):
            _check(getattr(self, key) >= 0, f"log.{key}", getattr(self, key), "0 (never) or more")


@dataclass(frozen=True)
class RunConfig:
    """Everything about a run."""

    output_dir: str  # the run directory
    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    log: LogConfig = field(default_factory=LogConfig)
    seed: int = 0
    init_from: str | None = None  # to start training from: a run directory, or any file of lookupvivit.weights.sources
    init_inflation: Literal["central", "average"] = "central"  # how a 2-D patch kernel fills a tubelet
    init_pixels: Literal["symmetric", "imagenet"] | None = None  # what init_from was trained on: [-1, 1], or normalised
    # by ImageNet's mean and deviation (DeiT, MAE); null: as its format tells
    checkpoint: str | None = None  # run directory or model.safetensors to test; null is the run's own

    def __post_init__(self) -> None:
        _check(self.seed >= 0, "seed", self.seed, "0 or more")


# From YAML and command line to the schema


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file and apply ``key=value`` overrides with dotted keys, such as ``optim.lr=0.05``.

    Raises:
        ConfigError: in one line, where, which key, what was found and what would be right.
    """
    settings = _read_yaml(Path(path))
    overridden = []  # for the messages
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"command line: {override!r} is no override, must be key=value, such as optim.lr=0.05")
        _assign(settings, key.split("."), _parse(text, f"command line: {key}"))
        overridden.append(key)
    try:
        return _build(RunConfig, settings, "")
    except ConfigError as error:
        key = str(error).partition(":")[0]
        named = any(f"{key}.".startswith(f"{said}.") or said.startswith(f"{key}.") for said in overridden)
        source = "command line" if named else path
        raise ConfigError(f"{source}: {error}") from None


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain dicts, lists and scalars."""
    return _plain(dataclasses.asdict(config))


def to_yaml(config: RunConfig) -> str:
    """The whole configuration, defaults included; `load_config` reads it back."""
    return yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


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


def _read_yaml(path: Path) -> dict[str, Any]:
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


def _assign(settings: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(settings.get(key), dict):
            settings[key] = {}
        settings = settings[key]
    settings[keys[-1]] = value


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
        _check(value in arguments, key, value, f"one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        right = isinstance(value, list | tuple) and len(value) == len(arguments)
        _check(right, key, value, f"a list of {len(arguments)} values")
        return tuple(_convert(argument, item, key) for argument, item in zip(arguments, value, strict=True))
    if origin is list:
        _check(isinstance(value, list) and value, key, value, "a list of values")
        return [_convert(arguments[0], item, key) for item in value]
    if origin is dict:
        _check(isinstance(value, dict), key, value, "a mapping of keys to values")
        return {_convert(arguments[0], k, key): _convert(arguments[1], v, f"{key}.{k}") for k, v in value.items()}
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    right = isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool)
    wanted = {str: "text, in quotes where it looks like something else", int: "a whole number", float: "a number"}
    _check(right, key, value, wanted.get(hint, hint.__name__))
    _check(hint is not float or math.isfinite(value), key, value, "finite")
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
