"""Image captioning: model, task, metrics and figures (paper, Table 3)."""
