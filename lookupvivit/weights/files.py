"""`model.safetensors` + `model.json`: a trained model that loads with neither DeepSpeed nor the configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_pipelines.io.atomic import atomic_write, write_json, write_text
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.json_files import SMALL_BYTES, read_json
from data_pipelines.io.text import require_regular
from lookupvivit.errors import UserError
from lookupvivit.experiments import experiment
from lookupvivit.models.base import Model
from lookupvivit.models.registry import create_model, current_arguments
from lookupvivit.models.shapes_only import allocate, shapes_only
from lookupvivit.sizes import Size
from lookupvivit.weights.shipped import SHIPPED_MODELS, shipped_or

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
MAX_SIZE = 2**20  # of any number in model.json
TOKENIZER = "tokenizer.json"  # of a captioner, in the same folder


class WeightsError(UserError):
    """A weights file is missing, corrupt or does not fit; names file and tensor in one line."""


class MissingTensorsError(WeightsError):
    """A weights file lacks tensors of the model."""


@dataclass(frozen=True)
class LoadReport:
    """What was done with every tensor.

    Attributes:
        loaded: tensors copied unchanged.
        initialised: classifiers of other classes, which keep their random weights.
        missing: new parameters, which the file lacks and which keep their random weights.
        resized: tensor -> how.
    """

    loaded: list[str] = field(default_factory=list)
    initialised: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        initialised = f", randomly initialised: {', '.join(self.initialised)}" if self.initialised else ""
        return f"{len(self.loaded)} tensors loaded{initialised}"


# ----------------------------------------------------------------------------------------------------------------------
# Whole models


def save_model(folder: Path, state: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write weights and description into ``folder``; each file atomically, the weights last.

    Args:
        folder: created if necessary.
        state: the model's full state dict, on any device.
        description: ``name``, ``num_classes`` and ``overrides`` for `create_model`, and whatever a user of the weights
            must know (class names, preprocessing). For a captioner: ``name`` and ``overrides`` of its encoder,
            ``captioner`` (the arguments of the decoder) and ``tokenizer``, which is written to a file of its own.
    """
    write_json(folder / DESCRIPTION, {key: value for key, value in description.items() if key != "tokenizer"})
    if "tokenizer" in description:
        write_text(folder / TOKENIZER, description["tokenizer"])
    with atomic_write(folder / WEIGHTS) as temporary:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        save_file(tensors, temporary, metadata={"format": "pt"})  # without it, transformers refuses the file


def load_model(path: str | Path) -> Model:
    """Rebuild a trained model, in eval mode on the CPU, with its model.json as the attribute ``description``.

    Args:
        path: a run directory, a checkpoint directory or its ``model.safetensors``; or the name of a shipped model, such
            as "camera_motion". An existing file or folder of that name takes precedence.

    Raises:
        WeightsError: none of these, or files that do not fit together.
    """
    description = read_description(path)
    with shapes_only():
        model = described_model(description)
    # The file is checked before memory is allocated that only model.json asks for.
    require_same_shapes(model, tensor_shapes(weights_file(path)), weights_file(path))
    allocate(model)
    load_weights(model, path, heads_may_differ=False)
    model.description = description
    return model.eval()


def load_classifier(path: str | Path) -> Model:
    """As `load_model`, for callers that need classes.

    Raises:
        WeightsError: as `load_model`, or the model is a captioner.
    """
    model = load_model(path)
    if "captioner" in model.description:
        raise WeightsError(f"{path}: found a captioner, expected a classifier; tools/caption.py writes its captions")
    return model


# ----------------------------------------------------------------------------------------------------------------------
# Descriptions


def read_description(path: str | Path) -> dict[str, Any]:
    """The contents of ``model.json`` next to the weights, and a captioner's ``tokenizer``.

    Raises:
        WeightsError: the file is missing, no JSON, or lacks a key that rebuilding the model needs.
    """
    file = weights_file(path).with_name(DESCRIPTION)
    try:
        description = read_json(file, dict, max_bytes=SMALL_BYTES)
    except MissingDataError:
        raise WeightsError(f"{file}: not found; without it, the model of {WEIGHTS} cannot be rebuilt") from None
    except DataError as error:
        raise WeightsError(str(error)) from None
    is_captioner = "captioner" in description
    _require_keys(file, description, is_captioner)
    _require_plausible_sizes(file, description, len(tensor_shapes(weights_file(path))))
    description["overrides"] = current_arguments(description["overrides"])
    if is_captioner:
        return {**description, "tokenizer": _read_tokenizer(file.with_name(TOKENIZER))}
    _require_class_names(file, description)
    return description


def _require_keys(file: Path, description: dict[str, Any], is_captioner: bool) -> None:
    kind_of_key = {"name": str, "overrides": dict, **({"captioner": dict} if is_captioner else {"num_classes": int})}
    for key, kind in kind_of_key.items():
        if not isinstance(description.get(key), kind):
            raise WeightsError(
                f"{file}: {key}: found {description.get(key)!r}, expected a value of type {kind.__name__}"
            )


def _require_plausible_sizes(file: Path, description: dict[str, Any], num_tensors: int) -> None:
    """Refuse numbers that would let a small file occupy the machine. Every block of a model has tensors of its own."""

    def check(key: str, value: object, limit: int) -> None:
        if isinstance(value, dict):
            for inner, item in value.items():
                check(f"{key}.{inner}", item, num_tensors if inner == "depth" else limit)
        elif isinstance(value, list):
            for item in value:
                check(key, item, limit)
        elif isinstance(value, str):
            check(key, [float(digits) for digits in re.findall(r"\d+", value)], limit)
        elif isinstance(value, int | float) and not value <= limit:
            raise WeightsError(f"{file}: {key}: found {value}, expected at most {limit}")

    for key in ("num_classes", "overrides", "captioner"):
        check(key, description.get(key), MAX_SIZE)


def _require_class_names(file: Path, description: dict[str, Any]) -> None:
    num_classes, names = description["num_classes"], description.get("class_names")
    if "class_names" not in description:
        return
    if not isinstance(names, list) or len(names) != num_classes or not all(isinstance(name, str) for name in names):
        raise WeightsError(f"{file}: class_names: expected a list of {num_classes} names, one per class")


def _read_tokenizer(file: Path) -> str:
    try:
        require_regular(file, SMALL_BYTES)
        return file.read_text(encoding="utf-8")
    except DataError as error:
        raise WeightsError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{file}: cannot be read ({error}); a captioner needs it") from None


def described_model(description: dict[str, Any]) -> Model:
    """The model that a ``model.json`` describes, with random weights.

    Raises:
        WeightsError: no such model, or impossible arguments.
    """
    try:
        if "captioner" in description:
            return experiment("captioning").model_from_description(description)
        return create_model(description["name"], description["num_classes"], **description["overrides"])
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{DESCRIPTION}: {error}") from None


# ----------------------------------------------------------------------------------------------------------------------
# Weights


def load_weights(
    model: Model,
    path: str | Path,
    heads_may_differ: bool = True,
    fit: Mapping[str, Callable[[Tensor, Size], Tensor]] | None = None,
    new: Sequence[str] = (),
) -> LoadReport:
    """Copy weights into ``model``, name by name and shape by shape.

    Args:
        model: receives the weights.
        path: a run directory, a checkpoint directory or a ``model.safetensors``.
        heads_may_differ: a classifier for another number of classes keeps its random weights and is reported (such as
            a Kinetics-400 run that initialises a Something-Something one).
        fit: for tensors that may have another size: a function of the tensor and of the model's size, which are
            ``positions`` (1, t, h, w, D) with (t, h, w), and the patch kernel (D, 3, t, h, w) with (t, h, w).
        new: parts of the names of parameters that the file may lack, see `is_named`.

    Raises:
        WeightsError: any other difference; names the tensor.
    """
    file = weights_file(path)
    state = read_tensors(file)
    report, own = LoadReport(), model.state_dict()
    report.missing.extend(name for name in own if name not in state and is_named(name, new))
    _require_same_names(model, own.keys() - report.missing, state.keys(), file)
    for name, tensor in own.items():
        if name in report.missing:
            continue
        if not state[name].is_floating_point():
            raise WeightsError(f"{file}: tensor {name}: found {state[name].dtype}, expected floating point numbers")
        if fit and name in fit and state[name].dim() == tensor.dim() and state[name].shape != tensor.shape:
            where = slice(1, 4) if name == "positions" else slice(2, 5)
            source_size, size = tuple(state[name].shape[where]), tuple(tensor.shape[where])
            state[name] = fit[name](state[name], size)
            report.resized[name] = f"{source_size} to {size}"
        if state[name].shape == tensor.shape:
            tensor.copy_(state[name])
            report.loaded.append(name)
        elif heads_may_differ and name.rpartition(".")[0].endswith("head"):
            report.initialised.append(name)
        else:
            raise _other_shape(file, name, state[name].shape, tensor.shape)
    return report


def is_named(parameter: str, parts: Iterable[str]) -> bool:
    """Whether any of ``parts``, such as "infuse.gate", is one or more components of the name of a parameter."""
    return any(f".{part}." in f".{parameter}." for part in parts)


def require_same_shapes(model: Model, shapes: Mapping[str, Sequence[int]], file: Path) -> None:
    """Check that tensors of these shapes are the model's.

    Args:
        model: may be on the meta device.
        shapes: by tensor name.
        file: named in the message.

    Raises:
        WeightsError: they are not; names the tensor.
    """
    own = model.state_dict()
    _require_same_names(model, own.keys(), shapes.keys(), file)
    for name, tensor in own.items():
        if tuple(shapes[name]) != tuple(tensor.shape):
            raise _other_shape(file, name, shapes[name], tensor.shape)


def _require_same_names(model: Model, own: Set[str], found: Set[str], file: Path) -> None:
    problems = (("missing", own - found, MissingTensorsError), ("unexpected", found - own, WeightsError))
    for problem, names, error in problems:
        if names:
            raise error(
                f"{file}: {problem} tensor {min(names)} ({len(names)} in all); expected the weights of a "
                f"{type(model).__name__} with the same options"
            )


def _other_shape(file: Path, name: str, found: Sequence[int], expected: Sequence[int]) -> WeightsError:
    return WeightsError(f"{file}: tensor {name}: found shape {tuple(found)}, expected {tuple(expected)}")


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors of a safetensors file by name, from its header.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        with safe_open(file, "pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file}: not a readable safetensors file ({error})") from None


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file}: not a readable safetensors file ({error})") from None


def weights_file(path: str | Path) -> Path:
    """The ``model.safetensors`` of a run directory, checkpoint directory or shipped model, or the file itself.

    Raises:
        WeightsError: there is none.
    """
    path = shipped_or(path)
    expected = f"expected a run directory or a {WEIGHTS} file, or a shipped model: {', '.join(SHIPPED_MODELS)}"
    if path.is_dir():
        if not (path / WEIGHTS).is_file():
            raise WeightsError(f"{path}: found a folder without {WEIGHTS}, {expected}")
        return path / WEIGHTS
    if not path.is_file():
        raise WeightsError(f"{path}: not found, {expected}")
    if path.suffix != Path(WEIGHTS).suffix:
        raise WeightsError(f"{path}: found a file that is no {Path(WEIGHTS).suffix}, {expected}")
    return path
