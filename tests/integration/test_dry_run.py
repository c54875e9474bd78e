"""train_net.py --dry-run: its output, and that it writes nothing."""

import re
import sys

import pytest
import yaml

from lookupvivit.cli.config_program import run_with_config
from lookupvivit.cli.dry_run import print_cost
from lookupvivit.config.loading import load_config, to_dict
from lookupvivit.models.registry import create_model
from lookupvivit.profiling import flops
from lookupvivit.training.build import build_model, build_on_meta

CONFIG = "configs/camera_motion.yaml"


@pytest.fixture
def dry_run(command, shell, tmp_path):
    """A function that returns the output of a dry run, which must not write anything or import DeepSpeed."""

    def run(*arguments: str, expect: int = 0) -> str:
        python, tool, *rest = command("train_net.py", tmp_path / "run", *arguments)
        code = "import runpy, sys; sys.modules['deepspeed'] = None; sys.argv.pop(0); "
        code += "runpy.run_path(sys.argv[0], run_name='__main__')"
        output = shell([python, "-c", code, tool, *rest, "--dry-run"], expect)
        assert not list(tmp_path.iterdir())
        return output

    return run


def test_output(dry_run, small_set):
    modified = {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}
    output = dry_run("--world", "2", "optim.micro_batch_size=2")
    assert modified == {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}
    assert len(output.splitlines()) < 20, output
    assert "train: 40 videos" in output and "val: 13 videos" in output
    assert "batch 8 = 2 clips x 2 accumulation steps x 2 ranks; 10 steps, 5 per epoch" in output
    model = create_model("lookupvivit_pico8x2_4x4x4", 10, width=32, depth=2, num_heads=2, input_size=(4, 64, 64))
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    assert f"{parameters:.2f} M parameters, {parameters:.2f} M of them trained" in output
    per_clip = float(re.search(r"forward pass: ([\d.]+) GFLOPs \(multiply-adds\) per clip", output)[1])
    per_step = float(re.search(r"training: ([\d.e-]+) TFLOPs per step", output)[1])
    assert 1e3 * per_step == pytest.approx(3 * 8 * per_clip, rel=1e-3), "8 clips, forward and backward"
    assert "memory per rank on a" in output


def test_multi_resolution_training(dry_run):
    output = dry_run("model.multi_resolution={t: [1, 2], k: [2, 3]}", "runtime.activation_checkpointing=true")
    mean, low, high = map(
        float, re.search(r"([\d.]+) GFLOPs.* 4 compressed sizes \(([\d.]+) to ([\d.]+)\)", output).groups()
    )
    assert low < mean < high
    assert "activation checkpointing" in output


def test_a_missing_teacher_is_an_error(dry_run, small_set):
    output = dry_run("distill.teacher=runs/nobody", expect=2)
    assert "error: runs/nobody: not found" in output and "Traceback" not in output


def test_an_operator_of_unknown_cost_is_named(monkeypatch, capsys):
    monkeypatch.delitem(flops.ELEMENTWISE, "gelu")
    config = load_config(CONFIG)
    print_cost(build_on_meta(lambda: build_model(config)), config)
    parameters, forward = capsys.readouterr().out.splitlines()
    assert "M parameters" in parameters and "unknown GFLOPs" in forward and "aten::gelu" in forward


def test_configuration_is_printed_on_request(dry_run, tmp_path):
    settings, _, summary = dry_run("--print-config").partition("\n\n")
    config = yaml.safe_load(settings)
    assert config.keys() == to_dict(load_config(CONFIG)).keys() and config["output_dir"] == str(tmp_path / "run")
    assert "M parameters" in summary


def test_missing_dataset_is_not_rendered(dry_run, tmp_path):
    output = dry_run(f"data.root={tmp_path / 'nowhere'}")
    assert "train: 40 videos, 40 not yet rendered" in output and "val: 13 videos, 13 not yet rendered" in output


def test_missing_data_is_the_last_line_of_an_otherwise_complete_output(dry_run, tmp_path):
    output = dry_run("data.dataset=kinetics", "data.camera_motion={}", f"data.root={tmp_path / 'nowhere'}", expect=2)
    assert "batch 8 = 8 clips x 1 accumulation steps x 1 rank; unknown number of steps" in output
    assert "M parameters" in output and "TFLOPs per step" in output and "Traceback" not in output
    assert "nowhere/train.csv: no such file" in output.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--world", "2"], "argument --world: expected --dry-run"),
        (["--print-config"], "argument --print-config: expected --dry-run"),
        (["--dry-run", "--world", "0"], "at least 1"),
    ],
)
def test_options_of_dry_runs(monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(sys, "argv", ["train_net.py", "--cfg", CONFIG, *arguments])
    with pytest.raises(SystemExit):
        run_with_config(lambda config: None, "Train.", lambda config, world: None)
    assert words in capsys.readouterr().err
