"""Export: `torch.export` programs with any batch size, and ONNX files checked against the model."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_pipelines.io.atomic import atomic_files
from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.models.base import Model
from lookupvivit.models.token_settings import check_token_setting
from lookupvivit.sizes import Keep, Size, TokenSetting
from lookupvivit.weights.files import WeightsError
from lookupvivit.weights.metadata import describe

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.1}  # relative; by precision


class ExportError(WeightsError):
    """The model cannot be exported this way, or the exported file computes something else."""


def export_program(
    model: Model,
    input_shape: tuple[int, ...],
    compressed_size: Size | None = None,
    from_uint8: bool = False,
    keep: float | str | Keep | None = None,
) -> torch.export.ExportedProgram:
    """Capture ``model`` for one input size and any batch size.

    Args:
        model: a model in eval mode.
        input_shape: (B, 3, T, H, W), or (B, 3, H, W) for an image model; the program accepts any B.
        compressed_size: (t, h, w) compressed tokens of a LookupViT, its own by default; fixed in the program.
        from_uint8: the input is frames as decoders deliver them, ``frames``, uint8 (B, T, H, W, 3) or (B, H, W, 3), cut
            to the model's size; the program maps them to [-1, 1].
        keep: share of the lookup tokens to keep, such as 0.5 or "motion:0.5"; fixed in the program.

    Returns:
        A program with one input, ``video`` or ``frames``, whose ``module()`` returns a plain dict of the model's
        outputs. The file that `torch.export.save` writes loads without this library.

    Raises:
        ExportError: the model is in training mode, or does not support the compressed size or ``keep``.
    """
    if model.training:
        raise ExportError("model: found training mode, expected eval mode; call model.eval() first")
    # Traced with a batch of two: torch.export would take a batch of one for a constant.
    frames = _random_frames((2, *input_shape[1:]))
    time, height, width = input_shape[2:] if len(input_shape) == 5 else (1, *input_shape[2:])
    exported = _for_export(model, _tokens(model, compressed_size, keep, (time, height, width)), from_uint8)
    example = frames if from_uint8 else _to_video(frames, model)
    return torch.export.export(exported, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def export_onnx(
    model: Model,
    file: str | Path,
    input_shape: tuple[int, ...],
    compressed_size: Size | None = None,
    precision: str = "fp32",
    from_uint8: bool = False,
    tolerance: float | None = None,
    keep: float | str | Keep | None = None,
) -> float:
    """Write an ONNX file with the inputs and outputs of :func:`export_program`, after checking what it computes.

    The entries of model.json, such as class names and preprocessing, are in the file's metadata (as JSON) and in
    ``file``.json. Both files are written atomically.

    Args:
        model, input_shape, compressed_size, from_uint8, keep: as in :func:`export_program`.
        precision: "fp32"; "fp16" for weights and computation; or "int8" for matrix products, with weights quantised
            ahead and activations as they arrive. Inputs and outputs are float32.
        tolerance: largest accepted difference to the model, relative to the largest output or 1, whichever is more; by
            default that of `TOLERANCES`.

    Returns:
        The largest absolute difference between ONNX Runtime and the model, over batches of one and of three.

    Raises:
        ExportError: the difference exceeds ``tolerance``, a package of the ``export`` extra is missing, or there is a
            ``file``.json that no export wrote.
    """
    file = Path(file)
    companion = file.with_name(f"{file.name}.json")
    _require_exportable(file, companion)
    tolerance = TOLERANCES[precision] if tolerance is None else tolerance
    program = export_program(model, input_shape, compressed_size, from_uint8, keep)
    tokens = TokenSetting.of(compressed_size, keep)
    with torch.no_grad():
        names = list(model(_to_video(_random_frames((1, *input_shape[1:])), model), **tokens.call))
    description = describe(model) if hasattr(model, "created_as") else {}
    description |= {"compressed_size": list(tokens.compressed_size)} if tokens.compressed_size else {}
    description |= {"keep": str(tokens.keep)} if tokens.keep else {}
    with atomic_files(file.parent, last=file.name) as folder:
        temporary = folder / file.name
        torch.onnx.export(
            program,
            (),
            temporary,
            input_names=["frames" if from_uint8 else "video"],
            output_names=names,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        _complete(temporary, description, precision)
        (folder / companion.name).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        shapes = [(batch, *input_shape[1:]) for batch in (1, 3)]
        difference, largest = _compare(model, tokens, temporary, shapes, from_uint8)
        if not difference <= tolerance * max(1.0, largest):
            raise ExportError(
                f"{file}: not written, because ONNX Runtime differs from the model by {difference:.2e} at outputs of "
                f"up to {largest:.2e}; expected at most {tolerance:.0e} of the largest"
            )
    return difference


def _require_exportable(file: Path, companion: Path) -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"ONNX export needs {', '.join(missing)}: pip install 'lookupvivit[export]'")
    if companion.exists() and not file.exists():
        raise ExportError(f"{companion}: exists without {file.name}, so no export wrote it; move it")


def input_shape(model: Model) -> tuple[int, ...]:
    """The shape of one input: (1, 3, T, H, W), or (1, 3, H, W) for an image model."""
    frames, height, width = model.input_size
    is_image = model.tubelet[0] == 1 and frames == 1
    return (1, 3, height, width) if is_image else (1, 3, frames, height, width)


def _tokens(model: Model, compressed_size: Size | None, keep: float | str | Keep | None, pixels: Size) -> TokenSetting:
    """The numbers of tokens of an exported program, checked."""
    try:
        tokens = TokenSetting.of(compressed_size, keep)
        check_token_setting(model, tokens, input_size=pixels)
    except ValueError as error:
        raise ExportError(str(error)) from None
    return tokens


def _for_export(model: Model, tokens: TokenSetting, from_uint8: bool) -> nn.Module:
    """A copy with one input and a plain dict as output; weights and their names are shared with ``model``."""
    exported: Any = copy.copy(model)
    call = partial(exported.forward, **tokens.call)
    if from_uint8:
        exported.forward = lambda frames: dict(call(_to_video(frames, model)))
    else:
        exported.forward = lambda video: dict(call(video))
    return exported


def _to_video(frames: Tensor, model: Model) -> Tensor:
    """Frames, uint8 (B, T, H, W, 3) or (B, H, W, 3), as model input, (B, 3, T, H, W) or (B, 3, H, W) in [-1, 1]."""
    parameter = next(model.parameters())
    return to_model_input(frames.movedim(-1, 1), parameter.device, parameter.dtype)


def _random_frames(input_shape: tuple[int, ...]) -> Tensor:
    """Random frames for a model input of this shape, uint8 (B, T, H, W, 3) or (B, H, W, 3)."""
    batch, channels, *size = input_shape
    return torch.randint(256, (batch, *size, channels), dtype=torch.uint8)


def _complete(file: Path, description: dict[str, Any], precision: str) -> None:
    """Name the batch axis, add the metadata, and convert the precision."""
    import onnx

    model = onnx.load(file)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    if precision == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(model, keep_io_types=True)
    if precision == "int8":
        from onnxruntime.quantization import quantize_dynamic

        onnx.save(model, file)
        before = logging.root.manager.disable
        logging.disable(max(before, logging.WARNING))  # it recommends a preparation that changes nothing here
        try:
            quantize_dynamic(file, file, op_types_to_quantize=["MatMul"])
        finally:
            logging.disable(before)
        model = onnx.load(file)
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in description.items()})
    onnx.save(model, file)


@torch.no_grad()
def _compare(
    model: Model, tokens: TokenSetting, file: Path, shapes: list[tuple[int, ...]], from_uint8: bool
) -> tuple[float, float]:
    """Largest absolute difference between the file's outputs and the model's, and the largest output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    differences, magnitudes = [], []
    for shape in shapes:
        frames = _random_frames(shape)
        video = _to_video(frames, model)
        expected = model(video, **tokens.call)
        inputs = {"frames": frames.numpy()} if from_uint8 else {"video": video.cpu().numpy()}
        for name, output in zip(expected, session.run(list(expected), inputs), strict=True):
            reference = expected[name].cpu()
            differences.append((torch.from_numpy(output) - reference).abs().max())
            magnitudes.append(reference.abs().max())
    return torch.stack(differences).max().item(), torch.stack(magnitudes).max().item()
