"""Attention maps to arrays to pictures and films; `attention` alone needs no more than the model does."""
