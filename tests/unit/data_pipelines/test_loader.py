"""Data sets and loaders: order, resume, ranks and workers."""

import av
import numpy as np
import pytest
import torch

from data_pipelines.datasets.clips import ClipDataset, MultiViewDataset
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError
from data_pipelines.loader import TrainingOrder, eval_loader, train_loader
from data_pipelines.preprocess import Preprocess
from data_pipelines.sampling import Sampling
from data_pipelines.transforms.clip_transforms import TrainTransform

LENGTHS = (40, 12, 1, 30, 25)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    paths = []
    for number, length in enumerate(LENGTHS):
        paths.append(str(folder / f"{number}.mp4"))
        pictures = np.random.default_rng(number).integers(0, 255, (length, 48, 64, 3), dtype=np.uint8)
        with av.open(paths[-1], "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    return VideoManifest(tuple(paths), np.arange(len(LENGTHS)), tuple("abcde"), "made here")


@pytest.fixture(scope="module")
def clips(manifest):
    transform = TrainTransform(crop=32, short_side=40, scale_jitter=(0.9, 1.33), horizontal_flip=0.5, color_jitter=0.5)
    return ClipDataset(manifest, Sampling(4, 2), transform, seed=7)


def test_every_epoch_is_a_permutation():
    order = TrainingOrder(num_samples=103, global_batch=10, seed=0)
    assert order.steps_per_epoch == 10  # 3 left over
    epochs = [[pair for step in range(10 * e, 10 * e + 10) for pair in order.batch(step)] for e in range(3)]
    for number, pairs in enumerate(epochs):
        assert {epoch for epoch, _ in pairs} == {number}
        assert len({index for _, index in pairs}) == 100 and all(0 <= index < 103 for _, index in pairs)
    assert [i for _, i in epochs[0]] != [i for _, i in epochs[1]]
    assert TrainingOrder(103, 10, seed=1).batch(0) != order.batch(0)
    assert order.batch(17) == TrainingOrder(103, 10, 0).batch(17)  # pure in step


def test_a_batch_larger_than_the_set():
    with pytest.raises(DataError, match=r"optim\.batch_size: found 64 .* 5 videos"):
        TrainingOrder(5, 64, 0)


class Keys(torch.utils.data.Dataset):
    """Gives back the key it was asked for."""

    def __len__(self):
        return 50

    def __getitem__(self, key):
        return [torch.tensor(key)]


@pytest.mark.parametrize(("world", "micro", "accumulation"), [(1, 12, 1), (2, 6, 1), (3, 2, 2), (4, 1, 3)])
def test_the_global_order_is_the_same_at_any_world_size(world, micro, accumulation):
    order = TrainingOrder(50, 12, seed=3)
    ranks = [list(train_loader(Keys(), order, 2, 7, r, world, micro, accumulation, 0)) for r in range(world)]
    assert {len(batches) for batches in ranks} == {5 * accumulation}
    for position, step in enumerate(range(2, 7)):
        mine = slice(position * accumulation, (position + 1) * accumulation)
        rows = torch.cat([micro_batch for batches in ranks for micro_batch in batches[mine]])
        assert [tuple(row) for row in rows.tolist()] == order.batch(step)


def test_sizes_that_do_not_multiply_up():
    with pytest.raises(DataError, match=r"micro_batch 5 x accumulation 1 x world_size 2 = 10; .*12"):
        train_loader(Keys(), TrainingOrder(50, 12, 0), 0, 1, 0, 2, 5, 1, 0)


def collect(loader):
    return [(b["video"], b["label"].tolist(), b["video_name"], b["video_index"].tolist()) for b in loader]


def assert_same(first, second):
    assert len(first) == len(second)
    for (video, *rest), (other, *other_rest) in zip(first, second, strict=True):
        assert torch.equal(video, other) and rest == other_rest


def test_workers_and_resume_change_no_bit(clips):
    order = TrainingOrder(len(clips), 2, seed=0)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    runs = [collect(train_loader(clips, order, 0, 5, 0, 1, 1, 2, workers)) for workers in (0, 1, 2)]
    assert torch.equal(state, torch.get_rng_state())
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])
    assert_same(runs[0][6:], collect(train_loader(clips, order, 3, 5, 0, 1, 1, 2, 0)))  # resumed at step 3


def test_clips_change_from_epoch_to_epoch(clips):
    (first,), (again,), (later,) = clips[0, 0], clips[0, 0], clips[1, 0]
    assert first["video"].shape == (3, 4, 32, 32) and first["video"].dtype == torch.uint8
    assert torch.equal(first["video"], again["video"]) and not torch.equal(first["video"], later["video"])
    assert set(first) == {"video", "label", "video_name", "video_index", "clip_index", "aug_index", "failed"}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_evaluation_visits_every_video_once(manifest, world, workers):
    if workers and world != 2:
        pytest.skip("workers are tried at one world size")
    dataset = MultiViewDataset(manifest, Preprocess(Sampling(4, 2), 40, 32), num_clips=2, num_crops=3)
    seen = [i for rank in range(world) for b in eval_loader(dataset, rank, world, 2, workers) for i in b["video_index"]]
    assert sorted(int(i) for i in seen) == list(range(len(manifest)))


def test_views_equal_single_views_from_one_read(manifest, monkeypatch):
    from data_pipelines.video import reader

    reads = []
    read = reader.VideoReader.read
    monkeypatch.setattr(reader.VideoReader, "read", lambda self, indices: reads.append(indices) or read(self, indices))
    dataset = MultiViewDataset(manifest, Preprocess(Sampling(4, 2), 48, 32), num_clips=4, num_crops=3)
    sample = dataset[0]
    assert len(reads) == 1
    assert sample["video"].shape == (12, 3, 4, 32, 32)
    assert sample["clip_index"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert sample["aug_index"].tolist() == [0, 1, 2] * 4
    with av.open(manifest.paths[0]) as container:
        truth = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    for view, (start, left) in enumerate((s, x) for s in (0, 10, 21, 32) for x in (0, 16, 32)):  # 40 - 4 * 2 = 32
        expected = truth[start : start + 8 : 2, 8:40, left : left + 32]  # (4, 32, 32, 3)
        np.testing.assert_array_equal(sample["video"][view].permute(1, 2, 3, 0).numpy(), expected)


def test_repeated_augmentation_draws_several_clips_from_one_decode(manifest, clips, monkeypatch):
    from data_pipelines.video import reader

    reads = []
    read = reader.VideoReader.read
    monkeypatch.setattr(reader.VideoReader, "read", lambda self, indices: reads.append(indices) or read(self, indices))
    thrice = ClipDataset(manifest, Sampling(4, 2), clips.transform, seed=7, repeats=3)
    first, second, third = thrice[0, 0]
    assert len(reads) == 1 and [sample["clip_index"] for sample in (first, second, third)] == [0, 1, 2]
    assert not torch.equal(first["video"], second["video"]) and not torch.equal(second["video"], third["video"])
    (batch,) = list(train_loader(thrice, TrainingOrder(5, 2, 0), 0, 1, 0, 1, 2, 1, 0))
    assert batch["video"].shape == (6, 3, 4, 32, 32) and len(set(batch["video_index"].tolist())) == 2


@pytest.fixture
def half_broken(manifest, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    paths = (str(tmp_path / "broken.mp4"), manifest.paths[1], str(tmp_path / "gone.mp4"), *manifest.paths[3:])
    return VideoManifest(paths, manifest.labels, manifest.class_names, "made here")


def test_training_replaces_broken_videos_by_what_the_seed_determines(half_broken, clips):
    dataset = ClipDataset(half_broken, clips.sampling, clips.transform, seed=7)
    (stand_in,), (again,) = dataset[0, 0], dataset[0, 0]
    assert torch.equal(stand_in["video"], again["video"])
    assert stand_in["video_index"] in (1, 3, 4) and stand_in["label"] == stand_in["video_index"]
    assert str(half_broken.paths[0]) in stand_in["failed"].splitlines()[0]
    assert "no such video file" in dataset[0, 2][0]["failed"]
    assert dataset[0, 1][0]["failed"] == "" and torch.equal(dataset[0, 1][0]["video"], clips[0, 1][0]["video"])
    assert len({dataset[epoch, 0][0]["video_index"] for epoch in range(20)}) == 3  # not always the same one
    order = TrainingOrder(5, 5, seed=0)
    loaders = [collect(train_loader(dataset, order, 0, 2, 0, 1, 5, 1, workers)) for workers in (0, 2)]
    assert_same(*loaders)
    nothing = VideoManifest(half_broken.paths[:1], np.zeros(1, int), ("a",), "made here")
    with pytest.raises(DataError, match=r"broken\.mp4.* 21 videos"):
        ClipDataset(nothing, clips.sampling, clips.transform, seed=7)[0, 0]


def test_testing_never_replaces_a_video(half_broken):
    dataset = MultiViewDataset(half_broken, Preprocess(Sampling(4, 2), 40, 32), num_clips=2, num_crops=3)
    sample = dataset[0]
    assert "broken.mp4" in sample["failed"] and sample["video"].shape == (6, 3, 4, 32, 32) and not sample["video"].any()
    assert dataset[1]["failed"] == "" and dataset[1]["video"].any()


def test_a_video_shorter_than_the_clip_is_repeated(manifest, clips):
    assert clips[0, 2][0]["video"].shape == (3, 4, 32, 32)
    views = MultiViewDataset(manifest, Preprocess(Sampling(4, 2), 48, 32), num_clips=4, num_crops=1)[2]["video"]
    assert views.shape == (4, 3, 4, 32, 32) and (views == views[:1, :, :1]).all()
