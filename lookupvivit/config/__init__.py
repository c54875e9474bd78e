"""The configuration of a run: a typed schema, read from YAML files and the command line.

    from lookupvivit.config.loading import load_config
    config = load_config("configs/camera_motion.yaml", ["optim.lr=1e-3"])

`python -m lookupvivit.config > schema.json` writes a JSON schema, with which editors complete and check the files.
"""

from lookupvivit.config.data import AugmentConfig, DataConfig
from lookupvivit.config.errors import ConfigError, require
from lookupvivit.config.schema import (
    EvalConfig,
    LogConfig,
    ModelConfig,
    MultiResolution,
    OptimConfig,
    RunConfig,
    RuntimeConfig,
)
from lookupvivit.config.section import PositiveInt, Section

__all__ = [
    "AugmentConfig",
    "ConfigError",
    "DataConfig",
    "EvalConfig",
    "LogConfig",
    "ModelConfig",
    "MultiResolution",
    "OptimConfig",
    "PositiveInt",
    "RunConfig",
    "RuntimeConfig",
    "Section",
    "require",
]
