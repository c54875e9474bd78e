"""Models of which only the names and shapes of parameters are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class _NoNormalValues(TorchFunctionMode):
    """Skips draws from the normal distribution. On the meta device, torch would import its compiler for each first."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.normal_, nn.init.normal_):
            return (*args, *(kwargs or {}).values())[0]  # the tensor, by position or by name
        return func(*args, **(kwargs or {}))


@contextmanager
def shapes_only() -> Iterator[None]:
    """Build models on the meta device: without memory, without initial values, and without seconds of imports."""
    with torch.device("meta"), _NoNormalValues():
        yield


def allocate(model: nn.Module) -> None:
    """Give a model that was built with `shapes_only` memory on the CPU, without initial values."""
    # As `Module.to_empty`, whose `empty_like` of a meta tensor would import sympy.
    empty = {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in model.state_dict().items()}
    model.load_state_dict(empty, assign=True)
