"""Features on disk, compared with the model's own intermediate results."""

import json
import shutil

import numpy as np
import pytest
import torch
from support.image_models import small_model, write_images
from support.saved_models import save_random_model
from support.videos import encode

import lookupvivit
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError
from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.features.extractor import FeatureExtractor, depth_of
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.weights.files import WeightsError

MODELS = [
    ("lookupvivit_pico8x2_4x4x4", {"compressed_size": [2, 2, 2]}),
    ("lookupvivit_pico8x2_4x4x4", {"compressed_size": [2, 2, 2], "classifiers": "compressed"}),
    ("lookupvivit_pico8x2_4x4x4", {"compressed_size": [1, 2, 2], "classifiers": "compressed", "exchange": "none"}),
    ("vivit_pico8x2", {}),
    ("vivit_pico8x2", {"pooling": "token"}),
    ("vivit_pico8x2", {"pooling": "gap_norm"}),
    ("tokenlearner_pico8x2_at2", {"learn_at": 1}),
    ("perceiver_pico8x2", {"stages": 3}),
]


def random_clips(count, frames=4):
    shape = (count, 3, frames, 64, 64)
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return lookupvivit.load_model(save_random_model(tmp_path_factory.mktemp("model"), depth=2))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Five videos of 3 to 31 frames, one of them shorter than a clip."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "sub").mkdir()
    for name, frames in (("a.mp4", 17), ("b.mp4", 3), ("c.mp4", 31), ("sub/a.mp4", 9), ("sub/d ä.mp4", 12)):
        encode(folder / name, frames=frames)
    return folder


def contents(folder):
    """All arrays of all files, by file and name."""
    arrays = {}
    for file in sorted(folder.rglob("*.npz")):
        with np.load(file) as archive:
            arrays |= {f"{file.relative_to(folder)}/{name}": archive[name] for name in archive.files}
    return arrays


def assert_identical(folder, other):
    arrays, others = contents(folder), contents(other)
    assert arrays.keys() == others.keys()
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], others[name], err_msg=name)


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_features_are_what_the_classifiers_read_and_tokens_what_the_blocks_return(tmp_path, name, options):
    model = lookupvivit.load_model(save_random_model(tmp_path, name, **{"depth": 2, **options}))
    clips = random_clips(3)
    depth = depth_of(model)
    features = FeatureExtractor(model, blocks=[-1, 0])(clips)
    with torch.no_grad():
        output = model(to_model_input(clips), return_intermediates=True)
    classified = []
    for stream in ("compressed", "lookup", ""):
        key = f"{stream}_features" if stream else "features"
        if key in features:
            head = getattr(model, f"{stream}_head" if stream else "head")
            classified.append(head(torch.from_numpy(features[key])))
            expected = output[f"{stream}_logits" if stream else "logits"]
            torch.testing.assert_close(classified[-1], expected, rtol=1e-4, atol=1e-5)
    assert len(classified) == len(model.supervised)
    tokens = {
        f"block{block}_{part}": values
        for block in {0, depth - 1}
        for part, values in output.intermediates[block].items()
        if part not in ("attention", "selection")
    }
    assert features.keys() - tokens.keys() <= {"features", "compressed_features", "lookup_features"}
    for part, values in tokens.items():
        torch.testing.assert_close(torch.from_numpy(features[part]), values, rtol=1e-4, atol=1e-5)


def test_pooled_features_follow_the_final_norm_and_the_compressed_size(model):
    clips = random_clips(2)
    assert isinstance(model, LookupViT)
    features = FeatureExtractor(model, [1], compressed_size=(2, 3, 1), half=True)(clips)
    with torch.no_grad():
        streams = model.forward_features(to_model_input(clips), (2, 3, 1))[:2]
        normed = model.compressed_norm(streams[0]), model.lookup_norm(streams[1])
    for stream, tokens, raw in zip(("compressed", "lookup"), normed, streams, strict=True):
        pooled = tokens.mean((1, 2, 3))
        torch.testing.assert_close(torch.from_numpy(features[f"{stream}_features"]), pooled, rtol=1e-4, atol=1e-5)
        half = features[f"block1_{stream}"]
        assert half.dtype == np.float16 and half.shape == raw.shape
        np.testing.assert_allclose(half, raw.numpy(), rtol=2e-3, atol=2e-3)


def test_impossible_requests_are_one_error(model, videos, tmp_path):
    with pytest.raises(WeightsError, match=r"^blocks: found 2, expected 0 to 1$"):
        FeatureExtractor(model, [0, 2])
    with pytest.raises(WeightsError, match=r"^compressed_size: found 9x9x9"):
        FeatureExtractor(model, compressed_size=(9, 9, 9))
    broken = lookupvivit.load_model(save_random_model(tmp_path / "nan"))
    torch.nn.init.constant_(broken.lookup_norm.bias, float("nan"))
    with pytest.raises(WeightsError, match=r"^lookup_features: found NaN"):
        lookupvivit.extract_features(broken, videos / "a.mp4", tmp_path / "out")
    with pytest.raises(WeightsError, match=r"^preprocessing: unknown"):
        lookupvivit.extract_features(lookupvivit.create_model("vivit_pico8x2", 2), videos, tmp_path / "out")


@pytest.mark.parametrize("window", [None, 0.1])
def test_files_have_the_features_and_times_of_every_view(model, videos, tmp_path, window):
    extraction = lookupvivit.extract_features(model, videos, tmp_path, views=(2, 3), window=window, batch_size=4)
    assert len(extraction.files) == 5 and not extraction.failed
    preprocess = lookupvivit.preprocess_of(model)
    for file in extraction.files:
        with np.load(file) as archive:
            arrays = dict(archive)
        path = str(arrays["path"])
        if window is None:
            clips = preprocess.views(path, 2, 3)
            assert arrays["clip_index"].tolist() == [0, 0, 0, 1, 1, 1]
            assert arrays["aug_index"].tolist() == [0, 1, 2] * 2
            num_frames = 1 + round(25 * preprocess.timed_clip(path)[1].max())
            assert arrays["start"][0] == 0 and (arrays["end"] - arrays["start"] <= 4 / 25 + 1e-9).all()
            assert num_frames > 4 or arrays["end"].max() == pytest.approx(3 / 25)
        else:
            timed = list(preprocess.clips(path, window))
            clips = torch.stack([clip.video for clip in timed])
            assert arrays["start"].tolist() == [clip.start for clip in timed]
            assert arrays["end"].tolist() == [clip.end for clip in timed]
            assert arrays["clip_index"].tolist() == list(range(len(timed)))
        expected = FeatureExtractor(model)(clips)
        for name, values in expected.items():
            np.testing.assert_allclose(arrays[name], values, rtol=1e-4, atol=1e-5)
    names = {str(file.relative_to(tmp_path)) for file in extraction.files}
    assert names == {"a.mp4.npz", "b.mp4.npz", "c.mp4.npz", "sub/a.mp4.npz", "sub/d ä.mp4.npz"}


@pytest.mark.parametrize("options", [{"views": (1, 1)}, {"views": (2, 3)}, {"window": 0.1}])
def test_results_depend_neither_on_workers_nor_on_ranks_nor_on_interruptions(model, videos, tmp_path, options):
    options = {**options, "blocks": [1], "batch_size": 3}
    lookupvivit.extract_features(model, videos, tmp_path / "one", **options)
    lookupvivit.extract_features(model, videos, tmp_path / "workers", workers=2, **options)
    assert_identical(tmp_path / "one", tmp_path / "workers")
    for rank in (1, 0, 2):
        lookupvivit.extract_features(model, videos, tmp_path / "ranks", rank=rank, world_size=3, **options)
    assert_identical(tmp_path / "one", tmp_path / "ranks")

    for name in ("b.mp4.npz", "sub/a.mp4.npz"):
        (tmp_path / "ranks" / name).unlink()
    untouched = (tmp_path / "ranks" / "sub" / "d ä.mp4.npz").stat().st_mtime_ns
    resumed = lookupvivit.extract_features(model, videos, tmp_path / "ranks", **options)
    assert_identical(tmp_path / "one", tmp_path / "ranks")
    assert len(resumed.files) == 5 and resumed.num_finished >= (0 if options.get("views") == (1, 1) else 3)
    if options.get("views") != (1, 1):
        assert (tmp_path / "ranks" / "sub" / "d ä.mp4.npz").stat().st_mtime_ns == untouched


def test_the_batch_size_changes_rounding_alone(model, videos, tmp_path):
    for batch_size in (1, 7):
        lookupvivit.extract_features(model, videos, tmp_path / str(batch_size), views=(4, 1), batch_size=batch_size)
    small, large = contents(tmp_path / "1"), contents(tmp_path / "7")
    assert small.keys() == large.keys()
    for name, values in small.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, large[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_video_is_reported_and_tried_again(model, videos, tmp_path, workers):
    shutil.copytree(videos, tmp_path / "videos")
    intact = (tmp_path / "videos" / "b.mp4").read_bytes()
    (tmp_path / "videos" / "b.mp4").write_bytes(b"no video")
    (tmp_path / "videos" / "notes.txt").touch()
    first = lookupvivit.extract_features(model, tmp_path / "videos", tmp_path / "out", workers=workers)
    assert list(first.failed) == ["b.mp4"] and "b.mp4" in first.failed["b.mp4"]
    assert len(first.files) == 4 and first.num_ignored == 1 and not (tmp_path / "out" / "b.mp4.npz").exists()
    (tmp_path / "videos" / "b.mp4").write_bytes(intact)
    second = lookupvivit.extract_features(model, tmp_path / "videos", tmp_path / "out", workers=workers)
    assert not second.failed and (tmp_path / "out" / "b.mp4.npz").is_file()


def test_a_folder_has_features_of_one_model_and_one_selection(model, videos, tmp_path):
    lookupvivit.extract_features(model, videos / "a.mp4", tmp_path)
    lookupvivit.extract_features(model, [videos / "a.mp4", videos / "b.mp4"], tmp_path)  # adds a video
    assert len(lookupvivit.load_features(tmp_path).names) == 2
    with pytest.raises(DataError, match=r'features\.json: views: found features of "1x1", expected "2x1"; choose'):
        lookupvivit.extract_features(model, videos, tmp_path, views=(2, 1))
    other = lookupvivit.load_model(save_random_model(tmp_path / "other", depth=2, seed=1))
    with pytest.raises(DataError, match=r"features\.json: model: found"):
        lookupvivit.extract_features(other, videos, tmp_path)


def test_a_dataset_stores_its_labels(model, videos, tmp_path):
    paths = [str(videos / "sub" / "a.mp4"), str(videos / "a.mp4"), str(videos / "c.mp4")]
    manifest = VideoManifest(paths, np.array([2, 0, 0]), ("x", "y", "z"), "a list")
    lookupvivit.extract_features(model, manifest, tmp_path, views=(2, 1), split="train")
    features = lookupvivit.load_features(tmp_path)
    assert features.names == ("a.mp4", "c.mp4", "sub/a.mp4") and features.labels.tolist() == [0, 0, 2]
    assert features.class_names == ("x", "y", "z") and features.features.shape == (3, 32)
    with np.load(tmp_path / "c.mp4.npz") as archive:
        np.testing.assert_array_equal(features.features[1, :16], archive["compressed_features"].mean(0))
        np.testing.assert_array_equal(features.streams["lookup_features"][1], archive["lookup_features"].mean(0))


@pytest.mark.parametrize("name", ["lookupvit_ti16_3x3", "vit_ti16"])
def test_images_share_batches(tmp_path, name):
    model = lookupvivit.load_model(small_model(tmp_path / "run", ["a", "b"], name))
    images = write_images(tmp_path / "images", ["a", "b"], 3)
    lookupvivit.extract_features(model, images, tmp_path / "out", batch_size=4, workers=1)
    features = lookupvivit.load_features(tmp_path / "out")
    assert features.names == tuple(f"{folder}/{n}.JPEG" for folder in "ab" for n in range(3))
    assert features.labels.tolist() == [-1] * 6
    preprocess = lookupvivit.preprocess_of(model)
    clips = torch.stack([preprocess.clip(images / name) for name in features.names])
    expected = np.concatenate(list(FeatureExtractor(model)(clips).values()), axis=1)
    np.testing.assert_allclose(features.features, expected, rtol=1e-4, atol=1e-5)


def test_damaged_folders_are_one_error(model, videos, tmp_path):
    with pytest.raises(DataError, match=r"features\.json: no such file"):
        lookupvivit.load_features(tmp_path)
    [file] = lookupvivit.extract_features(model, videos / "a.mp4", tmp_path).files
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"a\.mp4\.npz: found no readable"):
        lookupvivit.load_features(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match="found no features"):
        lookupvivit.load_features(tmp_path)
    file.touch()
    (tmp_path / "features.json").write_text(json.dumps({"streams": 3}))
    with pytest.raises(DataError, match="expected lists of names"):
        lookupvivit.load_features(tmp_path)
