"""TokenLearner v1.1 (Ryoo et al.; scenic, projects/token_learner/model.py), a baseline of Table 1.

A ViT that continues with 16 learned tokens per frame after some of its blocks. Shape legend: `lookupvivit.layers`;
S learned tokens per frame.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lookupvivit.layers.mlp import MLP
from lookupvivit.layers.token_selection import KeepLike
from lookupvivit.models.base import check_keep
from lookupvivit.models.vit import ViT


class TokenLearnerLayer(nn.Module):
    """S learned weighted means over the positions of each frame.

    Args:
        width: D.
        num_tokens: S.
        bottleneck: hidden width of the MLP that computes the weights.
        eps, gelu: LayerNorm epsilon and GELU form.
    """

    def __init__(
        self, width: int, num_tokens: int, bottleneck: int = 64, eps: float = 1e-6, gelu: str = "tanh"
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=eps)
        self.score = MLP(width, bottleneck, gelu, out=num_tokens)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, t, h, w, D) -> learned tokens (B, t, S, D), and their weights over the positions (B, t, S, h, w)."""
        scores = self.score(self.norm(tokens)).flatten(2, 3)  # (B, t, h, w, S) -> (B, t, hw, S)
        weights = scores.softmax(dim=2).transpose(2, 3)  # (B, t, S, hw)
        learned = weights @ tokens.flatten(2, 3)  # (B, t, S, hw) (B, t, hw, D) -> (B, t, S, D)
        return learned, weights.unflatten(-1, tokens.shape[2:4])


class TokenLearner(ViT):
    """ViT or ViViT with a `TokenLearnerLayer` before block ``learn_at``.

    Args:
        num_classes: K.
        learn_at: number of blocks that process all tokens; in Table 1, half or three quarters of the depth.
        num_tokens: S, tokens per frame of tubelets in the remaining blocks.
        arguments: those of ViT, except ``pooling="token"``.
    """

    def __init__(self, num_classes: int, learn_at: int = 6, num_tokens: int = 16, **arguments: Any) -> None:
        super().__init__(num_classes, **arguments)
        if self.class_token is not None:
            raise ValueError("pooling: found 'token', expected 'gap' or 'gap_norm' for TokenLearner")
        if not 0 <= learn_at < len(self.blocks):
            raise ValueError(f"learn_at: found {learn_at}, expected an integer in [0, depth), depth {len(self.blocks)}")
        if num_tokens < 1:
            raise ValueError(f"num_tokens: found {num_tokens}, expected at least 1")
        self.learn_at = learn_at
        conventions = {key: arguments[key] for key in ("eps", "gelu") if key in arguments}
        self.learner = TokenLearnerLayer(self.width, num_tokens, **conventions)

    @property
    def keep_strategies(self) -> tuple[str, ...]:
        """None: the learner's weights are those of a whole grid."""
        return ()

    def forward_features(
        self, video: Tensor, return_intermediates: bool = False, keep: KeepLike = None
    ) -> tuple[None, Tensor, list[dict[str, Tensor]]]:
        """Return the tokens after the last block, before the final norm.

        Returns:
            None for the class token, tokens (B, t, 1, S, D), and, on request, one dict per block: ``tokens``,
            (B, t, h, w, D) before and (B, t, 1, S, D) after the learner, and at block ``learn_at`` also ``selection``
            (B, t, S, h, w), the weights of the learned tokens.
        """
        check_keep(self, keep)
        tokens = self.tokenize(video)  # (B, t, h, w, D)
        intermediates = []
        for i, block in enumerate(self.blocks):
            block_output = {}
            if i == self.learn_at:
                learned, block_output["selection"] = self.learner(tokens)
                tokens = learned.unsqueeze(2)  # (B, t, S, D) -> (B, t, 1, S, D)
            grid = tokens.shape[1:4]
            tokens = block(tokens.flatten(1, 3)).unflatten(1, grid)
            if return_intermediates:
                intermediates.append({"tokens": tokens, **block_output})
        return None, tokens, intermediates

    def layer_groups(self) -> list[list[str]]:
        """As in ViT; the learner belongs to the group of the block that follows it."""
        groups = super().layer_groups()
        learner = [name for name in groups[-1] if name.startswith("learner.")]
        groups[-1] = [name for name in groups[-1] if name not in learner]
        groups[1 + self.learn_at] += learner
        return groups
