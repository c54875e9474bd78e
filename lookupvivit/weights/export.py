"""Export: `torch.export` programs with any batch size, and ONNX files checked against the model."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_pipelines.io.atomic import atomic_write
from lookupvivit.models.base import Model
from lookupvivit.models.lookupvit import check_compressed_size
from lookupvivit.sizes import Size, as_size
from lookupvivit.weights.files import WeightsError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class ExportError(WeightsError):
    """The model cannot be exported this way, or the exported file computes something else."""


def export_program(
    model: Model, input_shape: tuple[int, ...], compressed_size: Size | None = None
) -> torch.export.ExportedProgram:
    """Capture ``model`` for one input size and any batch size.

    Args:
        model: a model in eval mode.
        input_shape: (B, 3, T, H, W), or (B, 3, H, W) for an image model; the program accepts any B.
        compressed_size: (t, h, w) compressed tokens of a LookupViT, its own by default; fixed in the program.

    Returns:
        A program with one input, ``video``, whose ``module()`` returns a plain dict of the model's outputs. The file
        that `torch.export.save` writes loads without this library.

    Raises:
        ExportError: the model is in training mode, or does not support the compressed size.
    """
    if model.training:
        raise ExportError("model: found training mode, expected eval mode; call model.eval() first")
    # Traced with a batch of two: torch.export would take a batch of one for a constant.
    video = _random_video(model, (2, *input_shape[1:]))
    batch_is_free = ({0: torch.export.Dim("batch")},)
    frames, height, width = video.shape[2:] if video.ndim == 5 else (1, *video.shape[2:])
    exported = _for_export(model, compressed_size, (frames, height, width))
    return torch.export.export(exported, (video,), dynamic_shapes=batch_is_free)


def export_onnx(
    model: Model,
    file: str | Path,
    input_shape: tuple[int, ...],
    compressed_size: Size | None = None,
    tolerance: float = 1e-4,
) -> float:
    """Write an ONNX file with input ``video`` and the model's outputs by name; atomically, after checking it.

    Args:
        model, input_shape, compressed_size: as in :func:`export_program`.
        tolerance: largest accepted difference to the model, relative to the largest output or 1, whichever is more.

    Returns:
        The largest absolute difference between ONNX Runtime and the model, over batches of one and of three.

    Raises:
        ExportError: the difference exceeds ``tolerance``, or a package of the ``export`` extra is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"ONNX export needs {', '.join(missing)}: pip install 'lookupvivit[export]'")
    file = Path(file)
    program = export_program(model, input_shape, compressed_size)
    size = {} if compressed_size is None else {"compressed_size": as_size(compressed_size)}
    with torch.no_grad():
        names = list(model(_random_video(model, (1, *input_shape[1:])), **size))
    with atomic_write(file) as temporary:
        torch.onnx.export(
            program,
            (),
            temporary,
            input_names=["video"],
            output_names=names,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        difference, largest = _compare(model, size, temporary, [(batch, *input_shape[1:]) for batch in (1, 3)])
        if not difference <= tolerance * max(1.0, largest):
            raise ExportError(
                f"{file}: not written, because ONNX Runtime differs from the model by {difference:.2e} at outputs of "
                f"up to {largest:.2e}; expected at most {tolerance:.0e} of the largest"
            )
    return difference


def input_shape(model: Model) -> tuple[int, ...]:
    """The shape of one input: (1, 3, T, H, W), or (1, 3, H, W) for an image model."""
    frames, height, width = model.input_size
    is_image = model.tubelet[0] == 1 and frames == 1
    return (1, 3, height, width) if is_image else (1, 3, frames, height, width)


def _for_export(model: Model, compressed_size: Size | None, input_size: Size) -> nn.Module:
    """A copy with one input and a plain dict as output; weights and their names are shared with ``model``."""
    exported: Any = copy.copy(model)
    if compressed_size is not None:
        size = as_size(compressed_size)
        try:
            check_compressed_size(model, size, input_size=input_size)
        except ValueError as error:
            raise ExportError(str(error)) from None
        exported.compressed_size = size
    call = exported.forward
    exported.forward = lambda video: dict(call(video))
    return exported


def _random_video(model: Model, shape: tuple[int, ...]) -> Tensor:
    parameter = next(model.parameters())
    return torch.rand(shape, dtype=parameter.dtype, device=parameter.device) * 2 - 1


@torch.no_grad()
def _compare(model: Model, size: dict[str, Size], file: Path, shapes: list[tuple[int, ...]]) -> tuple[float, float]:
    """Largest absolute difference between the file's outputs and the model's, and the largest output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    differences, magnitudes = [], []
    for shape in shapes:
        video = _random_video(model, shape)
        expected = model(video, **size)
        for name, output in zip(expected, session.run(list(expected), {"video": video.cpu().numpy()}), strict=True):
            reference = expected[name].cpu()
            differences.append((torch.from_numpy(output) - reference).abs().max())
            magnitudes.append(reference.abs().max())
    return torch.stack(differences).max().item(), torch.stack(magnitudes).max().item()
