"""The training loop.

Where to find what, in reading order:

    which step a run starts at          Trainer.setup: `checkpoint_folders.newest_intact`, `checkpointing.resume`
    when it saves, evaluates and stops  Trainer.run
    the loss and the backward pass      Trainer.train_step, and `Task.loss` (by default `Classification.loss`)
    the optimizer step                  Trainer.optimizer_step
    what a checkpoint contains          Trainer.save, then `lookupvivit.training.checkpointing`
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.config import RunConfig
from lookupvivit.config.loading import to_dict
from lookupvivit.training import checkpoint_folders, checkpointing, distributed, ema, run_directory
from lookupvivit.training.build import build_on_meta, compute_dtype
from lookupvivit.training.data import augmented_on_device, micro_batch_loader
from lookupvivit.training.deepspeed_engine import initialize
from lookupvivit.training.failed_videos import FailedVideos
from lookupvivit.training.logging import RunLog
from lookupvivit.training.meter import TrainMeter
from lookupvivit.training.optimizer import Losses, NonFiniteGradients, learning_rate, non_finite_message
from lookupvivit.training.ownership import require_own
from lookupvivit.training.schedule import Batching, Plan, call_of_step, training_order
from lookupvivit.training.signals import StoppedBySignal, StopRequest
from lookupvivit.training.tasks import create_task
from lookupvivit.training.trackers import TrackedRun, create_trackers, require_installed
from lookupvivit.training.utilization import ModelFlopsUtilization
from lookupvivit.weights.files import load_weights


def train(config: RunConfig, trust_other_owner: bool = False) -> None:
    """Train a run to its end, from its newest checkpoint if it has one (see `require_own` for ``trust_other_owner``).

    Raises:
        StoppedBySignal: SIGTERM, SIGUSR1 or SIGINT arrived, and the run is saved.
        ConfigError, DataError, WeightsError: the run cannot start.
        FloatingPointError: loss or gradients are not finite.
    """
    trainer = Trainer(config, trust_other_owner)
    with distributed.exclusive(trainer.run_dir / ".lock", "output_dir", trainer.world):
        with trainer.stop_request:
            trainer.setup()
            with trainer.stop_request.on_interrupt():
                trainer.run()
        trainer.close()


class Trainer:
    """Trains one run: `setup` once, then `run`, which calls `train_step`, `evaluate` and `save`.

    Attributes:
        step: optimizer steps taken so far.
        saved_step: the step of the newest checkpoint, if there is one.
    """

    def __init__(self, config: RunConfig, trust_other_owner: bool = False) -> None:
        self.config, self.trust_other_owner = config, trust_other_owner
        self.world = distributed.start(config.runtime.threads)
        self.stop_request = StopRequest(reports=self.world.is_main)
        self.run_dir = Path(config.output_dir)
        self.saved_step: int | None = None
        compute_dtype(config, self.world)  # raises where the device lacks it
        require_installed(config.log.trackers)

    # ------------------------------------------------------------------------------------------------------------------
    # Setup

    def setup(self) -> None:
        """Build model, data, engine and log; restore the newest checkpoint."""
        config, world = self.config, self.world

        # Where to start: the newest checkpoint whose files are as they were written, or scratch.
        distributed.require_shared(self.run_dir, world)
        if world.is_main:
            run_directory.remove_leftovers(self.run_dir)
        checkpoint = checkpoint_folders.newest_intact(self.run_dir, world)
        require_own(checkpoint, world, self.trust_other_owner)

        # The model comes before the data, because its errors show within seconds.
        torch.manual_seed(config.seed)  # the same weights on every rank
        self.task = create_task(config, world)
        model = self.task.build_model()
        if checkpoint is None:
            self.print(self.task.load_initial_weights(model))
        self.task.read_data()

        # The order of samples is a function of (seed, step): a resumed run continues it, on any number of ranks.
        order = training_order(config, self.task.num_samples, self.task.copies)
        self.batching, self.plan = Batching.from_config(config, world), Plan.from_config(config, order)
        self.dataset = self.task.training_set()
        self.unit = self.dataset.manifest.unit

        # The engine is built around the checkpoint's weights; `resume` then restores the optimizer and master weights.
        self.description = self.task.description() | {
            "training": run_directory.resume_constraints(config, self.task.num_samples)
        }
        if checkpoint is not None:
            checkpointing.require_same_run(checkpoint, self.run_dir, self.description)
            load_weights(model, checkpoint)  # also frozen weights, which have no master weights
        self.description[run_directory.IDENTITY] = run_directory.claim(
            self.run_dir, checkpoint, self.description, world
        )
        self.engine, self.guard = initialize(model, config, self.batching, world)
        self.step = 0
        if checkpoint is not None:
            self.step = checkpointing.resume(self.engine, checkpoint, self.description, config, world)
            self.mark_saved()
            if world.is_main:  # the run may have been killed before it published this model
                checkpointing.publish(checkpoint, self.run_dir, self.description)

        changed: list[str] = []
        if world.is_main:
            changed = run_directory.begin(config, self.run_dir, checkpoint, self.step, self.step >= self.plan.total)
        self.print("\n".join(run_directory.start_messages(config, self.step, self.batching, self.plan, world)))
        self.failed_videos = FailedVideos(self.run_dir, self.task.num_samples, config.data.max_failed, world, self.unit)
        self.meter = TrainMeter(ModelFlopsUtilization(build_on_meta(self.task.build_model), config, world), world)
        identity = self.description[run_directory.IDENTITY]
        tracked = TrackedRun(self.run_dir, identity, to_dict(config), self.task.metric, self.step)
        trackers = create_trackers(config.log.trackers, tracked) if world.is_main else []
        self.log = RunLog(self.run_dir, self.step, self.plan.total, world, trackers)
        self.log.settings(self.step, changed)
        steps = range(self.step, self.plan.total)
        self.micro_batches = iter(micro_batch_loader(self.dataset, order, steps, self.batching, config, world))

    def print(self, text: str | None) -> None:
        """Print ``text``, if there is any, on rank 0."""
        if text and self.world.is_main:
            print(text)

    # ------------------------------------------------------------------------------------------------------------------
    # The loop

    def run(self) -> None:
        """Train until the last step; evaluate and save when due.

        Raises:
            StoppedBySignal: any rank was asked to stop, and the run is saved.
        """
        # Catch up on what was due after the checkpoint, if the run was killed or stopped before it. Only validations
        # are recorded: without them, a start may repeat drawings.
        evaluated = self.step > 0 and self.world.any(not self.log.validated) and self.evaluate()
        while self.step < self.plan.total:
            if self.is_patience_over():
                break
            if evaluated:
                self.stop_if_asked()  # it may have taken long
            self.train_step()
            self.step += 1
            if self.plan.due(self.step, self.config.log.checkpoint_every_epochs):
                self.save()
            self.stop_if_asked()
            evaluated = self.evaluate()

    def is_patience_over(self) -> bool:
        """Whether the run ends early, after saving: no best validation for ``optim.patience`` epochs; collective.

        This depends on the step and the best model only. A run that ended early therefore does not continue.
        """
        config, plan = self.config, self.plan
        if not config.optim.patience or not plan.due(self.step, config.log.validate_every_epochs):
            return False
        best = checkpointing.best_step(self.run_dir, self.step, self.world)
        if self.step - best < config.optim.patience * plan.steps_per_epoch:
            return False
        if self.saved_step != self.step:
            self.save()
        self.log.print(
            f"step {self.step} of {plan.total}: ends early, because the best validation was at step {best}; "
            f"its model is in {self.run_dir / run_directory.BEST}"
        )
        return True

    def stop_if_asked(self) -> None:
        """Save and end the run if any rank was asked to stop; collective.

        Raises:
            StoppedBySignal: after saving.
        """
        if not self.world.any(bool(self.stop_request.name)):  # all ranks agree, or collectives would not match
            return
        if self.saved_step != self.step:
            self.save()
        self.close()
        signal = self.stop_request.name or "another rank"
        raise StoppedBySignal(f"{signal}: saved step {self.step} of {self.plan.total} in {self.run_dir}")

    def train_step(self) -> None:
        """One optimizer step: forward and backward passes of all micro-batches, then the update."""
        config, world, engine = self.config, self.world, self.engine

        # Keyed on step and rank: a resumed run with as many ranks draws what the uninterrupted run would have drawn.
        rng = np.random.default_rng((config.seed, self.step, world.rank))
        torch.manual_seed(int(rng.integers(2**63)))  # drop path
        call = call_of_step(config, self.step)

        self.set_schedule()
        engine.train()
        losses: Losses = []
        with self.meter.step():
            for micro_step in range(self.batching.accumulation):
                batch = self.meter.next_batch(self.micro_batches)
                self.failed_videos.add(batch["failed"])
                dtype = next(engine.parameters()).dtype
                video = to_model_input(augmented_on_device(batch, self.dataset, world.device), dtype=dtype)

                # The loss: one per classifier, minimised together.
                result = self.task.loss(engine, video, batch, call, rng)
                losses.append((batch["video_name"], result.losses.detach()))

                # Gradients accumulate until the last micro-batch, the boundary, where they are averaged over the ranks.
                engine.set_gradient_accumulation_boundary(micro_step == self.batching.accumulation - 1)
                engine.backward(result.losses.sum())
                self.optimizer_step(losses)
                self.meter.add(result, num_clips=len(video))
                self.meter.utilization.add(call, len(video))

            reporting = (self.step + 1) % config.log.every == 0 or self.step + 1 == self.plan.total
            if reporting and world.device.type == "cuda":
                torch.cuda.synchronize()  # the clock must not stop before the GPU does
        if reporting:
            self.report()
        self.log.advance()

    def set_schedule(self) -> None:
        """Set this step's learning rate and EMA decay."""
        self.lr = learning_rate(self.step, self.plan.total, self.plan.warmup, self.config.optim.lr)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = self.lr * group["lr_scale"]
            group["ema_decay"] = ema.decay_of_step(self.step, self.config.optim.ema_decay)

    def optimizer_step(self, losses: Losses) -> None:
        """Update the weights at the accumulation boundary; before it, DeepSpeed only counts the micro-batch.

        Raises:
            FloatingPointError: gradients are not finite, on all ranks, before any weight has changed.
        """
        skipped_before = self.engine.skipped_steps
        try:
            self.engine.step()
        except NonFiniteGradients:
            raise FloatingPointError(non_finite_message(self.step, self.world.rank, losses, self.unit)) from None
        # DeepSpeed's sharding optimizers skip such steps silently. With fp16 this is how they find the loss scale.
        if self.config.runtime.precision != "fp16" and self.engine.skipped_steps > skipped_before:
            if not self.config.optim.skip_non_finite:
                raise FloatingPointError(non_finite_message(self.step, self.world.rank, losses, self.unit))
            self.guard.skipped += 1

    # ------------------------------------------------------------------------------------------------------------------
    # What follows a step

    def report(self) -> None:
        """Log the means over all ranks and the steps since the last report, or since the start of this process.

        ``skipped_steps`` counts from the start of this process, ``failed_videos`` from the start of the run.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        losses, statistics = self.meter.report()
        total = sum(losses)
        if not math.isfinite(total) and not self.config.optim.skip_non_finite:  # on all ranks
            raise FloatingPointError(
                f"step {self.step + 1}: the loss is {total}; the last checkpoint is older than this. Try a lower "
                "optim.lr or runtime.precision=fp32"
            )
        names = [name.replace("logits", "loss") for name in self.engine.module.supervised]
        values = {"loss": total, **dict(zip(names, losses, strict=True)), "lr": self.lr, **statistics}
        if (norm := self.engine.get_global_grad_norm()) is not None:  # before clipping
            values["grad_norm"] = float(norm)
        if self.guard.skipped:
            values["skipped_steps"] = self.guard.skipped

        self.record_failed_videos()
        if self.failed_videos.reasons:
            values["failed_videos"] = len(self.failed_videos.reasons)

        self.log.scalars(self.step + 1, "train", **values)
        self.log.status["loss"] = f"{total:.3f}"
        self.log.status["clips/s"] = f"{statistics['clips_per_second']:.1f}"
        self.log.status["data wait"] = f"{statistics['data_wait']:.0%}"

    def record_failed_videos(self) -> None:
        """List and print the videos that newly failed on any rank; collective.

        Raises:
            DataError: more than ``data.max_failed`` of the videos have failed.
        """
        if reasons := self.failed_videos.gather():
            self.log.print("\n".join(f"FAILED, replaced by another {self.unit}: {reason}" for reason in reasons))

    def evaluate(self) -> bool:
        """Draw attention maps and validate, whichever is due after this step; collective. Returns whether any was."""
        drawing = self.plan.due(self.step, self.config.log.attention_every_epochs)
        validating = self.plan.due(self.step, self.config.log.validate_every_epochs)
        if not (drawing or validating):
            return False
        model = self.evaluated_model()
        if drawing:
            self.task.draw(model, self.step, self.log)
        if validating:
            self.validate(model)
        return True

    def evaluated_model(self) -> nn.Module:
        """The model that is validated and drawn: the moving average of the weights, if there is one; collective."""
        if not self.config.optim.ema_decay:
            self.engine.eval()
            return self.engine
        averages = checkpointing.full_state_dict(self.engine, ema.KEY)
        return ema.averaged_copy(self.engine, build_on_meta(self.task.build_model), averages)

    def validate(self, model: nn.Module) -> None:
        """Score the validation videos; if the score is higher than every earlier one, write ``best/``; collective."""
        metric = self.task.metric
        scores = self.task.validate(model, self.step, self.log)
        if metric in scores:
            self.log.status["val"] = f"{metric} {scores[metric]:.1f}"
        score = scores.get(metric, 0.0)
        checkpointing.save_best(self.engine, self.run_dir, self.step, self.description, metric, score, self.world)
        # Logged last: after a kill, a validation that is not in the log is repeated.
        self.log.scalars(self.step, "val", **scores)

    def save(self) -> None:
        """Write a checkpoint and publish its model as the run's; collective."""
        self.record_failed_videos()  # a resumed run does not read the videos before this step again
        self.log.flush()
        checkpointing.save(self.engine, self.run_dir, self.step, self.description, self.config, self.world)
        self.mark_saved()

    def mark_saved(self) -> None:
        """Remember that the current step is saved, and what is reported when the run ends without saving again."""
        self.saved_step = self.step
        self.stop_request.saved = f"step {self.step} of {self.plan.total} is saved in {self.run_dir}"

    def close(self) -> None:
        """Close the log and leave the process group."""
        self.log.close()
        distributed.stop()
