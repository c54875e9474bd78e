"""Predictions for a user's own files, against the multi-view test and against clips that are fed one by one."""

import csv
import io
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
from lookupvivit.evaluation.fixed_passes import FixedPasses, views_per_pass
from lookupvivit.evaluation.multi_view import predict_views
from lookupvivit.evaluation.prediction import Prediction, top_classes
from lookupvivit.evaluation.prediction_report import as_csv, as_json, as_text, summary
from lookupvivit.evaluation.predictor import Predictor
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
    assert sum(probabilities) == pytest.approx(1) and prediction.seconds == 7 and not prediction.has_timeline
    np.testing.assert_allclose(prediction.logits, tested.video_logits()[0], rtol=1e-5)


@pytest.mark.parametrize(("window", "step"), [(None, 0.8), (0.3, 0.3), (3.0, 3.0)])
def test_the_timeline_has_the_probabilities_of_its_clips(model, video, window, step):
    prediction = Predictor(model, window=window, batch_size=4)(video)
    np.testing.assert_allclose(np.diff(prediction.starts)[:-1], step, atol=1e-9)
    assert prediction.starts[0] == 0 and prediction.ends[-1] == 7
    for start, probabilities in zip(prediction.starts, prediction.timeline, strict=True):
        with torch.no_grad():
            logits = model(lookupvivit.preprocess_of(model)(video, start)[None]).logits[0].double().numpy()
        np.testing.assert_allclose(probabilities, softmax(logits), rtol=1e-4)
    assert len({tuple(row) for row in prediction.timeline}) == len(prediction.timeline)
    np.testing.assert_allclose(prediction.probabilities, prediction.timeline.mean(axis=0))  # the only answer


@pytest.mark.parametrize("window", [None, 0.3, 0.8])
def test_a_long_video_is_decoded_once_with_the_same_result(model, video, monkeypatch, window):
    """Nothing but the display of frames depends on how a file is read; its reader would know its length first."""
    before = Predictor(model, window=window)(video)
    monkeypatch.setattr(predictor, "LONG_SECONDS", 1)
    monkeypatch.setattr(predictor, "open_any", None)
    after = Predictor(model, window=window)(video)
    assert after.has_timeline and after.seconds == before.seconds
    for name in ("logits", "probabilities", "timeline", "starts", "ends", "frames"):
        assert np.array_equal(getattr(after, name), getattr(before, name)), name


@pytest.mark.parametrize(("clips", "has_timeline"), [(8, True), (9, False)])
def test_a_stated_duration_may_be_wrong(model, video, monkeypatch, clips, has_timeline):
    """7 s are 8.75 clips: a file that states more is read in one pass until that is known, and then as any other."""
    monkeypatch.setattr(predictor, "VIEWS", (clips, 1))
    expected = Predictor(model)(video)
    monkeypatch.setattr(predictor, "LONG_SECONDS", 1)
    found = Predictor(model)(video)
    assert found.has_timeline == expected.has_timeline == has_timeline
    assert np.array_equal(found.logits, expected.logits) and np.array_equal(found.frames, expected.frames)


def test_a_video_with_gaps_between_clips_is_not_decoded_completely(model, video, monkeypatch):
    monkeypatch.setattr(predictor, "LONG_SECONDS", 1)
    monkeypatch.setattr(predictor, "stream_clips", None)
    assert len(Predictor(model, window=3)(video).starts) == 4


def test_frames_for_display_are_evenly_spaced_over_any_number_of_clips():
    for count in (1, 5, 8, 63, 64, 65, 1000, 5625):
        frames = predictor._SpacedFrames()
        for index in range(count):
            frames.add(torch.full((3, 3, 1, 1), index))
            assert len(frames._kept) <= predictor.MAX_KEPT
        found = frames.chosen()[:, 0, 0, 0].numpy()
        ideal = np.unique(((np.arange(8) + 0.5) * count / 8).astype(int))
        assert len(found) == len(ideal) and np.abs(found - ideal).max() <= count / 32


def test_images_have_no_timeline(model, image):
    prediction = Predictor(model, 4, 3)(image)
    assert not prediction.has_timeline and prediction.segments() == [] and "timeline" not in as_json(prediction, 2)
    assert prediction.frames.shape == (1, 16, 16, 3)


def test_a_folder_of_images_is_a_video_that_is_repeated_to_the_length_of_a_clip(model, image, tmp_path):
    pixels = np.asarray(Image.open(image))
    image.unlink()
    for number in range(7):  # a clip has 8 frames
        Image.fromarray(np.roll(pixels, number, 0)).save(tmp_path / f"{number}.png")
    prediction = Predictor(model, 4, 3)(tmp_path)
    assert prediction.frames.shape == (4, 16, 16, 3) and not prediction.has_timeline
    np.testing.assert_allclose(prediction.probabilities, Predictor(model, 1, 3)(tmp_path).probabilities, rtol=1e-6)


def example(num_parts=1):
    """Four clips of classes a, a, b, a, repeated; the last clip overlaps with the one before it."""
    timeline = np.array([[0.8, 0.2, 0], [0.6, 0.4, 0], [0.1, 0.9, 0], [0.7, 0.2, 0.1]] * num_parts)
    starts = np.arange(len(timeline)) * 2.0
    starts[-1] -= 0.5
    return Prediction(
        path="x.mp4",
        seconds=starts[-1] + 2,
        class_names=tuple("abc"),
        probabilities=timeline.mean(axis=0),
        logits=np.array([1.5, 0.25, -2]),
        num_views=len(timeline),
        starts=starts,
        ends=starts + 2,
        timeline=timeline,
        frames=None,
    )


def test_segments_merge_successive_clips_of_one_class():
    """Boundaries lie between the centres of clips, here 3 s and 5 s, 5 s and 6.5 s."""
    segments = example().segments()
    assert [segment[:3] for segment in segments] == [(0, 4, "a"), (4, 5.75, "b"), (5.75, 7.5, "a")]
    assert [segment.probability for segment in segments] == pytest.approx([0.7, 0.9, 0.7])


def test_most_probable_classes():
    assert example().top(1) == [("a", pytest.approx(0.55))]
    assert top_classes(np.array([0.25, 0.5, 0.25]), 3).tolist() == [1, 0, 2]  # of equals, the lower index first


def test_reports_state_the_same_numbers():
    report = as_json(example(), 2)
    assert report["top"] == [{"class": "a", "probability": 0.55}, {"class": "b", "probability": 0.425}]
    assert "logits" not in report and as_json(example(), 2, logits=True)["logits"] == [1.5, 0.25, -2]
    assert [clip["start"] for clip in report["timeline"]] == [0, 2, 4, 5.5]
    assert report["timeline"][2]["top"][0] == {"class": "b", "probability": 0.9}
    assert report["segments"][1] == {"start": 4, "end": 5.75, "class": "b", "probability": 0.9}
    lines = as_text(example(), 2).splitlines()
    assert "x.mp4" in lines[0] and "7.5 s" in lines[0]
    assert lines[1].split() == ["55.0", "%", "a"]  # one answer: the mean over time
    assert lines[3].split() == ["0:00.0", "-", "0:04.0", "a", "(70", "%)"]
    assert len(lines) == 1 + 2 + 3
    assert "more" in as_text(example(10), 2).splitlines()[-1]
    assert "\\x1b[2J\\nc" in as_text(replace(example(), class_names=("\x1b[2J\nc", "b", "c")), 2).splitlines()[1]


def test_a_table_has_a_row_per_file_and_a_summary_counts_the_answers():
    videos = [as_json(example(), 2, logits=True), {"path": "y.mp4", "error": 'cut, "short"'}]
    first, second = csv.DictReader(io.StringIO(as_csv(videos, "abc", 2, logits=True)))
    assert (first["path"], first["error"], first["seconds"]) == ("x.mp4", "", "7.5")
    assert [first[f"{key}_{rank}"] for rank in (1, 2) for key in ("class", "probability")] == [
        "a",
        "0.55",
        "b",
        "0.425",
    ]
    assert [float(first[f"logit: {name}"]) for name in "abc"] == [1.5, 0.25, -2]
    assert first["segments"] == "0.0-4.0 s a; 4.0-5.8 s b; 5.8-7.5 s a"
    assert (second["path"], second["error"], second["class_1"]) == ("y.mp4", 'cut, "short"', "")
    assert "logit: a" not in as_csv(videos[:1], "abc", 5).splitlines()[0]
    assert summary(videos, 2) == "1 of 2 files predicted in 2.0 s: a 1"


@pytest.fixture
def files(video, image, tmp_path):
    """A short video of one clip, a long one, a file that cannot be read, an image and a short one again."""
    pixels = np.asarray(Image.open(image))
    (tmp_path / "short").mkdir()
    for number in range(8):
        Image.fromarray(np.roll(pixels, number, 1)).save(tmp_path / "short" / f"{number}.png")
    (tmp_path / "corrupt.mp4").write_bytes(b"no video")
    return [tmp_path / "short", video, tmp_path / "corrupt.mp4", image, tmp_path / "short"]


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("size", [1, 4, 5])  # 5: some CPUs compute the last row differently
def test_files_together_have_the_bits_of_files_one_by_one(model, files, size, threads):
    """Passes are shared: only the last one has views of no file."""
    predictor = Predictor(model, batch_size=size)
    size, passes = predictor.views_per_pass, []
    with model.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0]))):
        together = list(predictor.predict_all(files, threads))
    assert isinstance(together[2], VideoDecodeError) and "corrupt.mp4" in str(together[2])
    assert [prediction.has_timeline for prediction in together if isinstance(prediction, Prediction)] == [0, 1, 0, 0]
    num_views = sum(prediction.num_views for prediction in together if isinstance(prediction, Prediction))
    assert passes == [size] * -(-num_views // size)
    for path, prediction in zip(files, together, strict=True):
        if isinstance(prediction, Prediction):
            alone = predictor(path)
            for name in ("logits", "probabilities", "timeline", "frames", "starts", "ends"):
                assert np.array_equal(getattr(prediction, name), getattr(alone, name)), name


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("name", ["lookupvivit_pico8x2_4x4x4", "vivit_pico8x2", "tokenlearner_pico8x2_at2"])
def test_logits_of_a_view_do_not_depend_on_its_place_in_a_pass(name, num_threads):
    torch.manual_seed(0)
    network = lookupvivit.create_model(name, 400).eval()
    for key, parameter in network.named_parameters():
        if "head.weight" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    views = torch.randint(256, (11, 3, 8, 64, 64), dtype=torch.uint8)

    @torch.inference_mode()
    def forward(batch):
        return network(batch / 127.5 - 1).logits

    def logits(order):
        passes, results = FixedPasses(forward, size), {index: [] for index in order}
        for index in order:
            passes.add(views[index : index + 1], results[index])
        passes.flush()
        return torch.cat([results[index][0] for index in sorted(order)])

    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        size = views_per_pass(forward, (8, 64, 64), network.tubelet, 8, torch.device("cpu"))
        in_order = logits(range(11)).unflatten(0, (11, 400))
        assert torch.equal(in_order, logits([5, 0, 9, 10, 1, 8, 4, 2, 7, 3, 6]).unflatten(0, (11, 400)))
        assert torch.equal(in_order[2], logits([2]))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("batch_size", "clip_size", "device", "expected"),
    [
        (32, (8, 64, 64), "cpu", 8),  # 256 tokens each
        (32, (64, 224, 224), "cpu", 1),
        (3, (8, 64, 64), "cpu", 3),
        (32, (64, 224, 224), "meta", 32),
    ],
)
def test_passes_on_a_cpu_are_no_larger_than_worthwhile(batch_size, clip_size, device, expected):
    def number(places, views):
        return places[: len(views), None].expand(-1, 7)

    arguments = (clip_size, (2, 8, 8), batch_size, torch.device(device))
    assert views_per_pass(lambda views: number(torch.zeros(32), views), *arguments) == expected
    assert views_per_pass(lambda views: number(torch.arange(32), views), *arguments) == 1  # the place matters


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
