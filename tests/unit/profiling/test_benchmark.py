"""Counts, labels and ratios of a benchmark, against arithmetic by hand and simulated clocks."""

import json
import sys
from dataclasses import asdict
from itertools import count

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lookupvivit import kernels
from lookupvivit.models.registry import create_model
from lookupvivit.profiling import operator_times
from lookupvivit.profiling.benchmark import count_calls, run_benchmark
from lookupvivit.profiling.benchmark_cases import Case, CaseRunner, Setting, meta_model, parse_cases
from lookupvivit.profiling.benchmark_table import format_columns, format_legend, format_operator_table, format_tables
from lookupvivit.profiling.external_models import create_external_model
from lookupvivit.profiling.flops import count_cost
from lookupvivit.profiling.memory_measurement import _case_from_json, saved_bytes
from lookupvivit.profiling.operator_times import macs_by_operator, measure_operator_times, split_by_operator
from lookupvivit.sizes import Keep

LOOKUPVIVIT, VIVIT = "lookupvivit_pico8x2_4x4x4", "vivit_pico8x2"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    """Small models are slower with several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Saved bytes


def test_saved_bytes_of_a_small_network():
    """Linear 6 -> 5, GELU, Linear 5 -> 3 on 4 rows save the input and the hidden rows before and after GELU."""
    network = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3))
    rows = torch.randn(4, 6)
    assert saved_bytes(lambda: network(rows), network.parameters()) == 4 * (4 * 6 + 4 * 5 + 4 * 5)
    assert saved_bytes(lambda: network(rows), [*network.parameters(), rows]) == 4 * (4 * 5 + 4 * 5)
    assert saved_bytes(lambda: network(rows)) == 4 * (4 * 6 + 4 * 5 + 4 * 5 + 5 * 3)  # and the second weight
    with torch.no_grad():
        assert saved_bytes(lambda: network(rows)) == 0


def test_the_storage_of_a_saved_view_counts_once_and_in_full():
    table = torch.randn(10, 8, requires_grad=True)

    def products_of_rows():
        exponentials = table.double().exp()  # saves its result of 640 bytes; the products save views of it
        return exponentials[0] * exponentials[1] + exponentials[2] * exponentials[3]

    assert saved_bytes(products_of_rows) == 640


def test_an_exchange_without_its_attention_matrix_saves_less():
    """By at least A, (H, M, N), in each of the four blocks."""
    saved = {}
    for name in ("reference", "cpu"):
        runner = CaseRunner(Case(LOOKUPVIVIT, (4, 8, 8), name), Setting())
        saved[name] = saved_bytes(runner.loss, runner.model.parameters())
    matrices = 4 * 4 * (4 * 256 * 256)
    assert saved["reference"] - saved["cpu"] > 0.9 * matrices


# Operators


@pytest.mark.parametrize(("name", "kernel_name"), [(LOOKUPVIVIT, "cpu"), (LOOKUPVIVIT, "folded"), (VIVIT, None)])
def test_operators_add_up_to_the_whole_pass(name, kernel_name, monkeypatch):
    """Seconds to those of the pass, with a clock that ticks at every reading; multiply-adds to torch's count."""
    ticks = count()
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    runner = CaseRunner(Case(name, None, kernel_name), Setting(batch=2))
    times = measure_operator_times(runner, CPU, range(5))
    assert sum(operator.seconds for operator in times.operators) == pytest.approx(times.seconds)
    assert all(operator.seconds > 0 for operator in times.operators)
    assert times.unwatched == 1  # two readings around the call
    macs = sum(operator.macs for operator in times.operators)
    oracle = "folded" if kernel_name == "folded" else "reference"  # kernels of a CPU do not run on the meta device
    with torch.no_grad(), FlopCounterMode(display=False) as counter, kernels.use(oracle):
        meta_model(runner.case)(runner.video.to("meta"))
    assert macs == pytest.approx(counter.get_total_flops() / 2, rel=0.01)
    assert runner.macs * 2 == count_cost(runner.model, runner.video.shape).macs
    assert times.operators[-1].label == operator_times.REST
    assert times.operators[-1].macs < 0.01 * macs
    assert not any("forward" in vars(module) for module in runner.model.modules())


def test_operators_of_a_lookupvit_cost_what_the_equations_state():
    runner = CaseRunner(Case(LOOKUPVIVIT, None, "reference"), Setting())
    n, m, width, depth = 256, 64, 128, 4
    macs = macs_by_operator(runner)
    assert macs[operator_times.GATHER] == depth * 2 * n * m * width
    assert macs[operator_times.INFUSION] == depth * n * m * width
    assert macs["exchange: projections, lookup tokens"] == depth * 3 * n * width**2  # k, v and out of the infusion
    assert macs["exchange: projections, compressed tokens"] == depth * 3 * m * width**2
    assert macs["lookup MLP"] == depth * 2 * n * width * width // 2
    assert macs["compressed ViT block: attention"] == depth * 2 * m * m * width
    assert macs["compressed ViT block: MLP"] == depth * 8 * m * width**2
    resampling = 4 * (4 * 8 * 8 + 4 * 4 * 8) * width  # 4 x 8 x 8 to 4 x 4 x 4, rows and then columns
    assert macs["tokenizer"] == n * width * 3 * 2 * 8 * 8 + resampling


def test_time_belongs_to_the_innermost_operator(monkeypatch):
    """With a clock that advances only inside the two halves of the exchange."""
    now = [0.0]
    runner = CaseRunner(Case(LOOKUPVIVIT, None, "reference"), Setting())

    def slow(function, seconds):
        def run(*arguments):
            now[0] += seconds
            return function(*arguments)

        return run

    monkeypatch.setattr(kernels, "gather", slow(kernels.gather, 2))
    monkeypatch.setattr(kernels, "infuse", slow(kernels.infuse, 3))
    seconds = split_by_operator(runner.model, runner.forward, lambda: now[0])
    assert {label: value for label, value in seconds.items() if value} == {
        operator_times.GATHER: 8,
        operator_times.INFUSION: 12,
    }


# Cases


def test_names_become_cases():
    cases = parse_cases([VIVIT, "transformers:vivit", f"{LOOKUPVIVIT}@2x3x3"], ["reference", "auto"])
    like = Case(LOOKUPVIVIT, (2, 3, 3))
    assert cases == [
        Case(VIVIT),
        Case("transformers:vivit", like=like),
        Case(LOOKUPVIVIT, (2, 3, 3), "reference"),
        Case(LOOKUPVIVIT, (2, 3, 3), "auto"),
    ]
    assert cases[-1].label == f"{LOOKUPVIVIT}@2x3x3"


def test_kept_tokens_are_part_of_a_case():
    names = [f"{VIVIT}@0.5", f"{VIVIT}@merge:0.5", f"{LOOKUPVIVIT}@0.3", f"{LOOKUPVIVIT}@2x3x3@motion:0.5"]
    cases = parse_cases(names, ["auto"])
    assert [case.keep for case in cases] == [Keep(0.5), Keep(0.5, "merge"), Keep(0.3), Keep(0.5, "motion")]
    assert [case.label for case in cases] == names and cases[3].size == (2, 3, 3)
    assert [_case_from_json(json.loads(json.dumps(asdict(case)))) for case in cases] == cases
    runner = CaseRunner(cases[3], Setting())
    assert runner.tokens == (128, 18) and runner.forward().shape == (1, 400)
    with pytest.raises(ValueError, match=r"^perceiver_pico8x2@0\.5: found 0\.5, expected none"):
        meta_model(*parse_cases(["perceiver_pico8x2@0.5"], ["auto"]))


@pytest.mark.parametrize("name", ["vit_b16@1x5x5", "lookupvit_b16_5x5@5x5"])
def test_an_invalid_size_is_named(name):
    with pytest.raises(ValueError, match=f"^{name}: found"):
        parse_cases([name], ["auto"])


def test_a_size_beyond_the_lookup_grid_is_named():
    with pytest.raises(ValueError, match=r"^lookupvit_b16_5x5@1x16x16: "):
        meta_model(Case("lookupvit_b16_5x5", (1, 16, 16)))


# External models


class Uninstalled:
    """An import finder without the package ``name``."""

    def __init__(self, name):
        self.name = name

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "transformers:vivit", "vit_pytorch:LookViT"])
def test_a_library_that_is_not_installed_is_named_in_one_line(name, monkeypatch):
    library = name.partition(":")[0]
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(sys, "meta_path", [Uninstalled(library), *sys.meta_path])
    monkeypatch.delitem(sys.modules, library)
    with pytest.raises(ValueError, match=rf"^{name}: .*pip install") as error:
        create_external_model(name, 10, None)
    assert "\n" not in str(error.value)


def test_a_model_without_tubelets_lends_no_sizes():
    with pytest.raises(ValueError, match=r"^transformers:vivit: .*vivit_b16x2"):
        create_external_model("transformers:vivit", 10, create_model("perceiver_pico8x2", 10))


@pytest.mark.parametrize(
    ("library", "name", "like", "tokens"),
    [
        ("transformers", "transformers:vivit", VIVIT, (256, None)),
        ("vit_pytorch", "vit_pytorch:LookViT", LOOKUPVIVIT, (256, 64)),
        ("timm", "timm:vit_tiny_patch16_224", None, (196, None)),
    ],
)
def test_an_external_model_has_the_stated_tokens_and_similar_cost(library, name, like, tokens):
    pytest.importorskip(library)
    runner = CaseRunner(Case(name, like=like and Case(like)), Setting())
    assert runner.tokens == tokens
    token_counts = set()  # as the linear layers receive them
    for module in runner.model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, inputs, _: token_counts.add(inputs[0].shape[1:-1].numel()))
    runner.loss().backward()
    without_class_token = {count - 1 for count in token_counts}
    assert {count for count in tokens if count} <= token_counts | without_class_token
    by_class = macs_by_operator(runner)
    assert sum(by_class.values()) == runner.macs
    assert by_class["Linear"] > 0.6 * runner.macs
    if like:
        own = CaseRunner(Case(like, None, "reference"), Setting())
        assert runner.macs == pytest.approx(own.macs, rel=0.05)


# Results


def test_ratios_utilization_and_tables_of_a_benchmark():
    calls = []
    cases = [Case(VIVIT), Case(LOOKUPVIVIT, (2, 3, 3), "auto")]
    options = {"train": True, "memory": False, "operators": True}
    benchmark = run_benchmark(cases, Setting(batch=2), 3, **options, after=lambda: calls.append(1))
    assert len(calls) == count_calls(2, 3, **options)
    first, second = benchmark.rows
    assert (first.lookup_tokens, first.compressed_tokens) == (256, None)
    assert (second.lookup_tokens, second.compressed_tokens) == (256, 18)
    for phase, passes in (("forward", 1), ("training", 3)):
        result = second.phases[phase]
        assert first.phases[phase].ratio.median == 1
        ratios = [a / b for a, b in zip(first.phases[phase].times, result.times, strict=True)]
        assert len(ratios) == 3 and result.ratio.median == sorted(ratios)[1]
        flops = 2 * 1e9 * second.gflops * 2 * passes  # 2 per multiply-add, batch 2
        assert result.mfu == pytest.approx(flops / sorted(result.times)[1] / benchmark.peak_flops)
    assert second.phases["forward"].per_second == pytest.approx(2 / sorted(second.phases["forward"].times)[1])
    json.dumps(benchmark.to_dict())

    tables = format_tables(benchmark, markdown=True).splitlines()
    assert [line.count("|") for line in tables if line] == [12] * 4 + [7] * 4
    assert f"{LOOKUPVIVIT}@2x3x3" in tables[3] and "8x64x64" in tables[3]
    assert "multiply-adds" in format_legend(benchmark)
    assert len(format_operator_table(second.operators).splitlines()) == 3 + len(second.operators.operators)


def test_columns_as_text_and_markdown():
    lines = [["model", "ms"], ["a", "1.0"], ["longer", "10.0"]]
    assert format_columns(lines, 1).splitlines() == ["model     ms", "a        1.0", "longer  10.0"]
    assert format_columns(lines, 1, markdown=True).splitlines()[1] == "| --- | ---: |"
