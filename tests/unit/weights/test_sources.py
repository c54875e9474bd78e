"""Checkpoints of other libraries are read exactly or refused in one line."""

import numpy as np
import pytest
import torch
from support.other_models import SMALL, augreg, save, timm_vit

import lookupvivit
from lookupvivit.models.vit import ViT
from lookupvivit.weights.files import WeightsError
from lookupvivit.weights.importing import import_weights


def test_bfloat16_arrays_of_big_vision(tmp_path):
    whole = augreg()
    rounded = {name: torch.from_numpy(array).bfloat16() for name, array in whole.items()}
    np.savez(tmp_path / "bfloat16.npz", **{name: t.view(torch.int16).numpy().view("V2") for name, t in rounded.items()})
    np.savez(tmp_path / "float32.npz", **{name: tensor.float().numpy() for name, tensor in rounded.items()})
    models = [ViT(5, (1, 32, 32), (1, 8, 8), **SMALL, pooling="token").eval() for _ in range(2)]
    for model, name in zip(models, ("bfloat16", "float32"), strict=True):
        import_weights(model, tmp_path / f"{name}.npz")
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(models[0](image).logits, models[1](image).logits)


def test_corrupt_and_foreign_files_are_one_line_errors(tmp_path):
    np.savez(tmp_path / "good.npz", **augreg())
    data = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "truncated.npz").write_bytes(data[: len(data) // 2])
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    np.savez(tmp_path / "words.npz", a=np.array(["x"]))
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "page.bin").write_text("<!DOCTYPE html>\n<html>")
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    torch.save({"a": print}, tmp_path / "code.pth")
    model = ViT(5, (1, 32, 32), (1, 8, 8), **SMALL)
    for name in ("truncated.npz", "array.npz", "words.npz", "text.pth", "page.bin", "pointer.pth", "code.pth"):
        with pytest.raises(WeightsError, match=rf"{name}: ") as error:
            import_weights(model, tmp_path / name)
        assert "\n" not in str(error.value)
        assert ("run code" in str(error.value)) == (name == "code.pth")


def test_known_formats_of_another_structure_are_refused_by_name(tmp_path):
    arrays = {name.replace("Transformer/", "SpatialTransformer/"): array for name, array in augreg().items()}
    np.savez(tmp_path / "factorised.npz", **arrays)
    swiglu = timm_vit().state_dict()
    swiglu["blocks.0.mlp.fc1_g.weight"] = swiglu.pop("blocks.0.mlp.fc1.weight")
    torch.save(swiglu, tmp_path / "swiglu.pth")
    incomplete = timm_vit().state_dict()
    del incomplete["blocks.1.mlp.fc2.bias"]
    torch.save(incomplete, tmp_path / "incomplete.pth")
    model = ViT(5, (1, 32, 32), (1, 8, 8), **SMALL, pooling="token", gelu="none")
    for name, words in (
        ("factorised.npz", "unknown format"),
        ("swiglu.pth", "fc1_g"),
        ("incomplete.pth", r"mlp\.2\.bias"),
    ):
        with pytest.raises(WeightsError, match=words):
            import_weights(model, tmp_path / name)
    plain = timm_vit(qkv_bias=False)
    assert "attention biases" in import_weights(model, save(plain, tmp_path)).ignored
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model.eval()(image).logits, plain(image), rtol=0, atol=1e-4)


def test_a_video_mae_without_average_pooling_is_refused(tmp_path):
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    config = VideoMAEConfig(
        image_size=32,
        num_frames=4,
        patch_size=16,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        use_mean_pooling=False,
    )
    model = ViT(2, (4, 32, 32), (2, 16, 16), **SMALL, pooling="gap_norm")
    with pytest.raises(WeightsError, match="reads the first token"):
        import_weights(model, save(VideoMAEForVideoClassification(config), tmp_path))


def test_a_hugging_face_config_supplies_what_tensors_do_not_show(tmp_path):
    from transformers import VivitConfig, VivitForVideoClassification

    config = VivitConfig(
        image_size=32,
        num_frames=4,
        tubelet_size=[2, 16, 16],
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        hidden_act="gelu",
        layer_norm_eps=1e-5,
    )
    VivitForVideoClassification(config).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="num_heads 4, but the model has 3"):
        import_weights(ViT(2, (4, 32, 32), (2, 16, 16), **SMALL, pooling="token"), tmp_path / "model.safetensors")
    model = ViT(2, (4, 32, 32), (2, 16, 16), **{**SMALL, "num_heads": 4}, pooling="token")
    report = import_weights(model, tmp_path / "model.safetensors")
    differences = " ".join(report.differences)
    assert "gelu='none'" in differences and "eps=1e-05" in differences and not report.notes


def test_a_scenic_video_kernel_reads_time_height_and_width(tmp_path):
    arrays = augreg()
    arrays["embedding/kernel"] = np.random.default_rng(1).normal(size=(2, 8, 8, 3, 24)).astype(np.float32)
    arrays["Transformer/posembed_input/pos_embedding"] = np.zeros((1, 1 + 2 * 16, 24), np.float32)
    np.savez(tmp_path / "scenic.npz", **{f"opt/target/{name}": array for name, array in arrays.items()})
    model = ViT(5, (4, 32, 32), (2, 8, 8), **SMALL, pooling="token").eval()
    import_weights(model, tmp_path / "scenic.npz")
    video = torch.randn(1, 3, 4, 32, 32)
    expected = np.einsum("cijk,ijkcd->d", video[0, :, 2:4, 8:16, 24:32].numpy(), arrays["embedding/kernel"])
    token = model.embedding(video)[0, 1, 1, 3]
    np.testing.assert_allclose(token.detach().numpy(), expected + arrays["embedding/bias"], rtol=1e-4, atol=1e-4)
    wrong = lookupvivit.create_model("vit_ti16", 5, width=24, depth=2, num_heads=4)
    with pytest.raises(WeightsError, match="num_heads 3, but the model has 4"):
        import_weights(wrong, tmp_path / "scenic.npz")
