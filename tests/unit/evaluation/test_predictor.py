"""Predictions for a user's own files, against the multi-view test and against clips that are fed one by one."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import lookupvivit
from data_pipelines.datasets.clips import MultiViewDataset
from data_pipelines.datasets.manifest import StringList, VideoManifest
from data_pipelines.io.errors import VideoDecodeError
from lookupvivit.evaluation import predictor
from lookupvivit.evaluation.multi_view import predict_views
from lookupvivit.evaluation.prediction_report import as_json, as_text
from lookupvivit.evaluation.predictor import Prediction, Predictor, top_classes
from lookupvivit.weights.files import WeightsError

SMALL = {"width": 16, "depth": 1, "num_heads": 2, "input_size": [4, 16, 16]}
PREPROCESSING = {"frames": 4, "stride": 2, "short_side": 20, "crop": 16}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = lookupvivit.create_model("lookupvivit_pico8x2_4x4x4", 6, compressed_size=[2, 1, 1], **SMALL).eval()
    for classifier in (model.compressed_head, model.lookup_head):
        torch.nn.init.normal_(classifier.weight)
    model.description = {"preprocessing": PREPROCESSING, "class_names": list("abcdef")}
    return model


def vivit(preprocessing=PREPROCESSING):
    model = lookupvivit.create_model("vivit_pico8x2", 6, **SMALL)
    model.description = {"preprocessing": preprocessing}
    return model


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """7 seconds at 10 frames per second, of drifting colour, so that no two clips have the same logits."""
    path = tmp_path_factory.mktemp("videos") / "a.mp4"
    noise = np.random.default_rng(0).integers(0, 128, (24, 32, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for i in range(70):
            image = (noise + np.array([i, 127 - i, i // 2])).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize(("clips", "crops"), [(4, 3), (1, 1), (2, 3)])
def test_the_whole_video_is_predicted_as_in_the_multi_view_test(model, video, clips, crops):
    manifest = VideoManifest(StringList([video]), np.zeros(1, np.int64), tuple("abcdef"), "a list")
    loader = DataLoader(MultiViewDataset(manifest, lookupvivit.preprocess_of(model), clips, crops))
    tested, _ = predict_views(lambda views: model(views).logits, loader, 1, "abcdef", 5, torch.device("cpu"))
    prediction = Predictor(model, clips, crops, batch_size=5)(video)
    np.testing.assert_allclose(prediction.probabilities, softmax(tested.video_logits()[0]), rtol=1e-5)
    names, probabilities = zip(*prediction.top(6), strict=True)
    assert sorted(names) == list("abcdef") and sorted(probabilities, reverse=True) == list(probabilities)
    assert sum(probabilities) == pytest.approx(1) and prediction.seconds == 7


@pytest.mark.parametrize(("window", "step"), [(None, 0.8), (0.3, 0.3), (3.0, 3.0)])
def test_the_timeline_has_the_probabilities_of_its_clips(model, video, window, step):
    prediction = Predictor(model, 1, 1, window, batch_size=4)(video)
    np.testing.assert_allclose(np.diff(prediction.starts)[:-1], step, atol=1e-9)
    assert prediction.starts[0] == 0 and prediction.ends[-1] == 7
    for start, probabilities in zip(prediction.starts, prediction.timeline, strict=True):
        with torch.no_grad():
            logits = model(lookupvivit.preprocess_of(model)(video, start)[None]).logits[0].double().numpy()
        np.testing.assert_allclose(probabilities, softmax(logits), rtol=1e-4)
    assert len({tuple(row) for row in prediction.timeline}) == len(prediction.timeline)


def test_the_timeline_of_a_long_video_has_a_bounded_number_of_clips(model, video, monkeypatch):
    monkeypatch.setattr(predictor, "MAX_TIMELINE_CLIPS", 5)
    prediction = Predictor(model, 1, 1)(video)
    assert len(prediction.starts) == 5 and prediction.ends[-1] == 7
    assert prediction.frames.shape == (5, 16, 16, 3)


def test_images_have_no_timeline(model, image):
    prediction = Predictor(model, 4, 3)(image)
    assert not prediction.has_timeline and prediction.scenes() == [] and "timeline" not in as_json(prediction, 2)
    assert prediction.frames.shape == (1, 16, 16, 3)


def test_a_folder_of_images_is_a_video_that_is_repeated_to_the_length_of_a_clip(model, image, tmp_path):
    pixels = np.asarray(Image.open(image))
    image.unlink()
    for number in range(7):  # a clip has 8 frames
        Image.fromarray(np.roll(pixels, number, 0)).save(tmp_path / f"{number}.png")
    prediction = Predictor(model, 4, 3)(tmp_path)
    assert prediction.frames.shape == (4, 16, 16, 3) and not prediction.has_timeline
    np.testing.assert_allclose(prediction.probabilities, Predictor(model, 1, 3)(tmp_path).probabilities, rtol=1e-6)


def example(num_scenes=1):
    """Four clips of classes a, a, b, a, repeated; the last clip overlaps with the one before it."""
    timeline = np.array([[0.8, 0.2, 0], [0.6, 0.4, 0], [0.1, 0.9, 0], [0.7, 0.2, 0.1]] * num_scenes)
    starts = np.arange(len(timeline)) * 2.0
    starts[-1] -= 0.5
    return Prediction(
        "x.mp4", starts[-1] + 2, tuple("abc"), np.array([0.1, 0.2, 0.7]), starts, starts + 2, timeline, None
    )


def test_scenes_merge_consecutive_clips_of_one_class():
    scenes = example().scenes()
    assert [scene[:3] for scene in scenes] == [(0, 4, "a"), (4, 5.5, "b"), (5.5, 7.5, "a")]
    assert [scene.probability for scene in scenes] == pytest.approx([0.7, 0.9, 0.7])


def test_most_probable_classes_of_the_video_and_over_time():
    prediction = example()
    assert prediction.top(1) == [("c", 0.7)]
    np.testing.assert_allclose(prediction.mean_over_time, [0.55, 0.425, 0.025])
    assert top_classes(prediction.mean_over_time, 2).tolist() == [0, 1]
    assert top_classes(np.array([0.25, 0.5, 0.25]), 3).tolist() == [1, 0, 2]  # of equals, the lower index first


def test_reports_state_the_same_numbers():
    report = as_json(example(), 2)
    assert report["top"] == [{"class": "c", "probability": 0.7}, {"class": "b", "probability": 0.2}]
    assert report["top_over_time"][0] == {"class": "a", "probability": 0.55}
    assert [clip["start"] for clip in report["timeline"]] == [0, 2, 4, 5.5]
    assert report["timeline"][2]["top"][0] == {"class": "b", "probability": 0.9}
    lines = as_text(example(), 2).splitlines()
    assert "x.mp4" in lines[0] and "7.5 s" in lines[0]
    assert lines[1].split() == ["70.0", "%", "2.5", "%", "c"]
    assert lines[3].split() == ["0:00.0", "-", "0:04.0", "a", "(70", "%)"]
    assert len(lines) == 1 + 2 + 3
    assert "more" in as_text(example(10), 2).splitlines()[-1]
    assert "\\x1b[2J\\nc" in as_text(replace(example(), class_names=("a", "b", "\x1b[2J\nc")), 2).splitlines()[1]


def test_a_model_without_class_names_has_numbered_classes():
    assert Predictor(vivit()).class_names == tuple("012345")


def test_files_that_cannot_be_decoded_are_errors(model, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(VideoDecodeError, match=r"a\.mp4"):
        Predictor(model)(tmp_path / "a.mp4")


def test_models_that_cannot_predict_are_errors(image):
    with pytest.raises(WeightsError, match="preprocess"):
        Predictor(lookupvivit.create_model("vivit_pico8x2", 6, **SMALL))
    with pytest.raises(WeightsError, match="compressed_size"):
        Predictor(vivit(), compressed_size=(1, 1, 1))
    with pytest.raises(WeightsError, match="tubelet"):
        Predictor(vivit({**PREPROCESSING, "frames": 3}))(image)
    diverged = vivit()
    torch.nn.init.constant_(diverged.head.bias, float("nan"))
    with pytest.raises(WeightsError, match="logits: found NaN"):
        Predictor(diverged)(image)
