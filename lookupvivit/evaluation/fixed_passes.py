"""Forward passes of a fixed number of views, which several files share."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable

import torch
from torch import Tensor

from lookupvivit.sizes import Size

# On a CPU, larger passes are hardly faster: on 2 cores, 8 views of 196 to 256 tokens in one pass took 0.7 to 0.8 of the
# time of 8 passes.
CPU_TOKENS = 2048


Forward = Callable[[Tensor], Tensor]  # uint8 views (size, 3, T, H, W) -> float32 logits (size, K) on the CPU


class LogitRows:
    """Logits of any number of views, in one block of memory.

    One tensor per view would be small objects that stay between large temporary ones, so that the process grows by
    many times their size.
    """

    def __init__(self) -> None:
        self._values, self._count = array("f"), 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: Tensor) -> None:
        """Add the logits of a view, float32 (K,)."""
        self._values.frombytes(row.contiguous().numpy().tobytes())
        self._count += 1

    def stack(self) -> Tensor:
        """All rows, float32 (V, K)."""
        return torch.frombuffer(bytearray(self._values), dtype=torch.float32).view(self._count, -1)


class FixedPasses:
    """Computes logits of views in passes that always have the same number of views.

    Matrix products depend in their last bits on the number of rows, and some on the place of a row. With a fixed number
    from `views_per_pass`, the logits of a view do not depend on the views that share its pass: files have the same
    results together and one by one. The last pass is filled up with black views.

    Args:
        forward: the model.
        size: the number of views in a pass.
    """

    def __init__(self, forward: Forward, size: int) -> None:
        self._forward, self._size = forward, size
        self._waiting: list[tuple[Tensor, list[Tensor] | LogitRows]] = []

    def add(self, views: Tensor, results: list[Tensor] | LogitRows) -> None:
        """Add uint8 views (V, 3, T, H, W); their logits (K,) are appended to ``results`` in this order, later."""
        for view in views:
            self._waiting.append((view, results))
            if len(self._waiting) == self._size:
                self.flush()

    def flush(self) -> None:
        """Compute the logits of all views that were added."""
        if not self._waiting:
            return
        views = [view for view, _ in self._waiting]
        views += [torch.zeros_like(views[0])] * (self._size - len(views))
        logits = self._forward(torch.stack(views))
        for row, (_, results) in zip(logits, self._waiting, strict=False):
            results.append(row)
        self._waiting = []


def views_per_pass(forward: Forward, clip_size: Size, tubelet: Size, batch_size: int, device: torch.device) -> int:
    """The largest useful number of views in a pass for which the place of a view makes no difference.

    The model computes a pass of copies of one random view. If it has different logits at different places, passes have
    one view. The result depends on nothing but the arguments, in particular not on the number of files.

    Args:
        forward: the model.
        clip_size: (T, H, W) of a view.
        tubelet: (t, h, w) of a token.
        batch_size: the largest number.
        device: of the model. On a CPU, a pass is as large as is worthwhile, because a single view takes a pass, too.
    """
    size = batch_size
    if device.type == "cpu":
        tokens = math.prod(math.ceil(side / step) for side, step in zip(clip_size, tubelet, strict=True))
        while size > 1 and size * tokens >= 2 * CPU_TOKENS:
            size //= 2
    if size == 1:
        return 1
    view = torch.randint(256, (1, 3, *clip_size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    logits = forward(view.repeat(size, 1, 1, 1, 1))
    return size if torch.equal(logits, logits[:1].expand_as(logits)) else 1
