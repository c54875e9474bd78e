"""One file per model; need only torch and einops."""
