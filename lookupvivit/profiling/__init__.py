"""What a model costs: multiply-adds and parameters."""
