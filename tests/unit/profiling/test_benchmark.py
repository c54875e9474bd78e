"""What a benchmark counts besides seconds, against counts by hand and by fvcore."""

import json
import subprocess
import sys

import pytest
import torch
from support.paths import ROOT
from torch import nn

from lookupvivit import kernels
from lookupvivit.models.registry import create_model
from lookupvivit.profiling import operator_times
from lookupvivit.profiling.benchmark import benchmark, calls_of
from lookupvivit.profiling.benchmark_cases import Case, Setting, Subject, cases, without_data
from lookupvivit.profiling.benchmark_table import lay_out
from lookupvivit.profiling.external_models import create_peer
from lookupvivit.profiling.flops import count
from lookupvivit.profiling.measured_memory import FootprintError, footprint, kept_bytes
from lookupvivit.profiling.operator_times import breakdown, by_region, macs_by_region

LOOKUP, VIVIT = "lookupvivit_pico8x2_4x4x4", "vivit_pico8x2"


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of small models mostly wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_kept_bytes_of_a_network_counted_by_hand():
    """Linear 6 -> 5, GELU, Linear 5 -> 3 on 4 rows: x, the hidden rows before and after GELU; weights are not new."""
    net = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3))
    rows = torch.randn(4, 6)
    assert kept_bytes(lambda: net(rows), net.parameters()) == 4 * (4 * 6 + 4 * 5 + 4 * 5)
    assert kept_bytes(lambda: net(rows), [*net.parameters(), rows]) == 4 * (4 * 5 + 4 * 5)
    assert kept_bytes(lambda: net(rows)) == 4 * (4 * 6 + 4 * 5 + 4 * 5 + 5 * 3)  # and the second weight
    with torch.no_grad():
        assert kept_bytes(lambda: net(rows)) == 0


def test_a_kept_view_counts_its_whole_storage_once():
    table = torch.randn(10, 8, requires_grad=True)
    # exp keeps its result: 640 bytes; of it the products keep rows, which hold no other storage.
    assert kept_bytes(lambda: (lambda e: e[0] * e[1] + e[2] * e[3])(table.double().exp())) == 640


def test_the_exchange_without_its_matrix_keeps_less():
    """By at least A itself, (H, M, N) in each of the blocks whose exchange goes both ways."""
    kept = {}
    for engine in ("reference", "cpu"):
        subject = Subject(Case(LOOKUP, (4, 8, 8), engine), Setting())
        kept[engine] = kept_bytes(subject.loss, subject.model.parameters())
    matrices = 4 * 4 * (4 * 256 * 256)
    assert kept["reference"] - kept["cpu"] > 0.9 * matrices


@pytest.mark.parametrize(("name", "engine"), [(LOOKUP, "cpu"), (LOOKUP, "folded"), (VIVIT, None)])
def test_operators_add_up_to_the_whole(name, engine):
    """Seconds to the pass that was watched, multiply-adds to what fvcore counts; no moment and no product twice."""
    torch.manual_seed(0)
    subject = Subject(Case(name, None, engine), Setting(batch=2))
    found = breakdown(subject, torch.device("cpu"), range(5))
    assert sum(row.seconds for row in found.operators) == pytest.approx(found.seconds)
    assert all(row.seconds > 0 for row in found.operators)
    assert 0.2 < found.unwatched / found.seconds < 2  # loose: the machine may be busy
    fvcore = count(subject.model, subject.video.shape)
    done = sum(row.macs for row in found.operators)
    if engine == "folded":  # 2 directions, 4 blocks, batch 2: by the head instead of projections and products with A
        n, m, heads, width = 256, 64, 4, 128
        assert done - fvcore.macs == pytest.approx(
            16 * (heads * m * n * width + m * width**2 - n * width**2 - m * n * width), rel=0.01
        )
    else:
        assert done == pytest.approx(fvcore.macs, rel=0.01)
    assert subject.macs * 2 == pytest.approx(fvcore.macs, rel=0.01)
    assert found.operators[-1].label == operator_times.REST
    assert found.operators[-1].seconds < 0.5 * found.seconds
    assert not any(module._forward_hooks for module in subject.model.modules())


def test_rows_of_a_lookupvit_cost_what_the_equations_say():
    subject = Subject(Case(LOOKUP, None, "reference"), Setting())
    n, m, width, depth = 256, 64, 128, 4
    found = macs_by_region(subject)
    assert found[operator_times.GATHER] == depth * 2 * n * m * width
    assert found[operator_times.INFUSION] == depth * n * m * width
    assert found["exchange: projections, lookup tokens"] == depth * 3 * n * width**2  # k, v, and out of the infusion
    assert found["exchange: projections, compressed tokens"] == depth * 3 * m * width**2
    assert found["lookup MLP"] == depth * 2 * n * width * width // 2
    assert found["compressed ViT block: attention"] == depth * 2 * m * m * width
    assert found["compressed ViT block: MLP"] == depth * 8 * m * width**2
    resampling = 4 * (4 * 8 * 8 + 4 * 4 * 8) * width  # 4 x 8 x 8 to 4 x 4 x 4, rows and then columns
    assert found["tokenizer"] == n * width * 3 * 2 * 8 * 8 + resampling


def test_a_moment_counts_for_the_innermost_region():
    """With a clock that is advanced by hand inside the exchange's two halves."""
    now = [0.0]
    subject = Subject(Case(LOOKUP, None, "reference"), Setting())
    gather, infuse = kernels.gather, kernels.infuse

    def slow(function, seconds):
        def run(*arguments):
            now[0] += seconds
            return function(*arguments)

        return run

    kernels.gather, kernels.infuse = slow(gather, 2), slow(infuse, 3)
    try:
        spent = by_region(subject.model, subject.forward, lambda: now[0])
    finally:
        kernels.gather, kernels.infuse = gather, infuse
    assert {label: seconds for label, seconds in spent.items() if seconds} == {
        operator_times.GATHER: 8,
        operator_times.INFUSION: 12,
    }


def test_names_become_lines():
    found = cases([VIVIT, "transformers:vivit", f"{LOOKUP}@2x3x3"], ["reference", "auto"])
    own = Case(LOOKUP, (2, 3, 3))
    assert found == [
        Case(VIVIT),
        Case("transformers:vivit", like=own),
        Case(LOOKUP, (2, 3, 3), "reference"),
        Case(LOOKUP, (2, 3, 3), "auto"),
    ]
    assert found[-1].label == f"{LOOKUP}@2x3x3"
    with pytest.raises(ValueError, match="a model of tubelets: name one, such as vivit_b16x2"):
        create_peer("transformers:vivit", 10, create_model("perceiver_pico8x2", 10))
    with pytest.raises(ValueError, match=r"^lookupvit_b16_5x5@1x16x16: .* must be at most \[1, 14, 14\]"):
        without_data(Case("lookupvit_b16_5x5", (1, 16, 16)))
    for wrong, told in (("vit_b16@1x5x5", "only a LookupViT"), ("lookupvit_b16_5x5@5x5", "@1x5x5")):
        with pytest.raises(ValueError, match=told):
            cases([wrong], ["auto"])


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "transformers:vivit", "vit_pytorch:LookViT"])
def test_a_peer_that_is_not_installed_is_one_line(name, monkeypatch):
    library = name.partition(":")[0]
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(sys, "meta_path", [_Absent(library), *sys.meta_path])
    monkeypatch.delitem(sys.modules, library)
    with pytest.raises(ValueError, match=rf"^{name} needs the package .*, which is not installed: pip install") as told:
        create_peer(name, 10, None)
    assert "\n" not in str(told.value)


class _Absent:
    def __init__(self, name):
        self.name = name

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("library", "name", "like", "tokens"),
    [
        ("transformers", "transformers:vivit", VIVIT, (256, None)),
        ("vit_pytorch", "vit_pytorch:LookViT", LOOKUP, (256, 64)),
        ("timm", "timm:vit_tiny_patch16_224", None, (196, None)),
    ],
)
def test_a_peer_has_the_tokens_of_the_model_it_is_like(library, name, like, tokens):
    """As its linear layers really see them, and about the model's multiply-adds."""
    pytest.importorskip(library)
    subject = Subject(Case(name, like=like and Case(like)), Setting())
    assert subject.tokens == tokens
    widths = []
    for module in subject.model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, inputs, _: widths.append(inputs[0].shape[1:-1].numel()))
    subject.loss().backward()
    assert {count for count in tokens if count} <= {*widths, *(width - 1 for width in widths)}  # less a class token
    if like:
        assert subject.macs == pytest.approx(Subject(Case(like, None, "reference"), Setting()).macs, rel=0.05)


def test_ratios_and_utilisation_of_a_benchmark():
    ticks = []
    lines = [Case(VIVIT), Case(LOOKUP, (2, 3, 3), "auto")]
    found = benchmark(lines, Setting(batch=2), 3, train=True, memory=False, after=lambda: ticks.append(1))
    assert len(ticks) == calls_of(2, 3, train=True, memory=False, operators=False)
    first, second = found.rows
    assert (first.lookup_tokens, first.compressed_tokens) == (256, None)
    assert (second.lookup_tokens, second.compressed_tokens) == (256, 18)
    for phase, times in (("forward", 2), ("training", 6)):
        mine = second.phases[phase]
        assert first.phases[phase].ratio.median == 1
        each = [a / b for a, b in zip(first.phases[phase].times, mine.times, strict=True)]
        assert mine.ratio.median == sorted(each)[1] and len(each) == 3
        flops = times * 2 * 1e9 * second.gflops
        assert mine.mfu == pytest.approx(flops / sorted(mine.times)[1] / found.peak_flops)
    assert second.phases["forward"].per_second == pytest.approx(2 / sorted(second.phases["forward"].times)[1])
    json.dumps(found.to_dict())


@pytest.mark.slow
def test_memory_is_that_of_a_fresh_process():
    """At least weights, gradients and momentum and what is kept, though this process has held far more."""
    ballast = torch.ones(2**28)  # 1 GiB; a child's peak by getrusage would begin there
    found = footprint(Case("vit_ti16"), Setting(batch=4, threads=1), train=True)
    del ballast
    weights = 4 * sum(weight.numel() for weight in create_model("vit_ti16", 1000).parameters())
    assert 3 * weights + found.kept < found.peak < 3 * weights + 3 * found.kept < 2**29
    forward = footprint(Case("vit_b16"), Setting(threads=1), train=False)
    weights = 4 * sum(weight.numel() for weight in without_data(Case("vit_b16")).parameters())
    assert weights < forward.peak < 1.2 * weights and forward.kept is None
    for wrong, told in (
        (Case("nothing"), "^nothing: unknown model 'nothing'"),
        (Case(LOOKUP, None, "triton"), f"^{LOOKUP}: the exchange was told to use 'triton', found tensors on cpu"),
    ):
        with pytest.raises(FootprintError, match=told):
            footprint(wrong, Setting(), train=False)


def test_columns_and_markdown():
    lines = [["model", "ms"], ["a", "1.0"], ["longer", "10.0"]]
    assert lay_out(lines, 1).splitlines() == ["model     ms", "a        1.0", "longer  10.0"]
    assert lay_out(lines, 1, markdown=True).splitlines()[1] == "| --- | ---: |"


@pytest.mark.slow
def test_the_tool_end_to_end(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "tools" / "benchmark.py"),
        VIVIT,
        f"{LOOKUP}@4x3x3",
        "--train",
        "--operators",
        "--rounds",
        "3",
        "--batch",
        "2",
        "--threads",
        "1",
        "--kernels",
        "reference,cpu",
    ]
    done = subprocess.run([*command, "--json", str(tmp_path / "speed.json")], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "speed.json").read_text())
    assert [row["kernels"] for row in told["rows"]] == [None, "reference", "cpu"]
    assert all(row["input_size"] == [8, 64, 64] for row in told["rows"]) and " 8x64x64 " in done.stdout
    assert torch.__version__ in told["machine"] and told["setting"]["dtype"] == "fp32"
    for row in told["rows"]:
        assert row["phases"]["training"]["kept_bytes"] > 0 and row["phases"]["forward"]["kept_bytes"] is None
        assert row["phases"]["training"]["peak_bytes"] > row["phases"]["training"]["kept_bytes"]
        assert len(row["phases"]["forward"]["times"]) == 3
        assert row["model"] in done.stdout and "sum" in done.stdout and "fp32" in done.stdout
    wrong = subprocess.run([*command, "--compile"], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2 and "--operators" in wrong.stderr.splitlines()[-1]
    wrong = subprocess.run([*command[:2], VIVIT, "--json", str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2 and "--json: found" in wrong.stderr.splitlines()[-1]
    wrong = subprocess.run([*command[:2], "vivit_b16x3"], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: unknown model 'vivit_b16x3'")
