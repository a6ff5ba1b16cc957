"""The configuration of a run: `Config`, named `PRESETS`, and its file."""

from jaxhypernas.config.config import Config
from jaxhypernas.config.presets import PRESETS
from jaxhypernas.config.sections import RetrainConfig, ScoreConfig, TrainConfig

__all__ = ["PRESETS", "Config", "RetrainConfig", "ScoreConfig", "TrainConfig"]
