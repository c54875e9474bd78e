"""Print every cost that the paper prints, beside what this library counts.

python tools/flops_table.py
python tools/flops_table.py --markdown        the table of docs/FIDELITY.md
"""

from __future__ import annotations

import argparse

from data_pipelines.io.progress import progress
from lookupvivit.profiling.equations import block_macs_lookupvit, block_macs_vit
from lookupvivit.profiling.paper_costs import ROWS, Measured, Row, measure

CONVENTIONS = """GFLOPs per view. Tables 1, 3 and 5 count multiply and add apart (2 per multiply-add) and leave out the
last lookup update, which neither the compressed head nor a caption decoder reads; Table 4 counts 1 per multiply-add and
keeps it, having both heads. Table 3 is an encoder with a decoder of 12 layers and 32 tokens, inferred from its figures.
MACs: matrix products, convolutions and attention alone, counted with fvcore, in the table's unit. full: with
norms, GELU, softmax and sums, as XLA counts them. Eq. 5/6: the paper's formulas times the depth, without embedding and
heads.
"""


def plain(row: Row, found: Measured) -> str:
    macs, full = (f"{value:8.2f} {100 * (value / row.gflops - 1):+6.2f}%" for value in (found.macs, found.full))
    equation = f"{found.equations:8.2f}" if found.equations else " " * 8
    line = f"T{row.table:<4} {row.method:29} {row.gflops:7.1f} {macs} {full} {equation} {found.parameters:6.1f} M"
    return f"{line}  * {row.remark}" if row.remark else line


def markdown(row: Row, found: Measured) -> str:
    macs, full = (f"{value:.2f} ({100 * (value / row.gflops - 1):+.2f} %)" for value in (found.macs, found.full))
    return f"| {row.table} | {row.method} | {row.gflops:.1f} | {macs} | {full} | {found.parameters:.1f} M |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", action="store_true", help="rows for docs/FIDELITY.md")
    in_markdown = parser.parse_args().markdown
    if in_markdown:
        print("| table | method | paper | MACs | full | parameters |\n|---|---|---|---|---|---|")
    else:
        print(CONVENTIONS)
        print(f"{'':5} {'':29} {'paper':>7} {'MACs':>8} {'':>7} {'full':>8} {'':>7} {'Eq. 5/6':>8} {'params':>8}")
    with progress(ROWS, unit="row", leave=False, disable=None) as rows:
        for row in rows:
            rows.write((markdown if in_markdown else plain)(row, measure(row)))
    if in_markdown:
        return
    factors = {k: block_macs_vit(576, 768) / block_macs_lookupvit(576, k * k, 768) for k in (3, 5)}
    print(
        f"\nSection 3.5 claims a reduction of more than 3 at 384 px (576 tokens) with 5x5 compressed tokens. Its own "
        f"Eq. 5 / Eq. 6\ngives {factors[5]:.2f}; 3x3 compressed tokens give {factors[3]:.2f}."
    )


if __name__ == "__main__":
    main()
