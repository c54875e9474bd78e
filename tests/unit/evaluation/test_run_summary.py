import json

from support.saved_models import VIDEO_MODEL, save_random_model

from lookupvivit.evaluation.run_summary import summarize_run
from lookupvivit.profiling import flops


def test_a_run_with_weights_alone(tmp_path):
    lines = summarize_run(save_random_model(tmp_path / "run")).splitlines()
    assert VIDEO_MODEL in lines[0] and "4 frames of 64 x 64, 3 classes" in lines[0]
    assert "GFLOPs per view (multiply-adds)" in lines[1] and "tensorboard" in lines[2] and len(lines) == 3


def test_an_operator_of_unknown_cost_is_named(tmp_path, monkeypatch):
    monkeypatch.delitem(flops.ELEMENTWISE, "gelu")
    lines = summarize_run(save_random_model(tmp_path / "run")).splitlines()
    assert "unknown GFLOPs" in lines[1] and "aten::gelu" in lines[1] and lines[1].endswith("M parameters")
    assert "tensorboard" in lines[2]


def test_top_5_needs_more_than_five_classes(tmp_path):
    """Runs of earlier versions have it."""
    run = save_random_model(tmp_path / "run", class_names=tuple("abcde"))
    (run / "log.jsonl").write_text(json.dumps({"kind": "val", "step": 1, "top1": 40, "top5": 100}) + "\n")
    (run / "predictions").mkdir()
    test = {"videos": 13, "views": {"1x1": {"top1": 31, "top5": 100}}}
    (run / "predictions" / "1x1.json").write_text(json.dumps(test))
    text = summarize_run(run)
    assert "top-1 40.00 %" in text and "top-1 31.00 %" in text and "top-5" not in text


def test_a_complete_run(tmp_path):
    run = save_random_model(tmp_path / "run", class_names=tuple("abcdef"))
    records = [{"kind": "val", "step": step, "top1": 10 * step, "top5": 99} for step in (1, 2)]
    lines = [json.dumps(record) for record in (*records, {"kind": "train", "step": 3})]
    (run / "log.jsonl").write_text("\n".join(lines) + '\n{"kind": "val", "st')  # a run that was killed
    (run / "predictions").mkdir()
    scores = {"1x1": {"top1": 31, "top5": 71}, "4x3": {"top1": 33, "top5": 73}}
    (run / "predictions" / "4x3.json").write_text(json.dumps({"videos": 13, "views": scores}))
    (run / "attention").mkdir()
    for step in (1, 2):
        (run / "attention" / f"0_step_{step}.png").touch()
    lines = summarize_run(run).splitlines()
    (validation,) = [line for line in lines if "validation" in line]
    assert "step 2" in validation and "20.00 %" in validation and "99.00 %" in validation
    (test,) = [line for line in lines if "4x3 views:" in line]
    assert "33.00 %" in test and "73.00 %" in test
    assert any("13 videos" in line for line in lines)
    assert any(str(run / "predictions" / "4x3_confusion.png") in line for line in lines)
    assert any("(2)" in line and "0_step_2.png" in line for line in lines)
