"""The ten classes of camera motion."""

from __future__ import annotations

from collections.abc import Sequence

from data_pipelines.datasets.camera_motion.recipe import MOTIONS, template_of
from data_pipelines.datasets.something_something import without_brackets
from lookupvivit.errors import UserError

CLASS_NAMES = (  # of the pretrained model, in the order of `MOTIONS`
    "pan left",
    "pan right",
    "tilt up",
    "tilt down",
    "zoom in",
    "zoom out",
    "rotate clockwise",
    "rotate counter-clockwise",
    "still",
    "shake",
)
RENDERED_NAMES = tuple(without_brackets(template_of((motion,))) for motion in MOTIONS)  # of models trained by a run
CLASS_IDS = {name: i for names in (CLASS_NAMES, RENDERED_NAMES) for i, name in enumerate(names)}


def class_ids(names: Sequence[str], source: str) -> list[int]:
    """The index in `CLASS_NAMES` of each class of a model.

    Args:
        names: of the model's classes, in either form.
        source: named in the message.

    Raises:
        UserError: the classes are not these ten.
    """
    ids = [CLASS_IDS.get(name, -1) for name in names]
    if sorted(ids) != list(range(len(CLASS_NAMES))):
        raise UserError(f"{source}: found {len(names)} classes such as {names[0]!r}, expected the ten of camera_motion")
    return ids
