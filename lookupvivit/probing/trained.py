"""Probes that are trained by gradient descent, for many learning rates and weight decays at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lookupvivit.evaluation.array_files import load_arrays
from lookupvivit.layers.mlp import MLP

HEAD_WIDTH = 64  # channels of an attention head


class Setting(NamedTuple):
    """Learning rate and weight decay of AdamW."""

    learning_rate: float
    weight_decay: float

    @classmethod
    def grid(cls, learning_rates: Sequence[float], weight_decays: Sequence[float]) -> tuple[Setting, ...]:
        """All combinations."""
        return tuple(cls(*pair) for pair in product(learning_rates, weight_decays))

    def __str__(self) -> str:
        return f"lr {self.learning_rate:g}, wd {self.weight_decay:g}"


@dataclass(frozen=True)
class Recipe:
    """How probes are trained; the learning rate falls to 0 along a cosine.

    Attributes:
        settings: one probe each.
        epochs, batch_size: over the training examples.
        seed: of the order of examples and of the initial weights.
    """

    settings: tuple[Setting, ...]
    epochs: int
    batch_size: int
    seed: int = 0


# ----------------------------------------------------------------------------------------------------------------------
# Examples: indices -> the input of a probe

Examples = Callable[[Sequence[int]], tuple[Tensor, ...]]


class PooledExamples:
    """Features (N, D), standardised by the mean and standard deviation of ``reference`` (M, D)."""

    def __init__(self, features: np.ndarray, reference: np.ndarray, device: torch.device | str) -> None:
        mean, std = reference.mean(axis=0, dtype=np.float64), reference.std(axis=0, dtype=np.float64)
        standardised = (features - mean) / np.maximum(std, 1e-6)
        self.features = torch.as_tensor(standardised, dtype=torch.float32, device=device)

    def __call__(self, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """Features (B, D)."""
        return (self.features[list(indices)],)


class TokenExamples:
    """The tokens of one block, read from the videos' files: all grids and views of a video in one sequence."""

    def __init__(self, files: Sequence[Path], grids: Sequence[str], device: torch.device | str) -> None:
        self.files, self.grids, self.device = files, grids, device

    def __call__(self, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """Tokens (B, N, D), and where a sequence is padded, bool (B, N)."""
        sequences = [self._sequence(self.files[index]) for index in indices]
        padding = [torch.zeros(len(sequence), dtype=torch.bool) for sequence in sequences]
        tokens = nn.utils.rnn.pad_sequence(sequences, batch_first=True)
        is_padding = nn.utils.rnn.pad_sequence(padding, batch_first=True, padding_value=1.0)
        return tokens.to(self.device), is_padding.to(self.device)

    def _sequence(self, file: Path) -> Tensor:
        arrays = load_arrays(file, self.grids)
        flat = [array.reshape(-1, array.shape[-1]) for array in arrays.values()]  # (views, t, h, w, D) -> (n, D)
        return torch.from_numpy(np.concatenate(flat)).float()


# ----------------------------------------------------------------------------------------------------------------------
# Probes


def linear_probe(width: int, num_classes: int) -> nn.Linear:
    """A linear classifier that starts at zero."""
    linear = nn.Linear(width, num_classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class AttentiveProbe(nn.Module):
    """One learned query attends to all tokens; an MLP and a linear classifier follow (V-JEPA, Bardes et al., 2024).

    Args:
        width: D.
        num_classes: K.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        num_heads = width // HEAD_WIDTH if width % HEAD_WIDTH == 0 else 1
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02))
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.mlp = MLP(width, 4 * width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor, is_padding: Tensor) -> Tensor:
        """Tokens (B, N, D), bool (B, N) -> logits (B, K)."""
        tokens = self.norm(tokens)
        query = self.query.expand(len(tokens), -1, -1)  # (B, 1, D)
        attended, _ = self.attention(query, tokens, tokens, key_padding_mask=is_padding, need_weights=False)
        pooled = query + attended
        pooled = pooled + self.mlp(self.mlp_norm(pooled))
        return self.head(pooled[:, 0])


# ----------------------------------------------------------------------------------------------------------------------
# Training


def train_probes(
    create: Callable[[], nn.Module],
    examples: Examples,
    indices: np.ndarray,
    labels: np.ndarray,
    recipe: Recipe,
    device: torch.device | str,
) -> list[nn.Module]:
    """Train one probe per setting of ``recipe``; all see the same batches and start with the same weights.

    Args:
        create: builds a probe.
        examples: inputs by index.
        indices: of the training examples.
        labels: int64, of all examples.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        first = create()
    probes = [create() for _ in recipe.settings]
    for probe in probes:
        probe.load_state_dict(first.state_dict())
        probe.to(device).train()
    groups = [
        {"params": list(probe.parameters()), "lr": setting.learning_rate, "weight_decay": setting.weight_decay}
        for probe, setting in zip(probes, recipe.settings, strict=True)
    ]
    optimizer = torch.optim.AdamW(groups)
    batches_per_epoch = -(-len(indices) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * batches_per_epoch)
    rng = np.random.default_rng(recipe.seed)
    for _ in range(recipe.epochs):
        for batch in np.array_split(rng.permutation(indices), batches_per_epoch):
            inputs, targets = examples(batch.tolist()), torch.from_numpy(labels[batch]).to(device)
            losses = [F.cross_entropy(probe(*inputs), targets) for probe in probes]
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()  # the probes share no parameters
            optimizer.step()
            schedule.step()
    return [probe.eval() for probe in probes]


@torch.no_grad()
def probe_logits(probes: Sequence[nn.Module], examples: Examples, indices: np.ndarray, batch_size: int) -> np.ndarray:
    """Logits of every probe, float32 (P, N, K)."""
    chunks = [indices[start : start + batch_size].tolist() for start in range(0, len(indices), batch_size)]
    logits = [torch.stack([probe(*inputs) for probe in probes]).float().cpu() for inputs in map(examples, chunks)]
    return torch.cat(logits, dim=1).numpy()
