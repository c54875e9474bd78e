"""Which checkpoints are used, kept and removed, on one rank and on several that see different files."""

import errno
import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from lookupvivit.config import ConfigError
from lookupvivit.training import checkpoint_folders
from lookupvivit.training.checkpoint_folders import file_hashes, newest_intact, remove_old
from lookupvivit.training.distributed import World

ALONE = World(0, 1, torch.device("cpu"))


def write_checkpoint(run, step, identity="a"):
    folder = run / "checkpoints" / f"step_{step:08d}"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"run": identity} if identity else {}))
    (folder / "shard.pt").write_bytes(bytes([step]) * 100)
    state = {"step": step, "world_size": 1, "files": file_hashes(folder)}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def damage(folder):
    (folder / "shard.pt").write_bytes(b"x" * 100)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run.json").write_text('{"run": "a"}')
    return tmp_path


def names(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_damaged_checkpoints_do_not_count(run, capsys):
    for step in (3, 6, 9, 12):
        write_checkpoint(run, step)
    damage(run / "checkpoints" / "step_00000012")
    damage(run / "checkpoints" / "step_00000006")
    assert newest_intact(run, ALONE).name == "step_00000009"
    assert (run / "set_aside_1" / "step_00000012" / "shard.pt").exists()
    saved = write_checkpoint(run, 10)
    remove_old(run, saved, keep=3)
    assert names(run) == ["step_00000003", "step_00000009", "step_00000010"]
    assert (run / "set_aside_2" / "step_00000006" / "shard.pt").exists()
    assert "step_00000006 is corrupt: shard.pt has changed" in capsys.readouterr().out


def test_the_checkpoint_just_saved_is_never_removed(run):
    """Not even where another one has a later step."""
    for step in (3, 12):
        write_checkpoint(run, step)
    remove_old(run, write_checkpoint(run, 6), keep=1)
    assert names(run) == ["step_00000006"]
    damage(write_checkpoint(run, 9))
    remove_old(run, run / "checkpoints" / "step_00000006", keep=1)
    assert names(run) == ["step_00000006"] and (run / "set_aside_1" / "step_00000009").is_dir()


def test_a_kept_checkpoint_is_read_once(run, monkeypatch):
    read = []
    digest = checkpoint_folders.file_digest
    monkeypatch.setattr(checkpoint_folders, "file_digest", lambda file: read.append(file) or digest(file))
    old = write_checkpoint(run, 3)
    read.clear()
    for _ in range(3):
        remove_old(run, run / "checkpoints" / "step_00000006", keep=2)
    assert len([file for file in read if file.parent == old]) == 2
    damage(old)
    remove_old(run, run / "checkpoints" / "step_00000006", keep=2)
    assert names(run) == []


def test_checkpoints_of_another_run_are_neither_used_nor_removed(run):
    for step in (3, 6):
        write_checkpoint(run, step)
    write_checkpoint(run, 9, identity="b")
    write_checkpoint(run, 1, identity="b")
    write_checkpoint(run, 2, identity=None)  # of version 0.1
    assert newest_intact(run, ALONE).name == "step_00000006"
    remove_old(run, write_checkpoint(run, 9), keep=1)
    assert names(run) == ["step_00000009"]
    assert (run / "set_aside_1" / "step_00000009").is_dir() and (run / "set_aside_2" / "step_00000001").is_dir()


def test_without_an_intact_checkpoint_nothing_is_moved(run):
    write_checkpoint(run, 3, identity="b")
    (write_checkpoint(run, 6) / "state.json").unlink()
    with pytest.raises(ConfigError, match=r"all checkpoints .* are corrupt or of another run"):
        newest_intact(run, ALONE)
    assert names(run) == ["step_00000003", "step_00000006"]


def test_the_file_that_cannot_be_read_is_named(run, monkeypatch, capsys):
    digest = checkpoint_folders.file_digest
    broken = write_checkpoint(run, 6) / "shard.pt"
    write_checkpoint(run, 3)

    def fail(file):
        if file == broken:
            raise OSError(errno.EIO, "Input/output error", str(file))
        return digest(file)

    monkeypatch.setattr(checkpoint_folders, "file_digest", fail)
    assert newest_intact(run, ALONE).name == "step_00000003"
    assert "step_00000006 is corrupt: shard.pt cannot be read (Input/output error)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "is missing"),
        ("{}", "is incomplete"),
        ("[]", "is incomplete"),
        ('{"step": 1e999, "world_size": 1}', "is incomplete"),
        ("{", "is not as it was written"),
        ("[" * 100_000, "is not as it was written"),
    ],
)
def test_a_checkpoint_without_a_complete_last_file_is_reported(run, capsys, content, problem):
    write_checkpoint(run, 3)
    file = write_checkpoint(run, 6) / "state.json"
    file.unlink() if content is None else file.write_text(content)
    assert newest_intact(run, ALONE).name == "step_00000003"
    assert f"step_00000006 is corrupt: state.json {problem}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../../outside.pt", "{}/outside.pt"])
def test_files_outside_of_a_checkpoint_are_not_read(run, capsys, name):
    write_checkpoint(run, 3)
    (run / "outside.pt").touch()
    files = {name.format(run): "hash"}
    state = write_checkpoint(run, 6) / "state.json"
    state.write_text(json.dumps({"step": 6, "world_size": 1, "files": files}))
    assert newest_intact(run, ALONE).name == "step_00000003"
    assert f"step_00000006 is corrupt: {next(iter(files))} is missing" in capsys.readouterr().out


def ranks(first, second):
    """What each of two ranks, with its own view of the run directory, finds: a checkpoint's name or an error."""
    sent, results = [], []

    def from_main(number):
        sent.append(number)
        return number

    main = SimpleNamespace(rank=0, size=2, is_main=True, from_main=from_main, any=lambda flag: flag)
    replay = SimpleNamespace(rank=1, size=2, is_main=False, from_main=lambda _: sent.pop(0), any=lambda flag: flag)
    for world, run in ((main, first), (replay, second)):
        try:
            results.append(newest_intact(run, world).name)
        except ConfigError as error:
            results.append(str(error))
    return results


def test_ranks_that_see_other_folders_agree_on_the_step_or_stop(run, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(checkpoint_folders, "VISIBILITY_SECONDS", 0.2)
    for step in (6, 12, 18):
        write_checkpoint(run, step)
    other = tmp_path_factory.mktemp("other") / "run"

    def see(*missing):
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(run, other)
        for step in missing:
            shutil.rmtree(other / "checkpoints" / f"step_{step:08d}")

    see(6)  # removed for this rank already
    assert ranks(run, other) == ["step_00000018"] * 2
    see(18)  # not visible to this rank
    one, two = ranks(run, other)
    assert one == "step_00000018" and "output_dir: rank 1 on" in two and "step_00000018 as rank 0 does" in two
    see()
    (other / "checkpoints" / "step_00000018" / "shard.pt").unlink()
    assert "rank 1 on" in ranks(run, other)[1]
    see()  # another state of the same step
    (other / "checkpoints" / "step_00000018" / "state.json").write_text('{"step": 12, "world_size": 1, "files": {}}')
    assert "rank 1 on" in ranks(run, other)[1]
    see(6, 12, 18)
    assert "rank 1 on" in ranks(run, other)[1]
