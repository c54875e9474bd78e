"""What the models share besides their layers."""

from __future__ import annotations

from einops import reduce
from torch import Tensor, nn

Size = tuple[int, int, int]  # (t, h, w)


def as_size(size: Size) -> Size:
    """Three positive integers (t, h, w), or a ValueError."""
    if not hasattr(size, "__len__") or len(size) != 3 or any(int(n) != n or n < 1 for n in size):
        raise ValueError(f"a size is three positive integers (t, h, w), found {size!r}")
    t, h, w = (int(n) for n in size)
    return t, h, w


def require(key: str, value: object, known: tuple[str, ...]) -> None:
    """ValueError unless ``value`` is one of ``known``."""
    if value not in known:
        raise ValueError(f"{key} must be one of {known}, found {value!r}")


def check_transformer(
    width: int, depth: int, num_heads: int, mlp_ratio: float, drop_path: float, gelu: str, eps: float
) -> None:
    """ValueError, naming the argument, for what no transformer can be built from."""
    for key, value in {"width": width, "depth": depth, "num_heads": num_heads}.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{key} must be a whole number of at least 1, found {value!r}")
    if width % num_heads:
        raise ValueError(f"num_heads must divide width, found num_heads={num_heads} and width={width}")
    if round(mlp_ratio * width) < 1:
        raise ValueError(f"mlp_ratio must leave the MLP a hidden unit, found {mlp_ratio!r}")
    if not 0 <= drop_path <= 1:
        raise ValueError(f"drop_path must lie in [0, 1], found {drop_path!r}")
    if eps <= 0:
        raise ValueError(f"eps must be above 0, found {eps!r}")
    require("gelu", gelu, ("tanh", "none"))


def classifier(width: int, num_classes: int, bias: float) -> nn.Linear:
    """A linear head that starts at zero, as both parents' do: the first predictions are all alike."""
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, found {num_classes!r}")
    head = nn.Linear(width, num_classes)
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, bias)
    return head


def pool(tokens: Tensor) -> Tensor:
    """Global average pooling, (B, t, h, w, D) -> (B, D)."""
    return reduce(tokens, "b t h w d -> b d", "mean")


def groups_by_depth(model: nn.Module, stem: tuple[str, ...]) -> list[list[str]]:
    """Parameter names by depth, for layer-wise lr decay: the stem, each of ``model.blocks``, and what follows.

    Args:
        stem: beginnings of the names of what comes before the blocks.
    """
    groups: list[list[str]] = [[] for _ in range(len(model.blocks) + 2)]
    for name, _ in model.named_parameters():
        if name.startswith("blocks."):
            groups[1 + int(name.split(".")[1])].append(name)
        else:
            groups[0 if name.startswith(stem) else -1].append(name)
    return groups
