"""The sections that define what the model sees: ``data`` and ``augment``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator
from typing_extensions import Self

from data_pipelines.io.errors import DataError
from data_pipelines.sampling import Sampling, require_crop_within
from data_pipelines.transforms.constraints import require_compatible
from lookupvivit.config.errors import ConfigError, require
from lookupvivit.config.section import (
    Fraction,
    Mapping,
    Pair,
    PositiveFraction,
    PositiveInt,
    Section,
    list_to_tuple,
)

if TYPE_CHECKING:
    from data_pipelines.preprocess import Preprocess


class DataConfig(Section):
    """The dataset, the clips, and how they are read."""

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
    """The layout of the dataset; docs/DATA.md and docs/IMAGES.md describe each."""
    root: str
    """The dataset's folder."""
    num_classes: PositiveInt | None = None
    """Number of classes; required unless the dataset has captions."""
    train_list: str = "train.csv"
    """kinetics: list of `path label` lines; captions: list of images and captions. Relative to root."""
    val_list: str = "val.csv"
    """As train_list, for validation and test."""
    separator: str | None = None
    """kinetics: separator of path and label; null detects it."""
    train_shards: str = "*train*.tar"
    """shards: files in root, with wildcards or with braces such as train-{000000..001281}.tar."""
    val_shards: str = "*val*.tar"
    """As train_shards, for validation and test."""
    class_list: str | None = None
    """shards: a .txt or .json file, or imagenet; null uses classes.txt or classes.json in root, or else numbers."""
    camera_motion: Mapping[int] = Field(default_factory=dict)
    """camera_motion: fields of data_pipelines.datasets.camera_motion.Recipe, such as train_videos: 40."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """folders without train and val, kinetics with a train_list alone: hold out this fraction, source by source."""
    skip_list: str | None = None
    """A list of videos to exclude, as tools/prepare_dataset.py writes it."""
    fold: Annotated[int, Field(ge=1, le=3)] = 1
    """ucf101, hmdb51: which of the three official splits."""
    frames: PositiveInt = 32
    """Frames per clip."""
    stride: PositiveInt = 2
    """Distance between the frames of a clip, in video frames."""
    target_fps: PositiveFloat | None = None
    """Frame rate in which stride counts; null is each video's own."""
    sampling: Literal["clip", "segments"] = "clip"
    """clip: consecutive frames at the stride; segments: one frame from each of `frames` equal parts of the video."""
    repeats: PositiveInt = 1
    """Training clips from one decode of a video. optim.batch_size counts clips."""
    short_side: PositiveInt = 256
    """Shorter side after resizing, in pixels."""
    crop: PositiveInt = 224
    """Side of the square crop, in pixels."""
    test_resize: Literal["bilinear", "area"] = "bilinear"
    """How test clips are resized to short_side. Training always resizes bilinearly."""
    workers: NonNegativeInt = 4
    """Loader processes per rank."""
    backend: Literal["auto", "decord", "pyav", "torchcodec"] = "auto"
    """Video decoder."""
    decode_seconds: NonNegativeFloat = 60
    """Time limit for opening a file and for each read, in seconds; 0: no limit, and no separate decoding process."""
    max_pixels: PositiveInt | None = None
    """Largest frame that is read, in pixels; null is 2**26 for images and 2**24 for videos."""
    balance_classes: bool = False
    """Repeat training videos of smaller classes in every epoch until all classes are equally frequent."""
    max_failed: Fraction = 0.01
    """Fraction of the training videos that may be unreadable before the run stops."""

    @model_validator(mode="after")
    def _validate(self) -> Self:
        try:
            require_crop_within(self.crop, self.short_side)
        except DataError as error:
            raise ConfigError(f"data.{error}") from None
        fixed_rate = self.target_fps is None or self.sampling == "clip"
        require(fixed_rate, "data.target_fps", self.target_fps, "no value with data.sampling segments")
        has_list = self.val_fraction is not None and self.val_list != self.default("val_list")
        require(not has_list, "data.val_list", self.val_list, "no value with data.val_fraction")
        for key, datasets in _KEYS_OF_SOME_DATASETS.items():
            value = getattr(self, key)
            is_used = self.dataset in datasets or value == self.default(key)
            require(is_used, f"data.{key}", value, f"no value unless data.dataset is {' or '.join(datasets)}")
        return self

    def preprocess(self) -> Preprocess:
        """The preprocessing of test clips; `Preprocess.to_dict` is its entry in model.json."""
        from data_pipelines.preprocess import Preprocess  # imports torch, which checking a configuration does not need

        sampling = Sampling(self.frames, self.stride, self.target_fps, segments=self.sampling == "segments")
        return Preprocess(sampling, self.short_side, self.crop, self.test_resize)


_KEYS_OF_SOME_DATASETS = {  # other datasets would silently ignore them
    "train_list": ("kinetics", "captions"),
    "val_list": ("kinetics", "captions"),
    "separator": ("kinetics",),
    "val_fraction": ("folders", "kinetics"),
    "camera_motion": ("camera_motion",),
    "fold": ("ucf101", "hmdb51"),
    "train_shards": ("shards",),
    "val_shards": ("shards",),
    "class_list": ("shards",),
}


Layers = Annotated[int, Field(ge=1, title="layers")]
Magnitude = Annotated[float, Field(ge=0, title="magnitude")]
RandAugment = Annotated[tuple[Layers, Magnitude], BeforeValidator(list_to_tuple)]


class AugmentConfig(Section):
    """Training augmentation. The defaults are ViViT's for Kinetics-400."""

    scale_jitter: Pair[PositiveFloat] | None = (0.9, 1.33)
    """Range [low, high] of the factors by which height and width are scaled independently."""
    horizontal_flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    flip_labels: Mapping[str] = Field(default_factory=dict)
    """Pairs of class names that a horizontal flip turns into each other."""
    color_jitter: Fraction = 0.8
    """Probability of a change of brightness, contrast, saturation and hue."""
    grayscale: Fraction = 0.1
    """Probability of a conversion to greyscale."""
    rand_augment: RandAugment | None = None
    """RandAugment as [layers, magnitude]; it replaces color_jitter and grayscale."""
    rand_augment_set: Literal["video", "image"] = "video"
    """RandAugment's operations; image includes shear, translation and rotation."""
    random_resized_crop: Pair[PositiveFraction] | None = None
    """Range [low, high] of the crop's fraction of the frame's area; it replaces short_side and scale_jitter."""
    random_erasing: Fraction = 0.0
    """Probability of erasing a random rectangle."""
    random_erasing_mode: Literal["pixel", "zero"] = "pixel"
    """Content of the erased rectangle: noise per pixel, or black."""
    on_device: bool = False
    """Change colours and erase on the training device instead of in the loader's workers: the same pixels, up to
    rounding."""
    mixup: NonNegativeFloat = 0.0
    """Alpha of mixup's Beta distribution; 0 is off."""
    cutmix: NonNegativeFloat = 0.0
    """Alpha of CutMix's Beta distribution; 0 is off. With mixup as well, each batch draws one of the two."""
    label_smoothing: Fraction = 0.0
    """Fraction of the target that is spread over all classes."""

    @model_validator(mode="after")
    def _validate(self) -> Self:
        flips = self.horizontal_flip > 0 or not self.flip_labels
        require(flips, "augment.flip_labels", self.flip_labels, "no value where augment.horizontal_flip is 0")
        for key, owner in (("rand_augment_set", "rand_augment"), ("random_erasing_mode", "random_erasing")):
            is_used = getattr(self, owner) or getattr(self, key) == self.default(key)
            require(is_used, f"augment.{key}", getattr(self, key), f"no value where augment.{owner} is off")
        try:
            require_compatible(
                self.scale_jitter, self.random_resized_crop, self.rand_augment, self.color_jitter, self.grayscale
            )
        except DataError as error:
            raise ConfigError(f"augment.{error}") from None
        return self
