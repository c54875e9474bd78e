"""Print every cost of the paper's tables next to the cost that this library counts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from data_pipelines.io.progress import progress
from lookupvivit.cli.closed_output import ends_quietly

if TYPE_CHECKING:
    from lookupvivit.profiling.paper_costs import RowCost, TableRow

CONVENTIONS = """GFLOPs per view. Tables 1, 3 and 5 count multiply and add apart (2 per multiply-add) and exclude the
last lookup update, which neither the compressed classifier nor a caption decoder reads; Table 4 counts 1 per
multiply-add and includes it, because both classifiers are used. Table 3 is an encoder with a decoder of 12 layers and
32 tokens, inferred from its figures.
MACs: matrix products, convolutions and attention alone, counted with fvcore, in the table's unit. full: with
norms, GELU, softmax and sums, as XLA counts them. Eq. 5/6: the paper's formulas times the depth, without embedding and
classifiers.
"""
HEADER = f"{'':5} {'':29} {'paper':>7} {'MACs':>8} {'':>7} {'full':>8} {'':>7} {'Eq. 5/6':>8} {'params':>8}"
MARKDOWN_HEADER = "| table | method | paper | MACs | full | parameters |\n|---|---|---|---|---|---|"


@ends_quietly()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", action="store_true", help="print the rows of docs/FIDELITY.md")
    markdown = parser.parse_args().markdown
    from lookupvivit.profiling.paper_costs import TABLE_ROWS, row_cost

    print(MARKDOWN_HEADER if markdown else f"{CONVENTIONS}\n{HEADER}")
    format_row = markdown_row if markdown else text_row
    with progress(TABLE_ROWS, unit="row", leave=False, disable=None) as rows:
        for row in rows:
            rows.write(format_row(row, row_cost(row)))
    if not markdown:
        print(f"\n{reduction_at_384_pixels()}")


def text_row(row: TableRow, cost: RowCost) -> str:
    products, full = (f"{value:8.2f} {deviation(value, row):+6.2f}%" for value in (cost.products, cost.full))
    equations = f"{cost.equations:8.2f}" if cost.equations else " " * 8
    line = f"T{row.table:<4} {row.method:29} {row.gflops:7.1f} {products} {full} {equations} {cost.parameters:6.1f} M"
    return f"{line}  * {row.remark}" if row.remark else line


def markdown_row(row: TableRow, cost: RowCost) -> str:
    products, full = (f"{value:.2f} ({deviation(value, row):+.2f} %)" for value in (cost.products, cost.full))
    return f"| {row.table} | {row.method} | {row.gflops:.1f} | {products} | {full} | {cost.parameters:.1f} M |"


def deviation(value: float, row: TableRow) -> float:
    """Difference from the printed figure in per cent."""
    return 100 * (value / row.gflops - 1)


def reduction_at_384_pixels() -> str:
    from lookupvivit.profiling.paper_costs import block_macs_lookupvit, block_macs_vit

    reduction = {k: block_macs_vit(576, 768) / block_macs_lookupvit(576, k * k, 768) for k in (3, 5)}
    return (
        f"Section 3.5 claims a reduction of more than 3 at 384 px (576 tokens) with 5x5 compressed tokens. Its own "
        f"Eq. 5 / Eq. 6\ngives {reduction[5]:.2f}; 3x3 compressed tokens give {reduction[3]:.2f}."
    )


if __name__ == "__main__":
    main()
