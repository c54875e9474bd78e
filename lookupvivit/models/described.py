"""What a loaded model knows besides its weights: the names of its classes, and how videos are made ready for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from data_pipelines.preprocess import Preprocess


class Described(nn.Module):
    """The parent of every model.

    Attributes:
        description: what model.json holds where the model was loaded from weights, else None.
        class_names: the names of its classes, a tuple of K.
        preprocess: `data_pipelines.preprocess.Preprocess`, made when asked for: a model needs no video decoder.

    Raises:
        AttributeError: ``class_names`` or ``preprocess`` of a model that was not loaded or whose model.json tells none.
        DataError: ``preprocess`` that no `Preprocess` can follow.
    """

    description: dict[str, Any] | None = None
    class_names: tuple[str, ...]
    preprocess: Preprocess

    def __getattr__(self, name: str) -> Any:
        # Not properties: nn.Module replaces the message of an AttributeError that one raises.
        if name == "class_names":
            names = self._told(name, "class_names")
            if len(names) != self.num_classes:
                raise AttributeError(
                    f"model.class_names: not known, as the classifier of {len(names)} classes was "
                    f"replaced by one of {self.num_classes}"
                )
            return tuple(names)
        if name == "preprocess":
            from data_pipelines.preprocess import Preprocess

            return Preprocess.from_dict(self._told(name, "preprocessing"))
        return super().__getattr__(name)

    def _told(self, name: str, key: str) -> Any:
        if self.description is None:
            raise AttributeError(
                f"model.{name}: not known, as this {type(self).__name__} was not loaded from trained "
                "weights; lookupvivit.load_model(RUN) gives a model that knows it"
            )
        if key not in self.description:
            raise AttributeError(f"model.{name}: not known, as the model.json of its weights has no {key}")
        return self.description[key]
