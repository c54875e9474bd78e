"""The one typed schema of a run; `lookupvivit.config.loading` makes it from a YAML file and a command line.

Sections and fields below are all there is: an unknown key, a wrong type or an impossible value is a ConfigError of
one line. A configuration states only what differs from the defaults here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal


class ConfigError(ValueError):
    """A configuration that cannot be run; one line: where, which key, what was found, what would be right."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))  # keys, paths and other libraries' words may break lines


def check(right: bool, key: str, found: Any, wanted: str) -> None:
    """ConfigError unless ``right``."""
    if not right:
        raise ConfigError(f"{key}: found {found!r}, must be {wanted}")


@dataclass(frozen=True)
class ModelConfig:
    """Which model; the input size follows ``data.frames`` and ``data.crop``."""

    name: str  # one of lookupvivit.list_models()
    overrides: dict[str, Any] = field(default_factory=dict)  # arguments of the model's class, such as depth: 4
    # LookupViT: compressed sizes to train on, one drawn per step, such as {t: [4, 8, 16], k: [5, 6, 7, 8, 9]}
    multi_resolution: dict[str, list[int]] | None = None

    def __post_init__(self) -> None:
        sizes = self.multi_resolution
        right = sizes is None or (
            sizes.keys() == {"t", "k"} and all(sizes.values()) and min(map(min, sizes.values())) >= 1
        )
        check(right, "model.multi_resolution", sizes, "{t: [...], k: [...]}, frames and sides of at least 1 token")


CAPTION_SETS = ("coco_captions", "captions")
_KEYS_OF_SOME_DATASETS = {
    "train_list": "kinetics or captions",
    "val_list": "kinetics or captions",
    "separator": "kinetics",
    "camera_motion": "camera_motion",
    "fold": "ucf101 or hmdb51",
    "train_shards": "shards",
    "val_shards": "shards",
    "class_list": "shards",
}


@dataclass(frozen=True)
class DataConfig:
    """Where the videos are and what a clip is."""

    dataset: Literal[
        "kinetics",
        "something_something",
        "ucf101",
        "hmdb51",
        "folders",
        "shards",
        "camera_motion",
        "coco_captions",
        "captions",
    ]
    root: str
    num_classes: int | None = None  # of all sets but those with captions
    train_list: str = "train.csv"  # kinetics: `path label` lists; captions: images and captions; relative to root
    val_list: str = "val.csv"
    separator: str | None = None  # kinetics: between path and label; null finds it
    train_shards: str = "*train*.tar"  # shards: in root; wildcards, or braces such as train-{000000..001281}.tar
    val_shards: str = "*val*.tar"
    class_list: str | None = None  # shards: a .txt, a .json or imagenet; null: classes.txt or .json in root, or numbers
    camera_motion: dict[str, int] = field(
        default_factory=dict
    )  # fields of data_pipelines.datasets.camera_motion.Recipe
    skip_list: str | None = None  # videos to leave out, as tools/prepare_dataset.py writes it
    fold: int = 1  # ucf101, hmdb51: which of the three official splits
    frames: int = 32  # per clip
    stride: int = 2  # video frames from one to the next
    target_fps: float | None = None  # frame rate that stride counts in; null is each video's own
    sampling: Literal["clip", "segments"] = "clip"  # segments: one frame from each of `frames` parts of the video
    repeats: int = 1  # training clips from one decode of a video; optim.batch_size counts clips
    short_side: int = 256  # pixels after resizing
    crop: int = 224  # pixels, square
    test_resize: Literal["bilinear", "area"] = "bilinear"  # to short_side; training's resizing is bilinear
    workers: int = 4  # loading processes per rank
    backend: Literal["auto", "decord", "pyav", "torchcodec"] = "auto"
    decode_seconds: float = 60  # time limit of opening a file and of each read; 0: none, and no process to enforce it
    max_broken: float = 0.01  # share of the training videos that may be unreadable before the run stops

    def __post_init__(self) -> None:
        if self.has_captions:
            wanted = f"left out where data.dataset is {self.dataset}"
            check(self.num_classes is None, "data.num_classes", self.num_classes, wanted)
        else:
            check(self.num_classes is not None, "data.num_classes", None, "given, a whole number of at least 1")
        for key in ("num_classes", "frames", "stride", "short_side", "crop", "repeats"):
            value = getattr(self, key)
            check(value is None or value >= 1, f"data.{key}", value, "at least 1")
        check(self.crop <= self.short_side, "data.crop", self.crop, f"at most data.short_side = {self.short_side}")
        check(self.workers >= 0, "data.workers", self.workers, "0 or more")
        check(self.fold in (1, 2, 3), "data.fold", self.fold, "1, 2 or 3")
        check(self.target_fps is None or self.target_fps > 0, "data.target_fps", self.target_fps, "above 0, or null")
        check(self.decode_seconds >= 0, "data.decode_seconds", self.decode_seconds, "0 or more")
        check(0 <= self.max_broken <= 1, "data.max_broken", self.max_broken, "between 0 and 1")
        right = self.sampling == "clip" or self.target_fps is None
        check(right, "data.target_fps", self.target_fps, "left out where data.sampling is segments")
        for entry in dataclasses.fields(self):  # nothing given is silently ignored
            owners = _KEYS_OF_SOME_DATASETS.get(entry.name, self.dataset)
            default = {} if entry.default is dataclasses.MISSING else entry.default
            right = self.dataset in owners or getattr(self, entry.name) == default
            check(right, f"data.{entry.name}", getattr(self, entry.name), f"left out unless data.dataset is {owners}")

    @property
    def has_captions(self) -> bool:
        """Whether the set has captions, which are to be written, and no classes."""
        return self.dataset in CAPTION_SETS


@dataclass(frozen=True)
class CaptionConfig:
    """The decoder that writes captions, of the sets that have some; the model is then its frozen encoder."""

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    length: int = 32  # most tokens of a caption, its end included; longer ones are cut
    vocabulary: int = 8192  # entries of the model, and at most of the tokenizer that is fitted on the captions
    tied: bool = False  # the output layer shares the weights of the token embedding


@dataclass(frozen=True)
class AugmentConfig:
    """Training augmentation; the defaults are ViViT's for Kinetics-400."""

    scale_jitter: tuple[float, float] | None = (0.9, 1.33)  # independent factors of height and width
    horizontal_flip: float = 0.5  # probability
    flip_labels: dict[str, str] = field(default_factory=dict)  # class names that a flip turns into each other
    color_jitter: float = 0.8  # probability
    grayscale: float = 0.1  # probability
    rand_augment: tuple[int, float] | None = None  # (layers, magnitude); replaces color_jitter and grayscale
    rand_augment_set: Literal["video", "image"] = "video"  # image: with shear, translation and rotation
    random_resized_crop: tuple[float, float] | None = None  # share of the picture; replaces short side and scale_jitter
    random_erasing: float = 0.0  # probability
    random_erasing_mode: Literal["pixel", "zero"] = "pixel"  # noise or black
    mixup: float = 0.0  # alpha of the Beta distribution; 0 is off
    cutmix: float = 0.0  # the same; with both, each batch draws one of the two
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for key in ("horizontal_flip", "color_jitter", "grayscale", "random_erasing", "label_smoothing"):
            check(0 <= getattr(self, key) <= 1, f"augment.{key}", getattr(self, key), "between 0 and 1")
        right = self.horizontal_flip > 0 or not self.flip_labels
        check(right, "augment.flip_labels", self.flip_labels, "left out where augment.horizontal_flip is 0")
        for key in ("mixup", "cutmix"):
            check(getattr(self, key) >= 0, f"augment.{key}", getattr(self, key), "0 (off) or more")
        for key, owner in (("rand_augment_set", "rand_augment"), ("random_erasing_mode", "random_erasing")):
            right = getattr(self, owner) or getattr(self, key) == getattr(AugmentConfig, key)
            check(bool(right), f"augment.{key}", getattr(self, key), f"left out where augment.{owner} is off")
        if self.random_resized_crop:
            low, high = self.random_resized_crop
            right = 0 < low <= high <= 1
            check(right, "augment.random_resized_crop", [low, high], "[low, high] with 0 < low <= high <= 1")
            wanted = "null where augment.random_resized_crop is given, which replaces it"
            check(self.scale_jitter is None, "augment.scale_jitter", self.scale_jitter, wanted)
        if self.scale_jitter:
            low, high = self.scale_jitter
            check(0 < low <= high, "augment.scale_jitter", self.scale_jitter, "[low, high] with 0 < low <= high")
        if self.rand_augment:
            colourless = self.color_jitter == self.grayscale == 0
            wanted = "null, or else color_jitter and grayscale 0, which it replaces"
            check(colourless, "augment.rand_augment", self.rand_augment, wanted)
            layers, magnitude = self.rand_augment
            right = layers >= 1 and magnitude >= 0
            check(right, "augment.rand_augment", self.rand_augment, "[layers, magnitude], at least 1 and 0")


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer, batch and schedule: linear warmup, then a cosine to zero."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1  # peak, never rescaled by the batch size
    momentum: float = 0.9  # sgd
    betas: tuple[float, float] = (0.9, 0.999)  # adamw
    weight_decay: float = 0.0  # not on biases, norms and positions
    # sigmoid: a binary cross-entropy per class, summed; model.overrides.head_bias says how unlikely each is at first
    loss: Literal["softmax", "sigmoid"] = "softmax"
    layer_decay: float = 1.0  # learning rate of a block over that of the next one; 1 is the same for all
    clip_grad: float = 1.0  # global norm; 0 is off
    ema_decay: float = 0.0  # moving average of the weights, which is then what is evaluated and published; 0 is off
    skip_non_finite: bool = False  # leave steps with gradients that are no numbers out, and count them; else stop
    batch_size: int = 64  # clips per optimizer step, of all ranks together
    micro_batch_size: int | None = None  # clips per rank and forward pass; null is batch_size / ranks
    epochs: float = 30
    warmup_epochs: float = 2.5
    max_steps: int | None = None  # optimizer steps, instead of epochs

    def __post_init__(self) -> None:
        for key in ("lr", "epochs", "batch_size", "micro_batch_size", "max_steps"):
            value = getattr(self, key)
            check(value is None or value > 0, f"optim.{key}", value, "greater than 0")
        check(0 <= self.ema_decay < 1, "optim.ema_decay", self.ema_decay, "0 (off) or more, and below 1")
        check(0 < self.layer_decay <= 1, "optim.layer_decay", self.layer_decay, "above 0 and at most 1")
        for key in ("momentum", "weight_decay", "clip_grad", "warmup_epochs"):
            check(getattr(self, key) >= 0, f"optim.{key}", getattr(self, key), "0 or more")
        check(all(0 <= b < 1 for b in self.betas), "optim.betas", self.betas, "two numbers in [0, 1)")
        for key, owner in (("momentum", "sgd"), ("betas", "adamw")):  # nothing given is silently ignored
            right = owner == self.name or getattr(self, key) == getattr(OptimConfig, key)
            check(right, f"optim.{key}", getattr(self, key), f"left out unless optim.name is {owner}")
        if self.max_steps is None:
            check(
                self.warmup_epochs <= self.epochs,
                "optim.warmup_epochs",
                self.warmup_epochs,
                f"at most optim.epochs = {self.epochs}",
            )


@dataclass(frozen=True)
class RuntimeConfig:
    """How DeepSpeed runs it."""

    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    zero_stage: int = 1  # 0 replicates; 1 shards the optimizer, 2 gradients too, 3 weights too
    offload_optimizer: bool = False  # masters and moments in the CPU's memory, where the update is computed too
    activation_checkpointing: bool = False  # compute blocks again in the backward pass: less memory, a third more time
    compile: bool = False  # torch.compile every block
    threads: int | None = None  # CPU threads per rank; null leaves torch's choice

    def __post_init__(self) -> None:
        check(self.zero_stage in (0, 1, 2, 3), "runtime.zero_stage", self.zero_stage, "0, 1, 2 or 3")
        # Stage 0 keeps its float32 master weights out of reach, and they are what is saved.
        right = self.zero_stage > 0 or self.precision == "fp32"
        check(right, "runtime.zero_stage", self.zero_stage, f"1, 2 or 3 with runtime.precision {self.precision}")
        right = self.zero_stage > 0 or not self.offload_optimizer
        check(right, "runtime.zero_stage", self.zero_stage, "1, 2 or 3 with runtime.offload_optimizer")
        check(self.threads is None or self.threads > 0, "runtime.threads", self.threads, "at least 1, or null")


@dataclass(frozen=True)
class EvalConfig:
    """Multi-view testing."""

    clips: int = 4  # evenly spaced in time
    crops: int = 3  # 1: centre; 3: along the longer side
    batch_size: int = 8  # views per rank and forward pass
    compressed_size: tuple[int, int, int] | None = None  # LookupViT: (t, h, w); null is the model's own
    save_seconds: float = 60  # a test keeps what it has on disk this often, and goes on from there; 0: every batch

    def __post_init__(self) -> None:
        check(self.save_seconds >= 0, "eval.save_seconds", self.save_seconds, "0 or more")
        for key in ("clips", "batch_size"):
            check(getattr(self, key) >= 1, f"eval.{key}", getattr(self, key), "at least 1")
        check(self.crops in (1, 3), "eval.crops", self.crops, "1 or 3")
        size = self.compressed_size
        check(size is None or min(size) >= 1, "eval.compressed_size", size, "[t, h, w] of at least 1, or null")

    @property
    def call(self) -> dict[str, Any]:
        """What a model's call gets besides the video."""
        return {"compressed_size": self.compressed_size} if self.compressed_size else {}


@dataclass(frozen=True)
class LogConfig:
    """What is told and kept, and how often; 0 epochs is never, the end of training always counts otherwise."""

    every: int = 10  # optimizer steps
    validate_every_epochs: float = 1.0
    checkpoint_every_epochs: float = 1.0
    keep_checkpoints: int = 2
    attention_every_epochs: float = 1.0
    attention_clips: int = 4

    def __post_init__(self) -> None:
        for key in ("every", "keep_checkpoints", "attention_clips"):
            check(getattr(self, key) >= 1, f"log.{key}", getattr(self, key), "at least 1")
        for key in ("validate_every_epochs", "checkpoint_every_epochs", "attention_every_epochs"):
            check(getattr(self, key) >= 0, f"log.{key}", getattr(self, key), "0 (never) or more")


@dataclass(frozen=True)
class RunConfig:
    """Everything about a run."""

    output_dir: str  # the run directory
    model: ModelConfig
    data: DataConfig
    caption: CaptionConfig = field(default_factory=CaptionConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    log: LogConfig = field(default_factory=LogConfig)
    seed: int = 0
    init_from: str | None = (
        None  # to start training from: a run directory, or any file of lookupvivit.weights.source_formats
    )
    init_inflation: Literal["central", "average"] = "central"  # how a 2-D patch kernel fills a tubelet
    init_pixels: Literal["symmetric", "imagenet"] | None = None  # what init_from was trained on: [-1, 1], or normalised
    # by ImageNet's mean and deviation (DeiT, MAE); null: as its format tells
    checkpoint: str | None = None  # run directory or model.safetensors to test; null is the run's own

    def __post_init__(self) -> None:
        check(self.seed >= 0, "seed", self.seed, "0 or more")
        for key, default in vars(CaptionConfig()).items():
            right = self.data.has_captions or getattr(self.caption, key) == default
            wanted = f"left out unless data.dataset is {' or '.join(CAPTION_SETS)}"
            check(right, f"caption.{key}", getattr(self.caption, key), wanted)
        for key in ("mixup", "cutmix"):
            right = not self.data.has_captions or getattr(self.augment, key) == 0
            check(right, f"augment.{key}", getattr(self.augment, key), "0 where captions are learned, which do not mix")
        right = not self.data.has_captions or self.optim.loss == "softmax"
        check(right, "optim.loss", self.optim.loss, "softmax where captions are learned: each word is one of many")
        right = self.optim.name == "adamw" or not self.runtime.offload_optimizer
        check(right, "runtime.offload_optimizer", True, "false unless optim.name is adamw")
