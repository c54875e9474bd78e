"""What a benchmark measures: a model with its kernels, an input and a training step, built from a name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lookupvivit import kernels
from lookupvivit.models.base import Size
from lookupvivit.models.lookupvit import LookupViT, check_compressed_size
from lookupvivit.models.registry import create_model
from lookupvivit.profiling.external_models import create_peer, is_peer
from lookupvivit.profiling.flops import count_from_shapes
from lookupvivit.profiling.memory_estimate import DTYPES


@dataclass(frozen=True)
class Setting:
    """How everything is measured; made of what JSON can hold, to be handed to another process.

    Attributes:
        batch: clips or pictures of a call.
        dtype: "fp32", "bf16" or "fp16", of weights and input.
        compile: whole models through torch.compile.
        device: as torch names it.
        threads: of the CPU; None leaves torch's choice.
    """

    batch: int = 1
    dtype: str = "fp32"
    compile: bool = False
    device: str = "cpu"
    threads: int | None = None

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    def apply(self) -> None:
        """Have this process compute so."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.compile:  # models of one class share their code, and beyond the limit it runs uncompiled
            torch._dynamo.config.recompile_limit = 256
            torch._dynamo.config.fail_on_recompile_limit_hit = True


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        name: of the catalogue or a peer's.
        size: (t, h, w) compressed tokens; None for the model's own.
        kernels: of the exchange, one of `lookupvivit.kernels.NAMES`; None for a model without an exchange.
        like: the model of the catalogue that lends a peer its sizes.
    """

    name: str
    size: Size | None = None
    kernels: str | None = None
    like: Case | None = None

    @property
    def label(self) -> str:
        return self.name if self.size is None else f"{self.name}@{'x'.join(map(str, self.size))}"


class Subject:
    """A case, built and ready to be called.

    Attributes:
        model: on its device and in its dtype.
        video: the input (B, 3, T, H, W), values in [-1, 1].
        macs: multiply-adds of the forward pass of one clip.
        input_size: (T, H, W).
        tokens: lookup tokens N (all tokens of a model without an exchange) and compressed tokens M; None where there
            are none.
    """

    def __init__(self, case: Case, setting: Setting) -> None:
        self.case = case
        device, dtype = setting.torch_device, setting.torch_dtype
        shapes = without_data(case)
        self.input_size: Size = tuple(shapes.input_size)
        shape = (3, *self.input_size)
        self.parameters = sum(weight.numel() for weight in shapes.parameters())
        self.tokens = _tokens(shapes)
        self.macs = count_from_shapes(shapes, (1, *shape))
        with _default(dtype):  # no detour over float32, which would be a peak of memory
            model = _create(case)
        self.model = model.to(device=device, dtype=dtype)
        generator = torch.Generator().manual_seed(0)
        clips = torch.rand(setting.batch, *shape, generator=generator) * 2 - 1
        self.video = clips.to(device=device, dtype=dtype)
        self.targets = torch.arange(setting.batch, device=device) % _classes(model.input_size)
        # As for ViViT's fine-tuning; no rate, so that the weights stay sound however often a step is timed.
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
        if setting.compile:
            model.compile(dynamic=False)  # else the sizes of other models would make one graph for all of them

    def forward(self) -> Tensor:
        """Logits (B, K)."""
        with self._kernels():
            return self.model(self.video).logits

    def loss(self) -> Tensor:
        """The forward pass of a training step: cross-entropies, summed over the heads."""
        with self._kernels():
            output = self.model(self.video)
        losses = [F.cross_entropy(output[name].float(), self.targets) for name in self.model.supervised]
        return torch.stack(losses).sum()

    def train_step(self) -> None:
        """Forward pass, backward pass and SGD's update."""
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _kernels(self) -> AbstractContextManager[None]:
        return kernels.use(self.case.kernels or kernels.chosen())


def cases(names: list[str], engines: list[str]) -> list[Case]:
    """The lines for names with sizes, such as ``lookupvivit_b16x2_9x9x8@4x5x5`` (t x h x w), in their order.

    Args:
        engines: kernels that every model with an exchange is measured with.

    A peer takes its sizes from the first name of the catalogue that fits, by preference one with compressed tokens.

    Raises:
        ValueError: a size that is none, or of a model without compressed tokens.
    """
    parsed = [_parse(name) for name in names]
    own = [Case(name, size) for name, size in parsed if not is_peer(name)]
    like = next((case for case in own if case.name.startswith("lookup")), own[0] if own else None)
    found = []
    for name, size in parsed:
        if is_peer(name):
            found.append(Case(name, like=like))
        elif name.startswith("lookup"):
            found += [Case(name, size, engine) for engine in engines]
        else:
            found.append(Case(name))
    return found


def _parse(text: str) -> tuple[str, Size | None]:
    name, at, size = text.partition("@")
    if not at:
        return name, None
    if not name.startswith("lookup"):
        raise ValueError(f"{text}: only a LookupViT has compressed tokens, give {name} without a size")
    numbers = size.split("x")
    if len(numbers) != 3 or not all(number.isdecimal() and int(number) for number in numbers):
        raise ValueError(
            f"{text}: found {size!r}, must be t x h x w compressed tokens, such as "
            f"{name}@{4 if 'vivit' in name else 1}x5x5"
        )
    t, h, w = map(int, numbers)
    return name, (t, h, w)


def without_data(case: Case) -> nn.Module:
    """The model of a case on the meta device: its sizes, at the cost of neither time nor memory.

    Raises:
        ValueError: a model that is not known or not installed, or a size that it cannot have.
    """
    with torch.device("meta"):
        return _create(case)


def _create(case: Case) -> nn.Module:
    if is_peer(case.name):
        like = without_data(case.like) if case.like else None
        return create_peer(case.name, _classes(like.input_size if like else (1, 1, 1)), like)
    sized = {} if case.size is None else {"compressed_size": case.size}
    model = create_model(case.name, 1, **sized)
    if case.size is not None:
        check_compressed_size(model, case.size, case.label)
    model.reset_classifier(_classes(model.input_size))
    return model


def _classes(input_size: Size) -> int:
    """ImageNet's of pictures and Kinetics-400's of videos: what the paper's tables are about."""
    return 1000 if input_size[0] == 1 else 400


def _tokens(model: nn.Module) -> tuple[int | None, int | None]:
    if hasattr(model, "lookup_tokens"):  # a peer
        return model.lookup_tokens, model.compressed_tokens
    if not hasattr(model, "embedding"):
        return None, None
    compressed = math.prod(model.compressed_size) if isinstance(model, LookupViT) else None
    return math.prod(model.embedding.grid(model.input_size)), compressed


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
