"""A run starts a model with parameters that it lacks, if they are named."""

import pytest
import torch
from support.other_models import shake

from lookupvivit.config.loading import load_config
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.training.build import load_init_from
from lookupvivit.weights.files import WeightsError, save_model
from lookupvivit.weights.importing import import_weights


def test_new_parameters_must_be_named(tmp_path):
    """A run without lookup classifier starts one with it, so that only the infusion of the last block is new."""
    small = {"width": 32, "depth": 2, "num_heads": 2}
    size = {"input_size": (1, 32, 32), "tubelet": (1, 8, 8), "compressed_size": (1, 2, 2)}
    source = shake(LookupViT(5, **size, **small, classifiers="compressed"))
    overrides = {**size, **small, "classifiers": "compressed"}
    save_model(tmp_path, source.state_dict(), {"name": "lookupvit_ti16_3x3", "num_classes": 5, "overrides": overrides})
    model = LookupViT(5, **size, **small)
    with pytest.raises(WeightsError, match=r"missing tensor blocks\.1\.infuse\.\S+ \(\d+ in all\)"):
        import_weights(model, tmp_path, new=["lookup_norm", "lookup_head"])
    config = load_config("camera_motion", [f"init_from={tmp_path}", "init_missing=[lookup_norm]"])
    with pytest.raises(WeightsError, match=r"missing tensor .*; init_missing names"):
        load_init_from(model, config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    new = ["infuse", "infuse_norm", "lookup_mlp", "lookup_mlp_norm", "lookup_norm", "lookup_head"]
    report = import_weights(model, tmp_path, new=new)
    loaded, theirs = model.state_dict(), source.state_dict()
    assert set(report.initialised) == loaded.keys() - theirs.keys() and not report.ignored
    for name, tensor in loaded.items():
        assert torch.equal(tensor, before[name] if name in report.initialised else theirs[name]), name
    assert "randomly initialised blocks.*.infuse.out.bias" in str(report)
    with pytest.raises(WeightsError, match="found a tensor for every parameter named 'gather', expected a new"):
        import_weights(model, tmp_path, new=[*new, "gather"])
