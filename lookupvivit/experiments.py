"""The one place where the core names experiment packages, which are imported when a run or a checkpoint needs one.

An experiment package provides

    Config                              its configuration schema, a subclass of `lookupvivit.config.RunConfig`
    create_task(config, world)          its `lookupvivit.training.tasks.Task`
    model_from_description(description) the model that its model.json describes, without weights
"""

from __future__ import annotations

import importlib
from types import ModuleType

PACKAGES = {"captioning": "lookupvivit.captioning"}
DATASETS = {"coco_captions": "captioning", "captions": "captioning"}  # data.dataset -> experiment


def experiment(name: str) -> ModuleType:
    """Import the package of an experiment by name."""
    return importlib.import_module(PACKAGES[name])


def experiment_of_dataset(dataset: object) -> ModuleType | None:
    """Import the experiment package that trains on ``dataset``; None for classification."""
    name = DATASETS.get(dataset) if isinstance(dataset, str) else None
    return None if name is None else experiment(name)
