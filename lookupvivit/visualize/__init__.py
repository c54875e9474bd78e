"""Attention maps to arrays to pictures; matplotlib is needed by `pictures` alone."""
