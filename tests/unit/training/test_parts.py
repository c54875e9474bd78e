"""Schedule, groups, loss, batch arithmetic and the log, each against something written by hand."""

import json
import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

import lookupvivit
from data_pipelines.loader import TrainingOrder
from data_pipelines.transforms.mixup import smooth_one_hot
from lookupvivit.config import ConfigError, OptimConfig
from lookupvivit.config.loading import load_config
from lookupvivit.training.build import build_model
from lookupvivit.training.data import Batching, Plan
from lookupvivit.training.distributed import World
from lookupvivit.training.logging import _keep_until
from lookupvivit.training.optimizer import build_optimizer, learning_rate, sigmoid_cross_entropy, soft_cross_entropy
from lookupvivit.training.trainer import compressed_size_of_step

CPU = torch.device("cpu")


def test_schedule_by_enumerated_values():
    got = [learning_rate(step, total_steps=8, warmup_steps=4, base=1.0) for step in range(8)]
    assert got == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert learning_rate(100_680, 100_680, 8_390, 0.1) == pytest.approx(0)
    assert learning_rate(8_390, 100_680, 8_390, 0.1) == pytest.approx(0.1)  # ViViT's K400 run, at the warmup's end
    assert learning_rate(0, 10, 0, 0.3) == 0.3
    assert learning_rate(2, 3, 8_390, 0.1) == pytest.approx(0.1 * 2 / 8_390)  # cut short inside the warmup


def test_only_kernels_decay():
    model = lookupvivit.create_model("lookupvivit_pico8x2_4x4x4", 10)
    optimizer = build_optimizer(model, OptimConfig(name="adamw", weight_decay=0.1))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {names[id(p)] for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    spared = {names[id(p)] for group in optimizer.param_groups if not group["weight_decay"] for p in group["params"]}
    assert decayed | spared == set(names.values())
    assert "positions" in spared
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)
    assert all(name == "positions" or name.endswith("bias") or "norm" in name for name in spared)


def test_soft_cross_entropy_is_torchs():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    wanted = F.cross_entropy(logits, labels, label_smoothing=0.3)
    targets = F.one_hot(labels, 4) * 0.7 + 0.3 / 4
    torch.testing.assert_close(soft_cross_entropy(logits, targets), wanted)
    assert soft_cross_entropy(logits.bfloat16(), targets).dtype == torch.float32


def test_sigmoid_cross_entropy_is_torchs_and_that_of_a_hand():
    logits, labels = 5 * torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    hard, several = F.one_hot(labels, 4).float(), torch.randint(2, (6, 4))
    mixed = 0.3 * hard + 0.7 * hard.flip(0)
    for targets in (hard, mixed, several, smooth_one_hot(labels, 4, 0.2)):
        wanted = 4 * F.binary_cross_entropy_with_logits(logits, targets.float())  # which also means over the classes
        torch.testing.assert_close(sigmoid_cross_entropy(logits, targets), wanted)
    # p = 1/2, 1/4 and 4/5; the first two are there: log 2 + log 4 + log 5
    byhand = sigmoid_cross_entropy(torch.tensor([[0, -math.log(3), math.log(4)]]), torch.tensor([[1, 1, 0]]))
    assert float(byhand) == pytest.approx(math.log(40))
    assert sigmoid_cross_entropy(logits.bfloat16(), hard).dtype == torch.float32


def test_a_head_bias_makes_every_class_as_unlikely_as_it_is_in_both_heads():
    model = lookupvivit.create_model("lookupvivit_pico8x2_4x4x4", 1000, head_bias=-6.9)
    output, targets = model(torch.randn(2, 3, 8, 64, 64)), F.one_hot(torch.tensor([3, 7]), 1000)
    for name in ("compressed_logits", "lookup_logits"):  # without the bias it would start at 1000 log 2 = 693
        assert sigmoid_cross_entropy(output[name], targets).item() == pytest.approx(
            math.log1p(math.exp(6.9)) + 999 * math.log1p(math.exp(-6.9)), rel=1e-4
        )


def config(*overrides):
    return load_config("configs/camera_motion.yaml", overrides)


def test_batch_arithmetic_is_printed_and_never_rescaled():
    batching = Batching.of(config("optim.batch_size=48", "optim.micro_batch_size=4"), World(0, 3, CPU))
    assert (batching.accumulation, str(batching)) == (4, "batch 48 = 4 clips x 4 accumulation steps x 3 ranks")
    for wrong in ("optim.micro_batch_size=5", "optim.batch_size=7"):
        with pytest.raises(ConfigError, match=r"optim\.batch_size"):
            Batching.of(config(wrong), World(0, 2, CPU))


def test_mixup_needs_two_clips_to_mix():
    with pytest.raises(ConfigError, match=r"augment\.mixup: micro-batches of 1 clip"):
        Batching.of(config("augment.mixup=0.3", "optim.batch_size=2"), World(0, 2, CPU))
    Batching.of(config("augment.mixup=0.3", "optim.batch_size=4"), World(0, 2, CPU))


def test_one_compressed_size_per_step_for_all_ranks():
    """Drawn evenly from the product of t and k, from seed and step alone."""
    multi = config("model.multi_resolution={t: [4, 8], k: [2, 3, 5]}", "seed=3")
    drawn = [compressed_size_of_step(multi, step)["compressed_size"] for step in range(1200)]
    counts = Counter(drawn)
    assert counts.keys() == {(t, k, k) for t in (4, 8) for k in (2, 3, 5)}
    assert all(abs(count - 200) < 4 * 200**0.5 for count in counts.values())
    assert drawn[7:9] == [compressed_size_of_step(multi, step)["compressed_size"] for step in (7, 8)]
    other = config("model.multi_resolution={t: [4, 8], k: [2, 3, 5]}", "seed=4")
    assert [compressed_size_of_step(other, step)["compressed_size"] for step in range(20)] != drawn[:20]
    assert compressed_size_of_step(config(), 0) == {}


@pytest.mark.parametrize(
    "overrides",
    [("model.name=vivit_pico8x2",), ("model.overrides.compressed_init=random",)],
)
@pytest.mark.parametrize("setting", ["model.multi_resolution={t: [4], k: [2]}", "eval.compressed_size=[4,2,2]"])
def test_a_fixed_compressed_size_cannot_be_changed(overrides, setting):
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        build_model(config(*overrides, setting))


def test_plan_counts_epochs_in_steps():
    order = TrainingOrder(100, 16, 0)
    plan = Plan.of(config("optim.epochs=2", "optim.warmup_epochs=0.5"), order)
    assert (plan.steps_per_epoch, plan.total, plan.warmup) == (6, 12, 3)
    assert [step for step in range(1, 13) if plan.due(step, 0.5)] == [3, 6, 9, 12]
    assert [step for step in range(1, 13) if plan.due(step, 0.8)] == [5, 10, 12]
    assert not any(plan.due(step, 0) for step in range(1, 13))


def test_log_of_a_resumed_run_forgets_later_steps_and_a_torn_line(tmp_path):
    file = tmp_path / "log.jsonl"
    records = [(1, "train"), (2, "train"), (2, "val"), (3, "train"), (3, "val"), (4, "train")]
    file.write_text("".join(json.dumps({"step": s, "kind": k}) + "\n" for s, k in records) + '{"step": 5, "lo')
    assert [tuple(record.values()) for record in _keep_until(file, 3)] == records[:5]
    kept = [tuple(json.loads(line).values()) for line in file.read_text().splitlines()]
    assert kept == records[:5]
