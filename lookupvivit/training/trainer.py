"""The training loop."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_pipelines.loader import TrainingOrder, train_loader
from data_pipelines.random_streams import COMPRESSED_SIZE
from data_pipelines.transforms.normalization import normalize
from lookupvivit.config import RunConfig
from lookupvivit.config.loading import changes, read_yaml, to_dict, to_yaml
from lookupvivit.training import checkpointing, distributed, ema
from lookupvivit.training.build import build_model, dtype_on, initialize, shapes_only, start_from, training_facts
from lookupvivit.training.data import Batching, Plan
from lookupvivit.training.distributed import World
from lookupvivit.training.failed_videos import BrokenVideos
from lookupvivit.training.logging import RunLog, Stopwatch
from lookupvivit.training.optimizer import FiniteSteps, NonFiniteGradients, learning_rate
from lookupvivit.training.signals import StoppedBySignal, StopRequest
from lookupvivit.training.tasks import Task, task_of
from lookupvivit.training.utilization import Utilisation, peak_memory
from lookupvivit.weights.files import load_weights


def train(config: RunConfig) -> None:
    """Run a configuration from wherever it stands to its end."""
    world = distributed.start(config.runtime.threads)
    stop = StopRequest()
    dtype_on(config, world)
    run = Path(config.output_dir)
    distributed.require_shared(run, world)
    checkpoint = checkpointing.newest_sound(run, world)
    model = starting_model(config, world, resumes=checkpoint is not None)  # before the data is read, which takes longer
    task = task_of(config, world)
    repeats = config.data.repeats
    order = TrainingOrder(task.samples, config.optim.batch_size // repeats, config.seed)
    batching, plan = Batching.of(config, world), Plan.of(config, order)

    dataset = task.training_set()
    description = task.description() | {"training": training_facts(config, task.samples)}
    if checkpoint:
        checkpointing.require_same(checkpoint, run, description)
        load_weights(model, checkpoint)
    engine, steps = initialize(model, config, batching, world)
    step = checkpointing.resume(engine, checkpoint, description, world) if checkpoint else 0
    if world.is_main:
        write_config(config, run, finished=step >= plan.total)
        print(
            f"{batching}; {plan.total} steps, {plan.steps_per_epoch} per epoch; {config.runtime.precision}, "
            f"ZeRO {config.runtime.zero_stage}, on {world.device.type}"
        )
        print(progress_note(step, plan, run, config.init_from))

    loader = train_loader(
        dataset,
        order,
        step,
        plan.total,
        world.rank,
        world.size,
        batching.micro_batch // repeats,
        batching.accumulation,
        config.data.workers,
    )
    broken = BrokenVideos(run / "broken_videos.txt", task.samples, config.data.max_broken, world)
    loop = Loop(config, engine, plan, batching, world, RunLog(run, step, plan.total, world), broken, steps, task)

    def look(step: int) -> None:
        showing = plan.due(step, config.log.attention_every_epochs)
        validating = plan.due(step, config.log.validate_every_epochs)
        model = evaluated_model(engine, config) if showing or validating else engine
        if showing:
            task.show(model, step, loop.log, run)
        if validating:
            scores = task.validate(model, step, loop.log)
            if task.metric in scores:
                loop.shown["val"] = f"{task.metric} {scores[task.metric]:.1f}"
            checkpointing.save_best(engine, run, step, description, task.metric, scores.get(task.metric, 0.0), world)
            loop.log.scalars(step, "val", **scores)  # last: what was not told is done again after a kill

    if step and world.any(not loop.log.validated):
        look(step)  # the run was killed between its checkpoint and this
    micro_batches = iter(loader)
    while step < plan.total:
        loop.step(step, micro_batches)
        step += 1
        stopping = world.any(bool(stop.name))  # of all ranks, or their collectives would not meet
        if stopping or plan.due(step, config.log.checkpoint_every_epochs):
            loop.log.flush()
            checkpointing.save(engine, run, step, description, config.log.keep_checkpoints, world)
        if stopping:
            loop.log.close()
            distributed.stop()
            raise StoppedBySignal(f"{stop.name or 'another rank'}: saved step {step} of {plan.total} in {run}")
        look(step)
    loop.log.close()
    distributed.stop()


def starting_model(config: RunConfig, world: World, resumes: bool) -> torch.nn.Module:
    """The model as a run from scratch starts it; one that resumes finds its weights later."""
    torch.manual_seed(config.seed)  # the same weights on every rank
    model = build_model(config)
    if config.init_from and not resumes:
        report = start_from(model, config)
        if world.is_main:
            print(f"init_from {config.init_from}: {report}")
    elif config.data.has_captions and not resumes and world.is_main:
        print("NOTE: no init_from is given, so the encoder is frozen at random weights")
    return model


def compressed_size_of_step(config: RunConfig, step: int) -> dict[str, Any]:
    """The call's ``compressed_size`` in multi-resolution training, drawn for the whole global batch of a step.

    One size per batch as in section 4 of the paper; keyed on seed and step like FlexiViT, so that it is the same on
    every rank and after a resume.
    """
    sizes = config.model.multi_resolution
    if sizes is None:
        return {}
    rng = np.random.default_rng((config.seed, step, COMPRESSED_SIZE))
    t, k = (int(rng.choice(sizes[axis])) for axis in ("t", "k"))
    return {"compressed_size": (t, k, k)}


def write_config(config: RunConfig, run: Path, finished: bool) -> None:
    """``run/config.yaml``; of a run that goes on or is finished, what the command has changed since is told.

    A finished run's is left as it is: it tells how the weights came about.
    """
    file = run / "config.yaml"
    if file.exists():
        differing = changes(read_yaml(file), to_dict(config))
        what = "NOT used, the run is finished" if finished else "changed since the run began"
        if differing:
            print(f"settings {what}: {'; '.join(differing)}")
        if finished:
            return
    run.mkdir(parents=True, exist_ok=True)
    (run / ".config.yaml.tmp").write_text(to_yaml(config), encoding="utf-8")
    os.replace(run / ".config.yaml.tmp", file)


def progress_note(step: int, plan: Plan, run: Path, init_from: str | None) -> str:
    """Where a run stands when it starts."""
    if step >= plan.total:
        return f"{run} is already finished ({step} steps); give another output_dir to train anew"
    note = f"resuming from step {step} of {plan.total}" if step else f"starting from {init_from or 'scratch'} in {run}"
    if plan.warmup > plan.total:
        note += f"; note: the warmup of {plan.warmup} steps is longer than the run, optim.lr is never reached"
    return note


def evaluated_model(engine: Any, config: RunConfig) -> torch.nn.Module:
    """What is validated and shown: the weights' moving average where there is one; collective."""
    if not config.optim.ema_decay:
        engine.eval()  # DeepSpeed's returns nothing
        return engine
    averages = checkpointing.full_state(engine, ema.STATE)
    return ema.averaged_copy(engine, shapes_only(config), averages)


class Loop:
    """One optimizer step after the other, and what is told of them."""

    def __init__(
        self,
        config: RunConfig,
        engine: Any,
        plan: Plan,
        batching: Batching,
        world: World,
        log: RunLog,
        broken: BrokenVideos,
        steps: FiniteSteps,
        task: Task,
    ) -> None:
        self.config, self.engine, self.plan, self.batching, self.task = config, engine, plan, batching, task
        self.world, self.log, self.watch, self.broken, self.steps = world, log, Stopwatch(), broken, steps
        self.losses: list[Tensor] = []
        self.shown: dict[str, str] = {}  # beside the progress bar
        self.utilisation = Utilisation(shapes_only(config), config, world)

    def step(self, step: int, micro_batches: Iterator[dict[str, Any]]) -> None:
        """One optimizer step: ``accumulation`` micro-batches forward and backward, then the update."""
        config, engine, device = self.config, self.engine, self.world.device
        # Keyed on the step, so that a resumed run draws what the uninterrupted one would have drawn.
        rng = np.random.default_rng((config.seed, step, self.world.rank))
        torch.manual_seed(int(rng.integers(2**63)))  # drop path
        rate = learning_rate(step, self.plan.total, self.plan.warmup, config.optim.lr)
        for group in engine.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
            group["ema_decay"] = ema.decay_of_step(step, config.optim.ema_decay)
        engine.train()
        call = compressed_size_of_step(config, step)
        self.utilisation.note(call, self.batching.accumulation * self.batching.micro_batch)
        with self.watch.step():
            samples: list[tuple[list[str], Tensor]] = []
            for _ in range(self.batching.accumulation):
                batch = self.watch.waiting(micro_batches)
                self.broken.note(batch["broken"])
                video = normalize(batch["video"].to(device, non_blocking=True), next(engine.parameters()).dtype)
                per_head = self.task.loss(engine, video, batch, call, rng)
                samples.append((batch["video_name"], per_head.detach()))
                engine.backward(per_head.sum())
                self.update(step, samples)  # at the last micro-batch only
                self.losses.append(per_head.detach())
                self.watch.clips += len(video) * self.world.size
            reporting = (step + 1) % config.log.every == 0 or step + 1 == self.plan.total
            if reporting and device.type == "cuda":
                torch.cuda.synchronize()  # else the clock would stop before the work is done
        if reporting:
            self.report(step + 1, rate)
        self.log.advance(**self.shown)

    def update(self, step: int, samples: list[tuple[list[str], Tensor]]) -> None:
        """The optimizer's step, unless gradients are no numbers.

        Raises:
            FloatingPointError: they are not, on all ranks, before a weight has moved.
        """
        skipped = self.engine.skipped_steps
        try:
            self.engine.step()
        except NonFiniteGradients:
            raise FloatingPointError(self.culprits(step, samples)) from None
        # DeepSpeed's sharding optimizers leave such steps out by themselves; with fp16, to find the loss scale.
        if self.config.runtime.precision != "fp16" and self.engine.skipped_steps > skipped:
            if not self.config.optim.skip_non_finite:
                raise FloatingPointError(self.culprits(step, samples))
            self.steps.skipped += 1

    def culprits(self, step: int, samples: list[tuple[list[str], Tensor]]) -> str:
        """Step, rank and the samples whose loss is no number, or all of them where every loss is one."""
        bad = [(names, loss) for names, loss in samples if not loss.isfinite().all()]
        loss = float((bad or samples)[-1][1].sum())
        names = [name for names, _ in bad or samples for name in names]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        return (
            f"step {step + 1}, rank {self.world.rank}: gradients are not finite (loss {loss:.4g}); no weight was "
            f"moved, and the last checkpoint is from before. Samples: {shown}. Try a lower optim.lr, "
            "runtime.precision=fp32 or optim.skip_non_finite=true"
        )

    def report(self, step: int, rate: float) -> None:
        """Log means over all ranks and the steps since the last report; stop where the loss is no longer a number."""
        per_head = self.world.mean(torch.stack(self.losses).mean(dim=0)).tolist()
        self.losses.clear()
        loss = sum(per_head)
        if not math.isfinite(loss) and not self.config.optim.skip_non_finite:  # of all ranks, so all of them stop
            raise FloatingPointError(
                f"step {step}: the loss is {loss}; the last checkpoint is from before. Try a lower optim.lr or "
                "runtime.precision=fp32"
            )
        if news := self.broken.gather():
            self.log.say("\n".join(f"BROKEN, another video stands in: {reason}" for reason in news))
        mfu = self.utilisation.report(self.watch.elapsed)
        clips, waiting = self.watch.report()
        names = (name.replace("logits", "loss") for name in self.engine.module.supervised)
        values = {"loss": loss, **dict(zip(names, per_head, strict=True)), "lr": rate}
        values |= {"clips_per_second": clips, "data_wait": waiting, "mfu": mfu}
        values["memory"] = peak_memory(self.world.device)
        if (norm := self.engine.get_global_grad_norm()) is not None:  # of the whole step, before clipping
            values["grad_norm"] = float(norm)
        if self.steps.skipped:
            values["skipped_steps"] = self.steps.skipped
        if self.broken.seen:
            values["broken_videos"] = len(self.broken.seen)
        self.log.scalars(step, "train", **values)
        self.shown |= {"loss": f"{loss:.3f}", "clips/s": f"{clips:.1f}", "data wait": f"{waiting:.0%}"}
