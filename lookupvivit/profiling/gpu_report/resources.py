"""Registers, shared memory and spills of the Triton kernels, compiled for several GPUs without having one.

    python -m lookupvivit.profiling.gpu_report.resources

writes `resources.json` next to this file, from which `tuning` takes the tiles that it times: those without spills.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from data_pipelines.io.atomic import write_text
from lookupvivit.kernels.tiles import Tiles, candidates

FILE = Path(__file__).with_name("resources.json")
WIDTH, DTYPE = 64, torch.bfloat16  # of a head of every model of the paper
KERNELS = ("gather", "apply", "apply_transposed", "gradient", "gradient_transposed")
# Compute capability -> bytes of shared memory that a program can have (CUDA C++ programming guide, table of compute
# capabilities)
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
DTYPE_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class Resources:
    """What one program needs.

    Attributes:
        registers: of each thread.
        shared: bytes of shared memory.
        spilled: bytes per thread that registers spill to memory.
    """

    registers: int
    shared: int
    spilled: int


def compile_kernel(
    name: str, tiles: Tiles, capability: int, d: int = WIDTH, dtype: torch.dtype = DTYPE, precision: str = "ieee"
) -> Resources:
    """Compile one kernel to machine code.

    Args:
        name: one of `KERNELS`.
        capability: compute capability times ten.
        d: width of a head.
        precision: of float32 products, "ieee" or "tf32".
    """
    import triton
    from triton.backends.compiler import GPUTarget

    from lookupvivit.kernels import triton as launcher

    kernel, side = launcher.KERNELS[name]
    constants = launcher.constants(d, tiles)
    options = {key: constants.pop(key) for key in ("num_warps", "num_stages")}
    flags = {"GATHERED": True, "INFUSED": True} if name.startswith("gradient") else {}
    source = _source(kernel, DTYPE_NAMES[dtype], {**constants, **side, **flags, "PRECISION": precision})
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    registers, stack = _usage(compiled.asm["cubin"])
    return Resources(
        registers, compiled.metadata.shared, _spilled_bytes(compiled.asm["ptx"], capability) if stack else 0
    )


def _source(kernel: Any, dtype: str, constants: dict[str, Any]) -> Any:
    """The kernel with pointers and strides as aligned as those of a model, and ``constants`` filled in."""
    from triton.compiler import ASTSource

    signature: dict[str, Any] = {}
    values: dict[tuple[int, ...], Any] = {}
    hints: dict[tuple[int, ...], Any] = {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name], values[(i,)] = "constexpr", constants[name]
        elif name.endswith("strides"):
            signature[name], values[(i, 3)] = ("i32", "i32", "i32", "constexpr"), 1
            hints |= {(i, axis): [["tt.divisibility", 16]] for axis in range(3)}
        elif name == "scale":
            signature[name] = "fp32"
        elif name in ("num_heads", "m", "n", "row_count", "column_count"):
            signature[name] = "i32"
        else:
            signature[name] = "*fp32" if name in ("lse", "row_term") else f"*{dtype}"
            hints[(i,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, values, hints)


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack, per thread."""
    from triton import knobs

    with TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        text = _output([knobs.nvidia.cuobjdump.path, "-res-usage", str(file)])
    registers, stack = _numbers(r"REG:(\d+) STACK:(\d+)", text)
    return registers, stack


def _spilled_bytes(ptx: str, capability: int) -> int:
    """Bytes that a thread stores to memory for lack of registers; a stack may also exist for other reasons."""
    from triton import knobs

    tools = knobs.nvidia
    assembler = tools.ptxas_blackwell if capability >= 100 and hasattr(tools, "ptxas_blackwell") else tools.ptxas
    [target] = re.findall(r"\.target (\w+)", ptx)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(ptx)
        text = _output([assembler.path, "-v", f"--gpu-name={target}", str(file), "-o", f"{file}.cubin"])
    [stored] = _numbers(r"(\d+) bytes spill stores", text)
    return stored


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _numbers(pattern: str, text: str) -> list[int]:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"CUDA tool: found {text!r}, expected {pattern}")
    return [int(number) for number in found.groups()]


def measure_all(capabilities: Iterable[int] = tuple(SHARED_MEMORY)) -> dict[str, Any]:
    """Compile every candidate; the contents of `resources.json`.

    Returns:
        ``resources``: capability -> kernel -> tiles as text -> [rows, columns, warps, stages, descriptors,
        registers, shared, spilled]; tiles that the compiler rejects are missing. ``software`` names the compiler.
    """
    import triton

    resources: dict[str, dict[str, list[list[int]]]] = {}
    for capability in capabilities:
        for name in KERNELS:
            rows = [(tiles, _try_to_compile(name, tiles, capability)) for tiles in candidates(capability)]
            found = [[*tiles.to_list(), *astuple(needed)] for tiles, needed in rows if needed is not None]
            resources.setdefault(str(capability), {})[name] = found
    return {"software": f"triton {triton.__version__}", "resources": resources}


def _try_to_compile(name: str, tiles: Tiles, capability: int) -> Resources | None:
    """None if the compiler rejects the tiles or they need too much shared memory."""
    try:
        needed = compile_kernel(name, tiles, capability)
    except Exception as error:  # of several types, by the pass of the compiler
        print(f"{name}, {capability}, {tiles}: {error}", file=sys.stderr)
        return None
    return needed if needed.shared <= SHARED_MEMORY[capability] else None


def load_resources(capability: int, kernel: str) -> dict[Tiles, Resources]:
    """The committed table for one kernel.

    Args:
        capability: compute capability times ten; one that is not in the table counts as the largest below it.
        kernel: one of `KERNELS`.
    """
    table = json.loads(FILE.read_text(encoding="utf-8"))["resources"]
    known = max((number for number in map(int, table) if number <= capability), default=min(map(int, table)))
    return {Tiles.of(row[:5]): Resources(*row[5:]) for row in table[str(known)][kernel]}


def candidates_without_spills(capability: int, kernel: str) -> list[Tiles]:
    """The tiles of the committed table that are worth timing."""
    return [tiles for tiles, needed in load_resources(capability, kernel).items() if not needed.spilled]


def _main() -> None:
    text = json.dumps(measure_all(), indent=1)
    text = re.sub(r"\[\s+(\d[^\[\]]*?)\s+\]", lambda row: f"[{' '.join(row[1].split())}]", text)  # one line per row
    write_text(FILE, text + "\n")


if __name__ == "__main__":
    _main()
