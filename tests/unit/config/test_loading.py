"""Loading: YAML files, bases, overrides, and files of earlier releases."""

import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import ROOT

from lookupvivit.captioning.config import CaptioningConfig
from lookupvivit.config import ConfigError, RunConfig
from lookupvivit.config.loading import changes, load_config, read_settings, to_dict, to_yaml
from lookupvivit.config.yaml_files import dump_yaml

CONFIGS = ROOT / "configs"
DEMO = CONFIGS / "camera_motion.yaml"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_loads_builds_its_model_and_states_its_command(path):
    from lookupvivit.training.build import build_on_meta
    from lookupvivit.training.distributed import World
    from lookupvivit.training.tasks import create_task

    config = load_config(path)
    assert config.output_dir == f"runs/{path.stem}"
    assert f"deepspeed tools/train_net.py --cfg configs/{path.name}" in path.read_text()
    model = build_on_meta(create_task(config, World(0, 1, torch.device("cpu"))).build_model)
    if config.data.num_classes:
        assert model.num_classes == config.data.num_classes


@settings(max_examples=40)
@given(
    lr=st.floats(1e-9, 10),
    betas=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    jitter=st.none() | st.just((0.5, 2.0)),
    stage=st.integers(0, 3),
    name=st.text("ab Ω:#'\"-\n1e.", min_size=1),
    size=st.none() | st.just((4, 5, 6)),
)
def test_yaml_round_trip(tmp_path_factory, lr, betas, jitter, stage, name, size):
    config = load_config(DEMO)
    config = config.replace(
        output_dir=name,
        optim=config.optim.replace(lr=lr, betas=betas),
        augment=config.augment.replace(scale_jitter=jitter),
        runtime=config.runtime.replace(zero_stage=stage),
        eval=config.eval.replace(compressed_size=size),
    )
    file = tmp_path_factory.mktemp("config") / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(file) == config


def test_overrides_win_and_reach_into_mappings():
    overrides = ["optim.lr=1e-3", "optim.lr=2E-4", "model.overrides.depth=4", "optim.max_steps=null", "seed=3"]
    config = load_config(DEMO, [*overrides, "model.overrides.compressed_size=[2, 3, 3]"])
    assert (config.optim.lr, config.optim.max_steps, config.seed) == (2e-4, None, 3)
    assert config.model.overrides == {"depth": 4, "compressed_size": [2, 3, 3]}
    merged = load_config(DEMO, [*overrides, "model.overrides={width: 64, depth: 2}"])
    assert merged.model.overrides == {"depth": 2, "width": 64}
    assert load_config(DEMO, [*overrides, "model.overrides={}"]).model.overrides == {}


@pytest.mark.parametrize("value", ["4x5x6", "[4, 5, 6]"])
def test_compressed_size_as_text_or_list(value):
    assert load_config(DEMO, [f"eval.compressed_size={value}"]).eval.call == {"compressed_size": (4, 5, 6)}


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), (".5e-2", 5e-3), ("+2.E1", 20.0), ("3", 3.0)])
def test_number_formats(text, value):
    lr = load_config(DEMO, [f"optim.lr={text}"]).optim.lr
    assert lr == value and isinstance(lr, float)


def test_text_that_looks_like_a_number_stays_text(tmp_path):
    (tmp_path / "run.yaml").write_text(to_yaml(load_config(DEMO, ["output_dir='1e3'"])))
    assert load_config(tmp_path / "run.yaml").output_dir == "1e3"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\nseed: 2\n", ("line 2", "'seed'")),
        ("seed: [1\n", ("line", "not valid YAML")),
        ("- 1\n", ("list",)),
        ("", ("NoneType",)),
        ('"a\\nb": 1\n', ("a b: no such key",)),
        ("seed: !!python/object:os.system {}\n", ("not valid YAML",)),
        ("1: 2\n", ("1: no such key",)),
        ("optim: {yes: 2}\n", ("optim.True: no such key",)),
        ("base: 3\n", ("base: found 3",)),
    ],
)
def test_invalid_file_is_one_line_that_names_it(tmp_path, text, words):
    file = tmp_path / "invalid.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    message = str(caught.value)
    assert message.startswith(str(file)) and "\n" not in message
    for word in words:
        assert word in message


def test_missing_file_and_directory_are_named(tmp_path):
    with pytest.raises(ConfigError, match=f"{tmp_path}: found a directory"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_config("nowhere.yaml")


def test_file_states_only_what_differs_from_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text(DEMO.read_text())
    (tmp_path / "second.yaml").write_text("base: base.yaml\noutput_dir: elsewhere\nmodel: {overrides: {depth: 2}}\n")
    (tmp_path / "third.yaml").write_text("base: second.yaml\nmodel: {overrides: {width: 64}}\noptim: {lr: 0.5}\n")
    base, third = load_config(tmp_path / "base.yaml"), load_config(tmp_path / "third.yaml", ["optim.epochs=1"])
    assert third.model.name == base.model.name and third.model.overrides == {"depth": 2, "width": 64}
    assert third.output_dir == "elsewhere" and third.data == base.data
    assert (third.optim.lr, third.optim.epochs, third.optim.weight_decay) == (0.5, 1, base.optim.weight_decay)
    assert load_config(CONFIGS / "ssv2_vivit_unregularised.yaml").augment.rand_augment == (2, 20)
    (tmp_path / "empty.yaml").write_text("base: third.yaml\nmodel: {overrides: {}}\n")
    assert load_config(tmp_path / "empty.yaml").model.overrides == {}


def test_base_that_is_missing_or_circular(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    with pytest.raises(ConfigError, match=r"b\.yaml: no such file"):
        load_config(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: base: found b\.yaml"):
        load_config(tmp_path / "a.yaml")


def test_changes_are_listed_by_dotted_key():
    before = to_dict(load_config(DEMO))
    after = to_dict(load_config(DEMO, ["optim.lr=0.05", f"output_dir={'x' * 500}"]))
    lr, output_dir = sorted(changes(before, after))
    assert lr == "optim.lr: 0.001 -> 0.05"
    assert output_dir.startswith("output_dir: runs/camera_motion -> xxx") and len(output_dir) < 200
    assert changes(before, to_dict(load_config(DEMO))) == []


# Experiments


def test_dataset_selects_the_schema():
    config = load_config(CONFIGS / "coco_captions.yaml", ["caption.depth=2"])
    assert isinstance(config, CaptioningConfig) and config.caption.depth == 2
    assert type(load_config(DEMO)) is RunConfig


@pytest.mark.parametrize(
    ("file", "override", "message"),
    [
        ("camera_motion", "caption.width=32", "caption: "),
        ("camera_motion", "caption=3", "caption: found 3"),
        ("coco_captions", "data.num_classes=3", "data.num_classes: found 3"),
        ("coco_captions", "augment.mixup=0.2", "augment.mixup: found 0.2"),
        ("coco_captions", "augment.cutmix=0.2", "augment.cutmix: found 0.2"),
        ("coco_captions", "optim.loss=sigmoid", "optim.loss: found 'sigmoid'"),
        ("coco_captions", "caption.depth=0", "caption.depth: found 0"),
        ("coco_captions", "caption.dept=2", "caption.dept: no such key, did you mean caption.depth?"),
    ],
)
def test_keys_of_experiments(file, override, message):
    with pytest.raises(ConfigError, match=f"^command line: {re.escape(message)}"):
        load_config(CONFIGS / f"{file}.yaml", [override])


# Earlier releases


def config_of_version_0_1(**captions) -> dict:
    """The config.yaml of a demo run as version 0.1 wrote it."""
    settings = to_dict(load_config(DEMO))
    settings["engine"] = settings.pop("runtime")
    settings["data"]["max_broken"] = settings["data"].pop("max_failed")
    defaults = {"width": 768, "depth": 12, "num_heads": 12, "length": 32, "vocabulary": 8192, "tied": False}
    return {**settings, "caption": {**defaults, **captions}}


def test_config_of_version_0_1_loads(tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text(dump_yaml(config_of_version_0_1()))
    assert load_config(file) == load_config(DEMO)
    notices = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" ")[2] for line in notices] == ["runtime", "data.max_failed"]
    assert read_settings(file) == to_dict(load_config(DEMO))
    assert not capsys.readouterr().err


def test_caption_section_with_other_values_is_an_error(tmp_path):
    (tmp_path / "config.yaml").write_text(dump_yaml(config_of_version_0_1(width=32)))
    with pytest.raises(ConfigError, match=r"config\.yaml: caption: "):
        load_config(tmp_path / "config.yaml")


def test_old_names_on_the_command_line(capsys):
    config = load_config(DEMO, ["engine.threads=3", "data.max_broken=0.5"])
    assert (config.runtime.threads, config.data.max_failed) == (3, 0.5)
    with pytest.raises(ConfigError, match=r"^command line: runtime\.threads: found 0"):
        load_config(DEMO, ["engine.threads=0"])


def test_importing_the_configuration_imports_no_torch():
    code = (
        "import sys; from lookupvivit.config.loading import load_config; "
        f"load_config({str(CONFIGS / 'coco_captions.yaml')!r}); print('torch' in sys.modules)"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "line 2: not valid YAML, found the alias"),
        ("a: " + "[" * 10_000, "nested too deeply"),
        ("# " + "x" * 2**20, "found 1048578 characters"),
        ("output_dir: 0x" + "f" * 5000, "line 1: not valid YAML, found a number of 5002 characters"),
        ("output_dir: 1" + ":59" * 5000, "line 1: not valid YAML, found a number of 15001 characters"),
        ("output_dir: 1:" + "59:" * 20000 + "5.5", "line 1: not valid YAML, found a number of 60005 characters"),
    ],
)
def test_small_files_that_fill_the_memory_are_refused(tmp_path, text, found):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"a\.yaml.*: .*{found}|a\.yaml, {found}"):
        load_config(tmp_path / "a.yaml")


def test_a_large_file_is_not_read(tmp_path):
    with open(tmp_path / "a.yaml", "wb") as file:
        file.truncate(2**40)  # sparse: takes no space, and reading it would fill the memory
    with pytest.raises(ConfigError, match=r"a\.yaml: found 1099511627776 bytes"):
        load_config(tmp_path / "a.yaml")
