"""ViT and ViViT checkpoints of other libraries, read without pickle and renamed to this library's names.

Known formats: big_vision / AugReg and scenic ViViT (flat .npz), timm's ViT, Hugging Face's ViViT and VideoMAE, and
MCG-NJU's VideoMAE. Every tensor of a file is either translated or reported.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from data_pipelines.io.errors import DataError
from data_pipelines.io.json_files import SMALL_BYTES, read_json
from data_pipelines.io.npz_files import READ_ERRORS, open_npz
from lookupvivit.weights.files import WeightsError


@dataclass
class Source:
    """A checkpoint under the names of `lookupvivit.models.vit.ViT`.

    Attributes:
        kind: the recognised format.
        state: tensors by ViT's names. ``embedding.projection.weight`` may be a 2-D patch kernel (D, 3, h, w);
            ``positions`` (1, N, D) are not arranged on a grid yet.
        conventions: arguments with which ViT computes what the source did.
        ignored: tensor -> why it is not used.
        pixels: the source's pixel values: "symmetric" is [-1, 1] as here, "imagenet" is normalised by ImageNet's mean
            and standard deviation.
    """

    kind: str
    state: dict[str, Tensor]
    conventions: dict[str, Any]
    ignored: dict[str, str] = field(default_factory=dict)
    pixels: str = "symmetric"


def read_source(path: str | Path) -> Source:
    """Read a checkpoint and recognise its format.

    Raises:
        WeightsError: the file is missing, corrupt, of no known format, or has a tensor that its format does not.
    """
    raw = _read(Path(path))
    for kind, (mark, translate) in _KINDS.items():
        if any(re.fullmatch(mark, name) for name in raw):
            try:
                source = translate(kind, raw)
            except WeightsError as error:
                raise WeightsError(f"{path}: {error}") from None
            break
    else:
        raise WeightsError(
            f"{path}: unknown format (first tensor {min(raw, default='none')}), expected one of {', '.join(_KINDS)} "
            "or a model of this library"
        )
    unknown = [name for name in source.state if not re.fullmatch(_OURS, name)]
    if unknown:
        raise WeightsError(f"{path}: unexpected tensor {unknown[0]} for the format {kind} ({len(unknown)} in all)")
    _complete(source, path)
    source.conventions |= _sizes(source.state)
    if kind.startswith("Hugging Face"):
        source.conventions |= _hugging_face_config(Path(path).with_name("config.json"))
    return source


def _complete(source: Source, path: str | Path) -> None:
    """Check that every layer is present. Attention without biases gets zeros, which compute the same."""
    state = source.state
    depth = 1 + max((int(name.split(".")[1]) for name in state if name.startswith("blocks.")), default=-1)
    parts = ("attention_norm", "mlp_norm", "attention.qkv", "attention.out", "mlp.0", "mlp.2")
    layers = ["embedding.projection", "norm", *(f"blocks.{i}.{part}" for i in range(max(1, depth)) for part in parts)]
    if not any(name.endswith("qkv.bias") for name in state):
        for i in range(depth):
            weight = state.get(f"blocks.{i}.attention.qkv.weight")
            if weight is not None:
                state[f"blocks.{i}.attention.qkv.bias"] = torch.zeros(len(weight))
        source.ignored["attention biases"] = "the source has none; zeros compute the same"
    for layer in layers:
        for kind in ("weight", "bias"):
            if f"{layer}.{kind}" not in state:
                raise WeightsError(f"{path}: has no tensor for {layer}.{kind}; read as {source.kind}")


def _hugging_face_config(file: Path) -> dict[str, Any]:
    """What the tensors do not show, from ``config.json`` in the same folder, if there is one."""
    if not file.is_file():
        return {}
    try:
        config = read_json(file, dict, max_bytes=SMALL_BYTES)
    except DataError as error:
        raise WeightsError(str(error)) from None
    gelus = {"gelu": "none", "gelu_fast": "tanh", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
    conventions = {
        "num_heads": config.get("num_attention_heads"),
        "gelu": gelus.get(config.get("hidden_act")),
        "eps": config.get("layer_norm_eps"),
    }
    return {key: value for key, value in conventions.items() if value is not None}


_OURS = (
    r"(embedding\.projection|norm|head)\.(weight|bias)|positions|class_token|"
    r"blocks\.\d+\.(attention_norm|mlp_norm|attention\.(qkv|out)|mlp\.[02])\.(weight|bias)"
)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path}: not found, expected a run directory or a .npz, .safetensors, .pth or .bin file")
    try:
        if path.suffix == ".npz":
            with open_npz(path) as arrays:
                return {name: _tensor(arrays[name]) for name in arrays.files}
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = "Unsupported global" in str(error) or "GLOBAL" in str(error)
        reason = "reading it would run code that it contains" if unsafe else "corrupt, or not a weights file"
        raise WeightsError(f"{path}: {reason}") from None
    except _UNREADABLE as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path}: corrupt, or not a weights file ({reason[:100]})") from None
    for wrapper in ("model", "module", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise WeightsError(f"{path}: expected a mapping of names to tensors")
    return state


# The exceptions of NumPy, torch and safetensors for truncated, renamed and foreign files.
_UNREADABLE = (*READ_ERRORS, IndexError, SafetensorError)


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype == np.dtype("V2"):  # bfloat16, which NumPy stores as two raw bytes
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).float()
    return torch.from_numpy(array)


# Regular expressions and what `re.sub` replaces each by
Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]


def _rename(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _join_qkv(state: dict[str, Tensor]) -> None:
    """Concatenate separate query, key and value as ``qkv``. A missing key bias is zero (VideoMAE has none)."""
    for name in [name for name in state if re.search(r"attention\.q\.(weight|bias)$", name)]:
        parts = [state.pop(name)]
        for other in ("k", "v"):
            part = state.pop(name.replace(".q.", f".{other}."), None)
            if part is None and not name.endswith("bias"):
                raise WeightsError(f"tensor {name}: its key or value is missing")
            parts.append(torch.zeros_like(parts[0]) if part is None else part)
        state[name.replace(".q.", ".qkv.")] = torch.cat(parts)


def _fold_class_position(state: dict[str, Tensor]) -> None:
    """Add the class token's position to the token itself: here, the class token has no position."""
    if "class_token" in state and "positions" in state:
        state["class_token"] = state["class_token"] + state["positions"][:, :1]
        state["positions"] = state["positions"][:, 1:]


def _sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """The arguments of ViT that follow from the tensors' shapes."""
    width = state["embedding.projection.weight"].shape[0]
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    return {"width": width, "depth": depth, "mlp_ratio": state["blocks.0.mlp.0.weight"].shape[0] / width}


_TORCH_BLOCKS = [
    (r"^(?:encoder\.)?blocks\.(\d+)\.norm1\.", r"blocks.\1.attention_norm."),
    (r"^(?:encoder\.)?blocks\.(\d+)\.norm2\.", r"blocks.\1.mlp_norm."),
    (r"^(?:encoder\.)?blocks\.(\d+)\.attn\.qkv\.", r"blocks.\1.attention.qkv."),
    (r"^(?:encoder\.)?blocks\.(\d+)\.attn\.([qv])_bias$", r"blocks.\1.attention.\2.bias"),
    (r"^(?:encoder\.)?blocks\.(\d+)\.attn\.proj\.", r"blocks.\1.attention.out."),
    (r"^(?:encoder\.)?blocks\.(\d+)\.mlp\.fc1\.", r"blocks.\1.mlp.0."),
    (r"^(?:encoder\.)?blocks\.(\d+)\.mlp\.fc2\.", r"blocks.\1.mlp.2."),
    (r"^(?:encoder\.)?patch_embed\.proj\.", "embedding.projection."),
    (r"^(?:encoder\.)?(fc_)?norm\.", "norm."),
]


def _timm(kind: str, raw: dict[str, Tensor]) -> Source:
    pooling = "token" if "cls_token" in raw else "gap_norm" if "fc_norm.weight" in raw else "gap"
    if "cls_token" in raw and "fc_norm.weight" in raw:
        raise WeightsError(f"{kind}: has both cls_token and fc_norm, which no model here has")
    rules = [*_TORCH_BLOCKS, (r"^cls_token$", "class_token"), (r"^pos_embed$", "positions")]
    state = {_rename(name, rules): tensor for name, tensor in raw.items()}
    _fold_class_position(state)
    return Source(kind, state, {"gelu": "none", "eps": 1e-6, "pooling": pooling})


def _video_mae(kind: str, raw: dict[str, Tensor]) -> Source:
    raw, ignored = _without_decoder(raw)
    _require_average_pooling(raw, "head.weight")
    state = {_rename(name, _TORCH_BLOCKS): tensor for name, tensor in raw.items()}
    for name in [name for name in state if name.endswith("attention.q.bias")]:  # only the weight is joint
        query, value = state.pop(name), state.pop(name.replace(".q.", ".v."))
        state[name.replace(".q.", ".qkv.")] = torch.cat([query, torch.zeros_like(query), value])
    return _finish_video_mae(kind, state, ignored, eps=1e-6)


_HF_BLOCKS = [
    (r"^\w+\.(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"\.layernorm_before\.", ".attention_norm."),
    (r"\.layernorm_after\.", ".mlp_norm."),
    (r"\.attention\.(?:attention\.)?([qkv])(?:uery|ey|alue|_proj)\.", r".attention.\1."),
    (r"\.attention\.attention\.([qv])_bias$", r".attention.\1.bias"),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attention.out."),
    (r"\.(?:intermediate\.dense|mlp\.fc1)\.", ".mlp.0."),
    (r"(blocks\.\d+)\.(?:output\.dense|mlp\.fc2)\.", r"\1.mlp.2."),
    (r"^\w+\.embeddings\.patch_embeddings\.projection\.", "embedding.projection."),
    (r"^\w+\.embeddings\.cls_token$", "class_token"),
    (r"^\w+\.embeddings\.position_embeddings$", "positions"),
    (r"^(?:\w+\.layernorm|fc_norm)\.", "norm."),
    (r"^classifier\.", "head."),
]


def _hf_vivit(kind: str, raw: dict[str, Tensor]) -> Source:
    state = {_rename(name, _HF_BLOCKS): tensor for name, tensor in raw.items()}
    _join_qkv(state)
    _fold_class_position(state)
    return Source(kind, state, {"gelu": "tanh", "eps": 1e-6, "pooling": "token"})


def _hf_video_mae(kind: str, raw: dict[str, Tensor]) -> Source:
    raw, ignored = _without_decoder(raw)
    _require_average_pooling(raw, "classifier.weight")
    state = {_rename(name, _HF_BLOCKS): tensor for name, tensor in raw.items()}
    _join_qkv(state)
    return _finish_video_mae(kind, state, ignored, eps=1e-12)


def _require_average_pooling(raw: dict[str, Tensor], classifier: str) -> None:
    if classifier in raw and "fc_norm.weight" not in raw:
        raise WeightsError("found a VideoMAE without fc_norm: its classifier reads the first token, no model here does")


def _without_decoder(raw: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Remove the decoder, which a pre-trained VideoMAE contains as well."""
    parts = ("decoder.", "encoder_to_decoder.", "mask_token")
    kept = {name: tensor for name, tensor in raw.items() if not name.startswith(parts)}
    return kept, {"decoder": "it is used in pre-training only"} if len(kept) < len(raw) else {}


def _finish_video_mae(kind: str, state: dict[str, Tensor], ignored: dict[str, str], eps: float) -> Source:
    """Mark the positions as fixed: they are sines and cosines of the token's index, which no file contains."""
    conventions = {"gelu": "none", "eps": eps, "pooling": "gap_norm"}
    if ignored and "norm.weight" not in state and "embedding.projection.bias" in state:
        width = len(state["embedding.projection.bias"])
        ignored["decoder"] += ", and its encoder has no final norm, so weight 1 and bias 0 are used"
        state["norm.weight"], state["norm.bias"] = torch.ones(width), torch.zeros(width)
    return Source(kind, state, {**conventions, "fixed_positions": True}, ignored, pixels="imagenet")


_FLAX_BLOCKS: Rules = [
    (r"^(?:params/|img/|opt/target/)*", ""),
    (r"^Transformer/encoderblock_(\d+)/", r"blocks.\1."),
    (r"\.LayerNorm_0/", ".attention_norm."),
    (r"\.LayerNorm_[12]/", ".mlp_norm."),
    (r"\.MultiHeadDotProductAttention_\d/(query|key|value)/", lambda m: f".attention.{m[1][0]}."),
    (r"\.MultiHeadDotProductAttention_\d/out/", ".attention.out."),
    (r"\.MlpBlock_\d/Dense_0/", ".mlp.0."),
    (r"\.MlpBlock_\d/Dense_1/", ".mlp.2."),
    (r"^Transformer/encoder_norm/", "norm."),
    (r"^(?:Transformer/posembed_input/)?pos_embedding$", "positions"),
    (r"^embedding/", "embedding.projection."),
    (r"^cls$", "class_token"),
    (r"^(?:head|output_projection)/", "head."),
    (r"(?:kernel|scale)$", "weight"),
]


def _flax(kind: str, raw: dict[str, Tensor]) -> Source:
    state: dict[str, Tensor] = {}
    ignored: dict[str, str] = {}
    for name, tensor in raw.items():
        if re.search(r"(^|/)pre_logits/", name):
            ignored[name] = "a tanh layer before the classifier, which no model here has"
            continue
        ours = _rename(name, _FLAX_BLOCKS)
        if ours == "embedding.projection.weight":  # ([t,] h, w, 3, D)
            tensor = tensor.movedim((-1, -2), (0, 1))
        elif ours.endswith("attention.out.weight"):  # (H, d, D)
            tensor = tensor.flatten(0, 1).T
        elif re.search(r"attention\.[qkv]\.weight$", ours):  # (D, H, d)
            tensor = tensor.flatten(1).T
        elif re.search(r"attention\.[qkv]\.bias$", ours):
            tensor = tensor.flatten()
        elif ours.endswith("weight") and tensor.dim() == 2:
            tensor = tensor.T
        state[ours] = tensor
    num_heads = next((t.shape[1] for name, t in raw.items() if name.endswith("query/kernel")), None)
    _join_qkv(state)
    if any(name.endswith("posembed_input/pos_embedding") for name in raw):  # big_vision's has no class row
        _fold_class_position(state)
    if ignored:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
        ignored |= {"head": "its input is the ignored layer"}
    pooling = "token" if "class_token" in state else "gap"
    return Source(kind, state, {"gelu": "tanh", "eps": 1e-6, "pooling": pooling, "num_heads": num_heads}, ignored)


_KINDS = {  # format -> a tensor that only this format has, and its translation
    "big_vision, AugReg or scenic": (r"(.*/)?Transformer/encoderblock_0/LayerNorm_0/scale", _flax),
    "VideoMAE": (r"(encoder\.)?blocks\.0\.attn\.q_bias", _video_mae),
    "timm ViT": (r"blocks\.0\.attn\.qkv\.weight", _timm),
    "Hugging Face ViViT": (r"vivit\.embeddings\.cls_token", _hf_vivit),
    "Hugging Face VideoMAE": (r"videomae\.embeddings\.patch_embeddings\.projection\.weight", _hf_video_mae),
}
