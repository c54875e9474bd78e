"""LookupViT over the windows of a clip or of a stream: compressed tokens carry over from each window to the next.

Not in the paper. The compressed tokens are a summary of constant size, from which the next window can continue:

    compressed tokens of a window = T(its lookup tokens) + C(compressed tokens of the window before, after the blocks)

C is a norm and a linear map, which is zero at first: windows are then independent. The time and memory of a window do
not depend on how many precede it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lookupvivit.layers.token_selection import KeepLike
from lookupvivit.models.base import check_keep
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.outputs import ModelOutput
from lookupvivit.sizes import Size, as_size


class RecurrentLookupViT(LookupViT):
    """A LookupViViT that processes a clip window by window, and classifies the last one.

    Args:
        num_classes: K of each classifier.
        input_size: (T, H, W) of a clip.
        windows: number of windows, which divides a clip along time. The sizes of lookup and compressed tokens, and the
            position embeddings, are those of one window.
        carry: False omits C. The windows are then independent, and their mean logits classify the clip, as those of a
            sliding window would.
        arguments: see `LookupViT`.
    """

    def __init__(
        self,
        num_classes: int,
        input_size: Size = (32, 224, 224),
        windows: int = 2,
        carry: bool = True,
        **arguments: Any,
    ) -> None:
        frames, height, width = as_size(input_size)
        if windows < 1 or frames % windows:
            raise ValueError(f"windows: found {windows}, expected a divisor of {frames} frames")
        super().__init__(num_classes, (frames // windows, height, width), **arguments)
        self.input_size, self.windows = as_size(input_size), windows
        self.carry: nn.Module | None = None
        if carry:
            norm, linear = nn.LayerNorm(self.width, eps=arguments.get("eps", 1e-6)), nn.Linear(self.width, self.width)
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
            self.carry = nn.Sequential(norm, linear)

    def step(
        self, window: Tensor, state: Tensor | None = None, compressed_size: Size | None = None
    ) -> tuple[ModelOutput, Tensor]:
        """Process the next window of a stream of any length.

        Args:
            window: (B, 3, T / windows, H, W).
            state: what the step before returned; None in the first window.
            compressed_size: as in the call, the same in all windows.

        Returns:
            The output of the call for a clip that ends with this window, and the state, (B, tp, hp, wp, D).
        """
        compressed, lookup, _ = self._process(self.embedding(window), state, compressed_size)
        return self.classify(compressed, lookup), compressed

    def forward_features(
        self,
        video: Tensor,
        compressed_size: Size | None = None,
        return_intermediates: bool = False,
        keep: KeepLike = None,
    ) -> tuple[Tensor, Tensor, list[dict[str, Tensor]]]:
        """See `LookupViT.forward_features`.

        Returns:
            Both streams of the last window, or with ``carry=False`` of all windows, concatenated along time; and the
            intermediates of all windows. Attention between different windows is 0. With ``carry``, the last block
            updates the lookup tokens of the last window only, because nothing reads the others.
        """
        check_keep(self, keep)
        tokens = self.embedding(video)  # (B, windows * t, h, w, D)
        if tokens.shape[1] % self.windows:
            raise ValueError(f"video: found {tokens.shape[1]} tokens along time, expected a multiple of {self.windows}")
        results, state = [], None
        for number, window in enumerate(tokens.chunk(self.windows, dim=1), 1):  # (B, t, h, w, D)
            is_read = self.carry is None or number == self.windows
            results.append(self._process(window, state, compressed_size, return_intermediates, is_read))
            state = results[-1][0] if self.carry is not None else None
        compressed, lookup, blocks = zip(*results, strict=True)
        intermediates = [_join(block) for block in zip(*blocks, strict=True)]
        if self.carry is not None:
            return compressed[-1], lookup[-1], intermediates
        return torch.cat(compressed, dim=1), torch.cat(lookup, dim=1), intermediates

    def _process(
        self,
        window: Tensor,
        state: Tensor | None,
        compressed_size: Size | None,
        return_intermediates: bool = False,
        is_read: bool = True,
    ) -> tuple[Tensor, Tensor, list[dict[str, Tensor]]]:
        """Both streams and the intermediates of embedded tubelets (B, t, h, w, D).

        Unless it ``is_read``, the last update of the lookup tokens is omitted.
        """
        lookup, compressed = self._with_positions(window, as_size(compressed_size or self.compressed_size))
        if self.carry is not None and state is not None:
            compressed = compressed + self.carry(state)
        return self.apply_blocks(compressed, lookup, return_intermediates, update_last_lookup=is_read)

    @property
    def keep_strategies(self) -> tuple[str, ...]:
        """All tokens are needed."""
        return ()

    def lookup_grid(self, video_size: Size) -> Size:
        """See `LookupViT.lookup_grid`: the grid of one window."""
        frames, height, width = video_size
        return super().lookup_grid((frames // self.windows, height, width))


def _join(windows: tuple[dict[str, Tensor], ...]) -> dict[str, Tensor]:
    """The intermediates of a block for all windows, concatenated along time."""
    joined = {name: torch.cat([window[name] for window in windows], dim=1) for name in ("compressed", "lookup")}
    if "attention" in windows[0]:  # (B, H, tp, hp, wp, t, h, w)
        frames = windows[0]["attention"].shape[5]
        padded = [
            F.pad(window["attention"], (0, 0, 0, 0, k * frames, (len(windows) - 1 - k) * frames))
            for k, window in enumerate(windows)
        ]
        joined["attention"] = torch.cat(padded, dim=2)
    return joined
