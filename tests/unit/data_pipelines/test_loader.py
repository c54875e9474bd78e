"""Datasets and loaders: the order of samples, resuming, ranks and workers, and videos that cannot be read."""

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.videos import decode_all

from data_pipelines.datasets.clips import ClipDataset, MultiViewDataset
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError
from data_pipelines.loader import TrainingOrder, balancing_copies, eval_loader, train_loader
from data_pipelines.preprocess import Preprocess
from data_pipelines.sampling import Sampling
from data_pipelines.transforms.first_half import FirstHalf
from data_pipelines.transforms.train_transform import TrainTransform
from data_pipelines.video import reader

LENGTHS = (40, 12, 1, 30, 25)  # in frames; the third video is shorter than a clip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    paths = []
    for number, length in enumerate(LENGTHS):
        paths.append(str(folder / f"{number}.mp4"))
        frames = np.random.default_rng(number).integers(0, 255, (length, 48, 64, 3), dtype=np.uint8)
        with av.open(paths[-1], "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    return VideoManifest(tuple(paths), np.arange(len(LENGTHS)), tuple("abcde"), "made here")


@pytest.fixture(scope="module")
def clips(manifest):
    transform = TrainTransform(crop=32, short_side=40, scale_jitter=(0.9, 1.33), horizontal_flip=0.5, color_jitter=0.5)
    return ClipDataset(manifest, Sampling(4, 2), transform, seed=7)


@pytest.fixture
def half_unreadable(manifest, tmp_path):
    """The same videos, except that the first one is damaged and the third one does not exist."""
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    paths = (str(tmp_path / "damaged.mp4"), manifest.paths[1], str(tmp_path / "missing.mp4"), *manifest.paths[3:])
    return VideoManifest(paths, manifest.labels, manifest.class_names, "made here")


@pytest.fixture
def reads(monkeypatch):
    """The frame indices of every read of a video."""
    requests, read = [], reader.VideoReader.read
    monkeypatch.setattr(
        reader.VideoReader, "read", lambda self, indices: requests.append(indices) or read(self, indices)
    )
    return requests


def batches_of_rank(dataset, order, steps, rank=0, world_size=1, micro_batch=1, accumulation=1, workers=0):
    return train_loader(
        dataset,
        order,
        start_step=steps[0],
        end_step=steps[1],
        rank=rank,
        world_size=world_size,
        micro_batch=micro_batch,
        accumulation=accumulation,
        workers=workers,
    )


def contents(loader):
    return [(b["video"], b["label"].tolist(), b["video_name"], b["video_index"].tolist()) for b in loader]


def assert_same(first, second):
    assert len(first) == len(second)
    for (video, *others), (expected_video, *expected_others) in zip(first, second, strict=True):
        assert torch.equal(video, expected_video) and others == expected_others


# The order of training samples


def test_every_epoch_is_a_new_permutation():
    order = TrainingOrder(num_samples=103, global_batch=10, seed=0)
    assert order.steps_per_epoch == 10  # 3 samples remain
    epochs = [[pair for step in range(10 * e, 10 * e + 10) for pair in order.batch(step)] for e in range(3)]
    for number, pairs in enumerate(epochs):
        assert {epoch for epoch, _ in pairs} == {number}
        indices = {index for _, index in pairs}
        assert len(indices) == 100 and indices <= set(range(103))
    assert [index for _, index in epochs[0]] != [index for _, index in epochs[1]]


def test_the_order_depends_on_seed_and_step_alone():
    order = TrainingOrder(num_samples=103, global_batch=10, seed=0)
    order.batch(5)
    assert order.batch(17) == TrainingOrder(103, 10, seed=0).batch(17)
    assert order.batch(0) != TrainingOrder(103, 10, seed=1).batch(0)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_balanced_epochs(labels, seed):
    labels = np.array(labels)
    copies = balancing_copies(labels)
    assert all(copies[labels == label].sum() == np.bincount(labels).max() for label in set(labels.tolist()))
    assert all(np.ptp(copies[labels == label]) <= 1 for label in set(labels.tolist()))
    order = TrainingOrder(len(labels), 1, seed, copies)
    pairs = [order.batch(step)[0] for step in range(2 * order.steps_per_epoch)]
    assert len(set(pairs)) == len(pairs)  # no two copies have the same randomness
    for epoch in np.split(np.array(pairs), 2):
        assert np.bincount(epoch[:, 1]).tolist() == copies.tolist()


def test_a_global_batch_larger_than_the_training_set_is_refused():
    with pytest.raises(DataError, match=r"global_batch: found 64 .* 5"):
        TrainingOrder(5, 64, 0)


class Keys(torch.utils.data.Dataset):
    """Returns the key that it is asked for."""

    def __len__(self):
        return 50

    def __getitem__(self, key):
        return [torch.tensor(key)]


@pytest.mark.parametrize(("world", "micro_batch", "accumulation"), [(1, 12, 1), (2, 6, 1), (3, 2, 2), (4, 1, 3)])
def test_the_ranks_together_load_the_same_global_batches_at_any_world_size(world, micro_batch, accumulation):
    order = TrainingOrder(50, 12, seed=3)
    ranks = [
        list(batches_of_rank(Keys(), order, (2, 7), rank, world, micro_batch, accumulation)) for rank in range(world)
    ]
    assert {len(batches) for batches in ranks} == {5 * accumulation}
    for position, step in enumerate(range(2, 7)):
        of_step = slice(position * accumulation, (position + 1) * accumulation)
        keys = torch.cat([micro_batch for batches in ranks for micro_batch in batches[of_step]])
        assert [tuple(key) for key in keys.tolist()] == order.batch(step)


def test_a_split_that_does_not_multiply_up_to_the_global_batch_is_refused():
    with pytest.raises(DataError, match=r"5 \* 1 \* 2 = 10, .*12"):
        batches_of_rank(Keys(), TrainingOrder(50, 12, 0), (0, 1), world_size=2, micro_batch=5)


# Training clips


def test_workers_and_resuming_do_not_change_a_bit(clips):
    order = TrainingOrder(len(clips), 2, seed=0)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    runs = [contents(batches_of_rank(clips, order, (0, 5), accumulation=2, workers=n)) for n in (0, 1, 2)]
    assert torch.equal(state, torch.get_rng_state()), "loaders leave the global generator alone"
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])
    assert_same(runs[0][6:], contents(batches_of_rank(clips, order, (3, 5), accumulation=2)))


def test_clips_differ_between_epochs(clips):
    (first,), (again,), (later,) = clips[0, 0], clips[0, 0], clips[1, 0]
    assert first["video"].shape == (3, 4, 32, 32) and first["video"].dtype == torch.uint8
    assert torch.equal(first["video"], again["video"]) and not torch.equal(first["video"], later["video"])
    assert set(first) == {"video", "label", "video_name", "video_index", "clip_index", "aug_index", "failed"}


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_completed_outside_the_workers_does_not_change_a_bit(half_unreadable, clips, workers):
    first_half = FirstHalf(clips.transform)
    halves = ClipDataset(half_unreadable, clips.sampling, first_half, seed=7)
    whole = ClipDataset(half_unreadable, clips.sampling, clips.transform, seed=7)
    order = TrainingOrder(5, global_batch=2, seed=3)
    pairs = zip(
        *(batches_of_rank(d, order, (0, 4), micro_batch=2, workers=workers) for d in (halves, whole)), strict=True
    )
    for half, expected in pairs:
        video = first_half.second_half(half["video"], half["rng"])
        assert torch.equal(video, expected["video"]) and "rng" not in expected


def test_repeated_augmentation_takes_several_clips_from_one_decode(manifest, clips, reads):
    dataset = ClipDataset(manifest, Sampling(4, 2), clips.transform, seed=7, repeats=3)
    first, second, third = dataset[0, 0]
    assert len(reads) == 1
    assert [sample["clip_index"] for sample in (first, second, third)] == [0, 1, 2]
    assert not torch.equal(first["video"], second["video"]) and not torch.equal(second["video"], third["video"])
    (batch,) = batches_of_rank(dataset, TrainingOrder(5, 2, 0), (0, 1), micro_batch=2)
    assert batch["video"].shape == (6, 3, 4, 32, 32) and len(set(batch["video_index"].tolist())) == 2


def test_an_unreadable_training_video_is_replaced_and_reported(half_unreadable, clips):
    dataset = ClipDataset(half_unreadable, clips.sampling, clips.transform, seed=7)
    (substitute,), (again,) = dataset[0, 0], dataset[0, 0]
    assert torch.equal(substitute["video"], again["video"])
    assert substitute["video_index"] in (1, 3, 4) and substitute["label"] == substitute["video_index"]
    assert half_unreadable.paths[0] in substitute["failed"].splitlines()[0]
    assert half_unreadable.paths[2] in dataset[0, 2][0]["failed"]
    assert len({dataset[epoch, 0][0]["video_index"] for epoch in range(20)}) == 3, "substitutes vary"


def test_substitutes_do_not_change_other_samples(half_unreadable, clips):
    dataset = ClipDataset(half_unreadable, clips.sampling, clips.transform, seed=7)
    assert dataset[0, 1][0]["failed"] == ""
    assert torch.equal(dataset[0, 1][0]["video"], clips[0, 1][0]["video"])


def test_substitutes_do_not_depend_on_the_number_of_workers(half_unreadable, clips):
    dataset, order = ClipDataset(half_unreadable, clips.sampling, clips.transform, seed=7), TrainingOrder(5, 5, seed=0)
    alone, two_workers = (
        contents(batches_of_rank(dataset, order, (0, 2), micro_batch=5, workers=workers)) for workers in (0, 2)
    )
    assert_same(alone, two_workers)


def test_a_training_set_without_a_readable_video_is_an_error(half_unreadable, clips):
    unreadable = VideoManifest(half_unreadable.paths[:1], np.zeros(1, int), ("a",), "made here")
    with pytest.raises(DataError, match=r"damaged\.mp4.* 21 consecutive videos"):
        ClipDataset(unreadable, clips.sampling, clips.transform, seed=7)[0, 0]


# Test views


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 0), (2, 2), (3, 0), (7, 0)])
def test_the_ranks_together_load_every_video_once(manifest, world, workers):
    dataset = MultiViewDataset(manifest, Preprocess(Sampling(4, 2), 40, 32), num_clips=2, num_crops=3)
    loaders = [eval_loader(dataset, rank, world, batch_size=2, workers=workers) for rank in range(world)]
    seen = [index for loader in loaders for batch in loader for index in batch["video_index"].tolist()]
    assert sorted(seen) == list(range(len(manifest)))


@pytest.mark.parametrize(
    ("done", "batches"),
    [((), [[0, 1], [2, 3], [4]]), ((0,), [[0, 1], [2, 3], [4]]), ((2, 3), [[0, 1], [4]]), (range(5), [])],
)
def test_batches_of_finished_videos_are_skipped_and_others_stay_as_they_are(manifest, done, batches):
    dataset = MultiViewDataset(manifest, Preprocess(Sampling(4, 2), 40, 32), num_clips=1, num_crops=1)
    loader = eval_loader(dataset, rank=0, world_size=1, batch_size=2, workers=0, done=done)
    assert list(loader.batch_sampler) == batches


def test_all_views_come_from_one_decode_and_have_the_pixels_of_the_video(manifest, reads):
    dataset = MultiViewDataset(manifest, Preprocess(Sampling(4, 2), 48, 32), num_clips=4, num_crops=3)
    sample = dataset[0]
    assert len(reads) == 1
    assert sample["clip_index"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert sample["aug_index"].tolist() == [0, 1, 2] * 4
    frames = decode_all(manifest.paths[0])
    places = [(start, left) for start in (0, 10, 21, 32) for left in (0, 16, 32)]  # the last start is 40 - 4 * 2
    assert sample["video"].shape == (len(places), 3, 4, 32, 32)
    for view, (start, left) in zip(sample["video"], places, strict=True):
        expected = frames[start : start + 8 : 2, 8:40, left : left + 32]  # (4, 32, 32, 3)
        np.testing.assert_array_equal(view.permute(1, 2, 3, 0).numpy(), expected)


def test_an_unreadable_test_video_is_black_and_reported_but_never_replaced(half_unreadable):
    dataset = MultiViewDataset(half_unreadable, Preprocess(Sampling(4, 2), 40, 32), num_clips=2, num_crops=3)
    sample = dataset[0]
    assert "damaged.mp4" in sample["failed"]
    assert sample["video"].shape == (6, 3, 4, 32, 32) and not sample["video"].any()
    assert dataset[1]["failed"] == "" and dataset[1]["video"].any()


def test_a_video_shorter_than_a_clip_is_repeated(manifest, clips):
    assert clips[0, 2][0]["video"].shape == (3, 4, 32, 32)
    views = MultiViewDataset(manifest, Preprocess(Sampling(4, 2), 48, 32), num_clips=4, num_crops=1)[2]["video"]
    assert views.shape == (4, 3, 4, 32, 32) and (views == views[:1, :, :1]).all()
