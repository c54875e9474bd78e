"""Predictions for a user's own videos, against the multi-view test and against clips fed by hand."""

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import lookupvivit
from data_pipelines.datasets.clips import MultiViewDataset
from data_pipelines.datasets.manifest import PathList, VideoManifest
from data_pipelines.io.errors import VideoDecodeError
from lookupvivit.evaluation import predictor
from lookupvivit.evaluation.multi_view import predict_views
from lookupvivit.evaluation.predictor import Prediction, Predictor
from lookupvivit.weights.files import WeightsError

SMALL = {"width": 16, "depth": 1, "num_heads": 2, "input_size": [4, 16, 16], "compressed_size": [2, 1, 1]}
TOLD = {"frames": 4, "stride": 2, "short_side": 20, "crop": 16}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = lookupvivit.create_model("lookupvivit_pico8x2_4x4x4", 6, **SMALL).eval()
    for head in (model.compressed_head, model.lookup_head):
        torch.nn.init.normal_(head.weight)
    model.description = {"preprocessing": TOLD, "class_names": list("abcdef")}
    return model


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """70 frames at 10 a second whose colour drifts: every clip has another answer."""
    path = tmp_path_factory.mktemp("videos") / "a.mp4"
    noise = np.random.default_rng(0).integers(0, 128, (24, 32, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for i in range(70):
            picture = (noise + np.array([i, 127 - i, i // 2])).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_the_whole_video_is_what_the_multi_view_test_says(model, video):
    manifest = VideoManifest(PathList([video]), np.zeros(1, np.int64), tuple("abcdef"), "a list")
    for clips, crops in ((4, 3), (1, 1), (2, 3)):
        dataset = MultiViewDataset(manifest, model.preprocess, clips, crops)
        scored, _ = predict_views(lambda v: model(v).logits, DataLoader(dataset), 1, "abcdef", 5, torch.device("cpu"))
        prediction = Predictor(model, clips, crops, batch=5)(video)
        np.testing.assert_allclose(prediction.probabilities, softmax(scored.video_logits()[0]), rtol=1e-5)
        names, shares = zip(*prediction.top(6), strict=True)
        assert sorted(names) == list("abcdef") and sorted(shares, reverse=True) == list(shares)
        assert sum(shares) == pytest.approx(1) and prediction.seconds == 7


def test_the_timeline_is_clip_after_clip(model, video):
    for window, step in ((None, 0.8), (0.3, 0.3), (3.0, 3.0)):
        prediction = Predictor(model, 1, 1, window, batch=4)(video)
        np.testing.assert_allclose(np.diff(prediction.starts)[:-1], step, atol=1e-9)
        assert prediction.starts[0] == 0 and prediction.ends[-1] == 7
        for start, row in zip(prediction.starts, prediction.timeline, strict=True):
            with torch.no_grad():
                logits = model(model.preprocess(video, start)[None]).logits[0].double().numpy()
            np.testing.assert_allclose(row, softmax(logits), rtol=1e-4)
    assert len({tuple(row) for row in prediction.timeline}) == len(prediction.timeline)


def test_a_long_video_has_a_bounded_timeline(model, video, monkeypatch):
    monkeypatch.setattr(predictor, "TIMELINE_CLIPS", 5)
    prediction = Predictor(model, 1, 1)(video)
    assert len(prediction.starts) == 5 and prediction.ends[-1] == 7
    assert prediction.frames.shape == (5, 16, 16, 3)


def test_short_videos_and_pictures_have_no_timeline(model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    one = Predictor(model, 4, 3)(tmp_path / "a.png")
    assert not len(one.starts) and one.scenes() == [] and "timeline" not in one.as_json(2)
    assert one.frames.shape == (1, 16, 16, 3)
    for number in range(7):
        Image.fromarray(np.roll(pixels, number, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "a.png").unlink()
    several = Predictor(model, 4, 3)(tmp_path)  # 7 frames, all clips of which are one and wrap round
    assert several.frames.shape == (4, 16, 16, 3)
    np.testing.assert_allclose(several.probabilities, Predictor(model, 1, 3)(tmp_path).probabilities, rtol=1e-6)


def test_scenes_join_clips_of_one_class():
    shares = np.array([[0.8, 0.2, 0], [0.6, 0.4, 0], [0.1, 0.9, 0], [0.7, 0.2, 0.1]])
    starts = np.array([0, 2, 4, 5.5])
    prediction = Prediction("x", 7.5, ("a", "b", "c"), np.array([0.1, 0.2, 0.7]), starts, starts + 2, shares, shares)
    scenes = [(0, 4, "a", 0.7), (4, 5.5, "b", 0.9), (5.5, 7.5, "a", 0.7)]
    assert [scene[:3] for scene in prediction.scenes()] == [scene[:3] for scene in scenes]
    assert [scene[3] for scene in prediction.scenes()] == pytest.approx([scene[3] for scene in scenes])
    assert prediction.leading(3).tolist() == [0, 1, 2] and prediction.top(1) == [("c", 0.7)]
    np.testing.assert_allclose(prediction.over_time, [0.55, 0.425, 0.025])


def test_what_a_model_cannot_do_is_told(model, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(VideoDecodeError, match=r"a\.mp4: cannot be decoded"):
        Predictor(model)(tmp_path / "a.mp4")
    with pytest.raises(WeightsError, match="not loaded from trained weights"):
        Predictor(lookupvivit.create_model("lookupvivit_pico8x2_4x4x4", 6, **SMALL))
    plain = lookupvivit.create_model("vivit_pico8x2", 6, input_size=(4, 16, 16), width=16, depth=1, num_heads=2)
    plain.description = {"preprocessing": TOLD}
    assert Predictor(plain).class_names == tuple("012345")
    with pytest.raises(WeightsError, match=r"compressed_size: found \[1, 1, 1\].* this ViT, whose"):
        Predictor(plain, compressed_size=(1, 1, 1))
    with torch.no_grad():
        plain.head.bias.fill_(float("nan"))
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(WeightsError, match="no finite numbers"):
        Predictor(plain)(tmp_path / "a.png")
    odd = lookupvivit.create_model("vivit_pico8x2", 6, input_size=(4, 16, 16), width=16, depth=1, num_heads=2)
    odd.description = {"preprocessing": {**TOLD, "frames": 3}}
    with pytest.raises(WeightsError, match="cannot be cut into tubelets"):
        Predictor(odd)(tmp_path / "a.png")
