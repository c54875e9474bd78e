"""Probes on frozen features (paper, Table 9)."""
