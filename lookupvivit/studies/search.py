"""The settings that the variants of a study choose for themselves."""

from __future__ import annotations

import math
from typing import Any

from lookupvivit.config import ConfigError, RunConfig, require
from lookupvivit.studies.jobs import read_result
from lookupvivit.studies.plan import Job, Study, search_jobs, study_jobs


def chosen_settings(study: Study) -> dict[str, dict[str, Any]]:
    """The best setting of every variant whose trials are finished; a trial that diverged is never the best.

    Raises:
        ConfigError: all trials of a variant diverged, or their validation has no top-1 accuracy.
    """
    if study.search is None:
        return {}
    chosen = {}
    for name, jobs in search_jobs(study).items():
        if all(read_result(job) is not None for job in jobs):
            best = max(jobs, key=_score)
            if _score(best) == -math.inf:
                expected = f"a value of {study.search.key} with which {name} does not diverge"
                raise ConfigError(f"search.values: found {list(study.search.values)}, expected {expected}")
            chosen[name] = {study.search.key: best.settings[study.search.key]}
    return chosen


def known_jobs(study: Study) -> list[Job]:
    """The runs of the study whose settings are known, which are all without a search."""
    chosen = chosen_settings(study)
    return [job for job in study_jobs(study, chosen) if study.search is None or job.variant in chosen]


def require_scores(study: Study, config: RunConfig) -> None:
    """Raise ConfigError if trials with this configuration have no score, because they are not validated."""
    interval = config.log.validate_every_epochs
    require(study.search is None or interval > 0, "log.validate_every_epochs", interval, "more than 0 with a search")


def _score(job: Job) -> float:
    result = read_result(job)
    assert result is not None
    if result["validation"] is None:  # diverged
        return -math.inf
    if "top1" not in result["validation"]:
        raise ConfigError(f"{job.folder}: found several labels per video, expected one; studies compare top-1")
    return result["validation"]["top1"]
