"""The configuration of a run: a typed schema, read from YAML files and the command line."""

from lookupvivit.config.schema import (
    CAPTION_SETS,
    AugmentConfig,
    CaptionConfig,
    ConfigError,
    DataConfig,
    EvalConfig,
    LogConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    RuntimeConfig,
    check,
)

__all__ = [
    "CAPTION_SETS",
    "AugmentConfig",
    "CaptionConfig",
    "ConfigError",
    "DataConfig",
    "EvalConfig",
    "LogConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "RuntimeConfig",
    "check",
]
