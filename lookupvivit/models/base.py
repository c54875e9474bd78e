"""The interface of all models, and functions that they share."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lookupvivit.layers.patch_embed import TubeletEmbedding
from lookupvivit.layers.token_selection import KeepLike, select_tokens
from lookupvivit.sizes import Keep, Size, as_keep


class Model(nn.Module):
    """What training, evaluation and weight files rely on.

    Attributes:
        num_classes: K.
        input_size: (T, H, W) of the position embeddings.
        tubelet: (t, h, w), frames and pixels of a token.
        embedding: of the tubelets, in models that can keep only some tokens.
        blocks: the repeated modules that are trained; they are compiled and recomputed one by one.
        description: contents of model.json, which `lookupvivit.load_model` sets.
        created_as: name and overrides, which `lookupvivit.create_model` sets.
    """

    num_classes: int
    input_size: Size
    tubelet: Size
    embedding: TubeletEmbedding
    blocks: nn.ModuleList
    description: dict[str, Any]
    created_as: tuple[str, dict[str, Any]]

    @property
    def supervised(self) -> tuple[str, ...]:
        """Fields of the output that have a loss; the losses are summed with equal weights."""
        return ("logits",)

    @property
    def keep_strategies(self) -> tuple[str, ...]:
        """How a call may keep only some of the tokens: ``model(video, keep="uniform:0.5")``."""
        return ()

    def select_tokens(self, video: Tensor, keep: KeepLike) -> Tensor | None:
        """Return the indices (B, K) of the tokens that ``keep`` means, or None for all of them.

        Args:
            video: as in the model's call.
            keep: see `lookupvivit.layers.token_selection.select_tokens`.

        Raises:
            ValueError: neither a share nor indices, or not one of `keep_strategies`.
        """
        check_keep(self, keep)
        return select_tokens(self.embedding.patches(video), keep, self.training, lambda: self.attention_scores(video))

    def attention_scores(self, video: Tensor) -> Tensor:
        """Return the attention (B, N) to each token in the first block, for the keep strategy "attention"."""
        raise NotImplementedError

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, in addition to biases and norms (all 1-D parameters)."""
        raise NotImplementedError

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by depth, for layer-wise learning rate decay: the stem, each block, and the rest."""
        raise NotImplementedError

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifiers with newly initialised ones for ``num_classes`` classes."""
        raise NotImplementedError


def require_choice(key: str, value: object, choices: tuple[str, ...]) -> None:
    """Check that ``value`` is one of ``choices``.

    Raises:
        ValueError: names ``key``.
    """
    if value not in choices:
        raise ValueError(f"{key}: found {value!r}, expected one of {', '.join(choices)}")


def check_keep(model: nn.Module, keep: KeepLike, key: str = "keep") -> None:
    """Check that a model can process some of its tokens only.

    Args:
        keep: what was requested; None is accepted by every model.
        key: name in error messages.

    Raises:
        ValueError: it cannot.
    """
    if keep is None:
        return
    strategies: tuple[str, ...] = getattr(model, "keep_strategies", ())
    found = f"indices {tuple(keep.shape)}" if isinstance(keep, Tensor) else str(keep)
    if not strategies:
        raise ValueError(f"{key}: found {found}, expected none: this {type(model).__name__} needs all of its tokens")
    strategy = as_keep(keep).strategy if isinstance(keep, float | str | Keep) else None
    if strategy not in (None, *strategies):
        raise ValueError(f"{key}: found {found}, expected one of {', '.join(strategies)} in a {type(model).__name__}")


def check_transformer(
    width: int, depth: int, num_heads: int, mlp_ratio: float, drop_path: float, gelu: str, eps: float
) -> None:
    """Check the arguments that all models have.

    Raises:
        ValueError: names the first argument from which no transformer can be built.
    """
    for key, value in {"width": width, "depth": depth, "num_heads": num_heads}.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{key}: found {value!r}, expected an integer of at least 1")
    if width % num_heads:
        raise ValueError(f"num_heads: found {num_heads}, expected a divisor of width, {width}")
    if round(mlp_ratio * width) < 1:
        raise ValueError(f"mlp_ratio: found {mlp_ratio!r}, expected at least 1 / width")
    if not 0 <= drop_path <= 1:
        raise ValueError(f"drop_path: found {drop_path!r}, expected a number in [0, 1]")
    if eps <= 0:
        raise ValueError(f"eps: found {eps!r}, expected a number above 0")
    require_choice("gelu", gelu, ("tanh", "none"))


def create_classifier(width: int, num_classes: int, bias: float) -> nn.Linear:
    """A linear classifier with zero weights, as in ViT and ViViT: initially, all classes have the same logit.

    Args:
        bias: initial bias of every class.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes: found {num_classes!r}, expected at least 1")
    linear = nn.Linear(width, num_classes)
    nn.init.zeros_(linear.weight)
    nn.init.constant_(linear.bias, bias)
    return linear


def pool(tokens: Tensor) -> Tensor:
    """Global average pooling, (B, t, h, w, D) -> (B, D)."""
    return tokens.mean(dim=(1, 2, 3))


def groups_by_depth(model: nn.Module, depth: int, stem: tuple[str, ...]) -> list[list[str]]:
    """Parameter names by depth, for layer-wise learning rate decay.

    Args:
        depth: the number of modules in ``model.blocks``.
        stem: prefixes of the parameters before the blocks.

    Returns:
        ``depth + 2`` groups: the stem, each block, and the rest.
    """
    groups: list[list[str]] = [[] for _ in range(depth + 2)]
    for name, _ in model.named_parameters():
        if name.startswith("blocks."):
            groups[1 + int(name.split(".")[1])].append(name)
        else:
            groups[0 if name.startswith(stem) else -1].append(name)
    return groups
