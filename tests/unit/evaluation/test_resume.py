"""Results of an interrupted test on disk: what is kept, what is read again, and what is not."""

import numpy as np

from lookupvivit.evaluation.resume import PartialResult, restore, unfinished_folder

IDENTITY = {"checkpoint": "a", "eval.clips": 2, "size": (4, 5, 5)}


def rows(*videos, failed=None):
    return {
        "video_index": np.array(videos),
        "head_logits": np.array(videos, np.float32)[:, None],
        "failed": np.array([failed or ""] * len(videos)),
    }


def partial_result(folder, seconds=0):
    return PartialResult(folder, seconds, None, frozenset())


def test_finished_batches_are_restored(tmp_path):
    folder = tmp_path / "4x3.partial"
    assert restore(folder, IDENTITY) == (None, [])
    partial = partial_result(folder)
    partial.add(rows(4, 5))
    partial.add(rows(0, 1))
    restored, (message,) = restore(folder, IDENTITY)
    assert restored["video_index"].tolist() == [0, 1, 4, 5] == restored["head_logits"].ravel().tolist()
    assert "4 finished videos" in message
    partial.remove()
    assert not folder.exists()


def test_files_are_written_when_it_is_time_and_at_the_end(tmp_path):
    partial = partial_result(tmp_path / "p", seconds=1000)
    partial.add(rows(4, 5))
    partial.add(rows(8, 9))
    assert not (tmp_path / "p").exists()
    partial.flush()
    assert [file.name for file in (tmp_path / "p").iterdir()] == ["from_00000004.npz"]


def test_a_batch_with_a_failed_video_is_not_kept(tmp_path):
    partial = partial_result(tmp_path / "p")
    partial.add(rows(4, 5, failed="5.mp4: torn"))
    assert not (tmp_path / "p").exists()


def test_a_corrupt_file_is_reported_and_its_videos_are_tested_again(tmp_path):
    folder = tmp_path / "4x3.partial"
    restore(folder, IDENTITY)
    partial = partial_result(folder)
    partial.add(rows(0, 1))
    partial.add(rows(4, 5))
    file = folder / "from_00000004.npz"
    file.write_bytes(file.read_bytes()[:-100])
    restored, messages = restore(folder, IDENTITY)
    assert restored["video_index"].tolist() == [0, 1]
    assert str(file) in messages[0] and "2 finished videos" in messages[1]


def test_repeated_videos_are_counted_once(tmp_path):
    folder = tmp_path / "4x3.partial"
    restore(folder, IDENTITY)
    partial = partial_result(folder)
    partial.add(rows(0, 1))
    partial.add(rows(1, 2))
    restored, _ = restore(folder, IDENTITY)
    assert restored["video_index"].tolist() == [0, 1, 2]


def test_unfinished_tests_with_other_settings_are_reported_and_kept(tmp_path):
    folder, views = tmp_path / "4x3.partial", tmp_path / "2x3.partial"
    restore(views, {**IDENTITY, "eval.clips": 1})
    restore(folder, IDENTITY)
    partial_result(folder).add(rows(0, 1))
    changed = {**IDENTITY, "checkpoint": "b"}
    own, (about_views, about_settings) = unfinished_folder(folder, changed)
    assert own == tmp_path / "4x3-2.partial"
    assert str(views) in about_views and "eval.clips: 1 before, 2 now" in about_views
    assert str(folder) in about_settings and "checkpoint: a before, b now" in about_settings
    assert restore(own, changed) == (None, [])
    partial_result(own).add(rows(2))
    # each test finds its own again
    for identity, expected, videos in ((IDENTITY, folder, [0, 1]), (changed, own, [2])):
        found, _ = unfinished_folder(folder, identity)
        restored, _ = restore(found, identity)
        assert found == expected and restored["video_index"].tolist() == videos
    (views / "test.json").unlink()
    found, (about_views, _) = unfinished_folder(folder, IDENTITY)
    assert found == folder and "test.json cannot be read" in about_views and views.is_dir()


def test_files_of_version_0_1_are_read(tmp_path):
    folder = tmp_path / "4x3.partial"
    restore(folder, IDENTITY)
    columns = rows(0, 1)
    columns["broken"] = columns.pop("failed")
    np.savez(folder / "from_00000000.npz", **columns)
    restored, _ = restore(folder, IDENTITY)
    assert restored["failed"].tolist() == ["", ""] and "broken" not in restored
