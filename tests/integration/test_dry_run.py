"""train_net.py --dry-run: what it says, and that it leaves no trace."""

import re
import sys

import pytest
import yaml

from lookupvivit.cli.arguments import run_with_config
from lookupvivit.config.loading import load_config, to_dict
from lookupvivit.models.registry import create_model

CONFIG = "configs/camera_motion.yaml"


@pytest.fixture
def dry(command, shell, tmp_path):
    """The output of a dry run that must not write anything, with DeepSpeed out of reach."""

    def run_dry(*arguments: str, expect: int = 0) -> str:
        python, tool, *rest = command("train_net.py", tmp_path / "run", *arguments)
        code = "import runpy, sys; sys.modules['deepspeed'] = None; sys.argv.pop(0); "
        code += "runpy.run_path(sys.argv[0], run_name='__main__')"
        output = shell([python, "-c", code, tool, *rest, "--dry-run"], expect)
        assert not list(tmp_path.iterdir())
        return output

    return run_dry


def test_everything_is_told(dry, small_set, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}
    output = dry("--world", "2", "optim.micro_batch_size=2")
    assert before == {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}
    settings, _, told = output.partition("\n\n")
    config = load_config(CONFIG, ["data.num_classes=10"])
    assert yaml.safe_load(settings).keys() == to_dict(config).keys()
    assert yaml.safe_load(settings)["output_dir"] == str(tmp_path / "run")
    assert "train: 40 videos" in told and "val: 13 videos" in told
    assert "batch 8 = 2 clips x 2 accumulation steps x 2 ranks; 10 steps, 5 per epoch" in told
    model = create_model("lookupvivit_pico8x2_4x4x4", 10, width=32, depth=2, num_heads=2, input_size=(4, 64, 64))
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    assert f"{parameters:.2f} M parameters, {parameters:.2f} M of them trained" in told
    gflops = float(re.search(r"forward pass: ([\d.]+) GFLOPs", told)[1])
    teraflops = float(re.search(r"training: ([\d.e-]+) TFLOPs per step", told)[1])
    assert teraflops == pytest.approx(3 * 8 * gflops / 1e3, abs=3 * 8 * 0.005 / 1e3)  # 8 clips, as printed
    assert "memory per rank on a" in told


def test_a_set_that_is_not_there_is_not_rendered(dry, tmp_path):
    output = dry(f"data.root={tmp_path / 'nowhere'}")
    assert "train: 40 videos, 40 not yet rendered" in output and "val: 13 videos, 13 not yet rendered" in output


def test_without_data_all_that_needs_none_is_told(dry, tmp_path):
    output = dry("data.dataset=kinetics", "data.camera_motion={}", f"data.root={tmp_path / 'nowhere'}", expect=2)
    assert "batch 8 = 8 clips x 1 accumulation steps x 1 rank; no data to count steps of" in output
    assert "M parameters" in output and "TFLOPs per step" in output and "Traceback" not in output
    assert "nowhere/train.csv: no such file" in output.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--world", "2"], "argument --world: expected --dry-run"), (["--dry-run", "--world", "0"], "at least 1")],
)
def test_world_belongs_to_a_dry_run(monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(sys, "argv", ["train_net.py", "--cfg", CONFIG, *arguments])
    with pytest.raises(SystemExit):
        run_with_config(lambda config: None, "Train.", lambda config, world: None)
    assert words in capsys.readouterr().err
