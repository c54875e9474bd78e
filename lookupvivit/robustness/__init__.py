"""ImageNet robustness: metrics, evaluation suite and figures (paper, Tables 2 and 6, Fig. 4)."""
