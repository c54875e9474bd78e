"""Which augmentations exclude each other, and ranges; without torch, so that configurations are checked quickly."""

from __future__ import annotations

from data_pipelines.io.errors import DataError

Range = tuple[float, float]


def require_compatible(
    scale_jitter: Range | None,
    random_resized_crop: Range | None,
    rand_augment: tuple[int, float] | None,
    color_jitter: float,
    grayscale: float,
) -> None:
    """Check settings of `TrainTransform` against each other.

    Raises:
        DataError: a range is not one, or an augmentation is combined with one that it replaces.
    """
    if scale_jitter and not 0 < scale_jitter[0] <= scale_jitter[1]:
        raise DataError(f"scale_jitter: found {scale_jitter}, expected 0 < low <= high")
    if random_resized_crop:
        if not 0 < random_resized_crop[0] <= random_resized_crop[1] <= 1:
            raise DataError(f"random_resized_crop: found {random_resized_crop}, expected 0 < low <= high <= 1")
        if scale_jitter:
            raise DataError(
                f"scale_jitter: found {scale_jitter}, expected null (None) with random_resized_crop, which replaces it"
            )
    if rand_augment and (color_jitter or grayscale):
        raise DataError(
            f"rand_augment: found together with color_jitter = {color_jitter} and grayscale = {grayscale}, expected 0 "
            "for both, which it replaces"
        )
