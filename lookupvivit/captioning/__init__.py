"""Image captioning with a frozen encoder (paper, Table 3). Modules in reading order:

config         the configuration section ``caption``
decoder        the text decoder; `search` finds its most probable captions
model          the frozen encoder and the decoder
tokenizer      byte-level BPE, fitted on the training captions
task           training: data, loss, validation
generation     captions of batches, files and datasets
metrics        CIDEr-D and BLEU on the words of `metric_words`
scoring        captions and scores of a whole dataset
figures        images with their captions

Train with `deepspeed tools/train_net.py --cfg configs/coco_captions.yaml`; write and score captions with
`python tools/caption.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lookupvivit.captioning.config import CaptioningConfig as Config
    from lookupvivit.models.base import Model
    from lookupvivit.training.distributed import World
    from lookupvivit.training.tasks import Task

__all__ = ["Config", "create_task", "model_from_description"]


def __getattr__(name: str) -> Any:
    if name == "Config":  # imported on first use: loading a classification configuration does not need it
        from lookupvivit.captioning.config import CaptioningConfig

        return CaptioningConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def create_task(config: Config, world: World) -> Task:
    """The task of a captioning run."""
    from lookupvivit.captioning.task import Captioning

    return Captioning(config, world)


def model_from_description(description: dict[str, Any]) -> Model:
    """The captioner that a model.json describes, with random weights."""
    from lookupvivit.captioning.model import create_captioner

    return create_captioner(description["name"], overrides=description["overrides"], **description["captioner"])
