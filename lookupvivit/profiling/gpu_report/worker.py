"""One process of one section, which `runner` starts with: SECTION FOLDER DEVICE DEADLINE [--dry-run]."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from data_pipelines.io.processes import end_with_parent
from lookupvivit.kernels import tuned
from lookupvivit.profiling.gpu_report.sections import SECTIONS, Section
from lookupvivit.profiling.gpu_report.state import (
    Context,
    DeviceLostError,
    SectionState,
    measure_items,
    result_file,
)
from lookupvivit.profiling.gpu_report.table import load_table

EXIT_DEVICE_LOST = 3  # a new process may continue


def run_section(section: Section, context: Context, deadline: float) -> SectionState:
    """Measure items of a section until ``deadline`` (`time.monotonic`); returns all results so far.

    Raises:
        DeviceLostError: see `measure_items`; the results so far are in the file.
    """
    file = result_file(context.folder, section.name)
    state = SectionState.load(file, context.conditions())
    with tuned.use_table(load_table(context)):
        measure_items(section.items(context), state, file, deadline)
    return state


def main() -> None:
    """The new process; its arguments are in ``sys.argv``."""
    end_with_parent()
    parser = argparse.ArgumentParser()
    parser.add_argument("section", choices=[section.name for section in SECTIONS])
    parser.add_argument("folder", type=Path)
    parser.add_argument("device", type=torch.device)
    parser.add_argument("deadline", type=float)  # the same clock in all processes of a machine
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    [section] = [section for section in SECTIONS if section.name == arguments.section]
    context = Context(arguments.device, arguments.folder, arguments.dry_run)
    try:
        run_section(section, context, arguments.deadline)
    except DeviceLostError as error:
        print(f"{section.name}: {error}", file=sys.stderr)
        sys.exit(EXIT_DEVICE_LOST)
