"""Predictions for a stream of frames, bit for bit those of the same clips read at once."""

from fractions import Fraction

import numpy as np
import pytest
import torch

import lookupvivit
from data_pipelines.io.errors import DataError
from data_pipelines.preprocess import ArrayReader
from lookupvivit.weights.files import WeightsError

FRAMES = np.random.default_rng(0).integers(0, 256, (70, 24, 32, 3), dtype=np.uint8)


def trained(name="lookupvivit_pico8x2_4x4x4", side=16, **preprocessing):
    """A small model with random classifiers."""
    torch.manual_seed(0)
    frames = preprocessing.get("frames", 8)
    size = {"width": 32, "depth": 2, "num_heads": 2, "input_size": [frames, side, side]}
    if name == "tokenlearner_pico8x2_at2":
        size["learn_at"] = 1
    if name == "lookupvivit_pico8x2_4x4x4":
        size["compressed_size"] = [2, 1, 1]
    model = lookupvivit.create_model(name, 6, **size).eval()
    for part, module in model.named_children():
        if part.endswith("head"):
            torch.nn.init.normal_(module.weight)
    model.description = {"preprocessing": {"frames": 8, "stride": 2, "short_side": side + 4, "crop": side}}
    model.description["preprocessing"] |= preprocessing
    return model


def offline(model, frames, fps, hop, **arguments):
    """Start, end and logits of clips that are read from all frames and computed one by one."""
    reader, preprocess = ArrayReader(frames), lookupvivit.preprocess_of(model)
    reader.fps = Fraction(fps)
    for start, end, video in preprocess.clips(reader, hop):
        with torch.inference_mode():
            yield start, end, model(video[None] / 127.5 - 1, **arguments).logits[0].double().numpy()


def same(found, expected):
    return len(found) == len(expected) and all(
        one[:2] == other[:2] and np.array_equal(one.logits, other[2])
        for one, other in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("name", ["lookupvivit_pico8x2_4x4x4", "vivit_pico8x2", "tokenlearner_pico8x2_at2"])
@pytest.mark.parametrize(
    ("preprocessing", "fps", "hop"),
    [
        ({}, 25, 0.16),  # one tubelet: 7 of 8 are shared
        ({}, 25, 0.04),  # every frame: four interleaved series of tubelets
        ({}, 25, 0.24),  # one and a half tubelets
        ({}, 25, None),
        ({}, 25, 1.0),  # gaps
        ({"stride": 1}, Fraction(30000, 1001), 0.1),
        ({"stride": 3, "target_fps": 20}, Fraction(24000, 1001), 0.25),  # strides of 3.6 frames
        ({"resize": "area", "frames": 4}, 10, 0.4),
    ],
)
def test_a_stream_has_the_bits_of_clips_read_at_once(name, preprocessing, fps, hop):
    model = trained(name, **preprocessing)
    found = list(lookupvivit.Stream(model, hop)(iter(FRAMES), fps))
    assert same(found, list(offline(model, FRAMES, fps, hop))) and len(found) > 2
    assert len({tuple(clip.logits) for clip in found}) == len(found)
    np.testing.assert_allclose(found[0].probabilities, np.exp(found[0].logits) / np.exp(found[0].logits).sum())
    assert found[0].top(1)[0] == (found[0].class_names[found[0].logits.argmax()], found[0].probabilities.max())


@pytest.mark.parametrize("num_threads", [1, 2])
def test_models_of_usual_size(num_threads):
    """Matrix products of many rows and threads."""
    model = trained(side=64)
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        stream = lookupvivit.Stream(model, 0.32, compressed_size=(2, 3, 3))
        frames = np.random.default_rng(1).integers(0, 256, (30, 72, 96, 3), dtype=np.uint8)
        assert same(list(stream(frames, 25)), list(offline(model, frames, 25, 0.32, compressed_size=(2, 3, 3))))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("hop", "expected"), [(0.16, 28), (0.04, 109), (0.64, None), (1.28, None)])
def test_every_tubelet_is_embedded_once(hop, expected):
    """Frames 0 to 111. A clip has 4 tubelets of frames i and i + 2; i is a multiple of 4, or any up to 108."""
    model, embedded = trained(), []
    stream = lookupvivit.Stream(model, hop)
    if not stream.can_share:
        pytest.skip("matrix products of this machine depend on the number of rows")
    frames = np.resize(FRAMES, (112, 24, 32, 3))
    with model.embedding.projection.register_forward_hook(lambda _, inputs, __: embedded.append(inputs[0].shape[2])):
        clips = list(stream(frames, 25))
    if expected is None:  # nothing is shared
        assert embedded == [8] * len(clips)
    else:
        assert embedded == [2] * expected


@pytest.mark.parametrize("hop", [0.04, 0.16, 5])
def test_memory_is_constant(hop, monkeypatch):
    """Tokens and frames that are alive after many clips are as many as after a few."""
    stream, alive, num_frames = lookupvivit.Stream(trained(), hop), [], 1000 if hop > 0.1 else 200
    embedded = stream._embedded

    def count(clip, slices):
        result = embedded(clip, slices)
        alive.append((len(clip.frames), len(slices)))
        return result

    monkeypatch.setattr(stream, "_embedded", count)
    num_clips = sum(1 for _ in stream((FRAMES[index % 70] for index in range(num_frames)), 25))
    assert hop != 5 or num_clips == 9
    if hop == 5 or not stream.can_share:  # whether tokens can be shared depends on the processor
        assert alive == []
    else:
        assert max(alive[-100:]) <= max(alive[:30]) and max(frames for frames, _ in alive) <= 17


def test_frames_are_taken_one_by_one_and_predictions_follow_at_once():
    taken = []

    def frames():
        for index, frame in enumerate(FRAMES):
            taken.append(index)
            yield frame

    for clip in lookupvivit.Stream(trained(), 0.32)(frames(), 25):
        assert len(taken) == round(clip.end * 25)


def test_a_model_that_keeps_some_tokens_selects_them_from_each_clip():
    model = trained()
    found = list(lookupvivit.Stream(model, 0.16, keep="motion:0.5")(FRAMES, 25))
    assert same(found, list(offline(model, FRAMES, 25, 0.16, keep="motion:0.5")))


def test_embeddings_that_depend_on_the_number_of_rows_are_not_shared(monkeypatch):
    model = trained()
    forward = model.embedding.forward
    monkeypatch.setattr(model.embedding, "forward", lambda video: forward(video) * (1 + 1e-6 * (video.shape[2] < 8)))
    stream = lookupvivit.Stream(model, 0.16)
    assert not stream.can_share
    assert same(list(stream(FRAMES, 25)), list(offline(model, FRAMES, 25, 0.16)))


def test_models_and_streams_that_cannot_be_used_are_errors():
    with pytest.raises(WeightsError, match="preprocess"):
        lookupvivit.Stream(lookupvivit.create_model("vivit_pico8x2", 6))
    with pytest.raises(DataError, match="segments"):
        lookupvivit.Stream(trained(sampling="segments"))
    with pytest.raises(DataError, match="hop: found 0"):
        lookupvivit.Stream(trained(), 0)
    with pytest.raises(DataError, match=r"frames: found an array of float64"):
        list(lookupvivit.Stream(trained())([np.zeros((24, 32, 3))], 25))
    model = trained("vivit_pico8x2")
    torch.nn.init.constant_(model.head.bias, float("nan"))
    with pytest.raises(WeightsError, match="logits: found NaN"):
        list(lookupvivit.Stream(model)(FRAMES, 25))
    assert list(lookupvivit.Stream(trained())([], 25)) == []
