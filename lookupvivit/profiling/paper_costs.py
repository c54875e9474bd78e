"""The cost columns of the paper's tables: every row as a model of this library, and what it is expected to cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from lookupvivit.captioning.model import create_captioner
from lookupvivit.models.registry import create_model
from lookupvivit.profiling.equations import block_macs_lookupvit, block_macs_vit
from lookupvivit.profiling.flops import count


@dataclass(frozen=True)
class Row:
    """One printed figure.

    Attributes:
        table, method: as printed.
        gflops: as printed. Tables 1, 3 and 5 count multiply and add apart and leave out what no head reads, the last
            lookup update; Table 4 counts a multiply-add as one and keeps it (both heads).
        model, overrides: what it is here; in Table 3, the encoder.
        remark: why the figure cannot be met, where it cannot.
    """

    table: int
    method: str
    gflops: float
    model: str
    overrides: dict[str, Any] = field(default_factory=dict)
    remark: str = ""


COMPRESSED = {"heads": "compressed"}
B_5X5 = "lookupvit_b16_5x5"


def _table_1() -> list[Row]:
    figures = {
        "b": (35.1, (19.1, 27.1), (12.9, 16.5, 21.9, 33.6)),
        "l": (123.5, (66.5, 94.6), (46.2, 58.8, 77.7, 118.5)),
    }
    rows = []
    for size, (vit, learner, lookup) in figures.items():
        name, depth = size.upper(), {"b": 12, "l": 24}[size]
        # The printed figure is that of average pooling for B and of a class token for L.
        pooling = {"pooling": "token"} if size == "l" else {}
        rows.append(Row(1, f"ViT-{name}/16 ({pooling.get('pooling', 'gap')})", vit, f"vit_{size}16", pooling))
        for part, at, gflops in zip(("1/2", "3/4"), (depth // 2, depth * 3 // 4), learner, strict=True):
            rows.append(Row(1, f"TokenLearner {part}, {name}/16", gflops, f"tokenlearner_{size}16_at{at}"))
        if size == "b":
            rows.append(Row(1, "Perceiver", 707, "perceiver_224"))
        for k, gflops in zip((3, 5, 7, 10), lookup, strict=True):
            rows.append(Row(1, f"LookupViT {k}x{k}, {name}/16", gflops, f"lookupvit_{size}16_{k}x{k}", COMPRESSED))
    return rows


# The decoder of Table 3 is not described. What its figures leave beside Table 1's, 19.0 to 24.5 GFLOPs, grows by 0.029
# with every token of the encoder: keys and values of 12 layers of width 768. 32 tokens of text and an output layer of
# 250,000 entries (mT5's SentencePiece, which big_vision offers) then meet all six figures; tied or not costs the same.
TABLE_3_DECODER = {"vocabulary": 250_000, "width": 768, "depth": 12, "num_heads": 12, "length": 32}
TABLE_3 = [
    Row(3, method, gflops, model)
    for method, gflops, model in (
        ("captions, ViT-B/16", 59.5, "vit_b16"),
        ("captions, TokenLearner 1/2", 38.2, "tokenlearner_b16_at6"),
        ("captions, LookupViT 3x3", 31.9, "lookupvit_b16_3x3"),
        ("captions, LookupViT 5x5", 35.9, "lookupvit_b16_5x5"),
        ("captions, LookupViT 7x7", 42.1, "lookupvit_b16_7x7"),
        ("captions, LookupViT 10x10", 55.3, "lookupvit_b16_10x10"),
    )
]
TABLE_4 = [
    Row(4, "ViViT-B/16x2", 455.1, "vivit_b16x2"),
    *(
        Row(4, f"LookupViViT {size}", gflops, f"lookupvivit_b16x2_{size}")
        for size, gflops in (("9x9x8", 226.5), ("8x8x16", 311.2), ("9x9x16", 375.8))
    ),
]
TABLE_5 = [
    Row(5, "LookupViT-B/16 5x5", 16.5, B_5X5, COMPRESSED),
    Row(5, "- No Lookup Tokens", 4.5, B_5X5, {**COMPRESSED, "exchange": "none", "compressed_init": "conv"}),
    Row(5, "- No MHBC p->l", 11.0, B_5X5, {**COMPRESSED, "exchange": "gather"}),
    Row(5, "- No Loss on Lookup Tokens", 16.5, B_5X5, COMPRESSED),
    Row(
        5,
        "- No Loss on Primary Tokens",
        16.5,
        B_5X5,
        {"heads": "lookup"},
        "its only head reads the last lookup update, which the printed figure leaves out",
    ),
    Row(5, "Random Primary Tokens", 16.5, B_5X5, {**COMPRESSED, "compressed_init": "random"}),
]
ROWS = (*_table_1(), *TABLE_3, *TABLE_4, *TABLE_5)


@dataclass(frozen=True)
class Measured:
    """A row's cost here, in the units of its table.

    Attributes:
        macs: matrix products alone, in G; doubled but for Table 4.
        full: with element-wise work, as XLA counts.
        equations: Eq. 5 or 6 times the depth, doubled likewise; None where they do not apply.
        parameters: in millions.
    """

    macs: float
    full: float
    equations: float | None
    parameters: float


def measure(row: Row) -> Measured:
    """Count a row's model, without weights that mean anything."""
    video = row.table == 4
    with torch.device("meta"):  # no time for drawing them
        if row.table == 3:
            model = create_captioner(row.model, overrides=row.overrides, **TABLE_3_DECODER)
        else:
            model = create_model(row.model, 400 if video else 1000, **row.overrides)
    model.to_empty(device="cpu")
    cost = count(model, (1, 3, *model.input_size))
    unit = 1e9 if video else 0.5e9
    blocks = _equation(row)(model)
    return Measured(
        cost.macs / unit,
        (cost.macs + cost.elementwise / 2) / unit,
        blocks / unit if blocks else None,
        cost.parameters / 1e6,
    )


def _equation(row: Row) -> Callable[[Any], int | None]:
    """Eq. 5 or 6 summed over the blocks of a row's model; they know no embedding, head, decoder or ablation."""

    def tokens(model: Any) -> int:
        t, h, w = model.embedding.grid(model.input_size)
        return t * h * w

    if row.table == 3:
        return lambda model: None
    if row.model.startswith(("vit_", "vivit_")):
        return lambda model: len(model.blocks) * block_macs_vit(tokens(model), model.width)
    if row.model.startswith("lookup") and row.overrides in ({}, COMPRESSED):

        def lookup(model: Any) -> int:
            t, h, w = model.compressed_size
            return len(model.blocks) * block_macs_lookupvit(tokens(model), t * h * w, model.width)

        return lookup
    return lambda model: None
