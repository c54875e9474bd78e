"""Models out of Python: `torch.export` programs with any batch size, and ONNX files checked against the model."""

from __future__ import annotations

import copy
import importlib.util
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from lookupvivit.models.base import Size, as_size
from lookupvivit.models.lookupvit import LookupViT

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class ExportError(ValueError):
    """A model that cannot be exported as asked, or a file that computes something else; one line."""


def export_program(
    model: nn.Module, input_shape: tuple[int, ...], compressed_size: Size | None = None
) -> torch.export.ExportedProgram:
    """Capture ``model`` for one input size and any batch size.

    Args:
        model: a model in eval mode.
        input_shape: (B, 3, T, H, W), or (B, 3, H, W) of an image model; B is free.
        compressed_size: (t, h, w) compressed tokens of a LookupViT, its own by default. An exported program has one.

    Returns:
        A program of one input, ``video``, whose ``module()`` gives what the model gives.
    """
    if model.training:
        raise ExportError("the model is in training mode: call model.eval() before exporting it")
    # Captured with two: a batch of one would be taken for a constant.
    video = _random_video(model, (2, *input_shape[1:]))
    batch_is_free = ({0: torch.export.Dim("batch")},)
    return torch.export.export(_fixed(model, compressed_size), (video,), dynamic_shapes=batch_is_free)


def export_onnx(
    model: nn.Module,
    file: str | Path,
    input_shape: tuple[int, ...],
    compressed_size: Size | None = None,
    tolerance: float = 1e-4,
) -> float:
    """Write an ONNX file with input ``video`` and the model's outputs by name, beside and renamed once checked.

    Args:
        model, input_shape, compressed_size: as in :func:`export_program`.
        tolerance: largest difference to the model that is let through, as a share of the largest output (at least 1).

    Returns:
        The largest absolute difference between ONNX Runtime and the model, over batches of one and of three.

    Raises:
        ExportError: above ``tolerance``, nothing is left behind; or a package of the ``export`` extra is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"ONNX export needs {', '.join(missing)}: pip install 'lookupvivit[export]'")
    file = Path(file)
    program = export_program(model, input_shape, compressed_size)
    size = {} if compressed_size is None else {"compressed_size": as_size(compressed_size)}
    with torch.no_grad():
        names = list(model(_random_video(model, (1, *input_shape[1:])), **size))
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.tmp")
    try:
        torch.onnx.export(
            program,
            (),
            beside,
            input_names=["video"],
            output_names=names,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        difference, largest = _compare(model, size, beside, [(batch, *input_shape[1:]) for batch in (1, 3)])
        if not difference <= tolerance * max(1.0, largest):
            raise ExportError(
                f"{file}: not written; ONNX Runtime differs from the model by {difference:.2e} at outputs of up to "
                f"{largest:.2e}, wanted at most {tolerance:.0e} of the largest"
            )
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)
    return difference


def _fixed(model: nn.Module, compressed_size: Size | None) -> nn.Module:
    """The model with one compressed size for good; it shares its weights, and their names in a program stay."""
    if not isinstance(model, LookupViT):
        if compressed_size is not None:
            raise ExportError(
                f"{type(model).__name__} has no compressed tokens, found compressed_size={compressed_size}"
            )
        return model
    if compressed_size is None:
        return model
    fixed = copy.copy(model)
    fixed.compressed_size = as_size(compressed_size)
    return fixed


def _random_video(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    parameter = next(model.parameters())
    return torch.rand(shape, dtype=parameter.dtype, device=parameter.device) * 2 - 1


@torch.no_grad()
def _compare(model: nn.Module, size: dict[str, Size], file: Path, shapes: list[tuple[int, ...]]) -> tuple[float, float]:
    """Largest absolute difference between the file's outputs and the model's, and the largest output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    differences, sizes = [], []
    for shape in shapes:
        video = _random_video(model, shape)
        expected = model(video, **size)
        for name, found in zip(expected, session.run(list(expected), {"video": video.cpu().numpy()}), strict=True):
            reference = expected[name].cpu()
            differences.append((torch.from_numpy(found) - reference).abs().max())
            sizes.append(reference.abs().max())
    return torch.stack(differences).max().item(), torch.stack(sizes).max().item()
