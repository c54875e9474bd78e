"""Imported weights give the logits of the source's own code; checked on random weights."""

import numpy as np
import pytest
import timm
import torch
from support.other_models import SMALL, augreg, save, shake, timm_vit
from torch import nn
from torchvision.transforms.v2.functional import normalize

import lookupvivit
from data_pipelines.transforms.normalization import IMAGENET_MEAN, IMAGENET_STD
from lookupvivit.models.vit import ViT
from lookupvivit.weights.files import WeightsError, save_model
from lookupvivit.weights.importing import import_weights
from lookupvivit.weights.resizing import inflate, resize_positions, unflatten_positions


@pytest.mark.parametrize(
    ("theirs", "pooling"),
    [
        ({}, "token"),
        ({"class_token": False, "global_pool": "avg"}, "gap_norm"),
        ({"class_token": False, "global_pool": "avg", "fc_norm": False}, "gap"),
    ],
)
def test_vit_equals_timm(tmp_path, theirs, pooling):
    source = timm_vit(**theirs)
    model = ViT(5, (1, 32, 32), (1, 8, 8), **SMALL, pooling=pooling, gelu="none").eval()
    report = import_weights(model, save(source, tmp_path))
    assert not (report.initialised or report.ignored or report.differences or report.resized)
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(image).logits, source(image), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_vit_b16_equals_timms(tmp_path):
    source = shake(timm.create_model("vit_base_patch16_224", num_classes=1000))
    for parameter in source.parameters():
        parameter.data *= 0.1 if parameter.dim() > 1 else 1
    model = lookupvivit.create_model("vit_b16", 1000, pooling="token", gelu="none").eval()
    import_weights(model, save(source, tmp_path))
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model(image).logits, source(image), rtol=0, atol=1e-4)


def test_vivit_equals_hugging_faces(tmp_path):
    from transformers import VivitConfig, VivitForVideoClassification

    config = VivitConfig(
        image_size=32,
        num_frames=4,
        tubelet_size=[2, 16, 16],
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        num_labels=5,
    )
    source = shake(VivitForVideoClassification(config))
    source.save_pretrained(tmp_path / "hub")
    video = torch.randn(2, 3, 4, 32, 32)
    for file in (save(source, tmp_path), tmp_path / "hub" / "model.safetensors"):
        model = ViT(5, (4, 32, 32), (2, 16, 16), **SMALL, pooling="token").eval()
        report = import_weights(model, file)
        assert not (report.initialised or report.ignored or report.differences)
        torch.testing.assert_close(model(video).logits, source(video.transpose(1, 2)).logits, rtol=0, atol=1e-4)


def test_video_mae_equals_hugging_faces(tmp_path):
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    config = VideoMAEConfig(
        image_size=32,
        num_frames=4,
        tubelet_size=2,
        patch_size=16,
        hidden_size=24,
        num_labels=5,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
    )
    source = shake(VideoMAEForVideoClassification(config))
    model = ViT(5, (4, 32, 32), (2, 16, 16), **SMALL, pooling="gap_norm", gelu="none", eps=1e-12).eval()
    report = import_weights(model, save(source, tmp_path))
    assert not (report.initialised or report.ignored or report.differences)
    assert "ImageNet" in report.resized["embedding.projection"]
    video = torch.rand(2, 3, 4, 32, 32)
    normalised = normalize(video.transpose(1, 2), IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(model(2 * video - 1).logits, source(normalised).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("final_norm", [False, True])
def test_a_pre_trained_video_mae_starts_a_classifier(tmp_path, final_norm):
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    small = {"decoder_num_hidden_layers": 1, "decoder_hidden_size": 24, "decoder_num_attention_heads": 3}
    config = VideoMAEConfig(
        image_size=32,
        num_frames=4,
        tubelet_size=2,
        patch_size=16,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        use_mean_pooling=not final_norm,
        **small,
    )
    source = shake(VideoMAEForPreTraining(config))
    model = ViT(5, (4, 32, 32), (2, 16, 16), **SMALL, pooling="gap_norm", gelu="none", eps=1e-12).eval()
    report = import_weights(model, save(source, tmp_path))
    assert list(report.ignored) == ["decoder"] and sorted(report.initialised) == ["head.bias", "head.weight"]
    video = torch.rand(1, 3, 4, 32, 32)
    normalised = normalize(video.transpose(1, 2), IMAGENET_MEAN, IMAGENET_STD)
    tokens = model.forward_features(2 * video - 1)[1].flatten(1, 3)
    seen = model.norm(tokens) if final_norm else tokens
    torch.testing.assert_close(seen, source.videomae(normalised).last_hidden_state, rtol=0, atol=1e-4)
    assert final_norm or torch.equal(model.norm.weight, torch.ones(24))


@pytest.mark.parametrize("inflation", ["central", "average"])
def test_timms_model_trained_on_imagenets_normalised_pixels(tmp_path, inflation):
    source = timm_vit()
    model = ViT(5, (2, 32, 32), (2, 8, 8), **SMALL, pooling="token", gelu="none").eval()
    import_weights(model, save(source, tmp_path), inflation, pixels="imagenet")
    image = torch.rand(2, 3, 32, 32)
    still = image.unsqueeze(2).expand(-1, -1, 2, -1, -1)
    found = model(2 * still - 1).logits
    torch.testing.assert_close(found, source(normalize(image, IMAGENET_MEAN, IMAGENET_STD)), rtol=0, atol=1e-4)
    with pytest.raises(WeightsError, match="pixels: found"):
        import_weights(model, save(source, tmp_path), pixels="zero to one")


def test_npz_equals_timms_own_import(tmp_path):
    np.savez(tmp_path / "augreg.npz", **augreg())
    source = timm_vit()
    source.load_pretrained(str(tmp_path / "augreg.npz"))
    image = torch.randn(2, 3, 32, 32)
    model = ViT(5, (1, 32, 32), (1, 8, 8), **SMALL, pooling="token", gelu="none").eval()  # timm's GELU
    report = import_weights(model, tmp_path / "augreg.npz")
    torch.testing.assert_close(model(image).logits, source(image), rtol=0, atol=1e-4)
    assert len(report.differences) == 1 and "gelu='tanh'" in report.differences[0]  # what the file was trained with


def test_big_visions_names_and_table_without_class_row(tmp_path):
    arrays = augreg()
    table = arrays.pop("Transformer/posembed_input/pos_embedding")
    arrays["cls"] = arrays["cls"] + table[:, :1]
    names = {"LayerNorm_2": "LayerNorm_1", "MlpBlock_3": "MlpBlock_0", "Attention_1": "Attention_0"}
    for old, new in names.items():
        arrays = {name.replace(old, new): array for name, array in arrays.items()}
    arrays["pos_embedding"] = table[:, 1:]
    np.savez(tmp_path / "bv.npz", **{f"params/{name}": array for name, array in arrays.items()})
    np.savez(tmp_path / "augreg.npz", **augreg())
    one, other = (ViT(5, (1, 32, 32), (1, 8, 8), **SMALL, pooling="token").eval() for _ in range(2))
    import_weights(one, tmp_path / "bv.npz"), import_weights(other, tmp_path / "augreg.npz")
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(one(image).logits, other(image).logits, rtol=0, atol=1e-6)


def test_an_image_model_becomes_a_video_model(tmp_path):
    """On a still video, averaged kernels compute what the image kernel does; positions repeat over time."""
    file = save(timm_vit(class_token=False, global_pool="avg"), tmp_path)
    image = torch.randn(2, 3, 32, 32)
    still = image.unsqueeze(2).repeat(1, 1, 4, 1, 1)
    one = ViT(5, (1, 32, 32), (1, 8, 8), **SMALL, pooling="gap_norm", gelu="none")
    video = ViT(5, (4, 32, 32), (2, 8, 8), **SMALL, pooling="gap_norm", gelu="none")
    import_weights(one, file)
    report = import_weights(video, file, inflation="average")
    assert set(report.resized) == {"embedding.projection.weight", "positions"}
    for frame in video.embedding(still).unbind(1):
        torch.testing.assert_close(frame, one.embedding(image)[:, 0])
    torch.testing.assert_close(video.positions[:, 0], one.positions[:, 0])
    torch.testing.assert_close(video.positions[:, 1], one.positions[:, 0])
    kernel = torch.randn(2, 3, 8, 8)
    first, second = inflate(kernel, 2, "central").unbind(2)
    assert torch.equal(second, kernel) and not first.any()


def test_a_run_initialises_a_model_with_a_longer_tubelet(tmp_path):
    """At first, the model computes what the run's does on every second frame."""
    options = {"width": 16, "depth": 1, "num_heads": 2}
    source = shake(lookupvivit.create_model("lookupvivit_pico8x2_4x4x4", 3, input_size=(4, 32, 32), **options))
    overrides = {"input_size": [4, 32, 32], **options}
    description = {"name": "lookupvivit_pico8x2_4x4x4", "num_classes": 3, "overrides": overrides}
    save_model(tmp_path, source.state_dict(), description)
    longer = {"input_size": (8, 32, 32), "tubelet": (4, 8, 8), "compressed_size": (2, 4, 4)}
    model = lookupvivit.create_model("lookupvivit_pico8x2_4x4x4", 3, **longer, **options).eval()
    report = import_weights(model, tmp_path)
    assert report.resized == {"embedding.projection.weight": "(2, 8, 8) to (4, 8, 8)"}
    video = torch.randn(2, 3, 8, 32, 32)
    expected = source.eval()(video[:, :, ::2], compressed_size=(2, 4, 4)).logits
    torch.testing.assert_close(model(video).logits, expected)


@pytest.mark.parametrize("inflation", ["central", "average"])
def test_a_lookupvit_of_images_becomes_one_of_videos(tmp_path, inflation):
    """On a clip of one tubelet, it computes what the image model does on the middle frame or on the mean."""
    options = {"width": 16, "depth": 1, "num_heads": 2, "compressed_size": [1, 2, 2]}
    overrides = {**options, "input_size": [1, 32, 32], "tubelet": [1, 8, 8]}
    source = shake(lookupvivit.create_model("lookupvivit_pico8x2_4x4x4", 3, **overrides)).eval()
    description = {"name": "lookupvivit_pico8x2_4x4x4", "num_classes": 3, "overrides": overrides}
    save_model(tmp_path, source.state_dict(), description)
    longer = {**options, "input_size": (2, 32, 32), "tubelet": (2, 8, 8)}
    model = lookupvivit.create_model("lookupvivit_pico8x2_4x4x4", 3, **longer).eval()
    import_weights(model, tmp_path, inflation)
    frames = torch.randn(2, 3, 2, 32, 32)
    image = frames[:, :, 1] if inflation == "central" else frames.mean(dim=2)
    torch.testing.assert_close(model(frames).logits, source(image).logits)


def test_positions_of_another_size_are_resized_in_space():
    table = torch.arange(16.0).reshape(1, 16, 1)
    expected = nn.functional.interpolate(table.reshape(1, 1, 4, 4), size=(8, 8), mode="bilinear")
    placed = unflatten_positions(table, (2, 8, 8), True)
    torch.testing.assert_close(resize_positions(placed, (2, 8, 8))[0, 1, ..., 0], expected[0, 0])
    for is_image in (True, False):
        with pytest.raises(WeightsError, match="positions: found 15"):
            unflatten_positions(torch.zeros(1, 15, 1), (2, 8, 8), is_image)


def test_the_patch_kernel_decides_between_image_and_video_positions():
    """16 x 14 x 14 = 56 x 56 and 14 x 14 = 4 x 7 x 7: the number of positions alone is ambiguous."""
    table = torch.randn(1, 16, 14, 14, 5)
    found = unflatten_positions(table.flatten(1, 3), (8, 14, 14), False)
    assert torch.equal(found, table)
    halved = resize_positions(found, (8, 14, 14)).flatten()
    assert torch.corrcoef(torch.stack([halved, (table[:, ::2] + table[:, 1::2]).flatten()]))[0, 1] > 0.9
    image_table = torch.randn(1, 14 * 14, 5)
    assert torch.equal(unflatten_positions(image_table, (4, 7, 7), True), image_table.unflatten(1, (1, 14, 14)))
    assert unflatten_positions(torch.zeros(1, 8 * 100, 5), (8, 14, 14), False).shape == (1, 8, 10, 10, 5)


def own_run(folder, name, **overrides):
    model = shake(lookupvivit.create_model(name, 5, **overrides))
    save_model(folder, model.state_dict(), {"name": name, "num_classes": 5, "overrides": overrides})
    return model


def test_runs_of_this_library_are_compared_as_well(tmp_path):
    small = {**SMALL, "input_size": (1, 32, 32), "tubelet": (1, 8, 8)}
    source = own_run(tmp_path, "vit_ti16", **small)
    image = torch.randn(2, 3, 32, 32)
    same = lookupvivit.create_model("vit_ti16", 5, **small).eval()
    assert not import_weights(same, tmp_path).differences
    torch.testing.assert_close(same(image).logits, source(image).logits, rtol=0, atol=0)
    assert (
        "gelu='tanh', but this model 'none'"
        in import_weights(lookupvivit.create_model("vit_ti16", 5, **small, gelu="none"), tmp_path).differences[0]
    )
    for wrong in ({"num_heads": 4}, {"depth": 3}):
        for name in ("vit_ti16", "lookupvit_ti16_3x3"):
            with pytest.raises(WeightsError, match=next(iter(wrong))):
                import_weights(lookupvivit.create_model(name, 5, **{**small, **wrong}), tmp_path)
    of_video = {**SMALL, "input_size": (4, 32, 32), "tubelet": (2, 8, 8)}
    video = lookupvivit.create_model("vivit_b16x2", 5, **of_video).eval()
    report = import_weights(video, tmp_path, "average")  # an image model's weights in a video model
    assert "embedding.projection.weight" in report.resized
    still = image[:, :, None].expand(-1, -1, 4, -1, -1)
    tokens, seen = source.forward_features(image)[1], video.forward_features(still)[1]
    assert seen.shape == (2, 2, 4, 4, 24) and torch.isfinite(seen).all() and tokens.shape[1] == 1
    with pytest.raises(WeightsError, match="pixels: found"):
        import_weights(same, tmp_path, pixels="bogus")
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(WeightsError, match="not a readable safetensors"):
        import_weights(lookupvivit.create_model("lookupvit_ti16_3x3", 5, **small), tmp_path)
    (tmp_path / "model.json").write_text("[]")
    with pytest.raises(WeightsError, match=r"model\.json: found \[\]"):
        import_weights(same, tmp_path)


@pytest.mark.parametrize("name", ["lookupvit_ti16_3x3", "vit_ti16", "tokenlearner_ti16_at6"])
def test_a_run_can_start_from_another_input_size_and_other_classes(tmp_path, name):
    """The larger model computes what the smaller one does with resized positions; only the classifiers are new."""
    small = {"width": 24, "depth": 7, "num_heads": 3, "tubelet": (1, 8, 8)}
    source = own_run(tmp_path, name, **small, input_size=(1, 32, 32))
    image = torch.randn(2, 3, 56, 48)
    larger = lookupvivit.create_model(name, 5, **small, input_size=(1, 56, 48)).eval()
    report = import_weights(larger, tmp_path)
    assert report.resized == {"positions": "(1, 4, 4) to (1, 7, 6)"} and not report.initialised
    assert "resized positions ((1, 4, 4) to (1, 7, 6))" in str(report)
    torch.testing.assert_close(larger(image).logits, source(image).logits, rtol=0, atol=1e-5)

    other = lookupvivit.create_model(name, 3, **small, input_size=(1, 56, 48), classifier_bias=0.25).eval()
    report = import_weights(other, tmp_path)
    heads = {name.removesuffix("logits") + "head" for name in other.supervised} if "lookup" in name else {"head"}
    assert set(report.ignored) == heads and set(report.ignored.values()) == {"5 classes, the model has 3"}
    assert set(report.initialised) == {f"{head}.{kind}" for head in heads for kind in ("weight", "bias")}
    assert (other(image).logits == 0.25).all()  # reset to zeros and the bias


def test_upcycling_reports_what_differs(tmp_path):
    """LookupViT normalises tokens before averaging them, and a torch file does not record the number of heads."""
    sizes = {"input_size": (1, 32, 32), "tubelet": (1, 8, 8), "compressed_size": (1, 4, 4), "gelu": "none"}
    model = lookupvivit.create_model("lookupvit_b16_5x5", 5, **SMALL, **sizes)
    report = import_weights(model, save(timm_vit(class_token=False, global_pool="avg"), tmp_path))
    assert any("pooling='gap_norm'" in line and "model.overrides" not in line for line in report.differences)
    assert len(report.notes) == 1 and "attention heads" in report.notes[0]
    assert report.upcycled["blocks.0.gather.out.weight"] == "zeros that open during training"
    assert not set(report.upcycled) & set(report.loaded)
    from lookupvivit.timm import TimmLookupViT

    timms = TimmLookupViT(5, img_size=32, patch_size=8, compressed_size=4, **SMALL, gelu="none")
    assert import_weights(timms, save(timm_vit(), tmp_path)).loaded
    learner = lookupvivit.create_model("tokenlearner_ti16_at6", 5)
    with pytest.raises(WeightsError, match="cannot initialise a TokenLearner"):
        import_weights(learner, save(timm_vit(), tmp_path))


@pytest.mark.parametrize("exchange", ["both", "gather", "none"])
def test_an_upcycled_model_starts_as_the_vit_on_its_compressed_tokens(tmp_path, exchange):
    source = timm_vit(class_token=False, global_pool="avg", fc_norm=False)
    classifiers = "both" if exchange == "both" else "compressed"
    sizes = {"input_size": (1, 32, 32), "tubelet": (1, 8, 8), "compressed_size": (1, 4, 4)}
    options = {"gelu": "none", "exchange": exchange, "classifiers": classifiers}
    model = lookupvivit.create_model("lookupvit_b16_5x5", 5, **SMALL, **sizes, **options).eval()
    report = import_weights(model, save(source, tmp_path))
    image = torch.randn(2, 3, 32, 32)
    output = model(image, return_intermediates=True)
    # 4 x 4 compressed tokens of 4 x 4 lookup tokens are these themselves
    torch.testing.assert_close(output.compressed_logits, source(image), rtol=0, atol=1e-4)
    if exchange == "both":
        assert not output.lookup_logits.any()
        first, last = (output.intermediates[i]["lookup"] for i in (0, -1))
        assert torch.equal(first, last)
        scores = output.intermediates[1]["attention"].flatten(-3)
        assert scores.max() < 0.9  # normed queries and keys: neither flat nor all on one token
        assert scores.max() > 2 / 16
    assert set(report.loaded) | set(report.initialised) | set(report.upcycled) == set(model.state_dict())
    sum(output[name].square().sum() for name in model.supervised).backward()


def test_upcycling_from_a_vivit_trained_here(tmp_path):
    small = {**SMALL, "input_size": (4, 32, 32), "tubelet": (2, 8, 8)}
    vivit = shake(lookupvivit.create_model("vivit_pico8x2", 5, **small))
    save_model(tmp_path / "run", vivit.state_dict(), {"name": "vivit_pico8x2", "num_classes": 5, "overrides": small})
    model = lookupvivit.create_model("lookupvivit_pico8x2_4x4x4", 5, **{**small, "compressed_size": (2, 4, 4)}).eval()
    import_weights(model, tmp_path / "run")
    video = torch.randn(2, 3, 4, 32, 32)
    torch.testing.assert_close(model(video).compressed_logits, vivit(video).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("blocks.1.mlp.fc1.bias"), "has no tensor for blocks.1.mlp.0.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected tensor extra"),
        (
            lambda s: s.update({"head.weight": torch.zeros(5, 9)}),
            r"head.weight: found shape \(5, 9\)",
        ),
        (lambda s: s.pop("blocks.0.attn.qkv.weight"), "unknown format"),
    ],
)
def test_a_file_that_does_not_fit_is_a_one_line_error(tmp_path, change, words):
    state = dict(timm_vit().state_dict())
    change(state)
    torch.save(state, tmp_path / "theirs.pth")
    with pytest.raises(WeightsError, match=words) as caught:
        import_weights(ViT(5, (1, 32, 32), (1, 8, 8), **SMALL, pooling="token"), tmp_path / "theirs.pth")
    assert "\n" not in str(caught.value)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"model": print}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="would run code"):
        import_weights(ViT(5, **SMALL), tmp_path / "evil.pth")


def test_another_class_count_starts_a_fresh_classifier(tmp_path):
    model = ViT(7, (1, 32, 32), (1, 8, 8), **SMALL, pooling="token", gelu="none")
    report = import_weights(model, save(timm_vit(), tmp_path))
    assert report.initialised == ["head.weight", "head.bias"] and "5 classes" in report.ignored["head"]
    with pytest.raises(WeightsError, match="depth 2, but the model has 3"):
        import_weights(ViT(7, (1, 32, 32), (1, 8, 8), **{**SMALL, "depth": 3}), tmp_path / "theirs.pth")
