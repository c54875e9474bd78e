"""The documentation works: its Python blocks run, its quick commands succeed, and all its options exist."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from support.paths import ROOT

from data_pipelines.datasets.something_something import read_something_something
from lookupvivit.config.loading import load_config
from lookupvivit.training.build import build_model, classifier_description
from lookupvivit.weights.files import save_model

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^    ((?:python|deepspeed|torchrun)\b(?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)


def python_blocks(document):
    return PYTHON.findall(document.read_text(encoding="utf-8"))


def commands(document):
    """The commands in a document's code blocks that start a tool, as lists of words."""
    for text in COMMAND.findall(document.read_text(encoding="utf-8")):
        words = shlex.split(text.replace("\\\n", " "), comments=True)
        if any(word.startswith("tools/") for word in words):
            yield words


ALL_COMMANDS = [(document.name, words) for document in DOCUMENTS for words in commands(document)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, small_set):
    """A folder with what the documentation refers to: a run, a video, and the repository's tools and configs."""
    folder = tmp_path_factory.mktemp("documentation")
    config = load_config("configs/camera_motion.yaml")
    names = read_something_something(small_set, "validation").class_names
    torch.manual_seed(0)
    run = folder / "runs" / "camera_motion"
    save_model(run, build_model(config).state_dict(), classifier_description(config, names))
    shutil.copy(ROOT / "configs" / "camera_motion.yaml", run / "config.yaml")
    shutil.copy(next((small_set / "videos").glob("*.mp4")), folder / "holiday.mp4")
    for name in ("tools", "configs", "docs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def caption_run(workplace):
    """The captioner of docs/IMAGES.md, with random weights."""
    from lookupvivit.captioning import model_from_description
    from lookupvivit.captioning.tokenizer import CaptionTokenizer

    texts = ["a red disc on the left of a black field", "on white, at the right: one blue square"]
    description = {
        "name": "lookupvit_ti16_5x5",
        "overrides": {"input_size": [1, 64, 64], "tubelet": [1, 8, 8], "depth": 1},
        "captioner": {"width": 32, "depth": 1, "num_heads": 2, "length": 8, "vocabulary": 300},
        "preprocessing": {"frames": 1, "stride": 1, "short_side": 64, "crop": 64, "range": [-1, 1]},
        "tokenizer": CaptionTokenizer.fit(texts, 300).to_json(),
    }
    torch.manual_seed(0)
    save_model(workplace / "runs" / "shapes", model_from_description(description).state_dict(), description)


@pytest.fixture(scope="module")
def predictions(workplace, small_set):
    """The stored predictions of a 4x3 test of the run, on the small dataset."""
    subprocess.run(
        [
            *(sys.executable, ROOT / "tools" / "test_net.py", "--cfg", ROOT / "configs" / "camera_motion.yaml"),
            f"data.root={small_set}",
            "data.camera_motion={train_videos: 40, validation_videos: 13, frames: 8}",
            "output_dir=runs/camera_motion",
        ],
        cwd=workplace,
        check=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("document", [path for path in DOCUMENTS if python_blocks(path)], ids=lambda path: path.name)
def test_python_blocks_run(document, workplace, caption_run, predictions, monkeypatch):
    """All blocks of a document run in order, in one namespace, as a reader would paste them."""
    monkeypatch.chdir(workplace)
    namespace = {"__name__": document.stem}
    for block in python_blocks(document):
        exec(compile(block, document.name, "exec"), namespace)


@pytest.mark.slow
def test_quick_commands_succeed(workplace, predictions, shell):
    """Every command on the demo's run, the example video or nothing but the repository; nothing is trained."""
    quick = [words for _, words in ALL_COMMANDS if _is_quick(words, workplace)]
    assert {"predict.py", "visualize_attention.py", "export.py", "aggregate.py"} <= {
        _tool(words)[6:] for words in quick
    }
    for words in quick:
        shell([sys.executable, *words[1:]], folder=workplace)


def _tool(words):
    return next(word for word in words if word.startswith("tools/"))


def _is_quick(words, workplace):
    tool = _tool(words)
    arguments = words[words.index(tool) + 1 :]
    needs_data = ("train_net.py", "test_net.py", "cost_accuracy.py", "benchmark", "doctor", "flops_table", "prepare")
    inputs = [word for word in arguments if re.fullmatch(r"(runs/\S+|\S+\.(mp4|jpg|mkv)|photos/|clips/)", word)]
    exists = [(workplace / word).exists() for word in inputs]
    return words[0] == "python" and not any(name in tool for name in needs_data) and bool(inputs) and all(exists)


@pytest.mark.parametrize("tool", sorted({_tool(words) for _, words in ALL_COMMANDS}))
def test_documented_options_exist(tool, shell):
    help_text = shell([sys.executable, str(ROOT / tool), "--help"])
    for document, words in ALL_COMMANDS:
        if _tool(words) == tool:
            for option in words[words.index(tool) + 1 :]:
                name = option.partition("=")[0]
                assert not name.startswith("--") or re.search(rf"{name}\b", help_text), f"{document}: {name}"


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=f"{document} {number}")
        for number, (document, words) in enumerate(ALL_COMMANDS)
        if "--cfg" in words and (ROOT / words[words.index("--cfg") + 1]).is_file()
    ],
)
def test_documented_settings_exist(words):
    arguments = words[words.index("--cfg") + 2 :]
    overrides = [word for word in arguments if "=" in word and not word.startswith("--")]
    load_config(ROOT / words[words.index("--cfg") + 1], overrides)
