"""Run the sections within a time limit, each in a process of its own: one that hangs or crashes ends alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from data_pipelines.io.processes import python_command
from lookupvivit.profiling.gpu_report import worker
from lookupvivit.profiling.gpu_report.sections import SECTIONS, Section
from lookupvivit.profiling.gpu_report.state import Context, SectionState, result_file

FAIR_SECONDS = 60.0  # a process that is killed after less may have interrupted a slow but healthy item
MIN_SECONDS = 5.0  # too little to start a process for

Report = Callable[[str], object]


def run_report(
    context: Context,
    seconds: float,
    report: Report = print,
    sections: Sequence[Section] = SECTIONS,
    in_process: bool = False,
) -> dict[str, SectionState]:
    """Continue a report for at most ``seconds``; returns the results so far by section.

    Args:
        report: receives a line per section that was continued.
        in_process: start no processes.
    """
    end = time.monotonic() + seconds
    for _ in range(2):  # the second time with the seconds that later sections left unused
        for i, section in enumerate(sections):
            remaining = [other for other in sections[i:] if not _state(context, other).complete]
            left = end - time.monotonic()
            if section not in remaining or left < MIN_SECONDS:
                continue
            budget = left * section.seconds / sum(other.seconds for other in remaining)
            if in_process:
                worker.run_section(section, context, time.monotonic() + budget)
            else:
                _run_processes(section, context, budget)
            state = _state(context, section)
            section.finish(context, state.results)  # here, because a process may have been killed
            report(_describe(section, state))
    return {section.name: _state(context, section) for section in sections}


def _state(context: Context, section: Section) -> SectionState:
    return SectionState.load(result_file(context.folder, section.name), context.conditions())


def _describe(section: Section, state: SectionState) -> str:
    failed = sum("error" in result for result in state.results.values())
    status = "complete" if state.complete else "not complete"
    errors = f", {failed} with an error" if failed else ""
    return f"{section.name}: {status}, {len(state.results)} results{errors}, {state.seconds:.0f} s"


def _run_processes(section: Section, context: Context, seconds: float) -> None:
    """Start processes of a section until one ends by itself: one that crashed in an item is followed by another."""
    end, before = time.monotonic() + seconds, None
    while (left := end - time.monotonic()) > MIN_SECONDS and (attempts := _state(context, section).attempts) != before:
        before = attempts
        if _run_process(section, context, left) == 0:
            return


def _run_process(section: Section, context: Context, seconds: float) -> int:
    """Run one process for at most ``seconds``; returns its exit status."""
    deadline = time.monotonic() + seconds
    arguments = [section.name, str(context.folder), str(context.device), str(deadline)]
    command = python_command(f"from {worker.__name__} import main; main()", *arguments)
    process = subprocess.Popen(command + ["--dry-run"] * context.dry_run, start_new_session=True)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        if seconds < FAIR_SECONDS:
            _take_back_attempts(section, context)
        return 0  # out of time: the next report continues
    finally:
        if process.poll() is None:  # its own children, such as compilers, end with it
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _take_back_attempts(section: Section, context: Context) -> None:
    """Do not count the attempts of items that have no result, because the process had little time."""
    state = _state(context, section)
    for key in state.attempts.keys() - state.results.keys():
        state.attempts[key] = max(0, state.attempts[key] - 1)
    state.save(result_file(context.folder, section.name))
