"""The configuration of a captioning run: that of a classification run, and the section ``caption``."""

from __future__ import annotations

from pydantic import Field

from lookupvivit.config import PositiveInt, RunConfig, Section, require


class CaptionConfig(Section):
    """The caption decoder; ``model`` is its frozen encoder."""

    width: PositiveInt = 768
    """Embedding dimension."""
    depth: PositiveInt = 12
    """Number of blocks."""
    num_heads: PositiveInt = 12
    """Number of attention heads."""
    length: PositiveInt = 32
    """Maximum number of tokens of a caption, its end included; longer captions are cut."""
    vocabulary: PositiveInt = 8192
    """Entries of the model's vocabulary, and the most that the tokenizer may learn from the training captions."""
    tied: bool = False
    """Whether the output layer shares the weights of the token embedding."""


class CaptioningConfig(RunConfig):
    """Everything that defines a captioning run."""

    caption: CaptionConfig = Field(default_factory=CaptionConfig)

    def validate_task(self) -> None:
        """Check the rules of captioning."""
        num_classes = self.data.num_classes
        require(num_classes is None, "data.num_classes", num_classes, f"no value with data.dataset {self.data.dataset}")
        for key in ("mixup", "cutmix"):
            alpha = getattr(self.augment, key)
            require(alpha == 0, f"augment.{key}", alpha, "0, because captions cannot be mixed")
        loss = self.optim.loss
        require(loss == "softmax", "optim.loss", loss, "softmax, because each token is one of the vocabulary")
        for key in ("class_weights", "freeze_blocks"):
            value = getattr(self.optim, key)
            require(not value, f"optim.{key}", value, "no value: captions have no classes, and the encoder is frozen")
        for key, section in (("model.keep", self.model), ("eval.keep", self.eval)):
            require(section.keep is None, key, section.keep, "no value: captioning processes all tokens")
        teacher = self.distill.teacher
        require(teacher is None, "distill.teacher", teacher, "no value: captioning trains no classifiers")
        balances = self.data.balance_classes
        require(not balances, "data.balance_classes", balances, "no value: captions have no classes")
