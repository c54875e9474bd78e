"""Where the curves, images and settings of a run go in addition to log.jsonl: TensorBoard, Weights & Biases, MLflow.

A resumed run continues the record of its first start, which it finds by the identity of the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data_pipelines.io.errors import first_line
from data_pipelines.io.text import printable
from lookupvivit.config import ConfigError
from lookupvivit.config.yaml_files import dump_yaml

PROJECT = "lookupvivit"  # unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME names another


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker records at the start.

    Attributes:
        run_dir: its name is the name of the run.
        identity: the same after a resume (`lookupvivit.training.run_directory`).
        settings: the resolved configuration, nested.
        metric: the score of a validation that selects the best model.
        step: optimizer steps taken so far.
    """

    run_dir: Path
    identity: str
    settings: dict[str, Any]
    metric: str
    step: int


class Tracker(Protocol):
    """A destination; created with a `TrackedRun`, on rank 0 only."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record values, named ``kind/name``, of an optimizer step."""

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Record an image (H, W, 3) uint8."""

    def flush(self) -> None:
        """Write what is pending."""

    def close(self) -> None:
        """End the record."""


class TensorBoard:
    """Event files in ``tensorboard/`` of the run directory; settings are in the tabs *Text* and *HParams*."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self.writer = SummaryWriter(str(run.run_dir / "tensorboard"), purge_step=run.step + 1)
        self.writer.add_text("config", f"```yaml\n{dump_yaml(run.settings)}```", run.step)
        # `SummaryWriter.add_hparams` would put them into another folder, apart from the curves.
        for summary in hparams(dict(flat(run.settings)), {f"val/{run.metric}": None}):
            self.writer._get_file_writer().add_summary(summary)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """See `Tracker`."""
        self.writer.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        """See `Tracker`."""
        self.writer.flush()

    def close(self) -> None:
        """See `Tracker`."""
        self.writer.close()


class WeightsAndBiases:
    """A run of wandb; its environment variables, such as WANDB_PROJECT and WANDB_MODE, apply."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self.wandb = wandb
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.run_dir.name,
            id=run.identity,
            resume="allow",
            dir=str(run.run_dir),
            config=dict(flat(run.settings)),
            settings=wandb.Settings(silent=True),
        )
        # wandb drops records of an earlier step than its last; a resumed run repeats some.
        self.run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self.run.log({"step": step, **values})

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """See `Tracker`."""
        self.run.log({"step": step, name: self.wandb.Image(image)})

    def flush(self) -> None:
        """wandb sends records in the background."""

    def close(self) -> None:
        """See `Tracker`."""
        self.run.finish()


class MLflow:
    """A run of MLflow; its environment variables, such as MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME, apply."""

    def __init__(self, run: TrackedRun) -> None:
        import mlflow

        self.mlflow = mlflow
        experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        earlier = mlflow.search_runs(
            [experiment.experiment_id], f"tags.identity = '{run.identity}'", max_results=1, output_format="list"
        )
        tags = {"identity": run.identity, "run_dir": str(run.run_dir)}
        mlflow.start_run(earlier[0].info.run_id if earlier else None, run_name=run.run_dir.name, tags=tags)
        if not earlier:  # parameters cannot change
            mlflow.log_params({name: str(value) for name, value in flat(run.settings)})
        mlflow.log_text(dump_yaml(run.settings), "config.yaml")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self.mlflow.log_metrics(dict(values), step=step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """See `Tracker`."""
        self.mlflow.log_image(image, key=name.replace("/", "."), step=step)

    def flush(self) -> None:
        """MLflow sends records at once."""

    def close(self) -> None:
        """See `Tracker`."""
        self.mlflow.end_run()


TRACKERS: dict[str, type[TensorBoard | WeightsAndBiases | MLflow]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def create_trackers(names: Sequence[str], run: TrackedRun) -> list[Tracker]:
    """The trackers of ``log.trackers``.

    Raises:
        ConfigError: a tracker cannot start, for example without a login.
        OSError: TensorBoard's files cannot be written.
    """
    trackers: list[Tracker] = []
    for name in names:
        try:
            trackers.append(TRACKERS[name](run))
        except Exception as error:
            if name == "tensorboard":
                raise
            raise ConfigError(f"log.trackers: {name} cannot start: {first_line(error)}") from error
    return trackers


def require_installed(names: Sequence[str]) -> None:
    """Raise a ConfigError for a tracker whose package, of the same name, is missing."""
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(f"log.trackers: found {name!r}, which is not installed: pip install {name}")


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Yield dotted keys and values of nested settings; lists and None as text. Text is printable."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, bool | int | float) else printable(str(value))
