"""Atomic writes: failures, concurrent writers, long names, crashes."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT

from data_pipelines.io import atomic
from data_pipelines.io.atomic import atomic_files, atomic_write, move_folder, new_folder, write_json, write_text

LONG_NAMES = ("a" * 235 + ".json", "a" * 250 + ".json", "日" * 80 + ".txt", "." + "x" * 254)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_successful_block_replaces_the_file(tmp_path):
    file = tmp_path / "new" / "folder" / "data.bin"
    for content in (b"first", b"second, longer"):
        with atomic_write(file) as temporary:
            temporary.write_bytes(content)
        assert file.read_bytes() == content
        assert names_in(file.parent) == ["data.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failing_block_leaves_the_old_file_and_nothing_temporary(tmp_path, error):
    file = tmp_path / "data.bin"
    file.write_bytes(b"old")
    with pytest.raises(error), atomic_write(file) as temporary:
        temporary.write_bytes(b"half of the n")
        raise error
    assert file.read_bytes() == b"old" and names_in(tmp_path) == ["data.bin"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.bin"), atomic_write(tmp_path / "data.bin"):
        pass
    assert not names_in(tmp_path)


def test_a_failing_rename_leaves_nothing_temporary(tmp_path):
    (tmp_path / "data.bin" / "taken").mkdir(parents=True)
    with pytest.raises(OSError):
        write_text(tmp_path / "data.bin", "a folder has this name")
    assert names_in(tmp_path) == ["data.bin"] and names_in(tmp_path / "data.bin") == ["taken"]


def test_the_error_of_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError) as raised, atomic_write(tmp_path / "data.json"):
        Path("/dev/full").write_text("content")
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(tmp_path / "data.json")
    with pytest.raises(OSError) as raised, atomic_files(tmp_path / "folder"):
        Path("/dev/full").write_text("content")
    assert raised.value.filename == str(tmp_path / "folder")


def test_the_temporary_path_keeps_name_and_suffix(tmp_path):
    with atomic_write(tmp_path / "arrays.npz") as temporary:
        assert temporary.name == "arrays.npz" and temporary.parent.parent == tmp_path
        np.savez(temporary, x=np.arange(3))  # appends .npz to any other suffix
        assert not list(tmp_path.glob("*.npz"))  # patterns do not match an incomplete file
    assert np.load(tmp_path / "arrays.npz")["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", LONG_NAMES)
def test_names_of_any_legal_length(tmp_path, name):
    assert 240 <= len(name.encode()) <= 255
    write_text(tmp_path / name, "text")
    assert names_in(tmp_path) == [name]


def test_file_permissions_follow_the_umask(tmp_path):
    (tmp_path / "plain").write_text("text")
    write_text(tmp_path / "atomic", "text")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_relative_path_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json("report.json", {"name": "Zoë"})
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == {"name": "Zoë"}
    assert "Zoë" in (tmp_path / "report.json").read_text(encoding="utf-8")


def test_nested_writers_of_one_file(tmp_path):
    """The block that ends last determines the content, although the other one began later."""
    with atomic_write(tmp_path / "x") as outer:
        outer.write_text("outer")
        with atomic_write(tmp_path / "x") as inner:
            inner.write_text("inner")
        assert (tmp_path / "x").read_text() == "inner"
    assert (tmp_path / "x").read_text() == "outer" and names_in(tmp_path) == ["x"]


def write_repeatedly(file: Path, byte: int) -> None:
    for _ in range(30):
        with atomic_write(file) as temporary:
            temporary.write_bytes(bytes([byte]) * 200_000)


def test_concurrent_writers_never_mix(tmp_path):
    file = tmp_path / "shared.bin"
    file.write_bytes(b"\0" * 200_000)
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=write_repeatedly, args=(file, byte)) for byte in (1, 2, 3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        content = file.read_bytes()
        assert len(content) == 200_000 and len(set(content)) == 1
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert names_in(tmp_path) == ["shared.bin"]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    file = tmp_path / "data.txt"
    file.write_text("old")
    code = f"""
import time
from data_pipelines.io.atomic import atomic_write
with atomic_write({str(file)!r}) as temporary:
    temporary.write_text("incomplete")
    print("ready", flush=True)
    time.sleep(60)
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert writer.stdout.readline() == b"ready\n"
    writer.kill()
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
    assert file.read_text() == "old" and list(tmp_path.glob("*.txt")) == [file]
    write_text(file, "new")  # the remains do not disturb the next writer
    assert file.read_text() == "new"


def test_data_reach_the_disk_before_the_rename_and_the_rename_before_the_end(tmp_path, monkeypatch):
    events = []
    replace = os.replace
    monkeypatch.setattr(atomic, "sync", lambda path: events.append(f"sync {path.name}"))
    monkeypatch.setattr(os, "replace", lambda old, new: events.append(f"rename {new.name}") or replace(old, new))
    write_text(tmp_path / "data", "text")
    assert events == ["sync data", "rename data", f"sync {tmp_path.name}"]


def test_several_files_appear_together_in_the_order_of_their_names(tmp_path, monkeypatch):
    renamed = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: renamed.append(new.name) or replace(old, new))
    with atomic_files(tmp_path / "shards", prefix=".train-") as temporary:
        assert temporary.name.startswith(".train-")
        for name in ("2.tar", "1.tar"):
            (temporary / name).write_text(name)
        assert names_in(tmp_path / "shards") == [temporary.name]
    assert renamed == names_in(tmp_path / "shards") == ["1.tar", "2.tar"]
    with pytest.raises(ValueError), atomic_files(tmp_path / "shards") as temporary:
        (temporary / "3.tar").touch()
        raise ValueError
    assert names_in(tmp_path / "shards") == ["1.tar", "2.tar"]


def test_a_folder_appears_complete_and_replaces_nothing(tmp_path, monkeypatch):
    (tmp_path / ".step" / "deep").mkdir(parents=True)
    (tmp_path / ".step" / "deep" / "file").write_text("content")
    events = []
    replace = os.replace
    monkeypatch.setattr(atomic, "sync", lambda path: events.append(f"sync {path.name}"))
    monkeypatch.setattr(os, "replace", lambda old, new: events.append(f"rename {new.name}") or replace(old, new))
    move_folder(tmp_path / ".step", tmp_path / "step")
    assert events == ["sync deep", "sync file", "sync .step", "rename step", f"sync {tmp_path.name}"]
    assert (tmp_path / "step" / "deep" / "file").read_text() == "content" and names_in(tmp_path) == ["step"]
    (tmp_path / ".step").mkdir()
    with pytest.raises(FileExistsError, match="step"):
        move_folder(tmp_path / ".step", tmp_path / "step")
    assert (tmp_path / "step" / "deep" / "file").read_text() == "content"


def test_new_folders_are_durable_too(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(atomic, "sync", lambda path: synced.append(path))
    write_text(tmp_path / "a" / "b" / "file", "text")
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= set(synced)


def test_a_disk_error_of_a_folder_is_not_ignored(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, "disk error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk error"):
        atomic.sync(tmp_path)


def test_a_link_at_the_temporary_name_of_a_folder_is_not_followed(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("content")
    for number, leads_to in enumerate(("precious", "precious/file", "nowhere")):
        temporary, final = tmp_path / ".best", tmp_path / f"best_{number}"
        temporary.symlink_to(tmp_path / leads_to)
        new_folder(temporary)
        (temporary / "file").write_text("new")
        move_folder(temporary, final)
        assert not final.is_symlink() and (final / "file").read_text() == "new"
        assert (tmp_path / "precious" / "file").read_text() == "content"
