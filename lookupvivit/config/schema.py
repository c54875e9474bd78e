"""The typed schema of a run. `lookupvivit.config.loading` fills it from a YAML file and a command line.

A configuration states only what differs from the defaults here. Sections of experiments are in their packages, see
`lookupvivit.experiments`.
"""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator
from typing_extensions import Self

from lookupvivit.config.data import AugmentConfig, DataConfig
from lookupvivit.config.errors import ConfigError, require
from lookupvivit.config.section import (
    FractionBelowOne,
    Mapping,
    NonEmpty,
    Pair,
    PositiveFraction,
    PositiveInt,
    Section,
    TokenSize,
    list_to_tuple,
)
from lookupvivit.sizes import Size, TokenSetting

KEEP_STEP = 0.05  # between shares of kept tokens


class MultiResolution(Section):
    """The compressed sizes (t, k, k) of multi-resolution training; each optimizer step draws one (section 4)."""

    t: NonEmpty[PositiveInt]
    """Numbers of compressed tokens along time; [1] for images."""
    k: NonEmpty[PositiveInt]
    """Numbers of compressed tokens along height and width."""

    @property
    def sizes(self) -> list[Size]:
        """All sizes (t, k, k)."""
        return [(t, k, k) for t, k in product(self.t, self.k)]

    @property
    def largest(self) -> Size:
        """The size with the most tokens."""
        return (max(self.t), max(self.k), max(self.k))


class TeacherModelConfig(Section):
    """A model. Its input size follows from ``data.frames`` and ``data.crop``."""

    name: str
    """A name from lookupvivit.list_models()."""
    overrides: Mapping[Any] = Field(default_factory=dict)
    """Arguments of the model's class, such as depth: 4."""


class ModelConfig(TeacherModelConfig):
    """The model, and how training varies its numbers of tokens."""

    multi_resolution: MultiResolution | None = None
    """LookupViT only: train at several compressed sizes, such as {t: [4, 8, 16], k: [5, 6, 7, 8, 9]}."""
    keep: Pair[PositiveFraction] | None = None
    """LookupViT and ViT only: the smallest and the largest share of tokens that a training step keeps, [0.3, 1.0]."""

    @model_validator(mode="after")
    def _validate(self) -> Self:
        in_order = self.keep is None or self.keep[0] <= self.keep[1]
        require(in_order, "model.keep", self.keep, "the smaller share first")
        return self

    @property
    def keep_shares(self) -> list[float]:
        """The shares between the two of ``keep``, in steps of about `KEEP_STEP`; empty without ``keep``.

        They are few, because each is a shape for which kernels are chosen and blocks are compiled.
        """
        if self.keep is None:
            return []
        low, high = self.keep
        steps = round((high - low) / KEEP_STEP)
        return [low + (high - low) * step / steps for step in range(steps + 1)] if steps else [low]


class OptimConfig(Section):
    """Optimizer, batch size and schedule: linear warmup, then cosine decay to zero."""

    name: Literal["sgd", "adamw"] = "sgd"
    """The optimizer."""
    lr: PositiveFloat = 0.1
    """Peak learning rate; it is not rescaled by the batch size."""
    momentum: NonNegativeFloat = 0.9
    """sgd only."""
    betas: Pair[FractionBelowOne] = (0.9, 0.999)
    """adamw only: decay rates of the first and second moments."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay; it does not apply to biases, norms and positional embeddings."""
    loss: Literal["softmax", "sigmoid"] = "softmax"
    """softmax: cross-entropy; sigmoid: the sum of one binary cross-entropy per class (see classifier_bias)."""
    class_weights: bool = False
    """Weight the loss of each class inversely to its number of training videos; the mean weight is 1."""
    layer_decay: PositiveFraction = 1.0
    """Learning rate of a block relative to that of the next block."""
    freeze_blocks: NonNegativeInt = 0
    """Number of first blocks that keep their weights, with all before them; the depth leaves norms and classifiers."""
    clip_grad: NonNegativeFloat = 1.0
    """Maximum global gradient norm; 0 is off."""
    ema_decay: FractionBelowOne = 0.0
    """Decay of the moving average of the weights, which is what is evaluated and exported; 0 is off."""
    skip_non_finite: bool = False
    """Skip and count steps with non-finite gradients; otherwise the run stops."""
    batch_size: PositiveInt = 64
    """Clips per optimizer step, over all ranks."""
    micro_batch_size: PositiveInt | None = None
    """Clips per rank and forward pass; null is batch_size / ranks."""
    epochs: PositiveFloat = 30
    """Length of the run and of the schedule."""
    warmup_epochs: NonNegativeFloat = 2.5
    """Length of the linear warmup."""
    min_steps: NonNegativeInt = 0
    """Least length of the run in optimizer steps, for small datasets; epochs that would be shorter are extended."""
    max_steps: PositiveInt | None = None
    """Length of the run in optimizer steps; replaces epochs."""
    patience: NonNegativeFloat = 0.0
    """Stop after this number of epochs without a better validation; 0 is off."""

    @model_validator(mode="after")
    def _validate(self) -> Self:
        for key, owner in (("momentum", "sgd"), ("betas", "adamw")):
            is_used = owner == self.name or getattr(self, key) == self.default(key)
            require(is_used, f"optim.{key}", getattr(self, key), f"no value unless optim.name is {owner}")
        in_steps = self.max_steps is not None or self.min_steps > 0
        is_shorter = in_steps or self.warmup_epochs <= self.epochs
        require(is_shorter, "optim.warmup_epochs", self.warmup_epochs, f"at most optim.epochs = {self.epochs}")
        is_least = self.max_steps is None or self.min_steps == 0
        require(is_least, "optim.min_steps", self.min_steps, "0 with optim.max_steps")
        has_classes = self.loss == "softmax" or not self.class_weights
        require(has_classes, "optim.class_weights", True, "false unless optim.loss is softmax")
        return self


class DistillConfig(Section):
    """An additional loss that compares the model with a teacher on the same clips; off without a teacher."""

    teacher: str | None = None
    """A run directory or a file as for init_from; self: this model at the largest size of model.multi_resolution."""
    model: TeacherModelConfig | None = None
    """The teacher's name and overrides, for files of other libraries; a run knows its own."""
    targets: Literal["logits", "features"] = "logits"
    """logits: KL divergence of the class probabilities; features: 1 - cosine of what the classifiers read."""
    weight: NonNegativeFloat = 1.0
    """Factor of this loss."""
    temperature: PositiveFloat = 1.0
    """logits only: divisor of the logits of both models."""
    compressed_size: TokenSize | None = None
    """Compressed size (t, h, w) of the teacher; null is its own."""

    @model_validator(mode="after")
    def _validate(self) -> Self:
        for key in type(self).model_fields:
            value = getattr(self, key)
            is_used = self.teacher is not None or value == self.default(key)
            require(is_used, f"distill.{key}", value, "no value without distill.teacher")
            is_of_another = self.teacher != "self" or key not in ("model", "compressed_size") or value is None
            require(is_of_another, f"distill.{key}", value, "no value where distill.teacher is self")
        return self


class RuntimeConfig(Section):
    """Precision, memory and parallelism."""

    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Dtype of activations and gradients."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    """DeepSpeed ZeRO: 0 replicates everything; 1 shards the optimizer state, 2 also gradients, 3 also weights."""
    offload_optimizer: bool = False
    """Keep master weights and optimizer state in CPU memory, and compute the update there."""
    activation_checkpointing: bool = False
    """Recompute blocks in the backward pass: less memory, a third more time."""
    compile: bool = False
    """Apply torch.compile to every block."""
    threads: PositiveInt | None = None
    """CPU threads per rank; null is PyTorch's default."""

    @model_validator(mode="after")
    def _validate(self) -> Self:
        # Checkpoints hold the float32 master weights, and DeepSpeed does not expose those of stage 0.
        has_masters = self.zero_stage > 0 or self.precision == "fp32"
        expected = f"1, 2 or 3 with runtime.precision {self.precision}"
        require(has_masters, "runtime.zero_stage", self.zero_stage, expected)
        can_offload = self.zero_stage > 0 or not self.offload_optimizer
        require(can_offload, "runtime.zero_stage", self.zero_stage, "1, 2 or 3 with runtime.offload_optimizer")
        return self


class EvalConfig(Section):
    """Multi-view testing."""

    clips: PositiveInt = 4
    """Clips per video, evenly spaced in time."""
    crops: Annotated[int, Field(json_schema_extra={"enum": [1, 3]})] = 3
    """Crops per clip. 1: centre; 3: along the longer side."""
    batch_size: PositiveInt = 8
    """Views per rank and forward pass."""
    compressed_size: TokenSize | None = None
    """LookupViT only: compressed size (t, h, w); null is the model's own."""
    keep: PositiveFraction | str | None = None
    """LookupViT and ViT only: share of tokens to keep, such as 0.5, or with a strategy motion:0.5; null is all."""
    single_frame: bool = False
    """Repeat the middle frame of each clip, to measure what one frame alone reveals."""
    save_seconds: NonNegativeFloat = 60
    """Interval in which a test saves its partial results, from which it resumes, in seconds; 0: after every batch."""

    @model_validator(mode="after")
    def _validate(self) -> Self:
        require(self.crops in (1, 3), "eval.crops", self.crops, "1 or 3")
        try:
            _ = self.tokens
        except ValueError as error:
            raise ConfigError(f"eval.keep: {error}") from None
        return self

    @property
    def tokens(self) -> TokenSetting:
        """The compressed size and the kept tokens."""
        return TokenSetting.of(self.compressed_size, self.keep)

    @property
    def call(self) -> dict[str, Any]:
        """Keyword arguments of the model's call."""
        return self.tokens.call

    @property
    def result_name(self) -> str:
        """Name of a test's files in ``predictions/``, such as "4x3" or "4x3_compressed_4x5x5_single_frame"."""
        frame = "_single_frame" if self.single_frame else ""
        return f"{self.clips}x{self.crops}{self.tokens.file_suffix}{frame}"


TrackerName = Literal["tensorboard", "wandb", "mlflow"]


class LogConfig(Section):
    """What is logged and saved, and how often. An interval of 0 epochs is never; others include the end of training."""

    every: PositiveInt = 10
    """Optimizer steps between logged losses."""
    validate_every_epochs: NonNegativeFloat = 1.0
    """Interval of validation, in epochs."""
    checkpoint_every_epochs: NonNegativeFloat = 1.0
    """Interval of checkpoints, in epochs."""
    keep_checkpoints: PositiveInt = 2
    """Number of recent checkpoints that are kept."""
    attention_every_epochs: NonNegativeFloat = 1.0
    """Interval of attention figures, in epochs."""
    attention_clips: PositiveInt = 4
    """Number of validation clips in attention figures."""
    trackers: Annotated[tuple[TrackerName, ...], BeforeValidator(list_to_tuple)] = ("tensorboard",)
    """Where curves and figures go in addition to log.jsonl: any of tensorboard, wandb and mlflow."""


class RunConfig(Section):
    """Everything that defines a run."""

    output_dir: str
    """The run directory."""
    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    distill: DistillConfig = Field(default_factory=DistillConfig)
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    log: LogConfig = Field(default_factory=LogConfig)
    seed: NonNegativeInt = 0
    """Seed of all random numbers."""
    init_from: str | None = None
    """Weights to start from: a run directory, or any file that lookupvivit.weights.source_formats reads."""
    init_inflation: Literal["central", "average"] = "central"
    """How a 2-D patch kernel becomes 3-D: in the central frame of the tubelet, or averaged over its frames."""
    init_pixels: Literal["symmetric", "imagenet"] | None = None
    """Pixel range of init_from: [-1, 1], or ImageNet's mean and deviation (DeiT, MAE); null: as its format implies."""
    init_missing: Annotated[tuple[str, ...], BeforeValidator(list_to_tuple)] = ()
    """Parts of the names of new parameters, such as infuse.gate, which init_from lacks and which start at random."""
    checkpoint: str | None = None
    """Run directory or model.safetensors to test; null is output_dir."""

    @model_validator(mode="after")
    def _validate(self) -> Self:
        can_offload = self.optim.name == "adamw" or not self.runtime.offload_optimizer
        require(can_offload, "runtime.offload_optimizer", True, "false unless optim.name is adamw")
        has_source = self.init_from is not None or not self.init_missing
        require(has_source, "init_missing", list(self.init_missing), "no value without init_from")
        varies = self.model.multi_resolution is not None or self.model.keep is not None
        has_sizes = self.distill.teacher != "self" or varies
        expected = "another model, or several sizes in model.multi_resolution or model.keep"
        require(has_sizes, "distill.teacher", "self", expected)
        validates = self.log.validate_every_epochs > 0 or not self.optim.patience
        require(validates, "optim.patience", self.optim.patience, "0 where log.validate_every_epochs is 0")
        has_one_clip = self.data.repeats == 1 or not self.augment.on_device
        require(has_one_clip, "augment.on_device", True, "false unless data.repeats is 1")
        self.validate_task()
        return self

    @property
    def num_classes(self) -> int:
        """``data.num_classes``; `validate_task` requires it for classification."""
        assert self.data.num_classes is not None
        return self.data.num_classes

    def validate_task(self) -> None:
        """Check the rules of classification; experiments override them with their own."""
        num_classes = self.data.num_classes
        require(num_classes is not None, "data.num_classes", num_classes, "the number of classes, an integer")
