"""The report of `make gpu-report`: its bookkeeping here, and all of its measurements in a dry run on the CPU."""

import json
import os
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
from support.paths import ROOT

from lookupvivit.kernels.tiles import default_tiles
from lookupvivit.profiling.gpu_report import alternatives, engine, exchange, models, runner, tuning
from lookupvivit.profiling.gpu_report.sections import SECTIONS, Section
from lookupvivit.profiling.gpu_report.state import ATTEMPTS, Context, Item, SectionState, result_file
from lookupvivit.profiling.gpu_report.table import extend_table, format_table, load_table, table_file
from lookupvivit.profiling.gpu_report.tables import FORMATTERS, TITLES, format_report
from lookupvivit.profiling.gpu_report.worker import run_section

CLASS = "bfloat16 d64 1024x4096 many"


@pytest.fixture
def context(tmp_path):
    return Context(torch.device("cpu"), tmp_path / "report", dry_run=True)


def section_of(*items, name="correctness", seconds=1.0, finish=lambda context, results: None):
    return Section(name, seconds, lambda context: [Item(key, measure) for key, measure in items], finish)


def saved(context, name="correctness"):
    return json.loads(result_file(context.folder, name).read_text())


def fail(message="no"):
    raise ValueError(message)


# Interruptions


def test_an_interrupted_section_keeps_its_results_and_continues(context):
    measured = []

    def measure(key):
        measured.append(key)
        if key == "b" and measured.count("b") == 1:
            raise KeyboardInterrupt
        return {"value": key}

    section = section_of(*((key, partial(measure, key)) for key in "abc"))
    with pytest.raises(KeyboardInterrupt):
        run_section(section, context, time.monotonic() + 60)
    assert saved(context)["results"] == {"a": {"value": "a"}} and not saved(context)["complete"]
    state = run_section(section, context, time.monotonic() + 60)
    assert measured == ["a", "b", "b", "c"] and state.complete and list(state.results) == ["a", "b", "c"]
    run_section(section, context, time.monotonic() + 60)
    assert len(measured) == 4


def test_an_item_that_never_ends_is_given_up(context):
    """Each start is saved before the item runs: a process that is killed leaves it behind."""

    def killed():
        raise KeyboardInterrupt

    section = section_of(("hangs", killed), ("after", lambda: {"value": 1}))
    for _ in range(ATTEMPTS):
        with pytest.raises(KeyboardInterrupt):
            run_section(section, context, time.monotonic() + 60)
    results = run_section(section, context, time.monotonic() + 60).results
    assert results["after"] == {"value": 1} and "attempts" in results["hangs"]["error"]


def test_an_error_is_a_result_and_a_section_ends_with_its_last_step(context):
    finished = []
    section = section_of(
        ("x", fail), ("y", lambda: {"value": 2}), finish=lambda _, results: finished.append(dict(results))
    )
    state = runner.run_report(context, 60, print, [section], in_process=True)["correctness"]
    assert state.complete and state.results == {"x": {"error": "ValueError: no"}, "y": {"value": 2}}
    assert finished == [state.results]


def test_results_of_other_conditions_are_not_continued(context, monkeypatch):
    section = section_of(("a", lambda: {"value": time.monotonic()}))
    first = run_section(section, context, time.monotonic() + 60).results
    assert run_section(section, context, time.monotonic() + 60).results == first
    conditions = {**context.conditions(), "software": "torch 0.1"}
    monkeypatch.setattr(Context, "conditions", lambda self: conditions)
    assert run_section(section, context, time.monotonic() + 60).results != first


def test_no_item_starts_after_the_deadline(context):
    state = run_section(section_of(("a", lambda: {"value": 1})), context, -1.0)
    assert not state.results and not state.complete


def test_time_is_shared_among_the_sections_that_are_not_complete(context, monkeypatch):
    budgets = []

    def run(section, context, seconds):
        budgets.append((section.name, round(seconds)))

    monkeypatch.setattr(runner, "_run_processes", run)
    sections = [section_of(("a", dict), name=name, seconds=seconds) for name, seconds in (("x", 1), ("y", 2), ("z", 1))]
    run_section(sections[0], context, time.monotonic() + 60)
    lines = []
    runner.run_report(context, 300, lines.append, sections)
    assert budgets == [("y", 200), ("z", 300), ("y", 200), ("z", 300)]  # no time was used
    assert len(lines) == 4 and lines[0].startswith("y: not complete, 0 results")


@pytest.mark.parametrize(("crashes_in_an_item", "expected"), [(True, 3), (False, 1)])
def test_a_process_that_crashes_in_an_item_is_followed_by_another(context, monkeypatch, crashes_in_an_item, expected):
    started = []

    def run(section, context, seconds):
        started.append(section)
        if crashes_in_an_item:
            state = SectionState(context.conditions(), attempts={"a": len(started)})
            state.save(result_file(context.folder, section.name))
        return 0 if len(started) == 3 else 1

    monkeypatch.setattr(runner, "_run_process", run)
    runner._run_processes(SECTIONS[0], context, 60)
    assert len(started) == expected


@pytest.mark.slow
def test_a_section_in_its_own_process(context):
    [memory] = [section for section in SECTIONS if section.name == "memory"]
    lines = []
    runner.run_report(context, 6, lines.append, [memory])  # on most machines too little time: the process is killed
    states = runner.run_report(context, 300, lines.append, [memory])
    assert states["memory"].complete and lines[-1].startswith("memory: complete")


# The table of what was measured


def test_the_best_tiles_of_a_class_are_those_of_all_its_shapes(context):
    default = tuning._text(default_tiles("gather", 64, torch.bfloat16))

    def result(shape, first, second):
        seconds = {default: 1.0, "128 64 8 3": first, "128 32 8 3": second}
        return {"kernel": "gather", "shape": shape, "class": CLASS, "seconds": seconds, "failed": {}}

    results = {
        "compile": {"compiled": 3},
        "broken": {"error": "no"},
        "a": result("a", 0.5, 0.6),
        "b": result("b", 0.9, 0.6),
    }
    tuning.finish(context, results)
    assert load_table(context)["cpu"]["tiles"] == {"gather": {CLASS: [128, 32, 8, 3]}}
    tuning.finish(context, {"a": result("a", 0.99, 1.0)})  # not enough to replace the default
    assert load_table(context)["cpu"]["tiles"] == {}


def test_the_winners_of_each_direction(context):
    def result(direction, **seconds):
        return {"direction": direction, "class": CLASS, "seconds": seconds}

    results = {
        "peaks": {"flops": 1.0},
        "1": result("gather", triton=1.0, flash=0.5, cudnn=0.4, reference=0.1),
        "2": result("gather", triton=1.0, flash=0.6),  # cuDNN failed for one shape
        "3": result("infuse", triton=1.0, flex=0.99),
        "4": result("backward", flash=0.5),  # Triton failed: nothing to compare with
        "5": {"error": "no"},
    }
    alternatives.finish(context, results)
    entry = load_table(context)["cpu"]
    assert entry["fastest"] == {"gather": {CLASS: "flash"}} and entry["fused_from"] == 2**23


@pytest.mark.parametrize(
    ("faster", "expected"),
    [({10: True, 20: True}, 10), ({10: False, 20: True, 30: True}, 20), ({10: True, 20: False}, 80), ({}, None)],
)
def test_the_size_from_which_the_attention_matrix_is_not_materialised(faster, expected):
    results = {
        str(size): {"weights": size, "training": {"measured": 1.0, "reference": 2.0 if wins else 0.5}}
        for size, wins in faster.items()
    }
    assert alternatives._fused_from(results) == expected


def test_parts_of_the_table_are_added_and_other_devices_stay(context):
    context.folder.mkdir(parents=True)
    table_file(context).write_text(json.dumps({"GPU": {"fused_from": 7}}))
    extend_table(context, {"tiles": {"gather": {CLASS: [64, 64, 4, 3]}}})
    extend_table(context, {"fused_from": 5})
    table = load_table(context)
    assert table["GPU"] == {"fused_from": 7}
    assert table["cpu"]["tiles"] == {"gather": {CLASS: [64, 64, 4, 3]}} and table["cpu"]["fused_from"] == 5
    assert "[64, 64, 4, 3]" in table_file(context).read_text() and json.loads(format_table(table)) == table


# Cost


def test_flops_are_those_that_the_operators_count():
    shape = exchange.Shape("", 2, 3, 5, 7, 16)
    inputs = shape.inputs(torch.device("cpu"), torch.float32)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
        exchange.reference_exchange(*inputs[:4], 0.3)
    total = counter.get_total_flops()
    assert exchange.flops("gather", shape) + exchange.flops("infuse", shape) // 2 == total  # A is computed once
    assert exchange.bytes_moved("gather", shape, torch.bfloat16) == 6 * (2 * 16 * (2 * 5 + 2 * 7) + 4 * 5)


def test_the_flops_of_a_model_are_twice_its_multiply_adds():
    assert models.forward_flops("vivit_b16x2") == pytest.approx(2 * 451.3e9, rel=0.01)
    assert models.forward_flops("lookupvivit_b16x2_9x9x8") == pytest.approx(2 * 225.2e9, rel=0.01)


def test_losses_are_compared_with_float32():
    rows = engine.compare_losses(
        {
            "fp32:0": {"losses": [4.0, 2.0]},
            "bf16:0": {"losses": [4.1, 2.1]},
            "bf16:3": {"losses": [4.0, 3.0]},
            "x": {"error": ""},
        }
    )["runs"]
    assert [row.get("passed") for row in rows.values()] == [True, True, False, None]
    assert rows["bf16:3"]["difference"] == 0.25


# Markdown


def test_the_report_has_a_table_for_every_section():
    spread = {"median": 0.25, "low": 0.2, "high": 0.3}
    row = {"seconds": spread, "ratio": spread, "flops_per_second": 5e14, "peak_bytes": 3e9, "backend": "cudnn"}
    zero = {"losses": [4.0, 3.5], "difference": 0.01, "passed": True, "estimated_bytes": 2e9, "peak_bytes": 1e9}
    direction = {"direction": "gather", "shape": "8x9x9 x8", "flops": 4e12, "bounds": {"flops": 4e-3, "bytes": 1e-3}}
    results = {
        "correctness": {"a": {"errors": {"d_q": 0.5}, "passed": False}, "b": {"error": "ValueError: no"}},
        "tuning": {"a": {"kernel": "gather", "shape": "x", "seconds": {"64 64 4 2": 2e-3, "64 32 4 3": 1e-3}}},
        "alternatives": {
            "peaks": {"flops": 1e15, "bytes": 3e12, "exponentials": None},
            "a": {**direction, "seconds": {"triton": 8e-3}, "failed": {"cudnn": "RuntimeError: no kernel"}},
            "b": {"direction": "exchange", "shape": "x", "forward": {"triton": 1e-3}, "training": {}, "failed": {}},
        },
        "models": {"a": {"mode": "compiled", "batch": 8, "train": True, "models": {"vivit_b16x2": row}}},
        "memory": {"a": {"estimated_saved": 1e9, "saved": 1e9, "estimated_peak": 3e9, "peak": 2e9}},
        "engine": {"a": {"runs": {"bf16:1": zero}}},
    }
    conditions = {"machine": "GPU, torch 3", "software": "torch 3, triton 4", "dry_run": False}
    text = format_report({name: SectionState(conditions, True, results=rows) for name, rows in results.items()})
    for expected in (
        "Machine: GPU, torch 3, triton 4.",
        "| a | 5.0e-01 | **no** |",
        "- b: ValueError: no",
        "| gather | x | 2000.0 | 64 32 4 3 | 1000.0 | 2.00 | 2 |",
        "1000 TFLOP/s in a matrix product, 3 TB/s.",
        "| gather | 8x9x9 x8 | triton | 8 | 500 | 50 % | 50 % |",
        "- a, cudnn: RuntimeError: no kernel",
        "| x | forward | 1 |  |  |",
        "| vivit_b16x2 | training | compiled | cudnn | 8 | 250.00 (200.00-300.00) | 0.25 (0.20-0.30) | 32 | 50 % |",
        "| a | 1.000 | 1.000 | 3.000 | 2.000 | +50 % |",
        "| bf16:1 | 4.0000 | 3.5000 | 1 % | 2.000 | 1.000 | +100 % |",
    ):
        assert expected in text
    assert "Not complete" not in text and set(TITLES) == set(FORMATTERS) == {section.name for section in SECTIONS}


# Programs


def test_the_report_needs_no_other_packages_than_torch_and_triton():
    missing = [
        "fvcore",
        "pydantic",
        "yaml",
        "tqdm",
        "deepspeed",
        "safetensors",
        "matplotlib",
        "torchvision",
        "av",
        "decord",
    ]
    code = f"import sys; sys.modules.update(dict.fromkeys({missing})); import lookupvivit.cli.gpu_report"
    modules = "runner, tables, worker"
    command = [sys.executable, "-c", f"{code}; from lookupvivit.profiling.gpu_report import {modules}"]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.mark.slow
def test_a_dry_run_measures_everything_and_is_complete(tmp_path):
    pytest.importorskip("triton")
    command = [sys.executable, str(ROOT / "tools" / "gpu_report.py"), "--dry-run", "--output", str(tmp_path)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "not complete" not in done.stdout, done.stdout + done.stderr[-4000:]
    folder = tmp_path / "cpu"
    results = {
        section.name: json.loads(result_file(folder, section.name).read_text())["results"] for section in SECTIONS
    }
    assert not [key for rows in results.values() for key, row in rows.items() if "error" in row]
    assert all(row["passed"] for row in results["correctness"].values())
    assert all(row["passed"] for row in results["engine"]["zero"]["runs"].values())
    assert all(
        "triton" in row["seconds"] for row in results["alternatives"].values() if "flops" in row and "class" in row
    )
    assert all(len(row["seconds"]) == 2 for row in results["tuning"].values())
    assert json.loads((folder / "tuned.json").read_text())["cpu"]["software"].startswith("torch")
    report = (folder / "report.md").read_text()
    assert all(title in report for title in TITLES.values())
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert again == ""  # nothing was left to do
