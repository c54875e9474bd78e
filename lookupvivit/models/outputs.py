"""The output of every model, and a model that returns logits only."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree


class ModelOutput(dict):
    """Named results of a forward pass, read as attributes or keys; contains only what was computed.

    Attributes:
        logits: (B, K), the prediction.
        compressed_logits, lookup_logits: (B, K), of a LookupViT's classifiers, as far as it has them.
        intermediates: one dict per block, on request.

    It is a dict because ZeRO-3's hooks, `torch.export` and tracers (fvcore) traverse dicts but not dataclasses. In a
    NamedTuple, an absent classifier would be None, which tracers reject.
    """

    logits: Tensor
    compressed_logits: Tensor
    lookup_logits: Tensor
    intermediates: list[dict[str, Tensor]]

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"ModelOutput: found {name!r}, expected one of {', '.join(sorted(self))}") from None


def _flatten_with_keys(output: ModelOutput) -> tuple[list[tuple[pytree.KeyEntry, Any]], list[str]]:
    return [(pytree.MappingKey(name), value) for name, value in output.items()], list(output)


pytree.register_pytree_node(
    ModelOutput,
    flatten_fn=lambda output: (list(output.values()), list(output)),
    unflatten_fn=lambda values, names: ModelOutput(zip(names, values, strict=True)),
    serialized_type_name="lookupvivit.ModelOutput",
    to_dumpable_context=list,
    from_dumpable_context=list,
    flatten_with_keys_fn=_flatten_with_keys,
)


class LogitsOnly(nn.Module):
    """A model whose output is a tensor, for libraries that expect one, and whose only input is the video.

    Args:
        model: any model of this library; its weights are shared.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, video: Tensor) -> Tensor:
        """Return the logits (B, K) of videos (B, 3, T, H, W) or images (B, 3, H, W)."""
        return self.model(video).logits
