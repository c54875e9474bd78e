"""Run the jobs of a study in processes of their own, several at a time."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from data_pipelines.io.atomic import write_json
from data_pipelines.io.cores import num_workers
from data_pipelines.io.errors import DataError
from data_pipelines.io.json_files import SMALL_BYTES, read_json
from data_pipelines.io.progress import progress
from data_pipelines.io.text import numbered_lines
from lookupvivit.config import ConfigError, RunConfig
from lookupvivit.config.loading import changes, load_config, to_dict
from lookupvivit.config.yaml_files import dump_yaml
from lookupvivit.evaluation.run_summary import last_validation
from lookupvivit.models.base import Model
from lookupvivit.models.token_settings import check_token_setting
from lookupvivit.profiling.flops import UncountedOperatorError, count_cost
from lookupvivit.sizes import Size, TokenSetting, format_size
from lookupvivit.studies.plan import Job
from lookupvivit.training.build import build_model, build_on_meta
from lookupvivit.training.failure_watch import DIVERGED_STATUS
from lookupvivit.training.run_directory import CONFIG

RESULT, OUTPUT = "study_job.json", "output.txt"  # in the run directory
_TRACING = threading.Lock()  # torch traces one model at a time
SPEED = ("threads", "compile", "activation_checkpointing", "offload_optimizer", "zero_stage")
READING = ("workers", "backend", "decode_seconds", "max_pixels", "max_failed")
# Settings that do not change the results. Runs may be moved to another folder, but a dataset elsewhere may be another.
NOT_COMPARED = (
    "output_dir:",
    "log.",
    "eval.batch_size:",
    "eval.save_seconds:",
    *(f"runtime.{key}:" for key in SPEED),
    *(f"data.{key}:" for key in READING),
)
SECONDS_TO_SAVE = 120.0  # that a run has for its checkpoint when the study is stopped


class JobError(RuntimeError):
    """A training or test process failed; one line with its last output."""


class DivergedError(JobError):
    """A training ended because its loss or gradients were not finite."""


@dataclass
class JobRunner:
    """Runs jobs, `parallel` at a time.

    Attributes:
        base: configuration of all jobs.
        train, test: commands, to which ``--cfg FILE key=value ...`` is appended.
        parallel: number of jobs at a time, which share the processor cores.
    """

    base: Path
    train: Sequence[str]
    test: Sequence[str]
    parallel: int = 1
    _children: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _starting: threading.Lock = field(default_factory=threading.Lock)  # held while `_children` may change
    _is_stopping: bool = False
    _gpus: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)  # one for each run at a time

    def run(
        self, jobs: Sequence[Job], sizes: Sequence[TokenSetting], description: str, testing: bool = True
    ) -> list[str]:
        """Run every job that is not finished.

        Args:
            sizes: compressed sizes and kept tokens of further tests.
            description: label of the progress bar.
            testing: test each run after its training.

        Returns:
            One line per failed job; the others are finished.
        """
        failures = []
        gpus = _visible_gpus()
        self._gpus = queue.SimpleQueue()
        for slot in range(self.parallel if gpus else 0):
            self._gpus.put(gpus[slot % len(gpus)])
        with ThreadPoolExecutor(self.parallel) as pool, progress(total=len(jobs), unit="run", desc=description) as bar:
            futures: dict[Future[None], Job] = {
                pool.submit(self._run_job, job, sizes if testing else None): job for job in jobs
            }
            try:
                for future in as_completed(futures):
                    if (error := future.exception()) is not None:
                        if not isinstance(error, JobError | ConfigError | DataError):
                            raise error
                        failures.append(f"{futures[future].folder}: {error}")
                        bar.write(failures[-1])
                    bar.update()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._stop_children()
                raise
        return failures

    def _run_job(self, job: Job, sizes: Sequence[TokenSetting] | None) -> None:
        """Train, unless it is done, and run the tests that are missing; ``sizes`` None: a trial, without tests."""
        result = read_result(job)
        if result is None:
            result = self._train(job, may_diverge=sizes is None)
        if sizes is None:
            return
        for tokens in missing_tests(job, self.base, result, sizes):
            overrides = [*job.overrides, *_test_overrides(tokens)]
            self._start([*self.test, "--cfg", str(self.base), *overrides], job.folder)
            result["tests"].append(_test_result(load_config(self.base, overrides), tokens == TokenSetting()))
            write_json(job.folder / RESULT, result)

    def _train(self, job: Job, may_diverge: bool) -> dict[str, Any]:
        """Train and store the result, without tests."""
        job.folder.mkdir(parents=True, exist_ok=True)
        is_resumed = (job.folder / "log.jsonl").is_file()  # of an earlier call, whose time is not known
        start = time.monotonic()
        diverged = False
        try:
            self._start([*self.train, "--cfg", str(self.base), *job.overrides], job.folder)
        except DivergedError:
            if not may_diverge:
                raise
            diverged = True
        seconds = None if is_resumed else round(time.monotonic() - start, 1)
        validation = None if diverged else last_validation(job.folder / "log.jsonl")
        result = {"settings": job.settings, "seed": job.seed, "validation": validation}
        result |= {"training_seconds": seconds, "tests": []}
        write_json(job.folder / RESULT, result)
        return result

    def _start(self, command: Sequence[str], folder: Path) -> None:
        """Run a command to its end, on a GPU of its own if there are enough; ``folder`` receives its output."""
        gpu = None if self._gpus.empty() else self._gpus.get()
        try:
            status = self._run(command, folder, {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})
        finally:
            if gpu:
                self._gpus.put(gpu)
        if status:
            lines = [line for _, line in numbered_lines(folder / OUTPUT)]
            last = " ".join(lines[-1].split()) if lines else "no output"
            error = DivergedError if status == DIVERGED_STATUS else JobError
            raise error(f"exit status {status}: {last} (all output: {folder / OUTPUT})")

    def _run(self, command: Sequence[str], folder: Path, devices: dict[str, str]) -> int:
        defaults = {"OMP_NUM_THREADS": str(max(1, num_workers() // self.parallel))}
        # PYTHONSAFEPATH: -m would import from the current folder.
        environment = {**defaults, **os.environ, **devices, "PYTHONSAFEPATH": "1"}
        with (folder / OUTPUT).open("ab") as output:
            with self._starting:
                if self._is_stopping:
                    raise JobError("not started, because the study was stopped")
                child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
                )
                self._children.add(child)
            status = child.wait()
            with self._starting:
                self._children.discard(child)
        return status

    def _stop_children(self) -> None:
        """Ask all runs to save and end."""
        with self._starting:
            self._is_stopping = True
            children = list(self._children)
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(SECONDS_TO_SAVE)
            except subprocess.TimeoutExpired:
                child.kill()


def read_result(job: Job) -> dict[str, Any] | None:
    """What a finished job has stored; None if it is not finished.

    Raises:
        ConfigError: the folder holds a run with other settings.
    """
    if not (job.folder / RESULT).is_file():
        return None
    result = read_json(job.folder / RESULT, dict, max_bytes=SMALL_BYTES)
    if result["settings"] != job.settings:
        before, now = (dump_yaml(settings).split() for settings in (result["settings"], job.settings))
        raise ConfigError(
            f"{job.folder}: found a run with the settings {' '.join(before)}, expected {' '.join(now)}; use another "
            "output_dir"
        )
    return result


def require_same_settings(job: Job, config: RunConfig) -> None:
    """Raise ConfigError if the job is finished, but was trained when the base configuration had other settings."""
    file = job.folder / CONFIG
    if not ((job.folder / RESULT).is_file() and file.is_file()):
        return
    before, now = to_dict(load_config(file)), to_dict(config)
    different = [line for line in changes(before, now) if not line.startswith(NOT_COMPARED)]
    if different:
        found = "; ".join(different)
        raise ConfigError(f"{job.folder}: found a run with other settings ({found}); use another output_dir")


def missing_tests(job: Job, base: Path, result: dict[str, Any], sizes: Sequence[TokenSetting]) -> list[TokenSetting]:
    """Tests of a trained run that are not done: at its own size, and at those of ``sizes`` that the model supports."""
    config = job.config(base)
    done, own_size = {test["compressed_size"] for test in result["tests"]}, _own_size(config)
    return [tokens for tokens in supported_sizes(config, sizes) if full_setting(own_size, tokens) not in done]


def supported_sizes(config: RunConfig, sizes: Sequence[TokenSetting]) -> list[TokenSetting]:
    """The model's own size with all tokens, and those of ``sizes`` with which it can be called."""
    model = build_on_meta(lambda: build_model(config))
    supported = [TokenSetting()]
    for tokens in sizes:
        if tokens.compressed_size == getattr(model, "compressed_size", None):
            tokens = tokens._replace(compressed_size=None)
        try:
            check_token_setting(model, tokens)
        except ValueError:
            continue
        if tokens not in supported:
            supported.append(tokens)
    return supported


def _test_overrides(tokens: TokenSetting) -> list[str]:
    """Settings of a test with these numbers of tokens."""
    size = [f"eval.compressed_size={format_size(tokens.compressed_size)}"] if tokens.compressed_size else []
    return [*size, f"eval.keep={tokens.keep}"] if tokens.keep else size


def _visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs that the study may use."""
    chosen, count = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()
    return chosen.split(",")[:count] if chosen else [str(index) for index in range(count)]


def _gflops(model: Model, call: dict[str, Any]) -> float | None:
    """Multiply-adds of a view, in G; None if the cost of an operator is unknown."""
    with _TRACING:
        try:
            return count_cost(model, (1, 3, *model.input_size), **call).macs / 1e9
        except UncountedOperatorError:
            return None


def _own_size(config: RunConfig) -> Size | None:
    return getattr(build_on_meta(lambda: build_model(config)), "compressed_size", None)


def full_setting(own_size: Size | None, tokens: TokenSetting) -> str | None:
    """What results call a test: the setting with the model's own size where it states none; None: the whole model."""
    return str(tokens._replace(compressed_size=tokens.compressed_size or own_size)) or None


def _test_result(config: RunConfig, is_own_size: bool) -> dict[str, Any]:
    """Numbers of tokens, cost and scores of a finished test."""
    tokens, views = config.eval.tokens, f"{config.eval.clips}x{config.eval.crops}"
    file = Path(config.output_dir) / "predictions" / f"{config.eval.result_name}.json"
    summary = read_json(file, dict, max_bytes=SMALL_BYTES)
    if "top1" not in summary["views"][views]:
        raise ConfigError(f"{config.output_dir}: found several labels per video, expected one; studies compare top-1")
    model = build_on_meta(lambda: build_model(config))
    return {
        "compressed_size": full_setting(getattr(model, "compressed_size", None), tokens),
        "is_own_size": is_own_size,
        "gflops": _gflops(model, tokens.call),
        "views": views,
        "videos": summary["videos"],
        "top1": summary["views"][views]["top1"],
    }
