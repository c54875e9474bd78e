"""The Hub's mixin on a folder, and on a repository in the local cache; nothing reaches the network."""

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open

import lookupvivit
from lookupvivit.weights.files import WeightsError
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


def test_a_replaced_classifier_is_described(model, tmp_path):
    """The names of the former classes are gone, everything else stays."""
    model.reset_classifier(5)
    torch.nn.init.normal_(model.model.lookup_head.weight)
    model.save_pretrained(tmp_path / "saved")
    again, clip = HubModel.from_pretrained(tmp_path / "saved"), torch.randn(1, 3, 2, 16, 16)
    assert torch.equal(again(clip).logits, model(clip).logits) and again.num_classes == 5
    expected = {key: value for key, value in DESCRIPTION.items() if key != "class_names"}
    assert again.description == {**expected, "num_classes": 5}
    assert lookupvivit.preprocess_of(again).crop == 16


def test_nothing_is_written_that_cannot_be_loaded(model, tmp_path):
    model.model.compressed_head = torch.nn.Linear(16, 4)
    with pytest.raises(WeightsError, match=r"compressed_head.*found shape \(4.*expected \(3"):
        model.save_pretrained(tmp_path / "saved")
    assert not list((tmp_path / "saved").iterdir())


def test_a_model_is_wrapped(tmp_path):
    created = lookupvivit.create_model(DESCRIPTION["name"], 3, **DESCRIPTION["overrides"])
    HubModel(created).save_pretrained(tmp_path / "one")
    loaded = lookupvivit.load_model(tmp_path / "one")
    assert loaded.state_dict().keys() == created.state_dict().keys()
    HubModel(loaded).save_pretrained(tmp_path / "two")
    for first, second in zip(*(sorted((tmp_path / name).iterdir()) for name in ("one", "two")), strict=True):
        assert first.read_bytes() == second.read_bytes()
    with pytest.raises(WeightsError, match="found a Linear of unknown options"):
        HubModel(torch.nn.Linear(2, 2))


def test_arguments_of_from_pretrained(model, tmp_path):
    model.save_pretrained(tmp_path)
    other = HubModel.from_pretrained(tmp_path, num_classes=7, dtype=torch.bfloat16)
    assert other(torch.randn(1, 3, 2, 16, 16).bfloat16()).logits.shape == (1, 7)
    assert {tensor.dtype for tensor in other.parameters()} == {torch.bfloat16}
    same = HubModel.from_pretrained(tmp_path, num_classes=3)
    assert torch.equal(same.model.lookup_head.weight, model.model.lookup_head.weight)
    with pytest.raises(TypeError, match="num_class"):
        HubModel.from_pretrained(tmp_path, num_class=7)


@pytest.mark.parametrize(("kind", "name"), [("video", DESCRIPTION["name"]), ("image", "lookupvit_ti16_5x5")])
def test_what_the_hub_and_transformers_read(kind, name, tmp_path):
    HubModel(lookupvivit.create_model(name, 3, width=16, depth=1, num_heads=2)).save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.pipeline_tag == f"{kind}-classification" and card.data.library_name == "lookupvivit"
    assert set(card.data.tags) == {"lookupvit", f"{kind}-classification", "model_hub_mixin"}
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
