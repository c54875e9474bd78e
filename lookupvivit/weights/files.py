"""`model.safetensors` + `model.json`: a trained model that loads with neither DeepSpeed nor the configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lookupvivit.captioning.model import Captioner, create_captioner
from lookupvivit.models.registry import create_model

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
TOKENIZER = "tokenizer.json"  # beside a captioner's


class WeightsError(ValueError):
    """A weights file that is missing, damaged or does not fit; one line that names file and tensor."""


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of an import."""

    loaded: list[str] = field(default_factory=list)
    initialised: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        fresh = f", initialised afresh: {', '.join(self.initialised)}" if self.initialised else ""
        return f"{len(self.loaded)} tensors loaded{fresh}"


def save_model(folder: Path, state: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write weights and description into ``folder``, beside and renamed, weights last.

    Args:
        state: the model's full state dict, on any device.
        description: ``name``, ``num_classes`` and ``overrides`` for `create_model`, and anything a user of the
            weights must know (class names, preprocessing). Of a captioner: ``name`` and ``overrides`` of its encoder,
            ``captioner`` for `create_captioner`, and ``tokenizer``, which becomes a file of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = {key: value for key, value in description.items() if key != "tokenizer"}
    texts = {DESCRIPTION: json.dumps(told, indent=2, ensure_ascii=False) + "\n"}
    if "tokenizer" in description:
        texts[TOKENIZER] = description["tokenizer"]
    for name, text in texts.items():
        beside = folder / f".{name}.tmp"
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, folder / name)
    beside = folder / f".{WEIGHTS}.tmp"
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, beside)
    os.replace(beside, folder / WEIGHTS)


def load_model(path: str | Path) -> nn.Module:
    """Rebuild a trained model, in eval mode on the CPU; it knows its ``class_names`` and ``preprocess``.

    Args:
        path: a run directory, a checkpoint directory or its ``model.safetensors``.

    Raises:
        WeightsError: none of these, or files that do not fit together.
    """
    description = read_description(path)
    model = described_model(description)
    load_weights(model, path, heads_may_differ=False)
    model.description = description
    return model.eval()


def load_classifier(path: str | Path) -> nn.Module:
    """As `load_model`, where classes are asked for; WeightsError of a captioner."""
    model = load_model(path)
    if isinstance(model, Captioner):
        raise WeightsError(f"{path}: a captioner, which has no classes; tools/caption.py writes its captions")
    return model


def read_description(path: str | Path) -> dict[str, Any]:
    """The contents of ``model.json`` beside the weights, and of a captioner its ``tokenizer``."""
    file = weights_file(path).with_name(DESCRIPTION)
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{file}: not found; it tells how to rebuild the model beside {WEIGHTS}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{file}: not valid JSON ({error})") from None
    captioner = isinstance(description, dict) and "captioner" in description
    what = ("captioner", dict) if captioner else ("num_classes", int)
    for key, kind in (("name", str), ("overrides", dict), what):
        if not isinstance(description, dict) or not isinstance(description.get(key), kind):
            raise WeightsError(f"{file}: has no {key} ({kind.__name__}); it must tell how to rebuild the model")
    if captioner:
        return {**description, "tokenizer": _read_tokenizer(file.with_name(TOKENIZER))}
    classes, names = description["num_classes"], description.get("class_names", [])
    right = isinstance(names, list) and len(names) == classes and all(isinstance(name, str) for name in names)
    if "class_names" in description and not right:
        raise WeightsError(f"{file}: class_names must be a list of {classes} names, one of each class")
    return description


def _read_tokenizer(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{file}: cannot be read ({error}); a captioner writes its captions with it") from None


def described_model(description: dict[str, Any]) -> nn.Module:
    """The model of a ``model.json``, freshly initialised."""
    try:
        if "captioner" in description:
            return create_captioner(description["name"], overrides=description["overrides"], **description["captioner"])
        return create_model(description["name"], description["num_classes"], **description["overrides"])
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{DESCRIPTION}: {error}") from None


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file."""
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file}: not a readable safetensors file ({error})") from None


def load_weights(
    model: nn.Module,
    path: str | Path,
    heads_may_differ: bool = True,
    fit_positions: Callable[[Tensor, tuple[int, int, int]], Tensor] | None = None,
) -> LoadReport:
    """Copy weights into ``model``, name by name and shape by shape.

    With ``heads_may_differ`` a classifier of another number of classes stays freshly initialised and is reported
    (a Kinetics-400 run starting a Something-Something one), and ``fit_positions`` makes positions (1, t, h, w, D) of
    another grid those of the model's; any other difference is a WeightsError.
    """
    file = weights_file(path)
    state = read_tensors(file)
    report, own = LoadReport(), model.state_dict()
    for kind, names in (("has no", own.keys() - state.keys()), ("has an unexpected", state.keys() - own.keys())):
        if names:
            raise WeightsError(f"{file}: {kind} tensor {min(names)} ({len(names)} such); is it another model's file?")
    for name, tensor in own.items():
        theirs, grid = tuple(state[name].shape[1:4]), tuple(tensor.shape[1:4])
        if fit_positions and name == "positions" and theirs != grid:
            state[name] = fit_positions(state[name], grid)
            report.resized[name] = f"{theirs} to {grid}"
        if state[name].shape == tensor.shape:
            tensor.copy_(state[name])
            report.loaded.append(name)
        elif heads_may_differ and name.rpartition(".")[0].endswith("head"):
            report.initialised.append(name)
        else:
            raise WeightsError(
                f"{file}: tensor {name} is {tuple(state[name].shape)}, the model wants {tuple(tensor.shape)}"
            )
    return report


def weights_file(path: str | Path) -> Path:
    """The ``model.safetensors`` that a run directory, a checkpoint directory or a file's own path means."""
    path, expected = Path(path), f"expected a run directory or a {WEIGHTS} file"
    if path.is_dir():
        if not (path / WEIGHTS).is_file():
            raise WeightsError(f"{path}: a folder without {WEIGHTS}; {expected}")
        return path / WEIGHTS
    if not path.is_file():
        raise WeightsError(f"{path}: not found; {expected}")
    if path.suffix != Path(WEIGHTS).suffix:
        raise WeightsError(f"{path}: not a {Path(WEIGHTS).suffix} file; {expected}")
    return path
