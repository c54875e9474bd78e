"""What every model returns."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree


class ModelOutput(dict):
    """Named results of a forward pass, read as attributes or keys; holds only what was computed.

    ``logits`` (B, K) is what a user wants. LookupViT adds ``compressed_logits`` and ``lookup_logits`` (B, K each)
    for the heads it has and, on request, ``intermediates``: a list with one dict per block.

    A dict, because ZeRO-3's hooks, `torch.export` and tracers (fvcore) walk dicts and not dataclasses, and a
    NamedTuple would have to carry None for an absent head, which tracers refuse.
    """

    logits: Tensor
    compressed_logits: Tensor
    lookup_logits: Tensor
    intermediates: list[dict[str, Tensor]]

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"this output has {sorted(self)}, not {name!r}") from None


pytree.register_pytree_node(
    ModelOutput,
    lambda output: (list(output.values()), list(output)),
    lambda values, names: ModelOutput(zip(names, values, strict=True)),
    serialized_type_name="lookupvivit.ModelOutput",
    to_dumpable_context=list,
    from_dumpable_context=list,
    flatten_with_keys_fn=lambda output: (
        [(pytree.MappingKey(name), value) for name, value in output.items()],
        list(output),
    ),
)
