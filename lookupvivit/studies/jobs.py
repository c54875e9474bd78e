"""Run the jobs of a study in processes of their own, several at a time."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from lookupvivit.profiling.flops import count_cost
from lookupvivit.sizes import Size, TokenSetting, format_size
from lookupvivit.studies.plan import Job
from lookupvivit.training.build import build_model, build_on_meta
from lookupvivit.training.run_directory import CONFIG

RESULT, OUTPUT = "study_job.json", "output.txt"  # in the run directory
_TRACING = threading.Lock()  # torch traces one model at a time
NOT_COMPARED = ("log.", "runtime.", "data.workers:", "eval.batch_size:")  # settings that do not change what is learned
SECONDS_TO_SAVE = 120.0  # that a run has for its checkpoint when the study is stopped


class JobError(RuntimeError):
    """A training or test process failed; one line with its last output."""


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
    _is_stopping: bool = False

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
        """Train, unless it is done, and run the tests that are missing; ``sizes`` None: no tests."""
        result = read_result(job)
        if result is None:
            result = self._train(job)
        if sizes is None:
            return
        config = job.config(self.base)
        for tokens in missing_tests(config, result, sizes):
            self._start([*self.test, *self._arguments(job), *_test_overrides(tokens)], job.folder)
            result["tests"].append(_test_result(config, tokens))
            write_json(job.folder / RESULT, result)

    def _train(self, job: Job) -> dict[str, Any]:
        """Train and store the result, without tests."""
        job.folder.mkdir(parents=True, exist_ok=True)
        is_resumed = (job.folder / "log.jsonl").is_file()  # of an earlier call, whose time is not known
        start = time.monotonic()
        self._start([*self.train, *self._arguments(job)], job.folder)
        seconds = None if is_resumed else round(time.monotonic() - start, 1)
        result = {"settings": job.settings, "seed": job.seed, "validation": last_validation(job.folder / "log.jsonl")}
        result |= {"training_seconds": seconds, "tests": []}
        write_json(job.folder / RESULT, result)
        return result

    def _arguments(self, job: Job) -> list[str]:
        return ["--cfg", str(self.base), *job.overrides]

    def _start(self, command: Sequence[str], folder: Path) -> None:
        """Run a command to its end; its output goes to a file in ``folder``."""
        if self._is_stopping:
            raise JobError("not started, because the study was stopped")
        defaults = {"OMP_NUM_THREADS": str(max(1, num_workers() // self.parallel))}
        environment = {**defaults, **os.environ, "PYTHONSAFEPATH": "1"}  # -m would import from the current folder
        with (folder / OUTPUT).open("ab") as output:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
            self._children.add(child)
            status = child.wait()
            self._children.discard(child)
        if status:
            lines = [line for _, line in numbered_lines(folder / OUTPUT)]
            last = " ".join(lines[-1].split()) if lines else "no output"
            raise JobError(f"exit status {status}: {last} (all output: {folder / OUTPUT})")

    def _stop_children(self) -> None:
        """Ask all runs to save and end."""
        self._is_stopping = True
        for child in list(self._children):
            child.terminate()
        for child in list(self._children):
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


def missing_tests(config: RunConfig, result: dict[str, Any], sizes: Sequence[TokenSetting]) -> list[TokenSetting]:
    """Tests of a trained run that are not done: at its own size, and at those of ``sizes`` that the model supports."""
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


def _gflops(model: Model, call: dict[str, Any]) -> float:
    with _TRACING:
        return count_cost(model, (1, 3, *model.input_size), **call).macs / 1e9


def _own_size(config: RunConfig) -> Size | None:
    return getattr(build_on_meta(lambda: build_model(config)), "compressed_size", None)


def full_setting(own_size: Size | None, tokens: TokenSetting) -> str | None:
    """What results call a test: the setting with the model's own size where it states none; None: the whole model."""
    return str(tokens._replace(compressed_size=tokens.compressed_size or own_size)) or None


def _test_result(config: RunConfig, tokens: TokenSetting) -> dict[str, Any]:
    """Numbers of tokens, cost and scores of a finished test."""
    views = f"{config.eval.clips}x{config.eval.crops}"
    name = views + tokens.file_suffix
    summary = read_json(Path(config.output_dir) / "predictions" / f"{name}.json", dict, max_bytes=SMALL_BYTES)
    if "top1" not in summary["views"][views]:
        raise ConfigError(f"{config.output_dir}: found several labels per video, expected one; studies compare top-1")
    model = build_on_meta(lambda: build_model(config))
    return {
        "compressed_size": full_setting(getattr(model, "compressed_size", None), tokens),
        "is_own_size": tokens == TokenSetting(),
        "gflops": _gflops(model, tokens.call),
        "views": views,
        "videos": summary["videos"],
        "top1": summary["views"][views]["top1"],
    }
