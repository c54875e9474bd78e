"""The Hub's mixin on a folder, and on a repository in the local cache; nothing reaches the network."""

import pytest
import torch

import lookupvivit
from lookupvivit.weights.hub import HubModel

DESCRIPTION = {
    "name": "lookupvivit_pico8x2_4x4x4",
    "num_classes": 3,
    "overrides": {"width": 16, "depth": 1, "num_heads": 2, "input_size": [2, 16, 16]},
    "class_names": ["left", "right", "à gauche"],
    "preprocessing": {"frames": 2, "stride": 1, "short_side": 16, "crop": 16},
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = HubModel(DESCRIPTION).eval()
    torch.nn.init.normal_(model.model.lookup_head.weight)
    return model


def test_a_folder_round_trips_and_is_our_own_format(model, tmp_path):
    clip = torch.randn(1, 3, 2, 16, 16)
    model.save_pretrained(tmp_path / "saved")
    files = {"README.md", "config.json", "model.json", "model.safetensors"}
    assert {file.name for file in (tmp_path / "saved").iterdir()} == files
    again = HubModel.from_pretrained(tmp_path / "saved")
    assert not again.training and again.description == DESCRIPTION
    for loaded in (again, lookupvivit.load_model(tmp_path / "saved"), HubModel.load(tmp_path / "saved")):
        assert torch.equal(loaded(clip).logits, model(clip).logits)
        assert lookupvivit.class_names_of(loaded) == ("left", "right", "à gauche")
        assert lookupvivit.preprocess_of(loaded).crop == 16
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert "library_name: lookupvivit" in card and "à gauche" in card


def test_a_repository_is_read_from_the_cache(model, tmp_path):
    """As huggingface_hub lays its cache out: refs/main names the snapshot folder."""
    repository = tmp_path / "models--owner--lookupvivit"
    model.save_pretrained(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    again = HubModel.from_pretrained("owner/lookupvivit", cache_dir=tmp_path, local_files_only=True)
    clip = torch.randn(1, 3, 2, 16, 16)
    assert torch.equal(again(clip).logits, model(clip).logits)
