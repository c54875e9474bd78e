"""Train and test variants of a configuration with several seeds; `tools/study.py`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.io.atomic import write_json, write_text
from data_pipelines.io.processes import python_command
from lookupvivit.cli.arguments import positive_int
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.config_program import require_output_dir
from lookupvivit.cli.errors import one_line_errors

if TYPE_CHECKING:
    from lookupvivit.config import RunConfig
    from lookupvivit.studies.plan import Job, Study


@ends_quietly()
def main() -> None:
    """Run what is not finished, and write the results of what is."""
    arguments = parse_args()
    from lookupvivit.studies.jobs import JobRunner
    from lookupvivit.studies.plan import base_of, read_study, search_jobs
    from lookupvivit.studies.search import known_jobs

    with one_line_errors("the same command continues; finished runs are kept"):
        study = read_study(arguments.study)
        train, test = (python_command(f"from lookupvivit.cli.{name} import main; main()") for name in ("train", "test"))
        runner = JobRunner(base_of(study, arguments.study), train, test, arguments.jobs)
        require_output_dir(study.output_dir)
        unfinished = unfinished_configs(study, runner.base)
        failures: list[str] = []
        if not arguments.report:
            render_datasets(unfinished)
            searches = [job for jobs in search_jobs(study).values() for job in jobs]
            failures = runner.run(searches, (), "search", testing=False) if searches else []
        jobs = known_jobs(study)
        if not (arguments.report or failures):
            failures = runner.run(jobs, study.test_sizes, "study")
        write_results(study, jobs)
    if failures:
        sys.exit(1)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train and test variants of a configuration with several seeds.")
    parser.add_argument("study", type=Path, metavar="FILE", help="a YAML file, described in docs/EVALUATION.md")
    help = "runs at a time, which share the processor cores (default: 1)"
    parser.add_argument("--jobs", type=positive_int, default=1, metavar="N", help=help)
    help = "write the results of the finished runs without starting others"
    parser.add_argument("--report", action="store_true", help=help)
    return parser.parse_args()


def unfinished_configs(study: Study, base: Path) -> list[RunConfig]:
    """Build all configurations, so that a mistake shows before hours of training; return those of unfinished runs.

    Raises:
        ConfigError: a mistake in a variant, or a finished run with other settings than now.
    """
    from lookupvivit.studies.jobs import missing_tests, read_result, require_same_settings
    from lookupvivit.studies.plan import search_jobs, study_jobs
    from lookupvivit.studies.search import known_jobs, require_scores

    searches, known = [job for jobs in search_jobs(study).values() for job in jobs], known_jobs(study)
    unfinished = {job.folder: job.config(base) for job in [*study_jobs(study, {}), *searches, *known]}
    for job in [*searches, *known]:
        config = unfinished[job.folder]
        require_scores(study, config)
        require_same_settings(job, config)
        result = read_result(job)
        if result is not None and (job in searches or not missing_tests(job, base, result, study.test_sizes)):
            del unfinished[job.folder]
    return list(unfinished.values())


def render_datasets(configs: Sequence[RunConfig]) -> None:
    """Render the camera_motion datasets before the runs, which start at the same time and would all render them."""
    from lookupvivit.training.manifests import render_camera_motion

    for config in {config.data.root: config for config in configs if config.data.dataset == "camera_motion"}.values():
        render_camera_motion(config)


def write_results(study: Study, jobs: list[Job]) -> None:
    """Write the results as JSON, CSV, Markdown and a figure, and print the table."""
    import torch

    from lookupvivit.profiling.timing import describe_machine
    from lookupvivit.studies.jobs import read_result
    from lookupvivit.studies.plan import search_jobs
    from lookupvivit.studies.results import collect, to_csv, to_markdown
    from lookupvivit.visualization.canvas import save_png

    rows = collect(study, jobs)
    if not rows:
        print("no run is finished")
        return
    from lookupvivit.studies.figure import study_figure

    folder = Path(study.output_dir)
    machine = describe_machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    searches = [job for jobs in search_jobs(study).values() for job in jobs]
    stored = [result | {"variant": job.variant} for job in [*searches, *jobs] if (result := read_result(job))]
    write_json(folder / "results.json", {"study": study.model_dump(), "machine": machine, "runs": stored})
    write_text(folder / "results.csv", to_csv(rows))
    table = to_markdown(study, rows, machine)
    write_text(folder / "results.md", table)
    save_png(folder / "results.png", study_figure(study, rows))
    finished = sum(bool((result := read_result(job)) and result["tests"]) for job in jobs)
    print(f"{table}\n{finished} of {len(jobs)} runs are finished; saved {folder}/results.md, .csv, .json and .png")


if __name__ == "__main__":
    main()
