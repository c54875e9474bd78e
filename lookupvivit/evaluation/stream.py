"""Classes of a video whose frames arrive one after the other, from a camera, a network or a long file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_pipelines.io.errors import DataError
from data_pipelines.streaming import StreamedClip, sliding_windows, stream_clips
from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.evaluation.clip_classifier import ClipClassifier, require_finite
from lookupvivit.evaluation.prediction import top_classes
from lookupvivit.layers.patch_embed import EmbeddedVideo, TubeletEmbedding
from lookupvivit.models.base import Model
from lookupvivit.sizes import Keep, Size

Slices = dict[tuple[int, ...], Tensor]  # indices of a tubelet's frames -> their tokens, (1, 1, h, w, D)


class ClipPrediction(NamedTuple):
    """The classes of one clip of a stream.

    Attributes:
        start, end: seconds from the first frame of the stream.
        class_names: K names.
        logits, probabilities: (K,), float64; see `ClipClassifier.probabilities`.
    """

    start: float
    end: float
    class_names: tuple[str, ...]
    logits: np.ndarray
    probabilities: np.ndarray

    def top(self, count: int) -> list[tuple[str, float]]:
        """Names and probabilities of the most probable classes."""
        return [(self.class_names[k], float(self.probabilities[k])) for k in top_classes(self.probabilities, count)]


class Stream(ClipClassifier):
    """Applies a trained model to a stream of frames, clip by clip, in constant memory.

        stream = lookupvivit.Stream(model, hop=0.5)
        for prediction in stream(frames, fps=25):
            print(prediction.end, prediction.top(1))

    The logits are bit-identical to ``model(clip[None])`` of the clips that `Preprocess.clips` reads from a file of the
    same frames, with ``seconds_between=hop``. The patch embeddings of frames that clips have in common are computed
    once, if this changes no bit of the result on this machine, which is tested with a random clip.

    Args:
        model: of `lookupvivit.load_model`.
        hop: seconds between the starts of two clips, by default the duration of a clip. A prediction follows as soon as
            its clip is complete.
        compressed_size: (t, h, w); default: the model's own.
        device: where the model computes.
        keep: share of the lookup tokens to keep, such as 0.5 or "motion:0.5"; default: all.

    Raises:
        WeightsError: the preprocessing is unknown, or the model does not support the compressed size or ``keep``.
        DataError: ``hop`` is not positive, or the model's clips are spread over a whole video (segments).
    """

    def __init__(
        self,
        model: Model,
        hop: float | None = None,
        compressed_size: Size | None = None,
        device: torch.device | str = "cpu",
        keep: float | str | Keep | None = None,
    ) -> None:
        super().__init__(model, compressed_size, device, keep)
        if hop is not None and not 0 < hop < math.inf:
            raise DataError(f"hop: found {hop}, expected a positive number of seconds")
        self.hop = hop
        sliding_windows(self.preprocess, Fraction(1), hop)  # raises for segments

    def __call__(self, frames: Iterable[np.ndarray], fps: Fraction | float) -> Iterator[ClipPrediction]:
        """Yield a prediction for every clip.

        Frames are taken from the iterator one at a time. When it ends, one more clip covers the frames since the last
        prediction. A stream shorter than a clip is repeated to its length, as a short file is; an empty one yields
        nothing.

        Args:
            frames: RGB, uint8 (H, W, 3).
            fps: their rate, such as 25 or ``Fraction(30000, 1001)``.

        Raises:
            DataError: a frame of another type or shape, or an invalid rate.
            WeightsError: logits are NaN or infinite.
        """
        chunks = (np.asarray(frame)[None] for frame in frames)
        share, slices = sliding_windows(self.preprocess, fps, self.hop).overlap and self.can_share, Slices()
        for clip in stream_clips(self.preprocess, chunks, fps, self.hop):
            logits = self.logits(self._embedded(clip, slices) if share else clip.video()[None])[0].double()
            require_finite(logits)
            times = float(clip.start), float(clip.end)
            yield ClipPrediction(*times, self.class_names, logits.numpy(), self.probabilities(logits))

    @cached_property
    @torch.inference_mode()
    def can_share(self) -> bool:
        """Whether the embedding of a clip has the same bits computed at once and one tubelet in time after the other.

        Matrix products may depend in their last bits on the number of rows, which differs. A model that keeps some of
        the tokens selects them from the pixels of a clip, and embeds no others.
        """
        embedding = getattr(self.model, "embedding", None)
        frames, side, step = self.preprocess.sampling.frames, self.preprocess.crop, self.model.tubelet[0]
        if not isinstance(embedding, TubeletEmbedding) or frames % step or self.tokens.keep:
            return False
        random = torch.Generator().manual_seed(0)
        clip = torch.randint(256, (1, 3, frames, side, side), dtype=torch.uint8, generator=random)
        video = to_model_input(clip, self.device)
        parts = [embedding(part) for part in video.split(step, dim=2)]
        return torch.equal(embedding(video), torch.cat(parts, dim=1))

    @torch.inference_mode()
    def _embedded(self, clip: StreamedClip, slices: Slices) -> EmbeddedVideo:
        """The tokens of a clip; ``slices`` has those of earlier clips, of which later ones may need some."""
        embedding: Any = self.model.embedding
        step, tokens = self.model.tubelet[0], []
        for first in range(0, len(clip.indices), step):
            key = tuple(clip.indices[first : first + step].tolist())
            if key not in slices:
                video = to_model_input(clip.video(first, first + step)[None], self.device)
                slices[key] = embedding(video)  # (1, 1, h, w, D)
            tokens.append(slices[key])
        for key in [key for key in slices if key[0] < clip.indices[0]]:  # clips are in the order of their starts
            del slices[key]
        return EmbeddedVideo(torch.cat(tokens, dim=1))
