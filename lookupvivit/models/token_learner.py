"""TokenLearner v1.1 (Ryoo et al.; scenic, projects/token_learner/model.py), a baseline of Table 1.

A ViT that goes on with 16 tokens per frame from some block on.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lookupvivit.layers.mlp import MLP
from lookupvivit.layers.resample import resample
from lookupvivit.models.vit import ViT


class TokenLearnerLayer(nn.Module):
    """Learn S weighted means over the positions of each frame.

    Args:
        bottleneck: hidden width of the MLP that scores positions.
    """

    def __init__(
        self, width: int, num_tokens: int, bottleneck: int = 64, eps: float = 1e-6, gelu: str = "tanh"
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=eps)
        self.score = MLP(width, bottleneck, gelu, out=num_tokens)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, t, h, w, D) -> learned tokens (B, t, S, D), and their weights over the positions (B, t, S, h, w)."""
        weights = self.score(self.norm(tokens)).flatten(2, 3).softmax(dim=2).transpose(2, 3)  # (B, t, S, hw)
        return weights @ tokens.flatten(2, 3), weights.unflatten(-1, tokens.shape[2:4])


class TokenLearner(ViT):
    """ViT or ViViT with a token learner in front of block ``learn_at``.

    Args:
        learn_at: blocks that still see all tokens; half or three quarters of the depth in Table 1.
        num_tokens: tokens per frame of tubelets from there on.
        arguments: those of ViT; pooling is "gap".
    """

    def __init__(self, num_classes: int, learn_at: int = 6, num_tokens: int = 16, **arguments: Any) -> None:
        super().__init__(num_classes, **arguments)
        if self.class_token is not None:
            raise ValueError("pooling must be 'gap' for TokenLearner, found 'token'")
        if not 0 <= learn_at < len(self.blocks) or num_tokens < 1:
            raise ValueError(
                f"learn_at must lie in [0, depth) and num_tokens be at least 1, found learn_at={learn_at} of "
                f"{len(self.blocks)} blocks and num_tokens={num_tokens}"
            )
        self.learn_at = learn_at
        self.learner = TokenLearnerLayer(
            self.width, num_tokens, eps=self.norm.eps, gelu=self.blocks[0].mlp[1].approximate
        )

    def forward_features(
        self, video: Tensor, return_intermediates: bool = False
    ) -> tuple[None, Tensor, list[dict[str, Tensor]]]:
        """None and tokens (B, t, 1, S, D) after the last block and before the final norm.

        Intermediates: per block ``tokens``, (B, t, h, w, D) before and (B, t, 1, S, D) after the learner, and at its
        block ``selection`` (B, t, S, h, w), where each learned token looks.
        """
        tokens = self.embedding(video)
        tokens = tokens + resample(self.positions, tokens.shape[1:4], self.antialias)
        intermediates = []
        for i, block in enumerate(self.blocks):
            seen = {}
            if i == self.learn_at:
                learned, seen["selection"] = self.learner(tokens)
                tokens = learned.unsqueeze(2)
            tokens = block(tokens.flatten(1, 3)).unflatten(1, tokens.shape[1:4])
            if return_intermediates:
                intermediates.append({"tokens": tokens, **seen})
        return None, tokens, intermediates

    def layer_groups(self) -> list[list[str]]:
        """As ViT's; the learner goes with the block it stands in front of."""
        groups = super().layer_groups()
        learner = [name for name in groups[-1] if name.startswith("learner.")]
        groups[-1] = [name for name in groups[-1] if name not in learner]
        groups[1 + self.learn_at] += learner
        return groups
