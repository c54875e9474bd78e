"""The result file of one section: written after every item, so that a report can be interrupted and continued."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from data_pipelines.io.atomic import write_json
from lookupvivit import kernels
from lookupvivit.kernels import tuned
from lookupvivit.profiling.timing import describe_machine

ATTEMPTS = 2  # an item that ended its process, or did not end, so often is given up

Result = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """Where and how a report runs.

    Attributes:
        device: what is measured.
        folder: of the result files.
        dry_run: tiny shapes and few rounds, to test the report itself.
    """

    device: torch.device
    folder: Path
    dry_run: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Of what is measured; Triton's interpreter is slower still with bfloat16."""
        return torch.float32 if self.dry_run else torch.bfloat16

    @property
    def capability(self) -> int:
        """Compute capability times ten; 80 for a CPU."""
        if self.device.type != "cuda":
            return 80
        major, minor = torch.cuda.get_device_capability(self.device)
        return 10 * major + minor

    def conditions(self) -> dict[str, Any]:
        """What results depend on: those of other conditions are not continued."""
        return {
            "device": tuned.device_name(self.device),
            "machine": describe_machine(self.device),
            "software": software(),
            "kernels": _source_hash(),
            "dry_run": self.dry_run,
        }


@dataclass(frozen=True)
class Item:
    """One measurement.

    Attributes:
        key: its name in the result file.
        measure: returns JSON types; an exception becomes ``{"error": ...}``.
    """

    key: str
    measure: Callable[[], Result]


@dataclass
class SectionState:
    """Contents of a result file.

    Attributes:
        conditions: of `Context`.
        complete: whether every item has a result.
        seconds: spent so far.
        attempts: key -> number of times that an item was started.
        results: key -> result.
    """

    conditions: dict[str, Any]
    complete: bool = False
    seconds: float = 0.0
    attempts: dict[str, int] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path, conditions: Mapping[str, Any]) -> SectionState:
        """Read a file; start afresh if there is none, or if its results are those of other conditions."""
        try:
            state = cls(**json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return cls(dict(conditions))
        return state if state.conditions == conditions else cls(dict(conditions))

    def save(self, file: Path) -> None:
        """Write atomically."""
        write_json(file, vars(self))


def result_file(folder: Path, section: str) -> Path:
    """Where a section has its results."""
    return folder / f"{section}.json"


def load_results(context: Context, section: str) -> dict[str, Result]:
    """The results of another section under the same conditions; empty without any."""
    return SectionState.load(result_file(context.folder, section), context.conditions()).results


def measure_items(items: Iterable[Item], state: SectionState, file: Path, deadline: float) -> None:
    """Measure the items without a result, in their order, until ``deadline`` (`time.monotonic`).

    Raises:
        DeviceLostError: the device does not work in this process any more; a new process may continue.
    """
    items = list(items)
    for item in items:
        if item.key in state.results:
            continue
        if time.monotonic() > deadline:
            return
        if state.attempts.get(item.key, 0) >= ATTEMPTS:
            state.results[item.key] = {"error": f"did not end in {ATTEMPTS} attempts"}
        else:
            _measure(item, state, file)
        state.save(file)
        _require_device()
    state.complete = True
    state.save(file)


def _measure(item: Item, state: SectionState, file: Path) -> None:
    state.attempts[item.key] = state.attempts.get(item.key, 0) + 1
    state.save(file)  # an item that ends the process counts
    start = time.monotonic()
    try:
        result = item.measure()
    except Exception as error:  # whatever fails is a result
        result = {"error": describe_error(error)}
    state.results[item.key] = result
    state.seconds += time.monotonic() - start


def describe_error(error: Exception) -> str:
    """Type and first line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


class DeviceLostError(RuntimeError):
    """A kernel failed such that every later call of this process fails."""


def _require_device() -> None:
    if torch.cuda.is_available():
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError as error:
            raise DeviceLostError(str(error)) from error


def software() -> str:
    """Versions that results depend on."""
    try:
        import triton

        return f"torch {torch.__version__}, triton {triton.__version__}"
    except ImportError:
        return f"torch {torch.__version__}"


def _source_hash() -> str:
    """Changes with the sources of the kernels."""
    contents = hashlib.sha256()
    for file in sorted(Path(kernels.__file__).parent.glob("*.py")):
        contents.update(file.read_bytes())
    return contents.hexdigest()[:12]
