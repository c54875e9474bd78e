"""The cases of a benchmark: a model with kernels, an input and a training step, built from a name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lookupvivit import kernels
from lookupvivit.layers.token_selection import num_kept_tokens
from lookupvivit.models.base import check_keep
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.registry import create_model
from lookupvivit.models.token_settings import check_compressed_size
from lookupvivit.profiling.dtypes import DTYPES
from lookupvivit.profiling.external_models import create_external_model, is_external
from lookupvivit.profiling.flops import count_cost
from lookupvivit.sizes import Keep, Size, TokenSetting, as_size, parse_token_setting


@dataclass(frozen=True)
class Setting:
    """How all cases are measured. Contains only JSON types, so that another process can receive it.

    Attributes:
        batch: clips or images per call.
        dtype: "fp32", "bf16" or "fp16", of weights and input.
        compile: compile whole models with torch.compile.
        device: torch's name of it.
        threads: number of CPU threads; None keeps torch's default.
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
        """Apply the settings that are global to this process."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.compile:  # all models of a class share one limit, beyond which torch would run them uncompiled
            torch._dynamo.config.recompile_limit = 256
            torch._dynamo.config.fail_on_recompile_limit_hit = True


@dataclass(frozen=True)
class Case:
    """A model to benchmark: one row of the table.

    Attributes:
        name: a model of the registry or an external model.
        size: (t, h, w) compressed tokens; None for the model's own.
        kernels: implementation of the exchange, one of `lookupvivit.kernels.NAMES`; None for a model without one.
        like: for an external model, the case whose sizes it takes.
        keep: share of lookup tokens that are kept; None for all.
    """

    name: str
    size: Size | None = None
    kernels: str | None = None
    like: Case | None = None
    keep: Keep | None = None

    @property
    def label(self) -> str:
        """NAME, NAME@TxHxW, NAME@KEEP or NAME@TxHxW@KEEP."""
        setting = str(TokenSetting(self.size, self.keep)).removeprefix("@")
        return f"{self.name}@{setting}" if setting else self.name


class CaseRunner:
    """A case, built on its device and ready to run.

    Attributes:
        model: the model on its device and in its dtype.
        video: input (B, 3, T, H, W) with values in [-1, 1].
        input_size: (T, H, W).
        parameters: number of scalars.
        tokens: number of processed lookup tokens (of all tokens in a model without an exchange) and of compressed
            tokens M; None where there are none.
        call: further arguments of the model's call.
    """

    def __init__(self, case: Case, setting: Setting) -> None:
        self.case = case
        device, dtype = setting.torch_device, setting.torch_dtype
        with _default_dtype(dtype):  # building in float32 and converting would raise the peak memory
            model = _create(case)
        self.model = model.to(device=device, dtype=dtype)
        self.input_size = as_size(model.input_size)
        self.parameters = sum(weight.numel() for weight in model.parameters())
        self.tokens = _token_counts(model, case.keep)
        self.call: dict[str, Any] = {} if case.keep is None else {"keep": case.keep}
        generator = torch.Generator().manual_seed(0)
        clips = torch.rand(setting.batch, 3, *self.input_size, generator=generator) * 2 - 1
        self.video = clips.to(device=device, dtype=dtype)
        self.targets = torch.arange(setting.batch, device=device) % _num_classes(self.input_size)
        # SGD with momentum, as in ViViT's fine-tuning. A learning rate of 0 keeps the weights finite in any number of
        # steps.
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
        if setting.compile:
            model.compile(dynamic=False)  # otherwise models of several sizes would share one graph

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of the forward pass of one clip."""
        return count_cost(meta_model(self.case), (1, 3, *self.input_size), **self.call).macs

    def forward(self) -> Tensor:
        """Logits (B, K)."""
        with self._use_kernels():
            return self.model(self.video, **self.call).logits

    def loss(self) -> Tensor:
        """The forward pass of a training step: cross-entropy, summed over the classifiers."""
        with self._use_kernels():
            output = self.model(self.video, **self.call)
        losses = [F.cross_entropy(output[name].float(), self.targets) for name in self.model.supervised]
        return torch.stack(losses).sum()

    def train_step(self) -> None:
        """Forward pass, backward pass and the update of SGD."""
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _use_kernels(self) -> AbstractContextManager[None]:
        return kernels.use(self.case.kernels or kernels.chosen())


def parse_cases(names: Sequence[str], kernel_names: Sequence[str]) -> list[Case]:
    """The cases for names such as ``lookupvivit_b16x2_9x9x8``, in their order.

    NAME@TxHxW sets the compressed size, NAME@KEEP the share of lookup tokens that are kept, and NAME@TxHxW@KEEP both.

    An external model takes its sizes from the first model of the registry, preferring one with compressed tokens.

    Args:
        names: models of the registry, with or without numbers of tokens, and external models.
        kernel_names: every model with an exchange becomes one case per implementation.

    Raises:
        ValueError: an invalid size or share, or a size for a model without compressed tokens.
    """
    parsed = [_parse(name) for name in names]
    own = [Case(name, tokens.compressed_size) for name, tokens in parsed if not is_external(name)]
    like = next((case for case in own if case.name.startswith("lookup")), own[0] if own else None)
    cases = []
    for name, tokens in parsed:
        if is_external(name):
            cases.append(Case(name, like=like))
        elif name.startswith("lookup"):
            size, keep = tokens
            cases += [Case(name, size, kernel_name, keep=keep) for kernel_name in kernel_names]
        else:
            cases.append(Case(name, keep=tokens.keep))
    return cases


def _parse(text: str) -> tuple[str, TokenSetting]:
    name, separator, setting = text.partition("@")
    if not separator:
        return name, TokenSetting()
    try:
        tokens = parse_token_setting(setting if "x" in setting.partition("@")[0] else f"@{setting}")
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from None
    if tokens.compressed_size and not name.startswith("lookup"):
        raise ValueError(f"{text}: found a compressed size, which only a LookupViT has; remove it from {name}")
    return name, tokens


def meta_model(case: Case) -> Any:
    """The model of a case on the meta device: shapes only, at no cost in time or memory.

    Raises:
        ValueError: a model that is unknown or not installed, or a compressed size that it does not support.
    """
    with torch.device("meta"):
        return _create(case)


def _create(case: Case) -> Any:
    if is_external(case.name):
        like = meta_model(case.like) if case.like else None
        return create_external_model(case.name, _num_classes(like.input_size if like else (1, 1, 1)), like)
    overrides = {} if case.size is None else {"compressed_size": case.size}
    model: Any = create_model(case.name, 1, **overrides)
    if case.size is not None:
        check_compressed_size(model, case.size, case.label)
    check_keep(model, case.keep, case.label)
    model.reset_classifier(_num_classes(model.input_size))
    return model


def _num_classes(input_size: Size) -> int:
    """ImageNet-1k's for images, Kinetics-400's for videos: the datasets of the paper's tables."""
    return 1000 if input_size[0] == 1 else 400


def _token_counts(model: Any, keep: Keep | None) -> tuple[int | None, int | None]:
    if hasattr(model, "lookup_tokens"):  # an external model
        return model.lookup_tokens, model.compressed_tokens
    if not hasattr(model, "embedding"):
        return None, None
    compressed = math.prod(model.compressed_size) if isinstance(model, LookupViT) else None
    grid = model.embedding.grid(model.input_size)
    return num_kept_tokens(keep.share if keep else 1, grid), compressed


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
