"""Exact evaluation: metrics, stored predictions, multi-view inference."""
