"""The schema: what it accepts comes back unchanged, what it refuses is one line that names the key."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import ROOT

from lookupvivit.config import ConfigError
from lookupvivit.config.loading import load_config, to_yaml

CONFIGS = ROOT / "configs"
DEMO = CONFIGS / "camera_motion.yaml"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_loads_and_says_how_it_is_run(path):
    from lookupvivit.training.build import build_model

    config = load_config(path)
    assert config.output_dir == f"runs/{path.stem}"
    assert f"deepspeed tools/train_net.py --cfg configs/{path.name}" in path.read_text()
    small = {"width": 24, "depth": 7, "num_heads": 2}  # TokenLearner learns after six
    shrunk = load_config(path, [f"model.overrides.{key}={value}" for key, value in small.items()])
    assert build_model(shrunk).num_classes == config.data.num_classes


@settings(max_examples=40, deadline=None)
@given(
    lr=st.floats(1e-9, 10),
    betas=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    jitter=st.none() | st.just((0.5, 2.0)),
    stage=st.integers(0, 3),
    name=st.text("ab Ω:#'\"-\n1e.", min_size=1),
)
def test_round_trip(tmp_path_factory, lr, betas, jitter, stage, name):
    import dataclasses

    config = load_config(DEMO)
    config = dataclasses.replace(
        config,
        output_dir=name,
        optim=dataclasses.replace(config.optim, lr=lr, betas=betas),
        augment=dataclasses.replace(config.augment, scale_jitter=jitter),
        engine=dataclasses.replace(config.runtime, zero_stage=stage),
    )
    file = tmp_path_factory.mktemp("config") / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(file) == config


def test_overrides_win_and_reach_into_mappings():
    overrides = ["optim.lr=1e-3", "optim.lr=2E-4", "model.overrides.depth=4", "optim.max_steps=null", "seed=3"]
    config = load_config(DEMO, [*overrides, "model.overrides.compressed_size=[2, 3, 3]"])
    assert (config.optim.lr, config.optim.max_steps, config.seed) == (2e-4, None, 3)
    assert config.model.overrides == {"depth": 4, "compressed_size": [2, 3, 3]}
    laid_over = load_config(DEMO, [*overrides, "model.overrides={width: 64, depth: 2}"])
    assert laid_over.model.overrides == {"depth": 2, "width": 64}, "a mapping lies over the file's, as in a file"
    assert load_config(DEMO, [*overrides, "model.overrides={}"]).model.overrides == {}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.lrr=1", ("command line", "optim.lrr", "did you mean optim.lr?")),
        ("lr=1", ("lr: no such key", "did you mean optim.lr?")),
        ("optm.lr=1", ("command line", "optm", "did you mean optim?")),
        ("zzz=1", ("zzz: no such key", "the sections are output_dir, model")),
        ("optim.lr=fast", ("optim.lr", "'fast'", "a number")),
        ("optim.batch_size=1.5", ("optim.batch_size", "1.5", "a whole number")),
        ("optim.batch_size=true", ("optim.batch_size", "True", "a whole number")),
        ("output_dir=3", ("output_dir", "3", "text")),
        ("optim.name=adam", ("optim.name", "'adam'", "sgd, adamw")),
        ("optim.betas=[0.9]", ("optim.betas", "a list of 2 values")),
        ("optim.betas=[0.9, 1.5]", ("optim.betas", "[0, 1)")),
        ("data.crop=300", ("data.crop", "300", "data.short_side = 64")),
        ("data=3", ("data: found 3", "a section with dataset, root")),
        ("model={}", ("model.name: missing",)),
        ("engine={precision: bf16, zero_stage: 0}", ("runtime.zero_stage", "1, 2 or 3 with runtime.precision bf16")),
        ("runtime.zero_stage=4", ("runtime.zero_stage", "4", "0, 1, 2 or 3")),
        ("augment.horizontal_flip=2", ("augment.horizontal_flip", "between 0 and 1")),
        ("optim.epochs=0.1", ("optim.warmup_epochs", "at most optim.epochs = 0.1")),
        ("eval.crops=2", ("eval.crops", "1 or 3")),
        ("seed", ("'seed' is no override", "key=value")),
        ("seed=[", ("command line: seed", "not valid YAML")),
        ("output_dir=2024-13-45", ("command line: output_dir", "month must be in 1..12")),
        ("optim.lr=.inf", ("optim.lr", "inf", "finite")),
        ("optim.lr=.nan", ("optim.lr", "nan", "finite")),
        ("optim.learning_rate=1", ("optim.learning_rate", "the keys of optim are name, lr, momentum")),
        ("augment.rand_augment=[0, 9]", ("augment.rand_augment", "layers, magnitude")),
        ("augment.mixup=-1", ("augment.mixup", "0 (off) or more")),
        ("model.multi_resolution={t: [4]}", ("model.multi_resolution", "{t: [...], k: [...]}")),
        ("model.multi_resolution={t: [4], k: [0]}", ("model.multi_resolution", "at least 1 token")),
        ("model.multi_resolution={t: 4, k: [3]}", ("model.multi_resolution.t", "a list of values")),
        ("eval.compressed_size=[4, 0, 5]", ("eval.compressed_size", "at least 1")),
        ("optim.momentum=0.5", ("optim.momentum", "left out unless optim.name is sgd")),
        ("augment.horizontal_flip=0", ("augment.flip_labels", "left out where augment.horizontal_flip is 0")),
        ("data.train_list=a.csv", ("data.train_list", "'a.csv'", "left out unless data.dataset is kinetics")),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(override, words):
    with pytest.raises(ConfigError) as caught:
        load_config(DEMO, [override])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\nseed: 2\n", ("line 2", "'seed' is given twice")),
        ("seed: [1\n", ("line", "not valid YAML")),
        ("- 1\n", ("found list at the top",)),
        ("", ("found NoneType at the top",)),
        ('"a\\nb": 1\n', ("a b: no such key",)),
        ("seed: !!python/object:os.system {}\n", ("not valid YAML",)),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(tmp_path, text, words):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    message = str(caught.value)
    assert message.startswith(str(file)) and "\n" not in message
    for word in words:
        assert word in message


def test_text_that_looks_like_a_number_stays_text(tmp_path):
    (tmp_path / "run.yaml").write_text(to_yaml(load_config(DEMO, ["output_dir='1e3'"])))
    assert load_config(tmp_path / "run.yaml").output_dir == "1e3"


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), (".5e-2", 5e-3), ("+2.E1", 20.0), ("3", 3.0)])
def test_numbers_are_read_as_people_write_them(text, value):
    assert load_config(DEMO, [f"optim.lr={text}"]).optim.lr == value


def test_a_directory_is_named(tmp_path):
    with pytest.raises(ConfigError, match="found a directory"):
        load_config(tmp_path)


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_config("nowhere.yaml")


def test_a_file_states_only_what_differs_from_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text((CONFIGS / "camera_motion.yaml").read_text())
    (tmp_path / "other.yaml").write_text("base: base.yaml\noutput_dir: elsewhere\nmodel: {overrides: {depth: 2}}\n")
    (tmp_path / "third.yaml").write_text("base: other.yaml\nmodel: {overrides: {width: 64}}\noptim: {lr: 0.5}\n")
    base, third = load_config(tmp_path / "base.yaml"), load_config(tmp_path / "third.yaml", ["optim.epochs=1"])
    assert third.model.name == base.model.name and third.model.overrides == {"depth": 2, "width": 64}
    assert third.output_dir == "elsewhere" and third.data == base.data
    assert (third.optim.lr, third.optim.epochs, third.optim.weight_decay) == (0.5, 1, base.optim.weight_decay)
    assert load_config(CONFIGS / "ssv2_vivit_unregularised.yaml").augment.rand_augment == (2, 20)
    (tmp_path / "empty.yaml").write_text("base: third.yaml\nmodel: {overrides: {}}\n")
    assert load_config(tmp_path / "empty.yaml").model.overrides == {}

    (tmp_path / "base.yaml").write_text("base: third.yaml\n")
    with pytest.raises(ConfigError, match=r"base: .* leads back to this file"):
        load_config(tmp_path / "third.yaml")
    (tmp_path / "lost.yaml").write_text("base: nowhere.yaml\n")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "lost.yaml")
