"""Feed mutated files to every reader: only the readers' own errors may come back, and in bounded time.

    python tests/fuzz/fuzz_readers.py                       20,000 files, about half an hour on one core
    python tests/fuzz/fuzz_readers.py --count 500 --seconds 60

The files depend on --seed alone. Exit status 1: a reader raised another exception or hung; --failures has the file.
"""

from __future__ import annotations

import argparse
import faulthandler
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from data_pipelines.datasets.captions import read_caption_list, read_karpathy  # noqa: E402
from data_pipelines.datasets.kinetics import read_kinetics  # noqa: E402
from data_pipelines.datasets.shard_index import scan_shard  # noqa: E402
from data_pipelines.datasets.something_something import read_something_something  # noqa: E402
from data_pipelines.io.csv_files import read_csv  # noqa: E402
from data_pipelines.io.errors import DataError  # noqa: E402
from data_pipelines.io.json_files import read_json  # noqa: E402
from data_pipelines.io.npz_files import READ_ERRORS, open_npz  # noqa: E402
from data_pipelines.io.progress import progress  # noqa: E402
from data_pipelines.io.text import numbered_lines, read_names  # noqa: E402
from data_pipelines.preparation.scanning import inspect_video  # noqa: E402
from data_pipelines.video.reader import open_video  # noqa: E402
from fuzz.mutations import mutate  # noqa: E402
from fuzz.seeds import Seed, create_seeds  # noqa: E402
from lookupvivit.config import ConfigError  # noqa: E402
from lookupvivit.config.loading import load_config  # noqa: E402
from lookupvivit.weights.files import WeightsError, load_model  # noqa: E402
from lookupvivit.weights.source_formats import read_source  # noqa: E402

READER_SECONDS = 10.0  # time limit of the readers that have one
HANG_SECONDS = 6 * READER_SECONDS  # a reader may try several backends, each with its limit
CAPTION_SPLIT = "test"
READ, REFUSED, FAILED = "read", "refused", "FAILED"


def read_video(file: Path) -> None:
    """First, middle and last frame, as training and tests read them."""
    with open_video(file, timeout=READER_SECONDS) as video:
        video.read([0, video.num_frames // 2, video.num_frames - 1])


def read_npz(file: Path) -> None:
    """All arrays; the errors of `READ_ERRORS` are the reader's own."""
    try:
        with open_npz(file) as arrays:
            for name in arrays.files:
                arrays[name]
    except READ_ERRORS as error:
        raise DataError(str(error)) from error


@dataclass(frozen=True)
class Target:
    """A reader, the kinds of files that it is given, and its share of all files."""

    read: Callable[[Path], object]
    kinds: tuple[str, ...]
    share: float


TARGETS = {
    "video": Target(read_video, ("video",), 0.15),
    "scan": Target(lambda file: inspect_video(str(file)), ("video", "image"), 0.05),
    "image": Target(read_video, ("image",), 0.2),
    "tar": Target(lambda file: scan_shard(str(file)), ("tar",), 0.1),
    "json": Target(read_json, ("json",), 0.1),
    "karpathy": Target(lambda file: read_karpathy(file, CAPTION_SPLIT, file.parent), ("karpathy",), 0.05),
    "captions": Target(lambda file: read_caption_list(file, file.parent), ("captions",), 0.05),
    "something": Target(lambda file: read_something_something(file.parent, "train"), ("something",), 0.05),
    "csv": Target(lambda file: list(read_csv(file, ["label", "split"])), ("csv",), 0.05),
    "list": Target(lambda file: read_kinetics(file, file.parent), ("csv", "list"), 0.05),
    "names": Target(read_names, ("list",), 0.025),
    "lines": Target(lambda file: list(numbered_lines(file)), ("list", "json"), 0.025),
    "yaml": Target(load_config, ("yaml",), 0.05),
    "model": Target(lambda file: load_model(file.parent), ("model",), 0.05),
    "weights": Target(read_source, ("weights",), 0.03),
    "npz": Target(read_npz, ("npz",), 0.02),
}
OWN_ERRORS = (DataError, ConfigError, WeightsError)


def write_mutation(seed: Seed, folder: Path, rng: np.random.Generator) -> Path:
    """Write one of the seed's files mutated, and its others unchanged; returns the path for the reader."""
    mutated = seed.mutated[int(rng.integers(len(seed.mutated)))]
    for name, content in seed.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(mutate(name, content, rng) if name == mutated else content)
    return folder / seed.main


class Fuzzer:
    """Gives mutated files to readers and counts what they do.

    Args:
        folder: for temporary files.
        failures: folder for the files that a reader fails on.
        seed: of all mutations.
    """

    def __init__(self, folder: Path, failures: Path, seed: int) -> None:
        self.folder, self.failures, self.rng = folder / "file", failures, np.random.default_rng(seed)
        self.seeds = create_seeds(folder / "seeds")
        self.counts: Counter[tuple[str, str]] = Counter()
        self.slowest = 0.0

    def run(self, number: int) -> None:
        """Mutate one file, read it, and count the outcome."""
        shares = [target.share for target in TARGETS.values()]
        name = list(TARGETS)[int(self.rng.choice(len(TARGETS), p=np.array(shares) / sum(shares)))]
        seeds = [seed for seed in self.seeds if seed.kind in TARGETS[name].kinds]
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        file = write_mutation(seeds[int(self.rng.integers(len(seeds)))], self.folder, self.rng)
        start = time.monotonic()
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        outcome, detail = read(TARGETS[name], file)
        faulthandler.cancel_dump_traceback_later()
        self.slowest = max(self.slowest, time.monotonic() - start)
        self.counts[name, outcome] += 1
        if outcome == FAILED:
            kept = self.failures / f"{number:05d}_{name}"
            self.failures.mkdir(parents=True, exist_ok=True)
            shutil.copytree(self.folder, kept, dirs_exist_ok=True)
            print(f"{kept}: {detail}")

    def report(self) -> int:
        """Print all counts; returns the number of failures."""
        for name in TARGETS:
            print(f"{name:10} " + ", ".join(f"{self.counts[name, kind]} {kind}" for kind in (READ, REFUSED, FAILED)))
        failures = sum(count for (_, outcome), count in self.counts.items() if outcome == FAILED)
        print(f"{self.counts.total()} files, {failures} failures, the slowest took {self.slowest:.1f} s")
        return failures


def read(target: Target, file: Path) -> tuple[str, str]:
    """The outcome of one reader on one file, and the traceback of a failure."""
    try:
        target.read(file)
    except OWN_ERRORS as error:
        return (FAILED, f"an error of several lines: {error}") if "\n" in str(error) else (REFUSED, "")
    except Exception:
        return FAILED, traceback.format_exc()
    return READ, ""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--count", type=int, default=20_000, metavar="N", help="number of files (default: 20000)")
    add("--seconds", type=float, default=5400, metavar="S", help="stop after this time (default: 5400)")
    add("--seed", type=int, default=0, metavar="N", help="of all mutations (default: 0)")
    add("--failures", type=Path, default=Path("fuzz_failures"), metavar="FOLDER", help="for the files of failures")
    return parser.parse_args()


def main() -> None:
    """Run until the count or the time is reached."""
    arguments = parse_args()
    warnings.simplefilter("ignore")
    end = time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), arguments.failures, arguments.seed)
        for number in progress(range(arguments.count), unit="file", desc="fuzz"):
            if time.monotonic() > end:
                print(f"stopped after {arguments.seconds:g} s")
                break
            fuzzer.run(number)
        sys.exit(1 if fuzzer.report() else 0)


if __name__ == "__main__":
    main()
