"""Accuracy against cost: evaluation at many compressed sizes, records, cascades and figures (paper, Figs. 1 and 5)."""
