"""Print every cost that the paper prints, beside what this library counts.

    python tools/flops_table.py
"""

from __future__ import annotations

from data_pipelines.progress import progress
from lookupvivit.profiling.equations import block_macs_lookupvit, block_macs_vit
from lookupvivit.profiling.paper import ROWS, measure

CONVENTIONS = """GFLOPs per view. Tables 1 and 5 count multiply and add apart (2 per multiply-add) and leave out the
last lookup update, which the compressed head does not read; Table 4 counts 1 per multiply-add and keeps it, having both
heads. MACs: matrix products, convolutions and attention alone, counted with fvcore, in the table's unit. full: with
norms, GELU, softmax and sums, as XLA counts them. Eq. 5/6: the paper's formulas times the depth, without embedding and
heads."""


def main() -> None:
    print(CONVENTIONS)
    print(f"\n{'':5} {'':29} {'paper':>7} {'MACs':>8} {'':>7} {'full':>8} {'':>7} {'Eq. 5/6':>8} {'params':>8}")
    with progress(ROWS, unit="row", leave=False, disable=None) as rows:
        for row in rows:
            found = measure(row)
            differences = [f"{100 * (value / row.gflops - 1):+6.2f}%" for value in (found.macs, found.full)]
            equation = f"{found.equations:8.2f}" if found.equations else f"{'':8}"
            rows.write(
                f"T{row.table:<4} {row.method:29} {row.gflops:7.1f} {found.macs:8.2f} {differences[0]} "
                f"{found.full:8.2f} {differences[1]} {equation} {found.parameters:6.1f} M"
                f"{'  * ' + row.remark if row.remark else ''}"
            )
    factors = {k: block_macs_vit(576, 768) / block_macs_lookupvit(576, k * k, 768) for k in (3, 5)}
    print(
        f"\nSection 3.5 claims a reduction of more than 3 at 384 px (576 tokens) with 5x5 compressed tokens. Its own "
        f"Eq. 5 / Eq. 6\ngives {factors[5]:.2f}; 3x3 compressed tokens give {factors[3]:.2f}."
    )


if __name__ == "__main__":
    main()
