"""The captioning task: its loss, which parameters it trains, and what a step costs."""

import json

import pytest
import torch

from lookupvivit.captioning.decoder import PAD
from lookupvivit.captioning.task import build_captioner, caption_loss
from lookupvivit.cli.dry_run import dry_run
from lookupvivit.config import OptimConfig
from lookupvivit.config.loading import load_config
from lookupvivit.profiling.flops import count_cost
from lookupvivit.training.build import build_on_meta
from lookupvivit.training.optimizer import build_optimizer
from lookupvivit.training.utilization import training_macs

SMALL = (
    "model.name=lookupvit_ti16_3x3",
    "model.overrides={width: 32, depth: 2, num_heads: 2, tubelet: [1, 8, 8]}",
    "caption={width: 48, depth: 3, num_heads: 2, length: 10, vocabulary: 300}",
    "data.short_side=32",
    "data.crop=32",
    "runtime.precision=fp32",
    "data.workers=0",
)


def config(*overrides):
    return load_config("configs/coco_captions.yaml", (*SMALL, *overrides))


def test_the_loss_is_a_mean_over_captions_for_any_split_into_micro_batches():
    logits, tokens = torch.randn(6, 5, 9), torch.randint(3, 9, (6, 5))
    for row, length in enumerate((5, 1, 2, 5, 3, 4)):
        tokens[row, length:] = PAD
    expected = []
    for row in range(6):
        targets = [token for token in tokens[row].tolist() if token != PAD]
        log_probs = [logits[row, i].log_softmax(-1)[target] for i, target in enumerate(targets)]
        expected.append(-sum(log_probs) / len(targets))
    torch.testing.assert_close(caption_loss(logits, tokens), torch.stack(expected).mean())
    micro_batches = [caption_loss(*pair) for pair in zip(logits.split(2), tokens.split(2), strict=True)]
    torch.testing.assert_close(torch.stack(micro_batches).mean(), caption_loss(logits, tokens))
    assert caption_loss(logits.bfloat16(), tokens).dtype == torch.float32


def test_only_the_decoder_is_trained_and_a_step_runs_the_encoder_forward_only():
    model = build_captioner(config())
    optimizer = build_optimizer(model, OptimConfig(name="adamw", weight_decay=0.1, layer_decay=0.7))
    optimised = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in model.decoder.parameters()}
    assert not any(p.requires_grad for p in model.encoder.parameters())
    cost = count_cost(model, (1, 3, 1, 32, 32))
    encoder, decoder = cost.by_module["encoder"], cost.by_module["decoder"]
    assert cost.macs == encoder + decoder and encoder > 0
    assert training_macs(build_on_meta(lambda: build_captioner(config())), (1, 3, 1, 32, 32)) == encoder + 3 * decoder


def test_a_dry_run_reports_the_data_and_the_trained_parameters(tmp_path, capsys):
    for split in ("train", "val"):
        rows = [{"image": f"{i}.png", "captions": ["one", "two"]} for i in range(6)]
        (tmp_path / f"{split}.json").write_text(json.dumps(rows))
    for i in range(5):
        (tmp_path / f"{i}.png").touch()
    dry_run(
        config(
            "data.dataset=captions",
            f"data.root={tmp_path}",
            "data.train_list=train.json",
            "data.val_list=val.json",
            "optim.batch_size=5",
        )
    )
    report = capsys.readouterr().out
    assert "5 images with 10 captions" in report and "1 of the 6 listed" in report
    model = build_captioner(config())
    total, trained = (sum(p.numel() for p in part.parameters()) / 1e6 for part in (model, model.decoder))
    assert f"{total:.2f} M parameters, {trained:.2f} M of them trained" in report and "copy of frozen weights" in report


def test_compressed_sizes_beyond_the_encoders_token_grid_are_rejected():
    build_captioner(config("eval.compressed_size=[1, 4, 4]", "model.multi_resolution={t: [1], k: [2, 3, 4]}"))
    with pytest.raises(ValueError, match=r"^eval.compressed_size: found 1x5x5"):
        build_captioner(config("eval.compressed_size=[1, 5, 5]"))
