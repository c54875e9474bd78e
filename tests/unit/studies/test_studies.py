"""Plans, intervals, tables and figures of studies."""

import csv
import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from support.paths import ROOT

from lookupvivit.cli.study import render_datasets, unfinished_configs
from lookupvivit.config import ConfigError
from lookupvivit.config.loading import to_yaml
from lookupvivit.config.yaml_files import dump_yaml, read_yaml
from lookupvivit.profiling import flops
from lookupvivit.sizes import parse_token_setting
from lookupvivit.studies.figure import study_figure
from lookupvivit.studies.jobs import JobRunner, read_result, supported_sizes
from lookupvivit.studies.plan import base_of, read_study, search_jobs, study_jobs
from lookupvivit.studies.results import collect, half_interval, to_csv, to_markdown
from lookupvivit.studies.search import chosen_settings, known_jobs

BASE = ROOT / "configs" / "camera_motion.yaml"
VARIANTS = {
    "Lookup 4x4x4": {},
    "Lookup 2x2x2": {"model.overrides": {"compressed_size": [2, 2, 2]}},
    "ViViT": {"model.name": "vivit_pico8x2"},
}
# A program in place of training and test: writes what these leave behind, a score that depends on size and seed.
PROGRAM = """
import json, pathlib, sys
settings = dict(argument.split("=", 1) for argument in sys.argv[4:])
run, seed = pathlib.Path(json.loads(settings["output_dir"])), int(settings["seed"])
rate = float(settings["optim.lr"])
if "ViViT" in str(run) and "fail" in settings.get("data.root", ""):
    sys.exit("error: data.root: no such folder")
if rate > 10:
    sys.exit(3)  # as a training whose loss is not finite
if sys.argv[1] == "train":
    score = 100 * rate if "2x2x2" in str(run) else 50 - 100 * rate
    (run / "log.jsonl").write_text(json.dumps({"step": 1, "kind": "val", "top1": score}) + "\\n")
    with open(run / "starts.txt", "a") as starts:
        starts.write("train\\n")
else:
    size = settings.get("eval.compressed_size")
    (run / "predictions").mkdir(exist_ok=True)
    keep = settings.get("eval.keep")
    frame = "_single_frame" if settings.get("eval.single_frame") == "true" else ""
    name = "4x3" + (f"_compressed_{size}" if size else "") + (f"_keep_{keep}".replace(":", "_") if keep else "") + frame
    summary = {"videos": 10, "views": {"4x3": {"top1": 10 * seed + (5 if size else 1 if keep else 0)}}}
    (run / "predictions" / f"{name}.json").write_text(json.dumps(summary))
"""


@pytest.fixture
def study_file(tmp_path) -> Path:
    content = {
        "title": "Sizes",
        "base": str(BASE),
        "output_dir": str(tmp_path / "runs"),
        "overrides": {"optim.max_steps": 3},
        "search": {"key": "optim.lr", "values": [0.1, 0.2]},
        "variants": VARIANTS,
        "seeds": [1, 2, 4],
        "test_sizes": ["4x4x4", [1, 2, 2], "@motion:0.5"],
        "groups": {"Lookup 4x4x4": "LookupViViT", "Lookup 2x2x2": "LookupViViT"},
    }
    (tmp_path / "study.yaml").write_text(dump_yaml(content))
    return tmp_path / "study.yaml"


@pytest.fixture
def runner() -> JobRunner:
    program = [sys.executable, "-c", PROGRAM]
    return JobRunner(BASE, [*program, "train"], [*program, "test"], parallel=2)


def test_the_base_of_a_study_may_be_a_name(study_file):
    content = read_yaml(study_file)
    study_file.write_text(dump_yaml({**content, "base": "camera_motion"}))
    assert base_of(read_study(study_file), study_file).samefile(BASE)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_studies_of_the_repository_are_valid(path):
    """All variants exist, and variants with the same name have the same settings in all studies, which share runs."""
    study = read_study(path)
    unfinished_configs(study, base_of(study, path))
    for other in map(read_study, path.parent.glob("*.yaml")):
        if other.base == study.base:
            assert other.runs_dir == study.runs_dir and other.overrides == study.overrides
            assert all(study.variants.get(name, settings) == settings for name, settings in other.variants.items())


@pytest.mark.parametrize("count", [2, 3, 7, 10, 11, 25, 100])
def test_the_interval_is_student_s(count):
    values = np.random.default_rng(count).normal(70, 3, count)
    expected = stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / math.sqrt(count)
    assert half_interval(values.tolist()) == pytest.approx(expected, rel=2e-3)


def test_a_dataset_is_rendered_once_for_all_runs(study_file, monkeypatch):
    roots = []
    monkeypatch.setattr("data_pipelines.datasets.camera_motion.prepare", lambda root, recipe: roots.append(str(root)))
    configs = unfinished_configs(read_study(study_file), BASE)
    other = configs[0].replace(data=configs[0].data.replace(root="other"))
    render_datasets([*configs, other])
    assert roots == ["data/camera_motion", "other"]


def test_one_run_has_no_interval():
    assert half_interval([70.0]) is None


def test_jobs_have_the_settings_of_study_variant_and_search(study_file):
    study = read_study(study_file)
    jobs = study_jobs(study, {"ViViT": {"optim.lr": 0.2}})
    assert [(job.seed, job.variant) for job in jobs] == [(seed, name) for seed in (1, 2, 4) for name in VARIANTS]
    config = jobs[2].config(BASE)
    assert (config.model.name, config.optim.lr, config.optim.max_steps, config.seed) == ("vivit_pico8x2", 0.2, 3, 1)
    assert len({job.folder for job in jobs} | {job.folder for row in search_jobs(study).values() for job in row}) == 15


def test_sizes_that_a_model_does_not_support_are_not_tested(study_file):
    lookup, _, vivit = study_jobs(read_study(study_file), {})[:3]
    sizes = [parse_token_setting(text) for text in ("4x4x4", "1x2x2", "9x9x9", "@0.5", "4x4x4@0.5", "1x2x2@motion:0.3")]
    sizes.append(parse_token_setting("@merge:0.5"))
    supported = [list(map(str, supported_sizes(job.config(BASE), sizes))) for job in (lookup, vivit)]
    assert supported == [["", "1x2x2", "@0.5", "1x2x2@motion:0.3"], ["", "@0.5", "@merge:0.5"]]


def test_a_study_from_search_to_figure(study_file, runner):
    study = read_study(study_file)
    searches = [job for jobs in search_jobs(study).values() for job in jobs]
    assert runner.run(searches, (), "search", testing=False) == []
    chosen = chosen_settings(study)
    assert {name: setting["optim.lr"] for name, setting in chosen.items()} == {
        "Lookup 4x4x4": 0.1,
        "Lookup 2x2x2": 0.2,
        "ViViT": 0.1,
    }
    jobs = study_jobs(study, chosen)
    for _ in range(2):  # the second call finds everything finished
        assert runner.run(jobs, study.test_sizes, "study") == []
    assert all((job.folder / "starts.txt").read_text() == "train\n" for job in jobs)

    rows = collect(study, jobs)
    keys = [(row.variant, row.compressed_size, row.is_own_size) for row in rows]
    assert keys == [
        ("Lookup 4x4x4", "4x4x4", True),
        ("Lookup 4x4x4", "1x2x2", False),
        ("Lookup 4x4x4", "4x4x4@motion:0.5", False),
        ("Lookup 2x2x2", "2x2x2", True),
        ("Lookup 2x2x2", "1x2x2", False),
        ("Lookup 2x2x2", "2x2x2@motion:0.5", False),
        ("Lookup 2x2x2", "4x4x4", False),
        ("ViViT", "", True),
        ("ViViT", "@motion:0.5", False),
    ]
    assert rows[0].top1 == pytest.approx(70 / 3) and rows[1].top1 == pytest.approx(70 / 3 + 5)
    assert rows[2].top1 == pytest.approx(70 / 3 + 1)
    assert rows[7].gflops > rows[0].gflops == rows[6].gflops > rows[2].gflops and rows[0].gflops > rows[1].gflops
    parsed = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert len(parsed) == 9 and parsed[0]["scores"] == "10.00 20.00 40.00"
    assert to_markdown(study, rows, "a machine").count("\n| ") == 11
    assert study_figure(study, rows).shape[2] == 3


def test_a_trial_that_diverges_is_not_chosen(study_file, runner):
    study = read_study(study_file).replace(search={"key": "optim.lr", "values": [99.0, 0.1]})
    searches = [job for jobs in search_jobs(study).values() for job in jobs]
    assert known_jobs(study) == [] and len(unfinished_configs(study, BASE)) == 15
    assert runner.run(searches, (), "search", testing=False) == []
    assert chosen_settings(study) == {name: {"optim.lr": 0.1} for name in VARIANTS}
    runner.train = ["false"]
    assert runner.run(searches, (), "search", testing=False) == []  # not tried again
    hopeless = study.replace(search={"key": "optim.lr", "values": [99.0]})
    with pytest.raises(ConfigError, match=r"found \[99.0\], expected .* Lookup 4x4x4 does not diverge"):
        chosen_settings(hopeless)
    with pytest.raises(ConfigError, match=r"log.validate_every_epochs: found 0"):
        unfinished_configs(study.replace(overrides={"log.validate_every_epochs": 0}, output_dir="other"), BASE)


def test_a_search_over_names_and_lists(study_file, runner):
    """The report of a search that has grown contains the variants whose trials are finished."""
    values = [[0.9, 0.95], [0.9, 0.99]]
    study = read_study(study_file).replace(
        overrides={"optim.lr": 0.1, "optim.name": "adamw"}, search={"key": "optim.betas", "values": values}
    )
    searches = [job for jobs in search_jobs(study).values() for job in jobs]
    assert runner.run(searches, (), "search", testing=False) == []
    jobs = known_jobs(study)
    assert runner.run(jobs, (), "study") == []
    rows = collect(study, jobs)
    assert [row.setting for row in rows] == ["[0.9, 0.95]"] * 3 and "| [0.9, 0.95] |" in to_markdown(study, rows, "")
    assert known_jobs(study.replace(search={"key": "optim.betas", "values": [*values, [0.8, 0.9]]})) == []


def test_a_study_of_single_frames(study_file, runner):
    overrides = {"optim.lr": 0.1, "eval.single_frame": True}
    study = read_study(study_file).replace(overrides=overrides, search=None, test_sizes=())
    jobs = study_jobs(study, {})[:1]
    assert runner.run(jobs, (), "study") == [] and len(collect(study, jobs)) == 1
    assert (jobs[0].folder / "predictions" / "4x3_single_frame.json").is_file()


def test_an_operator_of_unknown_cost_does_not_end_a_study(study_file, runner, monkeypatch):
    monkeypatch.delitem(flops.ELEMENTWISE, "gelu")
    study = read_study(study_file).replace(overrides={"optim.lr": 0.1}, search=None, test_sizes=())
    jobs = study_jobs(study, {})[:3]
    assert runner.run(jobs, (), "study") == []
    rows = collect(study, jobs)
    assert to_markdown(study, rows, "").count("| unknown |") == 3 and study_figure(study, rows).shape[2] == 3


def test_runs_at_the_same_time_have_gpus_of_their_own(study_file, runner, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    runner.train = [sys.executable, "-c", "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES']); sys.exit(9)"]
    study = read_study(study_file).replace(overrides={"optim.lr": 0.1}, search=None)
    jobs = study_jobs(study, {})[:6]
    assert len(runner.run(jobs, (), "study")) == 6
    assert {(job.folder / "output.txt").read_text().strip() for job in jobs} == {"5", "GPU-7"}


def test_studies_share_the_runs_of_one_folder(study_file, runner, tmp_path):
    shared = {"search": None, "overrides": {"optim.lr": 0.1}, "runs_dir": str(tmp_path / "shared"), "seeds": (1,)}
    first = read_study(study_file).replace(**shared, test_sizes=())
    second = read_study(study_file).replace(**shared, title="Other", output_dir=str(tmp_path / "other"))
    for study in (first, second):
        assert runner.run(study_jobs(study, {}), study.test_sizes, "study") == []
    jobs = study_jobs(first, {})
    assert [job.folder for job in jobs] == [job.folder for job in study_jobs(second, {})]
    assert all((job.folder / "starts.txt").read_text() == "train\n" for job in jobs)
    assert [row.compressed_size for row in collect(first, jobs)] == ["4x4x4", "2x2x2", ""]
    assert len(collect(second, jobs)) == 9


def test_a_failed_run_is_reported_and_the_others_finish(study_file, runner):
    study = read_study(study_file).replace(overrides={"data.root": "fail", "optim.lr": 0.1}, search=None)
    jobs = study_jobs(study, {})[:3]
    [failure] = runner.run(jobs, (), "study")
    assert "data.root: no such folder" in failure and str(jobs[2].folder) in failure
    assert [read_result(job) is not None for job in jobs] == [True, True, False]


def test_a_run_whose_test_failed_is_tested_but_not_trained_again(study_file, runner):
    study = read_study(study_file).replace(overrides={"optim.lr": 0.1}, search=None)
    [job] = study_jobs(study, {})[:1]
    working, runner.test = runner.test, [sys.executable, "-c", "raise SystemExit('no memory')"]
    assert "no memory" in runner.run([job], (), "study")[0] and collect(study, [job]) == []
    runner.test = working
    assert runner.run([job], (), "study") == []
    assert (job.folder / "starts.txt").read_text() == "train\n" and len(collect(study, [job])) == 1


def test_a_folder_with_other_settings_is_refused(study_file, runner):
    study = read_study(study_file).replace(overrides={"optim.lr": 0.1}, search=None)
    [job] = study_jobs(study, {})[:1]
    assert runner.run([job], (), "study") == []
    [other] = study_jobs(study.replace(overrides={"optim.lr": 0.3}), {})[:1]
    with pytest.raises(ConfigError, match=r"found a run with the settings .*0\.1.*, expected .*0\.3"):
        read_result(other)


def test_only_unfinished_runs_are_rendered_for(study_file, runner):
    study = read_study(study_file).replace(overrides={"optim.lr": 0.1}, search=None)
    jobs = study_jobs(study, {})
    assert len(unfinished_configs(study, BASE)) == len(jobs) == 9
    runner.run(jobs[:4], study.test_sizes, "study")
    runner.run(jobs[4:5], (), "study")  # other tests are missing
    assert len(unfinished_configs(study, BASE)) == 5
    assert len(unfinished_configs(study.replace(test_sizes=()), BASE)) == 4


def test_a_finished_run_of_another_base_is_refused(study_file, runner):
    study = read_study(study_file).replace(overrides={"optim.lr": 0.1}, search=None)
    [job] = study_jobs(study, {})[:1]
    runner.run([job], study.test_sizes, "study")
    config = job.config(BASE)
    before = config.replace(log=config.log.replace(every=7))
    (job.folder / "config.yaml").write_text(to_yaml(before))
    assert len(unfinished_configs(study, BASE)) == 8
    (job.folder / "config.yaml").write_text(to_yaml(before.replace(data=config.data.replace(crop=48))))
    with pytest.raises(ConfigError, match=r"seed_1: found a run with other settings \(data\.crop: 48 -> 64\)"):
        unfinished_configs(study, BASE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": [1000]}, r"search\.seed"),
        ({"groups": {"ViT": "a"}}, "groups"),
        ({"variants": {}}, "variants"),
        ({"titel": "x"}, "titel: no such key"),
    ],
)
def test_errors_name_the_file_and_the_key(study_file, changes, message):
    content = json.loads(json.dumps(read_study(study_file).model_dump()))
    study_file.write_text(dump_yaml({**content, **changes}))
    with pytest.raises(ConfigError, match=rf"study\.yaml: {message}"):
        read_study(study_file)
