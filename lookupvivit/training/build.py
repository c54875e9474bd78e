"""From a configuration to a model, and the description from which the model is rebuilt without the configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lookupvivit.config import ConfigError, RunConfig
from lookupvivit.config.loading import changes
from lookupvivit.models.base import Model, check_keep
from lookupvivit.models.registry import create_model, current_arguments
from lookupvivit.models.shapes_only import shapes_only
from lookupvivit.models.token_settings import check_compressed_size
from lookupvivit.profiling.dtypes import DTYPES
from lookupvivit.sizes import Size
from lookupvivit.training.distributed import World
from lookupvivit.weights.files import MissingTensorsError, read_description
from lookupvivit.weights.importing import ImportReport, import_weights
from lookupvivit.weights.metadata import MULTI_LABEL


def compute_dtype(config: RunConfig, world: World) -> torch.dtype:
    """The dtype of activations.

    Raises:
        ConfigError: the device does not support it.
    """
    precision, device = config.runtime.precision, world.device.type
    if precision == "fp16" and device == "cpu":
        raise ConfigError("runtime.precision: found 'fp16', expected fp32 or bf16 on a CPU")
    if precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError("runtime.precision: found 'bf16', expected fp32 or fp16: this GPU does not support bfloat16")
    return DTYPES[precision]


def build_model(config: RunConfig, num_classes: int | None = None) -> Model:
    """The configured model with random weights; its input size is that of the data's clips.

    Args:
        num_classes: by default ``data.num_classes``.

    Raises:
        ConfigError: no such model, impossible arguments, or a compressed size or keep that the model does not support.
    """
    try:
        model = create_model(config.model.name, num_classes or config.num_classes, **model_arguments(config))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"model: {error}") from None
    try:
        for key, size in _requested_sizes(config).items():
            check_compressed_size(model, size, key)
        check_keep(model, config.model.keep and config.model.keep[0], "model.keep")
        check_keep(model, config.eval.keep, "eval.keep")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return model


def freeze_blocks(model: Model, count: int) -> Model:
    """Exclude the first ``count`` blocks and all parameters before them from training.

    Raises:
        ConfigError: the model has fewer blocks.
    """
    if count > len(model.blocks):
        raise ConfigError(
            f"optim.freeze_blocks: found {count}, expected at most {len(model.blocks)}, the model's depth"
        )
    for names in model.layer_groups()[: count + 1] if count else ():
        for name in names:
            model.get_parameter(name).requires_grad_(False)
    return model


def build_on_meta(build: Callable[[], Model]) -> Model:
    """The model that ``build`` returns, on the meta device: shapes without memory or initialisation."""
    with shapes_only():
        return build()


def model_arguments(config: RunConfig) -> dict[str, Any]:
    """Arguments of the model's class: the input size, and ``model.overrides``."""
    data = config.data
    return {"input_size": (data.frames, data.crop, data.crop), **current_arguments(config.model.overrides)}


def _requested_sizes(config: RunConfig) -> dict[str, Size]:
    """The largest compressed sizes that the configuration uses, by key."""
    sizes = {}
    if multi_resolution := config.model.multi_resolution:
        sizes["model.multi_resolution"] = multi_resolution.largest
    if config.eval.compressed_size:
        sizes["eval.compressed_size"] = config.eval.compressed_size
    return sizes


def load_init_from(model: Model, config: RunConfig) -> ImportReport:
    """Load the weights of ``init_from``, which must be set, into ``model``."""
    assert config.init_from is not None
    new = config.init_missing
    try:
        return import_weights(model, config.init_from, config.init_inflation, config.init_pixels, new)
    except MissingTensorsError as error:
        raise MissingTensorsError(f"{error}; init_missing names the parameters that may start at random") from None


def classifier_description(
    config: RunConfig, class_names: tuple[str, ...], multi_label: bool = False
) -> dict[str, Any]:
    """The contents of model.json: how to rebuild the model, and the preprocessing of its input.

    Args:
        class_names: K names.
        multi_label: a video may have several classes.
    """
    return {
        "name": config.model.name,
        "num_classes": config.num_classes,
        "overrides": model_arguments(config),
        "class_names": list(class_names),
        **({MULTI_LABEL: True} if multi_label else {}),
        "preprocessing": config.data.preprocess().to_dict(),
    }


def require_trained_as(source: str, expected: dict[str, Any]) -> None:
    """Check that the weights in ``source`` were trained with the model, classes and clips in ``expected``.

    Args:
        source: a run directory or weights file.
        expected: some keys of a `classifier_description`.

    Raises:
        ConfigError: any of these keys differs.
    """
    trained = {MULTI_LABEL: False, **read_description(source)}
    if "class_names" in expected:  # the data are known; without them, several classes per video are not a difference
        expected = {MULTI_LABEL: False, **expected}
    differences = changes({key: trained.get(key) for key in expected}, expected)
    if differences:
        raise ConfigError(f"checkpoint: {source} was trained with other settings: {'; '.join(differences[:3])}")
