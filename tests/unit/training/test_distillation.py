"""Losses relative to a teacher, against their definitions and against forward passes of the teacher."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax
from support.other_models import save, timm_vit

from lookupvivit.config import ConfigError
from lookupvivit.config.loading import load_config
from lookupvivit.training.build import build_model, classifier_description
from lookupvivit.training.classification import Classification
from lookupvivit.training.distillation import Distillation
from lookupvivit.training.distributed import World
from lookupvivit.training.losses import LOSSES, feature_distillation, logit_distillation
from lookupvivit.weights.files import save_model

WORLD = World(0, 1, torch.device("cpu"))
NAMES = tuple("abcd")
SMALL = (
    "model.overrides={width: 16, depth: 1, num_heads: 2, drop_path: 0.5}",
    "data.num_classes=4",
    "data.frames=4",
    "data.short_side=16",
    "data.crop=16",
    "augment.flip_labels={}",
    "runtime.precision=fp32",
)


class Engine:
    """What the loss calls of DeepSpeed's engine."""

    def __init__(self, module):
        self.module, self.sizes = module, []

    def __call__(self, video, **call):
        self.sizes.append((call.get("compressed_size"), self.module.training, torch.is_grad_enabled()))
        return self.module(video, **call)

    def train(self):
        self.module.train()

    def eval(self):
        self.module.eval()


def settings(*overrides):
    return load_config("configs/camera_motion.yaml", [*SMALL, *overrides])


def random_model(config, seed):
    torch.manual_seed(seed)
    model = build_model(config)
    for name, parameter in model.named_parameters():
        if "head" in name:
            torch.nn.init.normal_(parameter)
    return model


@pytest.fixture
def clips():
    return torch.randn(3, 3, 4, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def teacher(tmp_path):
    """A run of a larger compressed size, whose classes are in another order."""
    config = settings("model.overrides.compressed_size=[2, 2, 2]")
    model = random_model(config, 7)
    save_model(tmp_path / "teacher", model.state_dict(), classifier_description(config, NAMES[::-1]))
    return str(tmp_path / "teacher"), model.eval()


def test_divergences_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    own, other = rng.normal(size=(5, 4)) * 3, rng.normal(size=(5, 4)) * 3
    student, target = torch.tensor(own, requires_grad=True), torch.tensor(other)
    for t in (1.0, 2.5):
        p, q = log_softmax(other / t, axis=1), log_softmax(own / t, axis=1)
        expected = t**2 * (np.exp(p) * (p - q)).sum(axis=1).mean()
        assert logit_distillation(student, target, t).item() == pytest.approx(expected, rel=1e-5)
        p, q = expit(other / t), expit(own / t)
        expected = t**2 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(axis=1).mean()
        assert logit_distillation(student, target, t, independent=True).item() == pytest.approx(expected, rel=1e-4)
    cosine = (own * other).sum(1) / np.linalg.norm(own, axis=1) / np.linalg.norm(other, axis=1)
    assert feature_distillation(student, target).item() == pytest.approx((1 - cosine).mean(), rel=1e-5)
    for independent in (False, True):
        same = logit_distillation(student, student.detach(), 2.0, independent)
        (gradient,) = torch.autograd.grad(same, student)
        assert abs(same.item()) < 1e-5 and gradient.abs().max() < 1e-6


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_a_teacher_at_a_size_of_its_own(teacher, clips, loss):
    """Its logits are those of a pass in eval mode, in the order of the classes of the trained model."""
    path, model = teacher
    config = settings(
        "model.overrides.compressed_size=[1, 1, 1]",
        f"optim.loss={loss}",
        f"distill={{teacher: {path}, temperature: 2.0, compressed_size: 1x2x2}}",
    )
    engine = Engine(random_model(config, 3))
    distillation = Distillation(config, NAMES, WORLD)
    engine.train()
    output, divergences = distillation(engine, clips, {})
    expected = model(clips, compressed_size=(1, 2, 2)).logits.flip(1)
    for name, divergence in zip(engine.module.supervised, divergences, strict=True):
        torch.testing.assert_close(divergence, logit_distillation(output[name], expected, 2.0, loss == "sigmoid"))
    divergences.sum().backward()
    assert all(
        parameter.grad is None and not parameter.requires_grad for parameter in distillation.teacher.parameters()
    )
    assert engine.module.embedding.projection.weight.grad.abs().sum() > 0
    assert set(engine.module.state_dict()) == set(model.state_dict()) and len(engine.sizes) == 1


def test_features_of_another_kind_of_model(tmp_path, clips):
    """A ViT has one stream, to which both streams are compared; the classes may differ."""
    config = settings("model.name=vivit_pico8x2")
    model = random_model(config, 7).eval()
    save_model(tmp_path, model.state_dict(), classifier_description(config, tuple("wxyz")))
    teacher = f"distill={{teacher: {tmp_path}, targets: features}}"
    config = settings("model.overrides.compressed_size=[1, 1, 1]", teacher)
    engine = Engine(random_model(config, 3).eval())
    _, divergences = Distillation(config, NAMES, WORLD)(engine, clips, {})
    pooled = model.norm(model.forward_features(clips)[1]).mean(dim=(1, 2, 3))
    compressed, lookup, _ = engine.module.forward_features(clips)
    own = [engine.module.compressed_norm(compressed), engine.module.lookup_norm(lookup)]
    expected = [feature_distillation(tokens.mean(dim=(1, 2, 3)), pooled) for tokens in own]
    torch.testing.assert_close(divergences, torch.stack(expected))
    with pytest.raises(
        ConfigError, match=r"distill.teacher: found 4 classes, w \.\. z, in .*expected the 4 of this run"
    ):
        Distillation(settings(teacher, "distill.targets=logits"), NAMES, WORLD)
    with pytest.raises(ConfigError, match=r"distill.targets: found features of width 16, expected 32"):
        wide = settings(teacher, "model.overrides.width=32")
        Distillation(wide, NAMES, WORLD)(Engine(random_model(wide, 3)), clips, {})


def test_a_file_of_another_library(tmp_path):
    """The logits of timm's ViT, whose classes have no names; without a classifier of K classes it has only features."""
    theirs = timm_vit()
    vit = {"width": 24, "depth": 2, "num_heads": 3, "tubelet": [1, 8, 8], "pooling": "token", "gelu": "none"}
    own = {**{key: vit[key] for key in ("width", "depth", "num_heads", "tubelet")}, "compressed_size": [1, 2, 2]}
    distill = {"teacher": save(theirs, tmp_path), "model": {"name": "vit_ti16", "overrides": vit}}
    changes = [
        f"distill={distill}",
        "model.name=lookupvit_ti16_3x3",
        f"model.overrides={own}",
        "augment.flip_labels={}",
    ]
    changes += ["data.frames=1", "data.crop=32", "data.short_side=32", "runtime.precision=fp32"]
    config = load_config("configs/camera_motion.yaml", [*changes, "data.num_classes=5"])
    engine, images = Engine(random_model(config, 3).eval()), torch.randn(2, 3, 1, 32, 32)
    output, divergences = Distillation(config, tuple("abcde"), WORLD)(engine, images, {})
    expected = logit_distillation(output.lookup_logits, theirs(images[:, :, 0]), 1.0)
    torch.testing.assert_close(divergences[1], expected)
    config = load_config("configs/camera_motion.yaml", [*changes, "data.num_classes=4"])
    with pytest.raises(ConfigError, match=r"distill.teacher: found weights without a classifier of 4 classes"):
        Distillation(config, NAMES, WORLD)


def test_the_model_at_its_largest_size_is_its_own_teacher(clips):
    config = settings("model.multi_resolution={t: [1, 2], k: [1, 2]}", "distill.teacher=self")
    engine = Engine(random_model(config, 3))
    engine.train()
    distillation = Distillation(config, NAMES, WORLD)
    torch.manual_seed(5)
    output, divergences = distillation(engine, clips, {"compressed_size": (1, 1, 1)})
    assert engine.sizes == [((2, 2, 2), False, False), ((1, 1, 1), True, True)] and engine.module.training
    expected = engine.module.eval()(clips, compressed_size=(2, 2, 2)).logits
    torch.testing.assert_close(divergences[0], logit_distillation(output.compressed_logits, expected, 1.0))
    torch.manual_seed(5)  # the teacher draws no random numbers
    torch.testing.assert_close(
        engine.module.train()(clips, compressed_size=(1, 1, 1)).logits, output.logits, rtol=0, atol=0
    )
    _, divergences = distillation(engine, clips, {"compressed_size": (2, 2, 2)})
    assert divergences.tolist() == [0, 0] and len(engine.sizes) == 3


def test_the_model_with_all_of_its_tokens_is_its_own_teacher(clips):
    config = settings("model.keep=[0.5, 1.0]", "distill.teacher=self")
    engine = Engine(random_model(config, 3))
    engine.train()
    distillation = Distillation(config, NAMES, WORLD)
    output, divergences = distillation(engine, clips, {"keep": 0.5})
    expected = engine.module.eval()(clips).logits
    torch.testing.assert_close(divergences[0], logit_distillation(output.compressed_logits, expected, 1.0))
    _, divergences = distillation(engine, clips, {})
    assert divergences.tolist() == [0, 0] and len(engine.sizes) == 3


def test_the_loss_of_the_task_is_unchanged_but_for_the_divergence(teacher, clips):
    batch = {"label": torch.tensor([0, 2, 3])}
    results = {}
    for weight in (None, 0.0, 0.5):
        config = settings(*([f"distill={{teacher: {teacher[0]}, weight: {weight}}}"] if weight is not None else []))
        task = Classification(config, WORLD)
        task.train_set = type("Manifest", (), {"is_multi_label": False})
        task.criterion = LOSSES["softmax"]
        task.distillation = Distillation(config, NAMES, WORLD) if weight is not None else None
        engine = Engine(random_model(config, 3))
        torch.manual_seed(5)
        results[weight] = task.loss(engine, clips, batch, {}, np.random.default_rng(0))
    assert torch.equal(results[None].losses, results[0.0].losses)
    divergence = results[0.5].scores["distill_loss"]
    torch.testing.assert_close(results[0.5].losses.sum(), results[None].losses.sum() + 0.5 * divergence)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["distill.weight=2"], "distill.weight: found 2.0, expected no value without distill.teacher"),
        (["distill.teacher=self"], "distill.teacher: found 'self', expected another model, or several sizes"),
        (["distill={teacher: self, compressed_size: 1x1x1}"], r"distill.compressed_size: found .* is self"),
    ],
)
def test_settings_that_cannot_be_used(overrides, words):
    with pytest.raises(ConfigError, match=words):
        settings(*overrides)
