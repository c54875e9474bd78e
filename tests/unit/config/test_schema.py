"""The schema: every error is one line that names the key, the value and what is expected."""

import json
import subprocess
import sys

import pytest
from support.paths import ROOT

from lookupvivit.config import ConfigError, OptimConfig, RunConfig
from lookupvivit.config.__main__ import editor_schema
from lookupvivit.config.loading import load_config

DEMO = ROOT / "configs" / "camera_motion.yaml"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        # unknown and missing keys
        ("optim.lrr=1", ("optim.lrr", "did you mean optim.lr?")),
        ("lr=1", ("lr: no such key", "did you mean optim.lr?")),
        ("optm.lr=1", ("optm: no such key", "did you mean optim?")),
        ("zzz=1", ("zzz: no such key", "output_dir, model, data")),
        ("optim.learning_rate=1", ("optim.learning_rate: no such key", "name, lr, momentum")),
        ("model={}", ("model.name: missing", "text")),
        # types
        ("optim.lr=fast", ("optim.lr", "'fast'", "a finite number above 0")),
        ("optim.lr=.inf", ("optim.lr", "inf", "finite")),
        ("optim.lr=.nan", ("optim.lr", "nan", "finite")),
        ("optim.lr=true", ("optim.lr", "True", "number")),
        ("optim.batch_size=1.5", ("optim.batch_size", "1.5", "an integer of at least 1")),
        ("optim.batch_size=true", ("optim.batch_size", "True", "integer")),
        ("runtime.zero_stage=true", ("runtime.zero_stage", "True", "integer")),
        ("eval.crops=true", ("eval.crops", "True", "1, 3")),
        ("runtime.compile=1", ("runtime.compile", "1", "true or false")),
        ("output_dir=3", ("output_dir", "3", "text")),
        ("optim.name=adam", ("optim.name", "'adam'", "sgd, adamw")),
        ("optim.betas=[0.9]", ("optim.betas", "[0.9]", "a list of 2 values")),
        ("data=3", ("data: found 3", "a section with the keys dataset, root")),
        ("data.camera_motion=[1]", ("data.camera_motion", "[1]", "a mapping")),
        ("data.camera_motion={frames: x}", ("data.camera_motion.frames", "'x'", "an integer")),
        ("augment.flip_labels={yes: b}", ("augment.flip_labels", "the key True", "a string in quotes")),
        ("model.multi_resolution={t: [4]}", ("model.multi_resolution.k: missing", "a list")),
        ("model.multi_resolution={t: 4, k: [3]}", ("model.multi_resolution.t", "4", "a list of values")),
        # bounds
        ("seed=-1", ("seed", "-1", "at least 0")),
        ("optim.betas=[0.9, 1.5]", ("optim.betas", "[0.9, 1.5]", "at least 0 and below 1")),
        ("optim.layer_decay=0", ("optim.layer_decay", "0", "above 0 and of at most 1")),
        ("runtime.zero_stage=4", ("runtime.zero_stage", "4", "between 0 and 3")),
        ("augment.horizontal_flip=2", ("augment.horizontal_flip", "2", "between 0 and 1")),
        ("augment.mixup=-1", ("augment.mixup", "-1", "at least 0")),
        ("augment.rand_augment=[0, 9]", ("augment.rand_augment", "[0, 9]", "layers, magnitude")),
        ("model.multi_resolution={t: [4], k: [0]}", ("model.multi_resolution.k", "[0]", "at least 1")),
        ("model.multi_resolution={t: [], k: [3]}", ("model.multi_resolution.t", "[]", "a list of values")),
        ("model.keep=[1.0, 0.3]", ("model.keep", "(1.0, 0.3)", "the smaller share first")),
        ("model.keep=[0.0, 0.3]", ("model.keep", "0.0", "above 0")),
        ("eval.keep=moving:0.3", ("eval.keep", "moving:0.3", "a share in (0, 1]")),
        ("eval.compressed_size=[4, 0, 5]", ("eval.compressed_size", "[4, 0, 5]", "at least 1")),
        ("eval.compressed_size=4x5", ("eval.compressed_size", "'4x5'", "TxHxW")),
        # rules that involve several keys
        ("eval.crops=2", ("eval.crops", "2", "1 or 3")),
        ("data.crop=300", ("data.crop", "300", "short_side = 64")),
        ("data.num_classes=null", ("data.num_classes", "None", "integer")),
        ("data.train_list=a.csv", ("data.train_list", "'a.csv'", "data.dataset is kinetics or captions")),
        ("data={sampling: segments, target_fps: 5}", ("data.target_fps", "5", "data.sampling segments")),
        ("optim.momentum=0.5", ("optim.momentum", "0.5", "optim.name is sgd")),
        ("optim.epochs=0.1", ("optim.warmup_epochs", "optim.epochs = 0.1")),
        ("runtime={precision: bf16, zero_stage: 0}", ("runtime.zero_stage", "0", "runtime.precision bf16")),
        ("runtime={offload_optimizer: true, zero_stage: 0}", ("runtime.zero_stage", "runtime.offload_optimizer")),
        ("augment.horizontal_flip=0", ("augment.flip_labels", "augment.horizontal_flip is 0")),
        ("augment.random_erasing_mode=zero", ("augment.random_erasing_mode", "augment.random_erasing is off")),
        ("augment.random_resized_crop=[0.5, 0.1]", ("augment.random_resized_crop", "(0.5, 0.1)", "low <= high")),
        ("augment.scale_jitter=[2, 1]", ("augment.scale_jitter", "(2", "low <= high")),
        ("augment={rand_augment: [2, 9], grayscale: 0.5}", ("augment.rand_augment", "grayscale = 0.5")),
        # overrides themselves
        ("seed", ("'seed'", "key=value")),
        ("seed=[", ("seed", "not valid YAML")),
        ("output_dir=2024-13-45", ("output_dir", "month must be in 1..12")),
    ],
)
def test_error_is_one_line_that_names_the_key(override, words):
    with pytest.raises(ConfigError) as caught:
        load_config(DEMO, [override])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_error_names_its_source():
    with pytest.raises(ConfigError, match=r"^command line: optim\.lr: "):
        load_config(DEMO, ["optim.lr=0"])
    with pytest.raises(ConfigError, match=rf"^{DEMO}: augment\.flip_labels: "):
        load_config(DEMO, ["augment.horizontal_flip=0"])


def test_sections_are_immutable_and_copies_are_validated():
    config = load_config(DEMO)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3
    assert config.optim.replace(lr=2).lr == 2.0
    with pytest.raises(ConfigError, match="lr: found -1"):
        config.optim.replace(lr=-1)
    with pytest.raises(ConfigError, match="did you mean lr"):
        config.optim.replace(lrr=1)
    with pytest.raises(ConfigError, match=r"optim\.momentum"):
        config.optim.replace(momentum=0.5)


def test_every_field_has_a_description():
    schema = editor_schema()
    sections = {name: definition for name, definition in schema["$defs"].items() if "properties" in definition}
    assert len(sections) == 11
    for name, section in {**sections, "RunConfig": schema}.items():
        assert section["description"], name
        for key, value in section["properties"].items():
            assert "$ref" in value or value.get("description"), f"{name}.{key}"


def test_editor_schema_is_written_and_permits_bases_and_experiments():
    command = [sys.executable, "-m", "lookupvivit.config"]
    schema = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
    assert schema == editor_schema()
    assert {"base", "caption", *RunConfig.model_fields} == set(schema["properties"])
    assert "required" not in schema and not schema["additionalProperties"]
    lr = schema["$defs"]["OptimConfig"]["properties"]["lr"]
    assert lr["default"] == OptimConfig().lr and lr["exclusiveMinimum"] == 0
