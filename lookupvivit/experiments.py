"""The one place where the core names experiment packages. A package is imported when a run or a checkpoint needs it.

An experiment package provides

    Config                              its configuration schema, a subclass of `lookupvivit.config.RunConfig`
    create_task(config, world)          its `lookupvivit.training.tasks.Task`
    model_from_description(description) the model that its model.json describes, with random weights

The dataset selects the experiment: a configuration whose ``data.dataset`` is in `DATASETS` is validated with that
package's ``Config``, which may add sections, and trained by its task. All other datasets are for classification.
"""

from __future__ import annotations

import importlib
from types import ModuleType

PACKAGES = {"captioning": "lookupvivit.captioning"}  # experiment -> package
DATASETS = {"coco_captions": "captioning", "captions": "captioning"}  # data.dataset -> experiment


def experiment(name: str) -> ModuleType:
    """Import the package of an experiment by name."""
    return importlib.import_module(PACKAGES[name])


def experiment_of_dataset(dataset: object) -> ModuleType | None:
    """Import the experiment package that trains on ``dataset``; None for classification."""
    name = DATASETS.get(dataset) if isinstance(dataset, str) else None
    return None if name is None else experiment(name)
