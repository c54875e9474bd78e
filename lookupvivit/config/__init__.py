"""The configuration of a run: a typed schema, read from YAML files and the command line."""

from lookupvivit.config.schema import (
    CAPTION_SETS,
    AugmentConfig,
    CaptionConfig,
    ConfigError,
    DataConfig,
    RuntimeConfig,
    EvalConfig,
    LogConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    check,
)

__all__ = [
    "CAPTION_SETS",
    "AugmentConfig",
    "CaptionConfig",
    "ConfigError",
    "DataConfig",
    "RuntimeConfig",
    "EvalConfig",
    "LogConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "check",
]
