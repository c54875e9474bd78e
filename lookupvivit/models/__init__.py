"""One file per model; torch and einops only."""
